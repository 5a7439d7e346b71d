"""Folders with documents, queries and relevant documents, in the layout of BEIR."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from effx import data
from effx.errors import DataError, UsageError
from effx.specs.data import DataSettings, DataSource
from tests.conftest import write_rows

CORPUS: list[dict[str, Any]] = [
    {"_id": "d1", "title": "Soup", "text": "is hot"},
    {"_id": "d2", "title": "", "text": "a room"},
    {"_id": "d3", "title": "Views", "text": "of the sea"},
]
QUERIES: list[dict[str, Any]] = [{"_id": "q1", "text": "hot soup"}, {"_id": "q2", "text": "the sea"}]
QRELS = [("q1", "d1", "2"), ("q1", "d2", "0"), ("q2", "d3", "1")]


def write(
    folder: Path,
    corpus: list[dict[str, Any]] = CORPUS,
    queries: list[dict[str, Any]] = QUERIES,
    qrels: list[tuple[str, ...]] = QRELS,
    split: str = "test",
    header: str = "query-id\tcorpus-id\tscore",
) -> Path:
    write_rows(folder / "corpus.jsonl", corpus)
    write_rows(folder / "queries.jsonl", queries)
    (folder / "qrels").mkdir(exist_ok=True)
    (folder / "qrels" / f"{split}.tsv").write_text("\n".join([header, *map("\t".join, qrels)]) + "\n")
    return folder


def load(folder: Path, **settings: Any) -> data.Rows:
    source = DataSource(str(folder), DataSettings.of(**settings))
    task = data.resolve_to_measure("search", source)
    assert not isinstance(task, tuple)
    return data.load(task, "validation", source)


def test_queries_documents_and_relevances_are_read(tmp_path: Path) -> None:
    queries = [*QUERIES, {"_id": "q3", "text": "nothing"}]
    rows = load(write(tmp_path / "beir", queries=queries))
    assert rows.texts == [("hot soup",), ("the sea",)]
    assert rows.labels.tolist() == [(("d1", 2.0),), (("d3", 1.0),)]
    assert rows.documents is not None and rows.documents.ids == ("d1", "d2", "d3")
    assert rows.documents.texts == ("Soup is hot", "a room", "Views of the sea")
    assert rows.origin is not None and rows.file == "beir/qrels/test.tsv"
    assert "1 queries without a relevant document in test.tsv are left out" in rows.origin.notes
    part = rows.limit(1)
    assert len(part) == 1 and part.documents == rows.documents


def test_validation_rows_are_those_of_test_only_where_there_are_no_others(tmp_path: Path) -> None:
    write(tmp_path, qrels=[("q2", "d3", "1")], split="test")
    assert load(tmp_path).texts == [("the sea",)]
    write(tmp_path, qrels=[("q1", "d1", "1")], split="dev")
    assert load(tmp_path).texts == [("hot soup",)]


def test_tables_with_other_usual_names_are_read(tmp_path: Path) -> None:
    (tmp_path / "qrels").mkdir()
    (tmp_path / "corpus.csv").write_text("id,text\n1,a soup\n2,a room\n")
    (tmp_path / "queries.csv").write_text("query_id,query\n1,soup\n")
    (tmp_path / "qrels" / "validation.csv").write_text("query_id,doc_id,relevance\n1,1,1\n")
    rows = load(tmp_path)
    assert rows.documents is not None and rows.documents.ids == ("1", "2")
    assert rows.labels.tolist() == [(("1", 1.0),)]
    assert rows.texts == [("soup",)]


def test_a_query_that_is_a_document_is_marked(tmp_path: Path) -> None:
    corpus = [{"_id": "q1", "title": "Hot", "text": "soup"}, {"_id": "q2", "text": "the sea"}, *CORPUS]
    for first, marked in (("Hot soup", True), ("soup", True), ("hot", False), ("Hot soup now", False)):
        queries = [{"_id": "q1", "text": first}, QUERIES[1]]
        rows = load(write(tmp_path, corpus=corpus, queries=queries))
        assert rows.texts == [(first, "q1") if marked else (first,), ("the sea", "q2")]
    qrels = [("q1", "q1", "1"), ("q2", "d3", "1")]  # judged relevant: it is looked for
    rows = load(
        write(tmp_path, corpus=corpus, queries=[{"_id": "q1", "text": "soup"}, QUERIES[1]], qrels=qrels)
    )
    assert rows.texts == [("soup",), ("the sea", "q2")]


def test_fewer_documents_keep_the_relevant_ones(tmp_path: Path) -> None:
    corpus = [{"_id": f"d{number}", "text": f"text {number}"} for number in range(50)]
    rows = load(write(tmp_path, corpus=corpus, qrels=[("q1", "d40", "1"), ("q2", "d41", "1")]))
    fewer = rows.with_fewer_documents(10).documents
    assert fewer is not None and fewer.ids == (*(f"d{number}" for number in range(8)), "d40", "d41")
    assert fewer.texts == tuple(name.replace("d", "text ") for name in fewer.ids)
    assert rows.with_fewer_documents(50).documents == rows.documents


WRONG: list[tuple[dict[str, Any], str]] = [
    (
        {"corpus": [{"text": "a"}, {"text": "b"}]},
        r"no column has the ids \(expected _id or id; columns: text",
    ),
    ({"corpus": [{"_id": "d1"}]}, "no column has the texts"),
    ({"corpus": [CORPUS[0], {"text": "b"}]}, r"corpus.jsonl, (row|line) 2: column '_id' is missing"),
    ({"corpus": [CORPUS[0], {"_id": None, "text": "b"}]}, "column '_id': expected an id, got 'None'"),
    ({"corpus": [CORPUS[0], {"_id": " ", "text": "b"}]}, "column '_id': expected an id"),
    ({"corpus": [CORPUS[0], {"_id": 1.5, "text": "b"}]}, "column '_id': expected an id, got '1.5'"),
    ({"corpus": [*CORPUS, CORPUS[0]]}, "row 4: the id 'd1' is already that of row 1"),
    ({"corpus": [{"_id": "d1", "text": 5}]}, "column 'text': expected text, got int"),
    ({"corpus": [{"_id": "d1", "text": "a", "title": 5}]}, "column 'title': expected text"),
    ({"queries": [{"_id": "q1", "text": " "}, QUERIES[1]]}, "query 'q1' is empty"),
    ({"queries": [*QUERIES, QUERIES[1]]}, "row 3: the id 'q2' is already that of row 2"),
    ({"qrels": [("q1", "d9", "1")]}, "there is no document with the id 'd9'"),
    ({"qrels": [("q9", "d1", "1")]}, "there is no query with the id 'q9'"),
    ({"qrels": [("q1", "d1", "1"), ("q1", "d1", "2")]}, "document 'd1' is judged twice for query 'q1'"),
    ({"qrels": [("q1", "d1", "high")]}, "relevance 'high': expected a number"),
    ({"qrels": [("q1", "d1", "0")]}, "no document has a relevance above 0"),
    ({"header": "a\tb\tc"}, "expected a header query-id, corpus-id, score"),
    ({"split": "train"}, "no file qrels/test.tsv that says which documents are relevant"),
]


@pytest.mark.parametrize(("parts", "message"), WRONG)
def test_wrong_files_are_refused_in_one_line(parts: dict[str, Any], message: str, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=message) as error:
        load(write(tmp_path, **parts))
    assert "\n" not in str(error.value)


def test_settings_of_other_rows_are_refused(tmp_path: Path) -> None:
    write(tmp_path)
    with pytest.raises(UsageError, match="have fixed columns and files: leave out text_column, split"):
        load(tmp_path, split=0.8, text_column="text")
    with pytest.raises(DataError, match="which are rows of retrieval, not of classification"):
        load(tmp_path, task_kind="classification")
    write_rows(tmp_path / "plain" / "train.jsonl", [{"text": "a", "label": n} for n in (0, 1)])
    with pytest.raises(
        DataError, match="retrieval needs a folder with corpus.jsonl, queries.jsonl and qrels"
    ):
        load(tmp_path / "plain", task_kind="retrieval")


def test_a_task_of_another_kind_does_not_take_documents(tmp_path: Path) -> None:
    write(tmp_path / "beir")
    found = data.resolve_to_measure("search", tmp_path / "beir")
    assert not isinstance(found, tuple) and (found.kind, found.metric) == ("retrieval", "ndcg_at_10")
    write_rows(tmp_path / "plain" / "validation.jsonl", [{"text": "a", "label": n} for n in (0, 1)])
    with pytest.raises(DataError, match="task 'search' is retrieval, which needs a folder"):
        data.load(found, "validation", tmp_path / "plain")
    plain = data.resolve_to_measure("plain", DataSource(str(tmp_path / "plain" / "validation.jsonl")))
    assert not isinstance(plain, tuple)
    with pytest.raises(DataError, match="is classification, and these are documents and queries"):
        data.load(plain, "validation", tmp_path / "beir")


def test_files_of_pandas_and_of_the_hub_are_read(tmp_path: Path) -> None:
    pandas = pytest.importorskip("pandas")
    folder = write(tmp_path)
    expected = load(folder)
    for name in ("corpus", "queries"):
        path = folder / f"{name}.jsonl"
        frame = pandas.DataFrame([json.loads(line) for line in path.read_text().splitlines()])
        path.unlink()
        frame.to_parquet(folder / f"{name}-00000-of-00001.parquet")
    found = load(folder)
    assert found.texts == expected.texts and found.documents == expected.documents

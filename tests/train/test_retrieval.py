"""Retrieval of documents, from an imported encoder to a result that is checked when it is read."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sklearn.metrics import ndcg_score  # type: ignore[import-untyped]

from effx import data, engines, results
from effx.artifacts import Checkpoint, Engine
from effx.encoding import Encoded, EncodedDocuments, Encoder
from effx.errors import ArtifactError, DataError, UsageError
from effx.export import parity
from effx.export.source import ExportSource
from effx.models import checkpoints, evaluate, load, prune, save
from effx.profile import worker
from effx.profile.worker import Worker
from effx.specs import variants
from effx.specs.data import DataSource
from effx.specs.documents import Documents
from effx.specs.imports import ImportSettings
from effx.specs.kinds import KINDS
from effx.specs.tasks import Task
from effx.specs.training import FinetuneSettings
from effx.specs.workloads import SINGLE_STREAM, Workload
from effx.stats.metrics import ndcg_of_ranks, recall_of_ranks
from effx.train import finetune
from effx.train.importing import import_model
from effx.train.predict import predict
from tests import cache as caches
from tests.conftest import write_rows
from tests.train.kinds import edit, exported, run_of, source_of, without_manifest
from tests.train.test_embedding import pooled

KIND = KINDS["retrieval"]
SEARCH = Task("search", "retrieval", ("query",), (), KIND.metrics)
WORDS = ["soup", "room", "view", "plot", "acting", "the", "was", "and", "again", "never"]


@pytest.fixture(scope="session")
def collection(cache: caches.Cache) -> Path:
    """60 documents, and 24 queries with some relevant documents each; one query is a document itself."""

    def build(folder: Path) -> None:
        rng = np.random.default_rng(0)
        texts = [" ".join(rng.choice(WORDS, rng.integers(2, 12))) for _ in range(60)]
        documents: list[dict[str, object]] = [
            {"_id": f"d{n}", "title": "", "text": text} for n, text in enumerate(texts)
        ]
        queries: list[dict[str, object]] = [
            {"_id": f"q{n}", "text": " ".join(rng.choice(WORDS, 3))} for n in range(23)
        ]
        queries.append({"_id": "d7", "text": texts[7]})
        write_rows(folder / "corpus.jsonl", documents)
        write_rows(folder / "queries.jsonl", queries)
        lines = ["query-id\tcorpus-id\tscore"]
        for query in queries:
            for number in rng.choice(60, rng.integers(1, 15), replace=False):
                lines.append(f"{query['_id']}\td{number}\t{rng.integers(1, 4)}")
        (folder / "qrels").mkdir()
        (folder / "qrels" / "test.tsv").write_text("\n".join(lines) + "\n")

    return cache.folder("collection", build)


@pytest.fixture(scope="session")
def searcher(cache: caches.Cache, encoders: dict[str, Path], collection: Path) -> Checkpoint:
    def build(folder: Path) -> None:
        settings = ImportSettings(max_length=16)
        import_model(
            encoders["bert"], out=folder, checkpoint_name="trained", data_folder=collection, settings=settings
        )

    return Checkpoint.open(cache.folder("searcher", build) / "trained")


@pytest.fixture(scope="session")
def searcher_engines(cache: caches.Cache, searcher: Checkpoint, collection: Path) -> Path:
    backends = {"fp32": ["onnxruntime", "openvino", "torch"], "int8-dynamic": ["onnxruntime"]}
    return exported(cache, searcher, collection, backends)


def rows_of(collection: Path) -> data.Rows:
    return data.load(SEARCH, "validation", collection)


def scores_of(collection: Path, folder: Path) -> tuple[data.Rows, Documents, np.ndarray]:
    """Return the cosines of all queries and documents, from vectors of transformers; -1: the query itself."""
    rows = rows_of(collection)
    assert rows.documents is not None
    queries = pooled(folder, [texts[0] for texts in rows.texts])
    cosines = queries @ pooled(folder, list(rows.documents.texts)).T
    for number, texts in enumerate(rows.texts):
        if len(texts) > 1:
            cosines[number, rows.documents.ids.index(texts[1])] = -1.0
    return rows, rows.documents, cosines


def test_scores_are_those_of_scikit_learn(searcher: Checkpoint, collection: Path) -> None:
    rows, documents, cosines = scores_of(collection, searcher.folder)
    assert (searcher.task.kind, searcher.task.metric, len(rows)) == ("retrieval", "ndcg_at_10", 24)
    relevance = np.zeros_like(cosines)
    for number, labels in enumerate(rows.labels):
        for name, value in labels:
            relevance[number, documents.ids.index(name)] = value
    best = np.argsort(-cosines, axis=1)[:, :10]
    found = np.take_along_axis(relevance > 0, best, axis=1).sum(1) / (relevance > 0).sum(1)
    assert searcher.manifest.metrics == pytest.approx(
        {"ndcg_at_10": ndcg_score(relevance, cosines, k=10), "recall_at_10": found.mean()}, abs=1e-6
    )
    predicted = evaluate.predictions(load(searcher), encoded_of(searcher.folder, rows), SEARCH)
    assert [list(row) for row in predicted] == [[documents.ids[n] for n in row] for row in best]
    assert len(rows.texts[-1]) == 2 and "d7" not in predicted[-1]


def encoded_of(folder: Path, rows: data.Rows) -> Encoded:
    return Encoder(folder, 16, form="documents")(rows.texts, rows.documents)


@pytest.mark.parametrize("seed", range(5))
def test_metrics_of_ranks_are_those_of_scikit_learn(seed: int) -> None:
    rng = np.random.default_rng(seed)
    relevance = rng.integers(0, 4, 30) * (rng.random(30) < 0.3)
    if not relevance.any():
        relevance[3] = 2
    order = rng.permutation(30)
    gains, relevant = relevance[order][:10].tolist(), relevance[relevance > 0].tolist()
    scores = np.empty(30)
    scores[order] = -np.arange(30)
    assert ndcg_of_ranks(gains, relevant) == pytest.approx(ndcg_score([relevance], [scores], k=10))
    assert recall_of_ranks(gains, len(relevant)) == (relevance[order[:10]] > 0).sum() / len(relevant)


def test_equal_cosines_are_in_the_order_of_the_corpus() -> None:
    vectors = np.array([[1, 0], [0, 1], [1, 0], [1, 1], [1, 0]], dtype=np.float32)
    tokens = parity.random_rows(5, 50, 8, 0)
    documents = EncodedDocuments(tuple("abcde"), tokens, vectors)
    rows = Encoded(tokens.ids, tokens.types, tokens.offsets, 0, documents=documents)
    query = np.array([[2, 0]], dtype=np.float32)
    assert SEARCH.predict(query, rows).tolist() == [("a", "c", "e", "d", "b")]
    many = Encoded(
        tokens.ids, tokens.types, tokens.offsets, 0, documents=documents, own_documents=np.array([2])
    )
    assert SEARCH.predict(query, many).tolist() == [("a", "e", "d", "b")]


def test_a_trained_and_pruned_embedding_is_imported(
    encoders: dict[str, Path], collection: Path, tmp_path: Path
) -> None:
    pairs = [{"sentence1": "the soup", "sentence2": word, "label": n / 9} for n, word in enumerate(WORDS)]
    for split in ("train", "validation"):
        write_rows(tmp_path / f"pairs/{split}.jsonl", pairs)
    trained = finetune(
        "pairs", encoders["bert"], out=tmp_path, data_folder=source_of(tmp_path / "pairs", "embedding"),
        settings=FinetuneSettings.of(epochs=1, max_length=16),
    )  # fmt: skip
    pruned = load(trained)
    prune(pruned, heads={0: [1]}, ffns=[1])
    saved = save(
        pruned, tmp_path / "pruned", tokenizer=checkpoints.tokenizer(trained.folder), task=trained.task,
        max_length=16,
    )  # fmt: skip
    imported = import_model(saved.folder, out=tmp_path, data_folder=collection)
    assert imported.task.kind == "retrieval" and imported.manifest.weight_remaining < 1
    rows = rows_of(collection)
    vectors = [evaluate.logits(each, encoded_of(imported.folder, rows)) for each in (pruned, load(imported))]
    np.testing.assert_allclose(vectors[0], vectors[1], atol=1e-6)


def test_engines_find_what_their_checkpoint_finds(
    searcher: Checkpoint, searcher_engines: Path, collection: Path
) -> None:
    rows = rows_of(collection)
    expected = evaluate.predictions(load(searcher), encoded_of(searcher.folder, rows), SEARCH)
    for folder in Engine.find_all([searcher_engines]):
        engine = Engine.open(folder)
        measured = engine.manifest.parity
        assert measured is not None and measured.passed and measured.metric == "ndcg_at_10"
        assert measured.examples == 25 and measured.least_cosine is not None
        encoded = encoded_of(folder, rows)
        assert encoded.documents is not None
        with engines.open(engine) as session:
            of_documents, queries = (
                np.concatenate(
                    [session.infer(each.batch([n]))["sentence_embedding"] for n in range(len(each))]
                )
                for each in (encoded.documents.tokens, encoded)
            )
        found = SEARCH.predict(queries, encoded.with_vectors(of_documents))
        if engine.manifest.precision == "fp32":
            assert found.tolist() == expected.tolist()
        assert KIND.agreement(expected, found) >= 0.93


def test_documents_of_other_vectors_fail_the_gate() -> None:
    rows = parity.random_rows(40, 200, 20, 0, form="documents")
    vectors = np.random.default_rng(0).normal(size=(40, 16)).astype(np.float32)
    reference = parity.Reference(rows.with_vectors(vectors), vectors, None, None, "random")
    same = parity.compare(reference, vectors + np.float32(1e-6), None, SEARCH, "fp32", vectors)
    assert same.passed and same.examples == 40
    swapped = parity.compare(reference, vectors, None, SEARCH, "int8", np.roll(vectors, 1, axis=0))
    assert not swapped.passed and swapped.least_cosine is not None and swapped.least_cosine < 0.5


@pytest.mark.parametrize("seconds", [60.0, 0.0])
def test_a_worker_embeds_documents_once_and_times_queries(
    seconds: float,
    searcher: Checkpoint,
    searcher_engines: Path,
    collection: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(worker, "_SCORING_S", seconds)
    rows = rows_of(collection)
    assert rows.documents is not None
    documents = {"ids": rows.documents.ids, "texts": rows.documents.texts}
    folder = str(searcher_engines / "trained.fp32.onnxruntime")
    opened = Worker.open(folder, rows.texts, 1, 0, documents=documents)
    encoded = encoded_of(searcher.folder, rows)
    assert opened.opened().lengths == encoded.lengths.tolist()
    expected = evaluate.predictions(load(searcher), encoded, SEARCH)
    for workload in (Workload("offline", 8, "real"), SINGLE_STREAM):
        found: dict[int, list[str]] = {}
        batch: int | None = 0
        requests = 0
        while batch is not None:
            part = opened.score(workload, batch)
            found.update(zip(part.rows, part.predictions, strict=True))
            batch, requests = part.next_batch, requests + 1
        assert [tuple(found[number]) for number in range(len(rows))] == expected.tolist()
        assert requests > 1 or seconds
        block = opened.block(workload, 0.0, queries=6, least_s=0.0, limit_s=5.0)
        assert block.examples == 6 * workload.batch
        assert block.checked == block.agreed == block.examples
    again = Worker.open(
        folder, rows.texts, 1, 0, documents=documents,
        scored=[{"workload": SINGLE_STREAM.to_json(), "predictions": KIND.store(expected)}],
    )  # fmt: skip
    unchecked = again.block(SINGLE_STREAM, 0.0, queries=6, least_s=0.0, limit_s=5.0)
    assert (unchecked.examples, unchecked.checked) == (6, 0)


def test_a_result_is_checked_when_it_is_read(searcher: Checkpoint, collection: Path, tmp_path: Path) -> None:
    rows = rows_of(collection)
    predictions = evaluate.predictions(load(searcher), encoded_of(searcher.folder, rows), SEARCH)
    with_predictions = save(
        load(searcher), tmp_path / "c", tokenizer=checkpoints.tokenizer(searcher.folder), task=SEARCH,
        max_length=16, predictions=tuple(KIND.store(predictions)), metrics=searcher.manifest.metrics,
        validation_rows=len(rows),
    )  # fmt: skip
    run = run_of(with_predictions, source_of(collection, None))
    quality = results.open_run(results.save(run, tmp_path)).quality
    assert quality.kind == "retrieval" and quality.metrics == pytest.approx(searcher.manifest.metrics)
    assert quality.interval[0] <= quality.value <= quality.interval[1]
    changes: list[tuple[Callable[[Any], object], str]] = [
        (lambda value: value["predictions"][0].append("d99"), "at most 10 documents"),
        (lambda value: value["predictions"][0].__setitem__(1, value["predictions"][0][0]), "document once"),
        (lambda value: value["labels"][0].append(["d99", -1]), "relevance above 0"),
        (lambda value: value["predictions"].reverse(), "ndcg_at_10"),
    ]
    for number, (change, message) in enumerate(changes):
        path = results.save(run, tmp_path / str(number))
        edit(path, lambda value, change=change: change(value["quality"]))
        with pytest.raises(ArtifactError, match=message):
            results.open_run(path)


def test_predictions_are_ids_of_documents(searcher: Checkpoint, collection: Path, tmp_path: Path) -> None:
    done = predict(searcher.folder, out=tmp_path / "p.jsonl", data_folder=collection)
    written = [json.loads(line) for line in (tmp_path / "p.jsonl").read_text().splitlines()]
    assert [line["query"] for line in written] == [texts[0] for texts in rows_of(collection).texts]
    lines = [line["prediction"] for line in written]
    with pytest.raises(UsageError, match="written to a .jsonl file"):
        predict(searcher.folder, out=tmp_path / "p.csv", data_folder=collection)
    assert done.rows == len(lines) == 24 and done.scores == pytest.approx(searcher.manifest.metrics)
    assert all(len(line) == 10 and line[0].startswith("d") for line in lines)


def test_a_model_with_prompts_for_a_search_is_refused(
    searcher: Checkpoint, collection: Path, tmp_path: Path
) -> None:
    plain = without_manifest(searcher, tmp_path / "plain")
    edit(
        plain / "config_sentence_transformers.json", lambda value: value.update(prompts={"query": "query: "})
    )
    with pytest.raises(UsageError, match="puts the prompt 'query' before texts of a search"):
        import_model(plain, out=tmp_path, data_folder=collection)
    edit(plain / "config_sentence_transformers.json", lambda value: value.update(prompts={"query": ""}))
    assert import_model(plain, out=tmp_path, data_folder=collection).manifest.metrics == pytest.approx(
        searcher.manifest.metrics
    )


def test_truncated_documents_are_said(
    searcher: Checkpoint, collection: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    import_model(
        without_manifest(searcher, tmp_path / "plain"), out=tmp_path, data_folder=collection,
        settings=ImportSettings(max_length=8),
    )  # fmt: skip
    assert "of the documents reach 8 tokens, the maximum length" in capsys.readouterr().err


def test_what_is_not_supported_is_refused(
    encoders: dict[str, Path], searcher: Checkpoint, collection: Path, tmp_path: Path
) -> None:
    with pytest.raises(UsageError, match="are trained on pairs of texts with a score"):
        finetune(
            "search", encoders["bert"], out=tmp_path, data_folder=collection, settings=FinetuneSettings.of()
        )
    write_rows(tmp_path / "rows" / "train.jsonl", [{"text": f"a {n}", "label": n % 2} for n in range(4)])
    with pytest.raises(DataError, match="is retrieval, which needs a folder with corpus.jsonl"):
        data.load(searcher.task, "validation", tmp_path / "rows")


def test_static_int8_takes_its_ranges_from_queries_and_documents(
    searcher: Checkpoint, collection: Path, tmp_path: Path
) -> None:
    folder = Path(shutil.copytree(collection, tmp_path / "collection"))
    shutil.copyfile(folder / "qrels" / "test.tsv", folder / "qrels" / "train.tsv")
    source = ExportSource(searcher, tmp_path, DataSource(str(folder)), calibration_rows=10)
    rows = source.training_rows
    assert isinstance(rows, data.Rows) and rows.documents is not None
    texts = [*rows.limit(5).texts, *((text,) for text in rows.documents.texts[:5])]
    expected = Encoder(searcher.folder, 16)(texts)
    found = source.calibration(variants.parse("int8"))
    assert [row["input_ids"].tolist() for row in found] == [
        expected.batch([row])["input_ids"].tolist() for row in range(10)
    ]

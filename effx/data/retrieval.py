"""Documents, queries, and which documents are relevant for a query: the layout of BEIR and MTEB.

    corpus.jsonl        {"_id": "d7", "title": "Eiffel Tower", "text": "The tower has 330 m."}
    queries.jsonl       {"_id": "q1", "text": "how tall is the Eiffel Tower?"}
    qrels/test.tsv      query-id  corpus-id  score
                        q1        d7         1

Other formats of :mod:`effx.data.tables` have the same columns.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from effx.data import tables
from effx.data.rows import Origin, Rows
from effx.data.tables import MISSING, Table
from effx.errors import DataError, UsageError
from effx.specs.data import DataSettings
from effx.specs.documents import Documents
from effx.specs.kinds.values import is_float, objects, short

_IDS = ("_id", "id")
_CORPUS_IDS = (*_IDS, "corpus-id", "corpus_id", "doc_id", "docid")
_QUERY_IDS = (*_IDS, "query-id", "query_id", "qid")
_CORPUS_TEXTS = ("text", "document", "passage", "contents")
_QUERY_TEXTS = ("text", "query", "question")
_TITLE = "title"
_JUDGEMENTS = (("query-id", "query_id", "qid"), ("corpus-id", "corpus_id", "doc_id", "docid"))
_SCORES = ("score", "relevance", "label")
_ALLOWED = ("task_kind", "encoding", "delimiter", "quoting")
EXAMPLES = {
    "corpus": '{"_id": "d7", "title": "", "text": "The tower has 330 m."}',
    "queries": '{"_id": "q1", "text": "how tall is it?"}',
    "qrels": "a header query-id, corpus-id, score and a line q1, d7, 1",
}


def load(paths: Sequence[Path], settings: DataSettings) -> Rows:
    """Return the queries that have a relevant document, with their documents.

    Args:
        paths: one or several files of relevant documents, then that of queries and that of documents.
        settings: how files are read.

    Raises:
        DataError: a file has no ids, an id twice, or an empty query; or a relevant document or its query is
            missing.
        UsageError: a setting does not apply.
    """
    if wrong := [name for name, value in settings.given().items() if value and name not in _ALLOWED]:
        raise UsageError(
            f"{paths[-1].parent}: documents and queries have fixed columns and files: leave out "
            f"{', '.join(wrong)}",
            settings=tuple(wrong),
        )
    *judged, queries_path, corpus_path = paths
    corpus = _read([corpus_path], settings, "corpus", (_CORPUS_IDS, _CORPUS_TEXTS))
    queries = _read([queries_path], settings, "queries", (_QUERY_IDS, _QUERY_TEXTS))
    documents = _documents(corpus)
    texts = dict(zip(_ids(queries), _column(queries.table, queries.text), strict=True))
    relevant = _relevant(judged, settings, texts.keys(), set(documents.ids))
    bodies = _column(corpus.table, corpus.text)
    of_document = {
        document: {text.strip(), body.strip()}
        for document, text, body in zip(documents.ids, documents.texts, bodies, strict=True)
    }
    rows: list[tuple[str, ...]] = []
    for name in relevant:
        text = texts[name]
        if not text.strip():
            where = f"{queries_path}: query '{short(name)}'"
            raise DataError(f"{where} is empty: expected a row such as {EXAMPLES['queries']}.")
        itself = text.strip() in of_document.get(name, ()) and name not in relevant[name]
        rows.append((text, name) if itself else (text,))
    if not rows:
        raise DataError(f"{judged[0]}: no document has a relevance above 0.")
    title = "" if corpus.title is None else " after its title"
    notes = [f"documents: {len(documents):,} of {corpus_path.name}, text '{corpus.text}'{title}"]
    if len(texts) > len(rows):
        left_out = len(texts) - len(rows)
        notes.append(f"{left_out:,} queries without a relevant document in {judged[0].name} are left out")
    if found := sum(len(row) > 1 for row in rows):
        notes.append(f"{found:,} queries are documents themselves, which are not searched for them")
    labels = objects([tuple(of_query.items()) for of_query in relevant.values()])
    origin = Origin((queries.text,), "relevance", queries.table.format, tuple(notes))
    return Rows(rows, labels, f"{judged[0]}", origin, documents=documents)


@dataclass(frozen=True)
class _Named:
    """A table with the columns of ids and texts, and of titles, if it has any."""

    table: Table
    id: str
    text: str
    title: str | None = None


def _read(
    paths: Sequence[Path], settings: DataSettings, what: str, wanted: tuple[tuple[str, ...], tuple[str, ...]]
) -> _Named:
    """Return a table with its columns of ids and of texts.

    Raises:
        DataError: it lacks one of them.
    """

    def choose(columns: Sequence[str]) -> tuple[str, str]:
        lower = {column.strip().lower(): column for column in reversed(columns)}
        found = []
        for names, of in zip(wanted, ("ids", "texts"), strict=True):
            name = next((name for name in names if name in lower), None)
            if name is None:
                raise DataError(
                    f"{paths[0]}: no column has the {of} (expected {' or '.join(names[:2])}; columns: "
                    f"{', '.join(columns)}): expected rows such as {EXAMPLES[what]}."
                )
            found.append(lower[name])
        return found[0], found[1]

    table = tables.read(paths, settings, choose)
    id_column, text_column = choose(table.columns)
    title = next((column for column in table.columns if column.strip().lower() == _TITLE), None)
    return _Named(table, id_column, text_column, title)


def _column(table: Table, name: str) -> list[str]:
    """Return the texts of a column.

    Raises:
        DataError: a value is no text.
    """
    index = table.columns.index(name)
    for number, row in enumerate(table.rows):
        if row[index] is MISSING:
            raise table.missing(name, number)
        if not isinstance(row[index], str):
            raise DataError(
                f"{table.where(number)}: column '{name}': expected text, got {type(row[index]).__name__}."
            )
    return [row[index] for row in table.rows]


def _ids(named: _Named) -> list[str]:
    """Return the ids of rows.

    Raises:
        DataError: a row has none, or that of another row.
    """
    table = named.table
    first: dict[str, int] = {}
    index = table.columns.index(named.id)
    for number, row in enumerate(table.rows):
        value = row[index]
        if value is MISSING:
            raise table.missing(named.id, number)
        name = _id(value, table.where(number), named.id)
        if name in first:
            raise DataError(
                f"{table.where(number)}: the id '{short(name)}' is already that of row {first[name] + 1}."
            )
        first[name] = number
    return list(first)


def _id(value: Any, where: str, column: str) -> str:
    if isinstance(value, int) and not isinstance(value, bool):
        return str(value)
    if not isinstance(value, str) or not value.strip():
        raise DataError(f"{where}: column '{column}': expected an id, got '{short(value)}'.")
    return value


def _documents(corpus: _Named) -> Documents:
    texts = _column(corpus.table, corpus.text)
    if corpus.title is not None:
        index = corpus.table.columns.index(corpus.title)
        for number, row in enumerate(corpus.table.rows):
            title = row[index]
            if isinstance(title, str):  # a document may have none
                texts[number] = f"{title} {texts[number]}".strip()
            elif title is not None and title is not MISSING:
                raise DataError(f"{corpus.table.where(number)}: column '{corpus.title}': expected text.")
    return Documents(tuple(_ids(corpus)), tuple(texts))


def _relevant(
    paths: Sequence[Path], settings: DataSettings, queries: Any, documents: set[str]
) -> dict[str, dict[str, float]]:
    """Return query id -> document id -> relevance above 0, for queries that have such a document.

    Raises:
        DataError: a query or a document is missing or is judged twice, or a relevance is no number.
    """

    def choose(columns: Sequence[str]) -> list[str]:
        lower = {column.strip().lower(): column for column in reversed(columns)}
        found = [next((lower[n] for n in names if n in lower), None) for names in (*_JUDGEMENTS, _SCORES)]
        if None in found:
            raise DataError(f"{paths[0]}: expected {EXAMPLES['qrels']} (columns: {', '.join(columns)}).")
        return [name for name in found if name is not None]

    table = tables.read(paths, settings, choose)
    names = choose(table.columns)
    indices = [table.columns.index(name) for name in names]
    relevant: dict[str, dict[str, float]] = {}
    seen: set[tuple[str, str]] = set()
    for number, row in enumerate(table.rows):
        where = table.where(number)
        values = [row[index] for index in indices]
        if any(value is MISSING for value in values):
            raise table.missing(names[values.index(MISSING)], number)
        query, document = (_id(value, where, name) for value, name in zip(values[:2], names, strict=False))
        if query not in queries:
            raise DataError(f"{where}: there is no query with the id '{short(query)}'.")
        if document not in documents:
            raise DataError(f"{where}: there is no document with the id '{short(document)}'.")
        if (query, document) in seen:
            raise DataError(
                f"{where}: document '{short(document)}' is judged twice for query '{short(query)}'."
            )
        seen.add((query, document))
        if isinstance(values[2], bool) or not is_float(str(values[2]).strip()):
            raise DataError(f"{where}: relevance '{short(values[2])}': expected a number.")
        if float(values[2]) > 0:
            relevant.setdefault(query, {})[document] = float(values[2])
    return relevant

"""Documents of a corpus for a query (bi-encoder): those whose vectors are nearest to that of the query.

    query  how tall is it?    relevance  {"d7": 1}    prediction  the ids of the ten best documents, in order

Queries and documents are encoded separately, as by :mod:`effx.specs.kinds.embedding`, and every query is
compared with every document (exact search). A row is a query. Labels are tuples of (document id, relevance
above 0), predictions tuples of document ids, both object [n]. Such a model is not trained on these rows, but
on pairs of texts, as an embedding.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from effx.errors import DataError
from effx.specs.kinds.embedding import EMBEDDING
from effx.specs.kinds.kind import Labels, RowTokens, TaskKind, Where
from effx.specs.kinds.values import objects
from effx.stats.metrics import CUTOFF, ndcg_of_ranks, recall_of_ranks

_QUERIES_AT_ONCE = 256  # bounds the memory of their cosines with all documents


def _check_labels(labels: Labels) -> None:
    if labels:
        raise ValueError(f"labels: expected none for retrieval, got {len(labels)}")


def _encode(
    labels: Labels, values: Sequence[Any], where: Where, class_names: Sequence[str] | None
) -> tuple[np.ndarray, np.ndarray]:
    raise DataError(
        f"{where(0)}: retrieval needs a folder with corpus.jsonl, queries.jsonl and qrels/test.tsv."
    )


def _summarize(labels: Labels, splits: Sequence[np.ndarray]) -> str:
    relevant = [len(row) for split in splits for row in split]
    return f"{np.mean(relevant):.1f} relevant documents per query, at most {max(relevant)}"


def _predict(vectors: np.ndarray, rows: RowTokens) -> np.ndarray:
    """Return the ids of the ten documents with the highest cosine for each query [n, width], the best first.

    Of documents with equal cosines, the earlier ones of the corpus come first. A document that is the query
    itself is left out.
    """
    documents = rows.documents
    assert documents is not None and documents.vectors is not None, "queries are compared with documents"
    own = rows.own_documents
    of_documents = _normalised(documents.vectors)
    best: list[tuple[str, ...]] = []
    for start in range(0, len(vectors), _QUERIES_AT_ONCE):
        queries = _normalised(vectors[start : start + _QUERIES_AT_ONCE])
        scores = queries @ of_documents.T
        if own is not None:
            number, document = np.arange(len(queries)), own[start : start + _QUERIES_AT_ONCE]
            scores[number[document >= 0], document[document >= 0]] = -np.inf
        for row in scores:
            best.append(tuple(documents.ids[number] for number in _first(row)))
    return objects(best)


def _normalised(vectors: np.ndarray) -> np.ndarray:
    vectors = vectors.astype(np.float32)
    norms = np.linalg.norm(vectors, axis=1, keepdims=True)
    return np.asarray(vectors / np.where(norms > 0, norms, 1.0))


def _first(scores: np.ndarray) -> list[int]:
    """Return the positions of the ten highest finite scores, in order; of equal ones the first positions."""
    n = min(CUTOFF, int(np.isfinite(scores).sum()))
    if n == 0:
        return []
    least = np.partition(scores, len(scores) - n)[len(scores) - n]
    candidates = np.flatnonzero(scores >= least)
    order = np.argsort(-scores[candidates], kind="stable")[:n]
    return [int(number) for number in candidates[order]]


def _deciding(vectors: np.ndarray, rows: RowTokens) -> list[np.ndarray]:
    """Return the vectors: they decide which documents are found."""
    return list(vectors)


def _numbers(labels: np.ndarray, predictions: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the best and the reached scores of queries, float64 [n, 2]: nDCG@10 and recall@10."""
    scores = []
    for relevance, predicted in zip(labels, predictions, strict=True):
        of = dict(relevance)
        gains = [of.get(document, 0.0) for document in predicted]
        scores.append((ndcg_of_ranks(gains, list(of.values())), recall_of_ranks(gains, len(of))))
    return np.ones((len(labels), 2)), np.array(scores, dtype=float).reshape(-1, 2)


def _agreement(expected: np.ndarray, predicted: np.ndarray) -> float:
    """Return the share of queries whose best document the engine has among its ten."""
    found = [a[0] in b for a, b in zip(expected, predicted, strict=True) if a]
    return float(np.mean(found)) if found else 1.0


def _same(now: np.ndarray, before: np.ndarray, every: np.ndarray) -> np.ndarray:
    """Return which queries have the same documents but for one: rounding swaps documents of near cosines."""
    return np.array([len({*a} - {*b}) <= 1 for a, b in zip(now, before, strict=True)], dtype=bool)


def _store(values: np.ndarray) -> list[Any]:
    """Return lists of ids, or of [id, relevance]."""
    return [[list(entry) if isinstance(entry, tuple) else entry for entry in row] for row in values]


def _restore(values: Sequence[Any], labels: Labels) -> np.ndarray:
    return objects([_entries(value) for value in values])


def _entries(value: Any) -> tuple[Any, ...]:
    """Return a row's document ids, or its pairs of an id and a relevance.

    Raises:
        ValueError: it has neither, a document twice, or a relevance that is not above 0.
    """
    if not isinstance(value, list | tuple):
        raise ValueError("expected lists of document ids, or of [id, relevance]")
    pairs = [tuple(entry) if isinstance(entry, list | tuple) else (entry, None) for entry in value]
    of_labels = bool(value) and isinstance(value[0], list | tuple)
    for entry, pair in zip(value, pairs, strict=True):
        relevance = pair[-1] if len(pair) == 2 else -1
        is_number = isinstance(relevance, int | float) and not isinstance(relevance, bool)
        if (
            len(pair) != 2
            or not isinstance(pair[0], str)
            or isinstance(entry, list | tuple) is not of_labels
            or (of_labels and not (is_number and 0 < relevance < float("inf")))
        ):
            raise ValueError("expected lists of document ids, or of [id, relevance above 0]")
    names = [name for name, _ in pairs]
    if len(set(names)) != len(names):
        raise ValueError("expected each document once")
    if not of_labels:
        if len(names) > CUTOFF:
            raise ValueError(f"expected at most {CUTOFF} documents")
        return tuple(names)
    return tuple((name, float(relevance)) for name, relevance in pairs)


RETRIEVAL = TaskKind(
    name="retrieval",
    head=EMBEDDING.head,
    output_names=EMBEDDING.output_names,
    metrics=("ndcg_at_10", "recall_at_10"),
    outputs=EMBEDDING.outputs,
    check_labels=_check_labels,
    describe=lambda texts, labels: "retrieval of documents (the labels are relevances)",
    encode=_encode,
    summarize=_summarize,
    match_head=EMBEDDING.match_head,
    store=_store,
    restore=_restore,
    predict_rows=_predict,
    deciding=_deciding,
    same=_same,
    form="documents",
    one_value=False,
    of_numbers=True,
    numbers=_numbers,
    agreement=_agreement,
    agreement_words="the share of queries whose best document is among the engine's ten best",
    has_classes=False,
    pipeline=EMBEDDING.pipeline,
    gates=frozenset({"metric", "cosine"}),
    refused={
        **EMBEDDING.refused,
        "training": "models that find documents are trained on pairs of texts with a score (task kind "
        "embedding), and then imported with the documents",
    },
)

"""Candidates of a query in the order of their scores (cross-encoder): the model reads query and candidate.

    query      how tall is it?
    candidates the tower has 330 m    it was built in 1889    relevance  1  0    prediction  4.1  -2.0

A row of a file is a query with one candidate; rows with the same query are one row of the task, which is also
what is resampled. A query runs with all its candidates. Labels and predictions are tuples of numbers, object
[n]. The head is that of a CrossEncoder of sentence-transformers with one label.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from effx.errors import DataError
from effx.specs.heads import Head, HeadPlan, HeadSettings, OtherHeadError
from effx.specs.kinds.kind import Constant, Labels, RowTokens, TaskKind, Texts, Where
from effx.specs.kinds.regression import REGRESSION
from effx.specs.kinds.values import objects, short
from effx.stats.metrics import ndcg, reciprocal_rank

EXAMPLE = '{"query": "how tall is it?", "passage": "The tower has 330 m.", "label": 1}'
_ROUNDING = 1e-6
"""Of float32 scores, as a share of the largest, or of 1 where all are smaller."""


def _check_labels(labels: Labels) -> None:
    if labels:
        raise ValueError(f"labels: expected none for ranking, got {len(labels)}")


def _check_rows(texts: Texts, values: Sequence[Any], where: Where) -> None:
    for index, row in enumerate(texts):
        for name, text in zip(("query", "candidate"), row, strict=True):
            if not text.strip():
                raise DataError(f"{where(index)}: the {name} is empty: expected a row as {EXAMPLE}.")


def _encode(
    labels: Labels, values: Sequence[Any], where: Where, class_names: Sequence[str] | None
) -> tuple[np.ndarray, np.ndarray]:
    rows, relevance = REGRESSION.encode(labels, values, where, class_names)
    if len(negative := np.flatnonzero(relevance < 0)):
        first = int(negative[0])
        raise DataError(f"{where(first)}: relevance {relevance[first]:g}: expected a number >= 0.")
    return rows, relevance


def _collect(texts: Texts, relevance: np.ndarray, where: Where) -> tuple[list[tuple[str, ...]], np.ndarray]:
    """Return a row per query: the query with its candidates, and their relevance.

    Raises:
        DataError: a query has no candidate of relevance above 0, or a candidate twice.
    """
    first: dict[str, int] = {}
    candidates: dict[str, dict[str, float]] = {}
    for index, ((query, candidate), value) in enumerate(zip(texts, relevance.tolist(), strict=True)):
        first.setdefault(query, index)
        of_query = candidates.setdefault(query, {})
        if candidate in of_query:
            raise DataError(
                f"{where(index)}: the query '{short(query)}' has the candidate '{short(candidate)}' twice."
            )
        of_query[candidate] = value
    for query, of_query in candidates.items():
        if max(of_query.values()) <= 0:
            raise DataError(
                f"{where(first[query])}: the query '{short(query)}' has no candidate of relevance above 0: "
                "add one, or remove the query."
            )
    rows = [(query, *of_query) for query, of_query in candidates.items()]
    return rows, objects([tuple(of_query.values()) for of_query in candidates.values()])


def _summarize(labels: Labels, splits: Sequence[np.ndarray]) -> str:
    rows = [row for split in splits for row in split]
    relevant = [sum(value > 0 for value in row) for row in rows]
    text = (
        f"{np.mean(list(map(len, rows))):.1f} candidates per query, {np.mean(relevant):.1f} of them relevant"
    )
    if useless := sum(len(set(row)) == 1 for row in rows):
        text += f"; {useless:,} queries have candidates of equal relevance, which any order ranks perfectly"
    return text


def _predict(logits: np.ndarray, rows: RowTokens) -> np.ndarray:
    """Return the scores of each query's candidates."""
    assert rows.row_of is not None, "scores belong to queries"
    ends = np.searchsorted(rows.row_of, np.arange(1, int(rows.row_of.max(initial=-1)) + 1))
    return objects([tuple(part.tolist()) for part in np.split(logits[:, 0].astype(np.float64), ends)])


def _deciding(logits: np.ndarray, rows: RowTokens) -> list[np.ndarray]:
    return [np.array(scores) for scores in _predict(logits, rows)]


def _numbers(labels: np.ndarray, predictions: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the best and the reached scores of queries, float64 [n, 2]: nDCG@10 and the reciprocal rank.

    Raises:
        ValueError: a query has another number of scores than of candidates.
    """
    scores = []
    for relevance, predicted in zip(labels, predictions, strict=True):
        if len(relevance) != len(predicted):
            raise ValueError(
                f"expected {len(relevance)} scores, one for each candidate, got {len(predicted)}"
            )
        scores.append((ndcg(relevance, predicted), reciprocal_rank(relevance, predicted)))
    return np.ones((len(labels), 2)), np.array(scores, dtype=float).reshape(-1, 2)


def _agreement(expected: np.ndarray, predicted: np.ndarray) -> float:
    """Return the mean over queries of the share of pairs of candidates in the same order.

    Pairs whose expected scores differ by rounding only, as those of equal texts, have no order.
    """
    shares = []
    for before, after in zip(map(np.array, expected), map(np.array, predicted), strict=True):
        upper = np.triu_indices(len(before), 1)
        if len(upper[0]):
            expected_gaps, gaps = (scores[upper[0]] - scores[upper[1]] for scores in (before, after))
            tied = np.abs(expected_gaps) <= _ROUNDING * max(1.0, float(np.abs(before).max()))
            shares.append(np.mean(tied | (np.sign(expected_gaps) == np.sign(gaps))))
    return float(np.mean(shares)) if shares else 1.0


def _same(now: np.ndarray, before: np.ndarray, every: np.ndarray) -> np.ndarray:
    """Return which queries have the same scores, within 1 % of the range of all scores."""
    tolerance = 0.01 * float(np.ptp([score for row in every if isinstance(row, tuple) for score in row]))
    return np.array([np.allclose(a, b, rtol=0, atol=tolerance) for a, b in zip(now, before, strict=True)])


def _restore(values: Sequence[Any], labels: Labels) -> np.ndarray:
    for value in values:
        numbers = isinstance(value, list | tuple) and value
        if not numbers or not all(isinstance(v, int | float) and not isinstance(v, bool) for v in value):
            raise ValueError("expected lists of numbers, one for each candidate")
    return objects([tuple(map(float, value)) for value in values])


def _match_head(head: Head, labels: Labels, settings: HeadSettings) -> HeadPlan:
    if head.kind not in ("regression", "ranking"):
        raise OtherHeadError(f"the task head ({head.reason}) is not one for ranking, which has one output")
    sigmoid = "; its score is the one before the sigmoid that sentence-transformers applies"
    return HeadPlan("kept: one score" + sigmoid * head.sigmoid, keep=True)


RANKING = TaskKind(
    name="ranking",
    head="sequence",
    output_names=("logits",),
    loss="mean-squared-error",
    problem_type="regression",
    metrics=("ndcg_at_10", "mrr_at_10"),
    outputs=lambda labels: 1,
    check_labels=_check_labels,
    describe=lambda texts, labels: "ranking of candidates of a query (the labels are relevances)",
    encode=_encode,
    collect=_collect,
    summarize=_summarize,
    match_head=_match_head,
    store=lambda values: [list(value) for value in values],
    restore=_restore,
    predict_rows=_predict,
    same=_same,
    form="candidates",
    one_value=False,
    of_numbers=True,
    numbers=_numbers,
    deciding=_deciding,
    group=lambda texts: texts[0],
    pair_example=EXAMPLE,
    check_rows=_check_rows,
    agreement=_agreement,
    agreement_words="the share of pairs of candidates in the checkpoint's order, mean over the queries",
    constant=lambda train, labels: Constant(np.array(0.0), "the same score", of_each=True),
    has_classes=False,
    pipeline="text-ranking",
    gates=frozenset({"metric"}),
    refused={
        "exits": "scores of candidates that exit after different layers are not comparable",
        "tokens": "token pruning is calibrated on one prediction per row, and a query has one per candidate",
    },
)

"""Metrics: labels and predictions in, one number out; or one number per engine and resampling.

Labels and predictions are integer classes [n], numbers [n], label sets [n, labels]: booleans, any number
of them true in a row, or tags of words [n, words]:

    0 is O, 2 k + 1 is B-TYPE and 2 k + 2 is I-TYPE of the type number k; -1: the row has no such word

Answers in a text are scored one by one (:func:`exact_match`, :func:`token_f1`), and so are the orders of a
query's candidates (:func:`ndcg`, :func:`reciprocal_rank`) and the documents found for it
(:func:`ndcg_of_ranks`, :func:`recall_of_ranks`); predictions are then these scores [n, 2], labels are ones.

Entities are those of seqeval in its default mode, which are those of the script conlleval: an entity begins
with B, and with I after a word outside of entities or of another type.

Undefined cases (a constant prediction has no correlation) give 0.0, as GLUE scores them.

Each formula is written once, for weighted examples: a weight is how often an example was drawn. The
metric of all examples has the weight 1 for each.
"""

from __future__ import annotations

import collections
import re
import string
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

CUTOFF = 10
"""Candidates or documents of a query that count, from the best one on."""

Weighted = Callable[[np.ndarray, np.ndarray, np.ndarray], np.ndarray]
"""Labels [n], predictions [engines, n] and weights [resamples, n] in, values [engines, resamples] out; label
sets have one more axis."""


@dataclass(frozen=True)
class Metric:
    """A metric; call it with labels and predictions of at least one row, of the same shape."""

    name: str
    weighted: Weighted
    of_classes: bool
    """Whether a prediction is right or wrong; False: it is a number, or its score is a share."""
    is_share: bool = False
    """Whether it is a share of the examples, whose intervals are exact."""
    of_reference: bool = False
    """Whether predictions are compared with those of a reference engine, because the rows have no labels."""
    of_tags: bool = False
    """Whether labels are tags of words."""
    of_scores: bool = False
    """Whether predictions are scores of the rows, 0 to 1, and the metric is their mean."""
    least: float = 0.0
    """Its value where everything is wrong; 1 is the best."""

    @property
    def has_worst_case(self) -> bool:
        """Whether a row can change it by a known amount at most."""
        return self.of_classes or self.of_scores

    def __call__(self, labels: np.ndarray, predictions: np.ndarray) -> float:
        labels, predictions = np.asarray(labels, dtype=float), np.asarray(predictions, dtype=float)
        return float(self.weighted(labels, predictions[None], np.ones((1, len(labels))))[0, 0])


def same_rows(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Return whether labels or predictions are equal, bool [n]; a set or tags are if all entries are."""
    equal = np.asarray(a == b)
    return equal if equal.ndim == 1 else np.asarray(equal.all(axis=tuple(range(1, equal.ndim))))


def exact_match(answers: Sequence[str], prediction: str) -> float:
    """Return 1.0 if the normalised prediction equals any normalised answer (SQuAD v1.1)."""
    return float(any(_normalise(answer) == _normalise(prediction) for answer in answers))


def token_f1(answers: Sequence[str], prediction: str) -> float:
    """Return the best bag-of-words F1 of the prediction against the answers (SQuAD v1.1)."""
    return max(_token_f1(_normalise(answer), _normalise(prediction)) for answer in answers)


def ndcg(relevance: Sequence[float], scores: Sequence[float]) -> float:
    """Return the normalised discounted cumulative gain of the first ten candidates, 0 to 1.

    The gain is the relevance, the discount log2(1 + rank) (Jarvelin and Kekalainen 2002); candidates with
    equal scores have the mean gain of their ranks (McSherry and Najork 2008). 0 if nothing is relevant.
    """
    gains, predicted = np.asarray(relevance, dtype=float), np.asarray(scores, dtype=float)
    discounts = 1 / np.log2(np.arange(len(gains)) + 2)
    discounts[CUTOFF:] = 0
    ideal = float(np.sort(gains)[::-1] @ discounts)
    _, group = np.unique(-predicted, return_inverse=True)
    counts = np.bincount(group)
    ends = np.cumsum(counts)
    sums = np.append(0.0, np.cumsum(discounts))
    reached = np.bincount(group, gains) / counts * (sums[ends] - sums[ends - counts])
    return float(reached.sum() / ideal) if ideal > 0 else 0.0


def reciprocal_rank(relevance: Sequence[float], scores: Sequence[float]) -> float:
    """Return 1 / rank of the first relevant candidate, 0 if its rank is above ten.

    A candidate of relevance above 0 is relevant; among equal scores relevant candidates come last.
    """
    relevant, predicted = np.asarray(relevance, dtype=float) > 0, np.asarray(scores, dtype=float)
    if not relevant.any():
        return 0.0
    rank = int(np.sum(~relevant & (predicted >= predicted[relevant].max()))) + 1
    return 1 / rank if rank <= CUTOFF else 0.0


def ndcg_of_ranks(gains: Sequence[float], relevant: Sequence[float]) -> float:
    """Return the normalised discounted cumulative gain of documents found, 0 to 1, as ndcg_cut of trec_eval.

    Args:
        gains: relevance of each document found, the best first; those after the tenth do not count.
        relevant: the relevances above 0 of all relevant documents, also of those that were not found.
    """
    discounts = 1 / np.log2(np.arange(CUTOFF) + 2)
    reached, ideal = list(gains)[:CUTOFF], sorted(relevant, reverse=True)[:CUTOFF]
    best = float(np.dot(ideal, discounts[: len(ideal)]))
    return float(np.dot(reached, discounts[: len(reached)])) / best if best > 0 else 0.0


def recall_of_ranks(gains: Sequence[float], relevant: int) -> float:
    """Return the share of ``relevant`` documents that are among the first ten found, given their gains."""
    return sum(gain > 0 for gain in gains[:CUTOFF]) / relevant if relevant else 0.0


def _sums(weights: np.ndarray, values: np.ndarray) -> np.ndarray:
    """Return weighted sums [engines, resamples] of values [engines, n]; exact for booleans."""
    if values.dtype == bool:
        return np.asarray(values.astype(np.float32) @ weights.T, dtype=float)
    return np.asarray(values @ weights.T.astype(float))


def _equal(labels: np.ndarray, predictions: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Share of equal rows, 0 to 1: the class, every label of a set, or every tag."""
    equal = predictions == labels
    return _sums(weights, equal if labels.ndim == 1 else equal.all(axis=-1)) / len(labels)


def _exact_match(labels: np.ndarray, predictions: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Share of answers that are equal to an accepted one, from scores [n, 2]."""
    return _sums(weights, predictions[..., 0] == 1.0) / len(labels)


def _mean_of(column: int) -> Weighted:
    """Return the mean of a column of scores [n, 2]."""
    return lambda labels, predictions, weights: _sums(weights, predictions[..., column]) / len(labels)


def _f1(labels: np.ndarray, predictions: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """F1 of class 1, as GLUE scores MRPC and QQP."""
    return _class_f1(labels, predictions, weights, 1.0)[0]


def _macro_f1(labels: np.ndarray, predictions: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Unweighted mean of F1 over the classes that a resampling has in its labels or predictions."""
    if labels.ndim == 2:
        columns = range(labels.shape[1])
        pairs = [_class_f1(labels[:, i], predictions[..., i], weights, 1.0) for i in columns]
    else:
        classes = np.union1d(labels, predictions)
        pairs = [_class_f1(labels, predictions, weights, float(label)) for label in classes]
    return np.asarray(sum(f1 for f1, _ in pairs) / np.maximum(sum(present for _, present in pairs), 1))


def _micro_f1(labels: np.ndarray, predictions: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """F1 of all pairs of row and label together; of classes it is the accuracy."""
    if labels.ndim == 1:
        return _equal(labels, predictions, weights)
    true, predicted = labels[None] == 1, predictions == 1
    both = _row_sums(weights, true & predicted)
    named = _row_sums(weights, true) + _row_sums(weights, predicted)
    return np.asarray(2 * both / np.maximum(named, 1))


def _row_sums(weights: np.ndarray, sets: np.ndarray) -> np.ndarray:
    """Return the weighted numbers of labels [engines, resamples] of sets [engines, n, labels]."""
    return _sums(weights, sets.sum(axis=-1).astype(float))


def label_f1(labels: np.ndarray, predictions: np.ndarray) -> list[float | None]:
    """Return F1 of each label of sets [n, labels]; None for a label that neither has."""
    ones = np.ones((1, len(labels)))
    pairs = [_class_f1(labels[:, i], predictions[None, :, i], ones, 1.0) for i in range(labels.shape[1])]
    return [float(f1[0, 0]) if present[0, 0] else None for f1, present in pairs]


@dataclass(frozen=True)
class _Entities:
    """Entities in tags [n, words]; the arrays say for each word which entity begins with it."""

    begins: np.ndarray
    """bool [n, words]"""
    types: np.ndarray
    """int64 [n, words]; from 1 on; 0: outside of entities"""
    ends: np.ndarray
    """int64 [n, words]; the first word after the entity"""

    @classmethod
    def of(cls, tags: np.ndarray) -> _Entities:
        tags = np.asarray(tags).astype(np.int64)
        types = np.maximum(tags + 1, 0) // 2
        previous = np.pad(types, ((0, 0), (1, 0)))[:, :-1]
        continues = (types > 0) & (tags % 2 == 0) & (previous == types)
        last = tags.shape[1]
        breaks = np.where(continues, last, np.arange(last))
        after = np.pad(breaks, ((0, 0), (0, 1)), constant_values=last)[:, 1:]
        ends = np.minimum.accumulate(after[:, ::-1], axis=1)[:, ::-1]
        return cls((types > 0) & ~continues, types, ends)

    def in_both(self, other: _Entities) -> np.ndarray:
        """Return for each word whether an entity begins with it that the other has too, bool [n, words]."""
        same = (self.types == other.types) & (self.ends == other.ends)
        return np.asarray(self.begins & other.begins & same)


def _entity_counts(
    labels: np.ndarray, predictions: np.ndarray, type_number: int | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """Return entities per row: those of labels and of predictions together, and those that both have.

    Args:
        labels: tags [n, words].
        predictions: tags [engines, n, words].
        type_number: from 1 on; None: of any type.

    Returns:
        Two float64 arrays [engines, n].
    """
    true = _Entities.of(labels)
    named, both = np.empty(predictions.shape[:2]), np.empty(predictions.shape[:2])
    for index, tags in enumerate(predictions):
        predicted = _Entities.of(tags)
        of_type = (True, True) if type_number is None else (
            true.types == type_number, predicted.types == type_number
        )  # fmt: skip
        named[index] = (true.begins & of_type[0]).sum(1) + (predicted.begins & of_type[1]).sum(1)
        both[index] = (true.in_both(predicted) & of_type[0]).sum(1)
    return named, both


def _entity_f1(labels: np.ndarray, predictions: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """F1 of all entities together: an entity is right if its words and its type are."""
    named, both = _entity_counts(labels, predictions)
    return np.asarray(2 * _sums(weights, both) / np.maximum(_sums(weights, named), 1))


def _entity_macro_f1(labels: np.ndarray, predictions: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Mean of F1 over the types of entities that a resampling has in its labels or predictions."""
    highest = int(max(labels.max(initial=0), predictions.max(initial=0)))
    total = present = np.zeros((len(predictions), len(weights)))
    for type_number in range(1, (highest + 1) // 2 + 1):
        named, both = (_sums(weights, counts) for counts in _entity_counts(labels, predictions, type_number))
        total = total + 2 * both / np.maximum(named, 1)
        present = present + (named > 0)
    return np.asarray(total / np.maximum(present, 1))


def _tag_accuracy(labels: np.ndarray, predictions: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Share of words with the right tag."""
    words = labels >= 0
    right = ((predictions == labels) & words).sum(axis=-1).astype(float)
    return np.asarray(_sums(weights, right) / np.maximum(_sums(weights, words.sum(1, dtype=float)[None]), 1))


def entity_type_f1(labels: np.ndarray, predictions: np.ndarray, types: int) -> list[float | None]:
    """Return F1 of the entities of each type in tags [n, words]; None for a type that neither has."""
    scores: list[float | None] = []
    for type_number in range(1, types + 1):
        named, both = (
            float(counts.sum()) for counts in _entity_counts(labels, predictions[None], type_number)
        )
        scores.append(2 * both / named if named else None)
    return scores


def _class_f1(
    labels: np.ndarray, predictions: np.ndarray, weights: np.ndarray, label: float
) -> tuple[np.ndarray, np.ndarray]:
    """Return F1 of a class, and whether it occurs at all in labels or predictions (1.0 or 0.0)."""
    true, predicted = (labels == label)[None], predictions == label
    named = _sums(weights, true) + _sums(weights, predicted)
    both = _sums(weights, true & predicted)
    return 2 * both / np.maximum(named, 1), (named > 0).astype(float)


def _matthews(labels: np.ndarray, predictions: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Matthews' correlation coefficient, -1 to 1, in Gorodkin's (2004) form for any number of classes."""
    n = len(labels)
    products = squares_true = squares_predicted = np.zeros(1)
    for label in np.union1d(labels, predictions):
        true = _sums(weights, (labels == label)[None])
        predicted = _sums(weights, predictions == label)
        products = products + true * predicted
        squares_true = squares_true + true**2
        squares_predicted = squares_predicted + predicted**2
    covariance = _sums(weights, predictions == labels) * n - products
    return _quotient(covariance, np.sqrt((n**2 - squares_true) * (n**2 - squares_predicted)))


def _pearson(labels: np.ndarray, predictions: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Pearson's correlation, -1 to 1."""
    x = (labels - labels.mean())[None]  # about their means: no difference of large numbers below
    y = predictions - predictions.mean(axis=1, keepdims=True)
    n = len(labels)
    sum_x, sum_y = _sums(weights, x), _sums(weights, y)
    spread_x = _sums(weights, x * x) - sum_x**2 / n
    spread_y = _sums(weights, y * y) - sum_y**2 / n
    constant = np.finfo(float).eps * n * np.array([np.max(x**2), *np.max(y**2, axis=1)])
    spread_x = np.where(spread_x > constant[0], spread_x, 0.0)
    spread_y = np.where(spread_y > constant[1:, None], spread_y, 0.0)
    return _quotient(_sums(weights, x * y) - sum_x * sum_y / n, np.sqrt(spread_x * spread_y))


def _spearman(labels: np.ndarray, predictions: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Spearman's rank correlation, -1 to 1: Pearson's of the mid-ranks within each resampling."""
    mean = (len(labels) + 1) / 2
    ranked = _mid_ranks(labels, weights) - mean
    spread = np.sum(weights * ranked**2, axis=1)
    values = np.empty((len(predictions), len(weights)))
    for index, predicted in enumerate(predictions):
        other = _mid_ranks(predicted, weights) - mean
        covariance = np.sum(weights * ranked * other, axis=1)
        values[index] = _quotient(covariance, np.sqrt(spread * np.sum(weights * other**2, axis=1)))
    return values


def _mid_ranks(values: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Return the mid-rank of each value among the drawn ones, [resamples, n]."""
    _, rank = np.unique(values, return_inverse=True)
    drawn = np.zeros((len(weights), rank.max() + 1))
    np.add.at(drawn.T, rank, weights.T)
    ends = np.cumsum(drawn, axis=1)
    return np.asarray((ends - (drawn - 1) / 2)[:, rank])


def _quotient(covariance: np.ndarray, spread: np.ndarray) -> np.ndarray:
    """Return correlations; a constant has none, which GLUE scores as 0."""
    return np.asarray(np.divide(covariance, spread, out=np.zeros_like(covariance), where=spread > 0))


def _normalise(text: str) -> str:
    """Lower case, no punctuation, no articles, single spaces: the official SQuAD rule."""
    text = "".join(char for char in text.lower() if char not in string.punctuation)
    return " ".join(re.sub(r"\b(a|an|the)\b", " ", text).split())


def _token_f1(answer: str, prediction: str) -> float:
    answer_tokens, predicted_tokens = answer.split(), prediction.split()
    shared = sum((collections.Counter(answer_tokens) & collections.Counter(predicted_tokens)).values())
    if not shared:
        return 0.0
    precision, recall = shared / len(predicted_tokens), shared / len(answer_tokens)
    return 2 * precision * recall / (precision + recall)


METRICS: dict[str, Metric] = {
    metric.name: metric
    for metric in (
        Metric("accuracy", _equal, of_classes=True, is_share=True),
        Metric("f1", _f1, of_classes=True),
        Metric("macro_f1", _macro_f1, of_classes=True),
        Metric("micro_f1", _micro_f1, of_classes=True),
        Metric("matthews", _matthews, of_classes=True, least=-1.0),
        Metric("entity_f1", _entity_f1, of_classes=True, of_tags=True),
        Metric("entity_macro_f1", _entity_macro_f1, of_classes=True, of_tags=True),
        Metric("tag_accuracy", _tag_accuracy, of_classes=True, of_tags=True),
        Metric("answer_f1", _mean_of(1), of_classes=True, of_scores=True),
        Metric("exact_match", _exact_match, of_classes=True, is_share=True, of_scores=True),
        Metric("ndcg_at_10", _mean_of(0), of_classes=False, of_scores=True),
        Metric("mrr_at_10", _mean_of(1), of_classes=False, of_scores=True),
        Metric("recall_at_10", _mean_of(1), of_classes=False, of_scores=True),
        Metric("pearson", _pearson, of_classes=False, least=-1.0),
        Metric("spearman", _spearman, of_classes=False, least=-1.0),
        Metric("agreement", _equal, of_classes=True, is_share=True, of_reference=True),
        Metric("agreement_pearson", _pearson, of_classes=False, of_reference=True, least=-1.0),
        Metric("agreement_spearman", _spearman, of_classes=False, of_reference=True, least=-1.0),
    )
}


def mean_score(values: Mapping[str, float]) -> float:
    """Return the score of a task in an average over tasks, as GLUE has it: the mean of its metrics.

    Matthews correlation counts alone, without the accuracy beside it (Wang et al. 2019, section 3).

    Args:
        values: metric -> value, the primary metric first.
    """
    first = next(iter(values))
    return values[first] if first == "matthews" else float(np.mean(list(values.values())))

"""One-sided: does b lose at most a margin against a, on the same examples?

The bounds and tests that ``check``, ``recommend`` and the calibration of exits and tokens share. The null
hypothesis is a loss of more than the margin; a small p-value rejects it.

    accuracy                          Tango's score test (Tango 1998, Statist. Med. 17:891-908)
    another metric                    paired bootstrap of examples
    another metric, few differ        worst case of what was not seen (Clopper and Pearson 1934)

Tango's test with 300 to 9815 rows, margins of 0.5 to 2 points and levels from 0.1 to 5 % rejects a true null
hypothesis at most 1.1 times as often as its level says (benchmarks/answers.py sums this exactly).
"""

from __future__ import annotations

import math

import numpy as np

from effx.stats import bootstrap, intervals
from effx.stats.metrics import Metric, same_rows

Bounds = tuple[float, float]
_RESAMPLES = 2000


def bounds(
    metric: Metric, labels: np.ndarray, a: np.ndarray, b: np.ndarray, confidence: float
) -> Bounds | None:
    """Return one-sided bounds of metric(b) - metric(a), each right in ``confidence`` of cases.

    Args:
        metric: of labels and predictions.
        labels: [n], or sets [n, labels].
        a: a's predictions, of the same shape.
        b: b's predictions.
        confidence: of each bound, above 0.5.

    None for a regression in which fewer than :data:`intervals.LEAST_DIFFERING` predictions differ.
    """
    interval = intervals.paired_interval(metric, labels, a, b, confidence=2 * confidence - 1)
    if interval is None and metric.has_worst_case:
        return intervals.few_differing_interval(metric, labels, a, b, confidence)
    return interval


def p_value(metric: Metric, labels: np.ndarray, a: np.ndarray, b: np.ndarray, margin: float) -> float:
    """Return the p-value of the hypothesis that metric(b) is more than ``margin`` below metric(a).

    Args:
        metric: of labels and predictions.
        labels: [n], or sets [n, labels].
        a: a's predictions, of the same shape.
        b: b's predictions.
        margin: accepted loss, at least 0.

    1 for a regression in which too few predictions differ.
    """
    if metric.is_share:
        only_a, only_b = (
            np.sum(same_rows(a, labels) & ~same_rows(b, labels)),
            np.sum(~same_rows(a, labels) & same_rows(b, labels)),
        )
        return float(accuracy_p_values(only_a, only_b, len(labels), margin))
    if int(np.sum(~same_rows(a, b))) >= intervals.LEAST_DIFFERING:
        return float(bootstrap_p_values(bootstrap.paired_differences(metric, labels, a, b[None]), margin)[0])
    if not metric.has_worst_case:
        return 1.0
    low, high = 1e-6, 0.5  # bisection: the least level at which the worst case is within the margin
    if intervals.few_differing_interval(metric, labels, a, b, 1 - high)[0] < -margin:
        return 1.0
    while high / low > 1.02:
        middle = float(np.sqrt(low * high))
        within = intervals.few_differing_interval(metric, labels, a, b, 1 - middle)[0] >= -margin
        low, high = (low, middle) if within else (middle, high)
    return high


def accuracy_p_values(
    only_a: np.ndarray | float, only_b: np.ndarray | float, n: int, margin: float
) -> np.ndarray:
    """Return p-values of Tango's score test that b's accuracy is more than ``margin`` below a's.

    Args:
        only_a: number of examples on which only a is right, any shape.
        only_b: likewise for b.
        n: number of examples.
        margin: accepted loss, at least 0.

    They are at most alpha if and only if the lower end of :func:`effx.stats.intervals.tango` with confidence
    1 - 2 alpha is at least -margin.
    """
    from scipy import stats

    only_a, only_b = np.asarray(only_a, dtype=float), np.asarray(only_b, dtype=float)
    # the share of "only a" is its maximum-likelihood estimate given the difference -margin (Tango's q21)
    linear = -only_b - only_a - (2 * n - only_b + only_a) * margin
    constant = only_a * margin * (1 + margin)
    share = (np.sqrt(np.maximum(linear * linear - 8 * n * constant, 0.0)) - linear) / (4 * n)
    variance = n * np.maximum(2 * share - margin * (1 + margin), 0.0)
    excess = only_b - only_a + n * margin
    with np.errstate(divide="ignore", invalid="ignore"):
        z = np.where(variance > 0, excess / np.sqrt(variance), np.where(excess > 0, np.inf, 0.0))
    return np.asarray(stats.norm.sf(z))


def fixed_sequence(
    metric: Metric, labels: np.ndarray, a: np.ndarray, others: np.ndarray, margin: float, level: float
) -> int:
    """Return how many of ``others`` are proven to lose at most ``margin``, before the first that is not.

    Testing in a fixed order and stopping at the first failure needs no adjustment for the number of tests
    (Angelopoulos et al. 2021, Learn then Test, section 4), if the order does not depend on the labels.

    Args:
        metric: of labels and predictions.
        labels: [n], or sets [n, labels].
        a: a's predictions, of the same shape.
        others: predictions in the order of testing, [others, ...] of that shape.
        margin: accepted loss, at least 0.
        level: of every test, one-sided.
    """
    if metric.name == "accuracy":
        before = same_rows(a, labels)
        right = np.array([same_rows(predictions, labels) for predictions in others])
        counts = (before & ~right).sum(axis=1), (~before & right).sum(axis=1)
        failed = np.flatnonzero(accuracy_p_values(*counts, len(labels), margin) > level)
        return int(failed[0]) if len(failed) else len(others)
    for index, predictions in enumerate(others):
        repeated = index > 0 and np.array_equal(predictions, others[index - 1])
        if not repeated and p_value(metric, labels, a, predictions, margin) > level:
            return index
    return len(others)


def rows_needed(margin: float, confidence: float) -> int:
    """Return the number of rows below which not even equal predictions prove a loss of at most ``margin``."""
    z = intervals.normal(2 * confidence - 1)
    return math.ceil(z * z * (1 - margin) / max(margin, 1e-6)) if margin < 1 else 1


def bootstrap_p_values(differences: np.ndarray, margin: float) -> np.ndarray:
    """Return p-values [engines] from resampled differences [engines, resamples]: the share beyond the margin.

    At least 1 / (resamples + 1): no number of resamplings shows that nothing lies beyond.
    """
    beyond = np.sum(differences < -margin - 1e-12, axis=-1)
    return np.asarray((beyond + 1) / (differences.shape[-1] + 1))

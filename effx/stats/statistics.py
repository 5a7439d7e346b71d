"""Intervals and paired comparisons, 95 % unless said otherwise; numpy and scipy only.

benchmarks/coverage.py simulates how often each interval holds the truth.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from scipy import optimize, stats

from effx.stats import metrics
from effx.stats.metrics import Metric

Statistic = Callable[[np.ndarray], float]

CONFIDENCE = 0.95
_RESAMPLES = 2000
_RESAMPLES_FOR_ERROR = 1000  # a standard error is known to 2 % by then
_LEAST_ROUNDS = 3
_GATHERED = 4_000_000  # entries of a bootstrap that are in memory at a time


@dataclass(frozen=True)
class Ratio:
    """A ratio of two positive quantities, with its interval."""

    value: float
    interval: tuple[float, float]


def median(samples: np.ndarray) -> float:
    """Return the median of samples [n]."""
    return float(np.median(samples))


def mean(samples: np.ndarray) -> float:
    """Return the mean of samples [n]."""
    return float(np.mean(samples))


def wilson(successes: int, n: int) -> tuple[float, float]:
    """Return Wilson's interval of a proportion."""
    interval = stats.binomtest(successes, n).proportion_ci(CONFIDENCE, method="wilson")
    return float(interval.low), float(interval.high)


def mcnemar(a_right: np.ndarray, b_right: np.ndarray) -> float:
    """Return the exact two-sided p-value of McNemar (1947): are a and b right equally often?

    Args:
        a_right: booleans [n], whether a is right on each example.
        b_right: likewise for b, on the same examples.

    Only examples on which exactly one is right count; with none of them the value is 1.
    """
    only_a, only_b = _discordant(a_right, b_right)
    if only_a + only_b == 0:
        return 1.0
    return float(stats.binomtest(only_a, only_a + only_b, 0.5).pvalue)


def paired_accuracy_interval(a_right: np.ndarray, b_right: np.ndarray) -> tuple[float, float]:
    """Return Tango's score interval of b's accuracy minus a's (Tango 1998, Statist. Med. 17:891-908).

    Args:
        a_right: booleans [n], whether a is right on each example.
        b_right: likewise for b, on the same examples.

    Unlike a bootstrap or Wald's interval it has width when a and b are right on the same examples.
    """
    n = len(a_right)
    only_a, only_b = _discordant(a_right, b_right)
    difference = (only_b - only_a) / n
    z = float(stats.norm.ppf(0.5 + CONFIDENCE / 2))

    def excess(delta: float) -> float:
        # n (d - delta)^2 - z^2 times its variance under delta: negative inside the interval.
        # The share of "only a" is its maximum-likelihood estimate given delta (Tango's q21).
        linear = -only_b - only_a + (2 * n - only_b + only_a) * delta
        constant = -only_a * delta * (1 - delta)
        share = (np.sqrt(max(linear * linear - 8 * n * constant, 0.0)) - linear) / (4 * n)
        return float(n * (difference - delta) ** 2 - z * z * (2 * share + delta * (1 - delta)))

    inside = 1e-9  # at the difference itself the variance, and so the excess, can be 0
    low = optimize.brentq(excess, -1.0, difference - inside) if difference > -1 else -1.0
    high = optimize.brentq(excess, difference + inside, 1.0) if difference < 1 else 1.0
    return float(low), float(high)


def holm(p_values: Sequence[float]) -> list[float]:
    """Return p-values adjusted for their number by Holm's step-down rule (Holm 1979), in their order."""
    order = np.argsort(p_values, kind="stable")
    factors = np.arange(len(order), 0, -1)
    stepped = np.maximum.accumulate(np.asarray(p_values, dtype=float)[order] * factors)
    adjusted = np.empty(len(order))
    adjusted[order] = np.minimum(stepped, 1.0)
    return [float(value) for value in adjusted]


def paired_bootstrap(
    metric: Metric,
    labels: np.ndarray,
    a: np.ndarray,
    b: np.ndarray,
    *,
    resamples: int = _RESAMPLES,
    seed: int = 0,
) -> tuple[float, float]:
    """Return the percentile interval of metric(b) - metric(a) under resampling of examples.

    Args:
        metric: of labels and predictions; those of :mod:`effx.stats.metrics` are computed for many
            resamplings at once, any other one by one.
        labels: [n].
        a: a's predictions [n].
        b: b's, on the same examples.
        resamples: how many.
        seed: of the resampling.

    Few differing predictions make it too narrow, and none make it a point: see
    :data:`effx.analysis.comparison.LEAST_DIFFERING`.
    """
    rng = np.random.default_rng(seed)
    n = len(labels)
    many = _MANY.get(metric) or _one_by_one(metric)
    values = []
    for start in range(0, resamples, max(1, _GATHERED // n)):
        rows = rng.integers(0, n, (min(max(1, _GATHERED // n), resamples - start), n))
        drawn = labels[rows]
        values.append(many(drawn, b[rows]) - many(drawn, a[rows]))
    return _percentile_interval(np.concatenate(values))


def bootstrap_metric(
    metric: Metric,
    labels: np.ndarray,
    predictions: np.ndarray,
    *,
    resamples: int = 1000,
    seed: int = 0,
) -> tuple[float, float]:
    """Return the percentile interval of a metric under resampling of examples."""
    rng = np.random.default_rng(seed)
    n = len(labels)
    values = []
    for _ in range(resamples):
        rows = rng.integers(0, n, n)
        values.append(metric(labels[rows], predictions[rows]))
    return _percentile_interval(np.array(values))


def block_interval(
    blocks: Sequence[Sequence[float]],
    statistic: Statistic = median,
    *,
    seed: int = 0,
) -> tuple[float, float] | None:
    """Return an interval of a statistic of all samples, from resamplings of whole blocks.

    Args:
        blocks: positive samples, a list per block.
        statistic: of all samples [n]; positive.
        seed: of the resampling.

    Samples inside a block are correlated, so blocks are the units. None with fewer than three.

    The resamplings give the standard error of the logarithm, Student's t with blocks - 1 degrees
    the width: with ten blocks the percentiles of the resamplings themselves hold the truth in 90 %
    of cases only, because they are narrow by sqrt((n - 1) / n) and normal rather than t (Efron and
    Tibshirani 1993, An Introduction to the Bootstrap, section 12.5; Hesterberg 2015, Am. Stat. 69:371-386).
    Where the blocks' own statistics spread wider than that, as with few short blocks, theirs is the error.
    """
    values = block_resamples(blocks, statistic, resamples=_RESAMPLES_FOR_ERROR, seed=seed)
    if values is None:
        return None
    centre = statistic(np.concatenate([np.asarray(block, dtype=float) for block in blocks]))
    own = np.array([statistic(np.asarray(block, dtype=float)) for block in blocks])
    return log_interval(values, centre, len(blocks), least=spread_error(own))


def spread_error(own: np.ndarray) -> float:
    """Return the standard error of the mean logarithm of the blocks' own statistics, [blocks]."""
    return float(np.std(np.log(own), ddof=1) / np.sqrt(len(own)))


def log_interval(values: np.ndarray, centre: float, n: int, least: float = 0.0) -> tuple[float, float]:
    """Return the interval about ``centre`` from its values in resamplings of n units, all positive.

    Args:
        values: [resamples].
        centre: what was measured.
        n: units that were resampled.
        least: standard error of the logarithm below which the resamplings' is not believed.
    """
    error = max(least, float(np.std(np.log(values))) * np.sqrt(n / (n - 1)))
    half = error * _student(n - 1)
    return float(centre * np.exp(-half)), float(centre * np.exp(half))


def block_resamples(
    blocks: Sequence[Sequence[float]],
    statistic: Statistic,
    *,
    resamples: int = _RESAMPLES,
    seed: int = 0,
) -> np.ndarray | None:
    """Return the statistic of ``resamples`` resamplings of whole blocks; None below three."""
    if len(blocks) < _LEAST_ROUNDS:
        return None
    rng = np.random.default_rng(seed)
    arrays = [np.asarray(block, dtype=float) for block in blocks]
    draws = rng.integers(0, len(arrays), (resamples, len(arrays)))
    return np.array([statistic(np.concatenate([arrays[i] for i in draw])) for draw in draws])


def paired_ratio(
    blocks_a: Sequence[Sequence[float]],
    rounds_a: Sequence[int],
    blocks_b: Sequence[Sequence[float]],
    rounds_b: Sequence[int],
    statistic: Statistic = median,
) -> Ratio | None:
    """Return the ratio of b to a from the rounds that both have; None with fewer than three.

    Args:
        blocks_a: a's positive samples, a list per block.
        rounds_a: the round of each block of a.
        blocks_b: b's samples.
        rounds_b: the round of each block of b.
        statistic: of a round's samples [n]; positive.

    The value is the geometric mean over rounds of b's statistic over a's. Blocks of a round ran
    next to each other, so what slows the host slows both and leaves their ratio; rounds are the
    units, and the interval is Student's on the logarithms of the rounds' ratios.
    """
    levels_a = _by_round(blocks_a, rounds_a, statistic)
    levels_b = _by_round(blocks_b, rounds_b, statistic)
    common = sorted(levels_a.keys() & levels_b.keys())
    if len(common) < _LEAST_ROUNDS:
        return None
    logs = np.log([levels_b[number] / levels_a[number] for number in common])
    return _ratio(mean(logs), _standard_error(logs), len(logs) - 1)


def unpaired_ratio(
    blocks_a: Sequence[Sequence[float]],
    blocks_b: Sequence[Sequence[float]],
    statistic: Statistic = median,
) -> Ratio | None:
    """Return the ratio of b to a from blocks that did not run side by side; None below three of each.

    Args:
        blocks_a: a's positive samples, a list per block.
        blocks_b: b's.
        statistic: of a block's samples [n]; positive.

    The value is the ratio of the geometric means of the blocks' statistics, the interval Welch's
    (1947) on logarithms. It cannot know what changed on the host between the two.
    """
    if min(len(blocks_a), len(blocks_b)) < _LEAST_ROUNDS:
        return None
    logs_a, logs_b = (
        np.log([statistic(np.asarray(block, dtype=float)) for block in blocks])
        for blocks in (blocks_a, blocks_b)
    )
    squares = np.array([_standard_error(logs_a) ** 2, _standard_error(logs_b) ** 2])
    total = float(squares.sum())
    if total == 0.0:
        return _ratio(mean(logs_b) - mean(logs_a), 0.0, 1)
    degrees = total**2 / float(np.sum(squares**2 / [len(logs_a) - 1, len(logs_b) - 1]))
    return _ratio(mean(logs_b) - mean(logs_a), float(np.sqrt(total)), degrees)


def ratio_of_intervals(
    a: float, interval_a: tuple[float, float], b: float, interval_b: tuple[float, float]
) -> tuple[float, float] | None:
    """Return the interval of b / a from independent intervals of both (Zou and Donner 2008, MOVER).

    On logarithms the distances from the estimates to their limits add in squares. None where an
    interval reaches 0, which says nothing about a ratio.
    """
    if min(interval_a[0], interval_b[0]) <= 0:
        return None
    log_a, log_b = np.log([*interval_a, a]), np.log([*interval_b, b])
    low = np.hypot(log_b[2] - log_b[0], log_a[1] - log_a[2])
    high = np.hypot(log_b[1] - log_b[2], log_a[2] - log_a[0])
    return float(b / a * np.exp(-low)), float(b / a * np.exp(high))


def mean_interval(values: Sequence[float]) -> tuple[float, float] | None:
    """Return Student's interval of a mean; None with fewer than two values."""
    if len(values) < 2:
        return None
    centre, error = float(np.mean(values)), _standard_error(values)
    half = error * _student(len(values) - 1)
    return centre - half, centre + half


def _ratio(log: float, error: float, degrees: float) -> Ratio:
    half = error * _student(degrees)
    return Ratio(float(np.exp(log)), (float(np.exp(log - half)), float(np.exp(log + half))))


def _standard_error(values: Sequence[float] | np.ndarray) -> float:
    """Return the standard error of a mean; SciPy's takes a hundred times as long to set up."""
    return float(np.std(values, ddof=1) / np.sqrt(len(values)))


@functools.lru_cache(maxsize=4096)
def _student(degrees: float) -> float:
    """Return how many standard errors hold a mean in 95 % of cases."""
    return float(stats.t.ppf(0.5 + CONFIDENCE / 2, degrees))


def _by_round(
    blocks: Sequence[Sequence[float]], rounds: Sequence[int], statistic: Statistic
) -> dict[int, float]:
    """Return the statistic of each round's samples."""
    samples: dict[int, list[float]] = {}
    for block, number in zip(blocks, rounds, strict=True):
        samples.setdefault(number, []).extend(block)
    return {number: statistic(np.array(values)) for number, values in samples.items()}


def _discordant(a_right: np.ndarray, b_right: np.ndarray) -> tuple[int, int]:
    """Return on how many examples only a is right, and only b."""
    if a_right.shape != b_right.shape or not len(a_right):
        raise ValueError("a and b must be right or wrong on the same examples, at least one")
    return int(np.sum(a_right & ~b_right)), int(np.sum(~a_right & b_right))


def _percentile_interval(values: np.ndarray) -> tuple[float, float]:
    low, high = np.quantile(values, [(1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2])
    return float(low), float(high)


_ManyMetrics = Callable[[np.ndarray, np.ndarray], np.ndarray]
"""Labels and predictions [resamples, n] in, values [resamples] out."""


def _one_by_one(metric: Metric) -> _ManyMetrics:
    return lambda labels, predictions: np.array(
        [metric(row, own) for row, own in zip(labels, predictions, strict=True)]
    )


def _many_accuracy(labels: np.ndarray, predictions: np.ndarray) -> np.ndarray:
    return np.asarray(np.mean(labels == predictions, axis=1))


def _many_f1(labels: np.ndarray, predictions: np.ndarray) -> np.ndarray:
    return _f1_of_class(labels, predictions, 1)[0]


def _many_macro_f1(labels: np.ndarray, predictions: np.ndarray) -> np.ndarray:
    """Unweighted mean over the classes that a resampling has in its labels or predictions."""
    classes = np.union1d(labels, predictions)
    scores, present = np.stack([_f1_of_class(labels, predictions, float(label)) for label in classes], axis=1)
    return np.asarray(scores.sum(axis=0) / present.sum(axis=0))


def _f1_of_class(labels: np.ndarray, predictions: np.ndarray, label: float) -> tuple[np.ndarray, np.ndarray]:
    """Return F1 [resamples], and whether the class occurs at all (1.0 or 0.0)."""
    true, predicted = labels == label, predictions == label
    named = true.sum(axis=1) + predicted.sum(axis=1)
    return 2 * (true & predicted).sum(axis=1) / np.maximum(named, 1), (named > 0).astype(float)


def _many_matthews(labels: np.ndarray, predictions: np.ndarray) -> np.ndarray:
    """Gorodkin's (2004) form for any number of classes."""
    classes = np.union1d(labels, predictions)
    n = labels.shape[1]
    true = np.stack([np.sum(labels == label, axis=1) for label in classes]).astype(float)
    predicted = np.stack([np.sum(predictions == label, axis=1) for label in classes]).astype(float)
    right = np.sum(labels == predictions, axis=1).astype(float)
    covariance = right * n - np.sum(true * predicted, axis=0)
    spread = np.sqrt((n**2 - np.sum(true**2, axis=0)) * (n**2 - np.sum(predicted**2, axis=0)))
    return _quotient(covariance, spread)


def _many_pearson(labels: np.ndarray, predictions: np.ndarray) -> np.ndarray:
    x = labels - labels.mean(axis=1, keepdims=True)
    y = predictions - predictions.mean(axis=1, keepdims=True)
    covariance = np.sum(x * y, axis=1)
    spread = np.sqrt(np.sum(x * x, axis=1) * np.sum(y * y, axis=1))
    return _quotient(covariance, spread)


def _quotient(covariance: np.ndarray, spread: np.ndarray) -> np.ndarray:
    """Return correlations [resamples]; a constant has none, which GLUE scores as 0."""
    return np.asarray(np.divide(covariance, spread, out=np.zeros_like(covariance), where=spread > 0))


def _many_spearman(labels: np.ndarray, predictions: np.ndarray) -> np.ndarray:
    return _many_pearson(stats.rankdata(labels, axis=1), stats.rankdata(predictions, axis=1))


_MANY: dict[Metric, _ManyMetrics] = {
    metrics.accuracy: _many_accuracy,
    metrics.f1: _many_f1,
    metrics.macro_f1: _many_macro_f1,
    metrics.matthews: _many_matthews,
    metrics.pearson: _many_pearson,
    metrics.spearman: _many_spearman,
}
"""The same values as one by one, a hundred times as fast."""

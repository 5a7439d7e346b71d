"""Bootstrap: statistics of resamplings of examples, and of whole blocks of samples."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Iterator, Sequence

import numpy as np

from effx.stats import CONFIDENCE
from effx.stats.metrics import Metric

Statistic = Callable[[np.ndarray], float]
LEAST_BLOCKS = 3
"""Minimum number of blocks or rounds for an estimate of their spread."""
_RESAMPLES = 2000
_MOST_WEIGHTS = 4_000_000  # weights of examples in memory at a time
_MOST_KEPT = 8_000_000  # between calls: all engines of a task are resampled alike, and drawing takes longest


def metric_interval(
    metric: Metric,
    labels: np.ndarray,
    predictions: np.ndarray,
    *,
    resamples: int = 1000,
    seed: int = 0,
) -> tuple[float, float]:
    """Return the percentile interval of a metric under resampling of examples.

    Args:
        metric: of labels and predictions.
        labels: [n].
        predictions: [n].
        resamples: how many.
        seed: of the resampling.
    """
    values = _resampled(metric, labels, np.asarray(predictions)[None], resamples, seed)
    return percentile_interval(values[0])


def paired_difference(
    metric: Metric,
    labels: np.ndarray,
    a: np.ndarray,
    b: np.ndarray,
    *,
    resamples: int = _RESAMPLES,
    seed: int = 0,
    confidence: float = CONFIDENCE,
) -> tuple[float, float]:
    """Return the percentile interval of metric(b) - metric(a) under resampling of examples.

    Args:
        metric: of labels and predictions.
        labels: [n].
        a: a's predictions [n].
        b: b's predictions, on the same examples.
        resamples: how many.
        seed: of the resampling.
        confidence: how often the interval holds the truth.

    Few differing predictions make it too narrow, and none make it a point:
    :func:`effx.stats.intervals.paired_interval` refuses them.
    """
    differences = paired_differences(metric, labels, a, np.asarray(b)[None], resamples=resamples, seed=seed)
    return percentile_interval(differences[0], confidence)


def paired_differences(
    metric: Metric,
    labels: np.ndarray,
    a: np.ndarray,
    others: np.ndarray,
    *,
    resamples: int = _RESAMPLES,
    seed: int = 0,
) -> np.ndarray:
    """Return metric(other) - metric(a) of each other in every resampling of examples, [others, resamples].

    Args:
        metric: of labels and predictions.
        labels: [n].
        a: a's predictions [n].
        others: predictions on the same examples, [others, n].
        resamples: how many.
        seed: of the resampling.
    """
    values = _resampled(metric, labels, np.concatenate([np.asarray(a)[None], others]), resamples, seed)
    return np.asarray(values[1:] - values[0])


def block_statistics(
    blocks: Sequence[Sequence[float]],
    statistic: Statistic,
    *,
    resamples: int = _RESAMPLES,
    seed: int = 0,
) -> np.ndarray | None:
    """Return the statistic of ``resamples`` resamplings of whole blocks; None below three blocks."""
    if len(blocks) < LEAST_BLOCKS:
        return None
    rng = np.random.default_rng(seed)
    arrays = [np.asarray(block, dtype=float) for block in blocks]
    draws = rng.integers(0, len(arrays), (resamples, len(arrays)))
    return np.array([statistic(np.concatenate([arrays[i] for i in draw])) for draw in draws])


def percentile_interval(values: np.ndarray, confidence: float = CONFIDENCE) -> tuple[float, float]:
    """Return the interval that holds the middle ``confidence`` of values [resamples]."""
    low, high = np.quantile(values, [(1 - confidence) / 2, (1 + confidence) / 2])
    return float(low), float(high)


def _resampled(
    metric: Metric, labels: np.ndarray, predictions: np.ndarray, resamples: int, seed: int
) -> np.ndarray:
    """Return the metric of predictions [engines, n] in each resampling, [engines, resamples]."""
    labels, predictions = np.asarray(labels, dtype=float), np.asarray(predictions, dtype=float)
    parts = [
        metric.weighted(labels, predictions, weights) for weights in _weights(len(labels), resamples, seed)
    ]
    return np.concatenate(parts, axis=1)


def _weights(n: int, resamples: int, seed: int) -> Iterable[np.ndarray]:
    """Return how often each of n examples is drawn, [some of the resamples, n] each."""
    kept = n * resamples <= _MOST_KEPT
    return _kept_weights(n, resamples, seed) if kept else _drawn_weights(n, resamples, seed)


@functools.lru_cache(maxsize=2)
def _kept_weights(n: int, resamples: int, seed: int) -> tuple[np.ndarray, ...]:
    parts = tuple(_drawn_weights(n, resamples, seed))
    for part in parts:
        part.setflags(write=False)
    return parts


def _drawn_weights(n: int, resamples: int, seed: int) -> Iterator[np.ndarray]:
    rng = np.random.default_rng(seed)
    step = max(1, _MOST_WEIGHTS // n)
    for start in range(0, resamples, step):
        count = min(step, resamples - start)
        rows = rng.integers(0, n, (count, n)) + n * np.arange(count)[:, None]
        drawn = np.bincount(rows.ravel(), minlength=count * n).reshape(count, n)
        yield drawn.astype(np.float32)

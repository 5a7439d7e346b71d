"""Intervals and paired comparisons, 95 % unless said otherwise; numpy and scipy only."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from scipy import stats

CONFIDENCE = 0.95
_RESAMPLES = 2000


def wilson(successes: int, n: int) -> tuple[float, float]:
    """Return Wilson's interval of a proportion."""
    interval = stats.binomtest(successes, n).proportion_ci(CONFIDENCE, method="wilson")
    return float(interval.low), float(interval.high)


def bootstrap_metric(
    metric: Callable[[np.ndarray, np.ndarray], float],
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
    statistic: Callable[[np.ndarray], float] = lambda samples: float(np.median(samples)),
    *,
    seed: int = 0,
) -> tuple[float, float] | None:
    """Return an interval of a statistic of all samples by resampling whole blocks.

    Samples inside a block are correlated, so blocks are the units. None with fewer than three.
    """
    values = block_resamples(blocks, statistic, seed=seed)
    return None if values is None else _percentile_interval(values)


def block_resamples(
    blocks: Sequence[Sequence[float]],
    statistic: Callable[[np.ndarray], float],
    *,
    resamples: int = _RESAMPLES,
    seed: int = 0,
) -> np.ndarray | None:
    """Return the statistic of ``resamples`` resamplings of whole blocks; None below three."""
    if len(blocks) < 3:
        return None
    rng = np.random.default_rng(seed)
    arrays = [np.asarray(block, dtype=float) for block in blocks]
    draws = rng.integers(0, len(arrays), (resamples, len(arrays)))
    return np.array([statistic(np.concatenate([arrays[i] for i in draw])) for draw in draws])


def mean_interval(values: Sequence[float]) -> tuple[float, float] | None:
    """Return Student's interval of a mean; None with fewer than two values."""
    if len(values) < 2:
        return None
    mean, error = float(np.mean(values)), float(stats.sem(values))
    half = error * float(stats.t.ppf(0.5 + CONFIDENCE / 2, len(values) - 1))
    return mean - half, mean + half


def _percentile_interval(values: np.ndarray) -> tuple[float, float]:
    low, high = np.quantile(values, [(1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2])
    return float(low), float(high)

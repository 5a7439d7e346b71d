"""Scores of several training runs, one per seed: their spread, and a paired test between two groups."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass

import numpy as np
from scipy import stats

_EQUAL = 1e-12
"""Scores that differ by less are equal but for rounding."""


@dataclass(frozen=True)
class Spread:
    """Scores over seeds."""

    mean: float
    std: float | None
    """Standard deviation with n - 1 in the denominator; None for one seed."""
    low: float
    high: float
    n: int

    @classmethod
    def of(cls, values: Sequence[float]) -> Spread:
        """Return the spread of at least one score."""
        std = float(np.std(values, ddof=1)) if len(values) > 1 else None
        return cls(float(np.mean(values)), std, min(values), max(values), len(values))


@dataclass(frozen=True)
class PairedTest:
    """A paired Student's t-test over seeds."""

    difference: float
    """Mean."""
    std: float | None
    """Of the differences; None: one seed has none."""
    p: float | None
    """Two-sided; None: ``reason`` says why."""
    n: int
    """Seeds."""
    reason: str | None = None

    def to_json(self) -> dict[str, float | int | str | None]:
        """Return its fields as JSON."""
        return asdict(self)


def paired_test(full: Sequence[float], other: Sequence[float]) -> PairedTest:
    """Return the paired Student's t-test of ``other`` against ``full`` over seeds, as in the paper."""
    differences = np.asarray(other) - np.asarray(full)
    n, mean = len(differences), float(differences.mean())
    if n < 2:
        return PairedTest(mean, None, None, n, "one seed has no spread: use 2 or more seeds")
    std = float(differences.std(ddof=1))
    if np.ptp(differences) < _EQUAL:
        return PairedTest(mean, std, None, n, "the difference is the same for every seed")
    return PairedTest(mean, std, float(stats.ttest_rel(other, full).pvalue), n)


@dataclass(frozen=True)
class SpreadRatio:
    """Standard deviation over seeds of a baseline divided by that of another group of runs."""

    baseline: float
    other: float
    ratio: float | None
    """None: one of them is 0."""
    low: float | None
    """95 % interval from the F distribution, as for two independent normal samples."""
    high: float | None
    p: float | None
    """Two-sided F-test."""


def spread_ratio(baseline: Spread, other: Spread) -> SpreadRatio | None:
    """Return the ratio of two standard deviations; None: one seed has none.

    Seeds are shared, so the samples are not independent; with scores that rise and fall together the interval
    is too wide, never too narrow in the mean.
    """
    if baseline.std is None or other.std is None:
        return None
    if min(other.std, baseline.std) < _EQUAL:
        return SpreadRatio(baseline.std, other.std, None, None, None, None)
    ratio = baseline.std / other.std
    distribution = stats.f(baseline.n - 1, other.n - 1)
    low, high = (ratio / math.sqrt(distribution.ppf(quantile)) for quantile in (0.975, 0.025))
    tail = min(distribution.cdf(ratio**2), distribution.sf(ratio**2))
    return SpreadRatio(baseline.std, other.std, ratio, low, high, min(1.0, 2 * float(tail)))

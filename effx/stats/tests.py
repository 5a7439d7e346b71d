"""Tests of hypotheses, and their adjustment for the number of tests."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np


def mcnemar(a_right: np.ndarray, b_right: np.ndarray) -> float:
    """Return the exact two-sided p-value of McNemar (1947): are a and b right equally often?

    Args:
        a_right: booleans [n], whether a is right on each example.
        b_right: likewise for b, on the same examples.

    Only examples on which exactly one is right count; with none of them the value is 1.
    """
    from scipy import stats

    only_a, only_b = discordant(a_right, b_right)
    if only_a + only_b == 0:
        return 1.0
    return float(stats.binomtest(only_a, only_a + only_b, 0.5).pvalue)


def two_sided(differences: np.ndarray) -> float:
    """Return the two-sided p-value of no difference, from its resamplings [resamples].

    Twice the smaller share of the resamplings on one side of 0, itself included: below 1 - confidence where
    the percentile interval excludes 0 (Efron and Tibshirani 1993, section 15.4; the
    added ones: Davison and Hinkley 1997, section 4.2).
    """
    beyond = min(int(np.sum(differences <= 0)), int(np.sum(differences >= 0)))
    return min(1.0, 2 * (beyond + 1) / (len(differences) + 1))


def normal_two_sided(difference: float, error: float) -> float:
    """Return the two-sided p-value that an estimate with a normal error is of 0.

    Args:
        difference: the estimate.
        error: its standard error, above 0.
    """
    from scipy import stats

    return float(2 * stats.norm.sf(abs(difference) / error))


def student_two_sided(difference: float, error: float, degrees: float) -> float:
    """Return the two-sided p-value that an estimate is of 0, by Student's t.

    Args:
        difference: the estimate.
        error: its standard error, above 0.
        degrees: of freedom; may be infinite.
    """
    from scipy import stats

    return float(2 * stats.t.sf(abs(difference) / error, degrees))


def holm(p_values: Sequence[float]) -> list[float]:
    """Return p-values adjusted for their number by Holm's step-down rule (Holm 1979), in their order."""
    order = np.argsort(p_values, kind="stable")
    factors = np.arange(len(order), 0, -1)
    stepped = np.maximum.accumulate(np.asarray(p_values, dtype=float)[order] * factors)
    adjusted = np.empty(len(order))
    adjusted[order] = np.minimum(stepped, 1.0)
    return [float(value) for value in adjusted]


def holm_of_known(p_values: Sequence[float | None]) -> list[float | None]:
    """Return p-values adjusted by :func:`holm` for the number of those that are known, in their order."""
    adjusted = iter(holm([p for p in p_values if p is not None]))
    return [None if p is None else next(adjusted) for p in p_values]


def holm_levels(p_values: np.ndarray, alpha: float) -> np.ndarray:
    """Return the level at which Holm's step-down rule tests each hypothesis; it is rejected if p <= level.

    Args:
        p_values: [m, ...], the hypotheses along the first axis.
        alpha: the chance that any true hypothesis is rejected is at most this.
    """
    m = len(p_values)
    order = np.argsort(p_values, axis=0, kind="stable")
    ranked = np.take_along_axis(p_values, order, axis=0)
    steps = (alpha / np.arange(m, 0, -1)).reshape(m, *[1] * (ranked.ndim - 1))
    # as far as all before it were rejected; from the first that is not, the level stays
    rejected = np.logical_and.accumulate(ranked <= steps, axis=0)
    count = np.minimum(rejected.sum(axis=0), m - 1)
    levels = np.minimum(steps, steps.ravel()[count])
    result = np.empty(ranked.shape)
    np.put_along_axis(result, order, np.broadcast_to(levels, ranked.shape), axis=0)
    return result


def fallback_levels(p_values: np.ndarray, alpha: float) -> np.ndarray:
    """Return the level at which the fallback procedure tests each hypothesis; it is rejected if p <= level.

    Each hypothesis has an equal share of alpha, and a rejected one passes its level on to the next (Wiens
    2003, Pharm. Stat. 2:211-215). Where they are rejected one after the other this is a fixed sequence, and
    the last is tested at alpha; one that is not rejected does not keep the others from being tested.

    Args:
        p_values: [m, ...], in an order that does not depend on the data of the p-values.
        alpha: the chance that any true hypothesis is rejected is at most this.
    """
    levels = np.empty(np.shape(p_values))
    carried = np.zeros(np.shape(p_values)[1:])
    for index, p in enumerate(p_values):
        levels[index] = alpha / len(p_values) + carried
        carried = np.where(p <= levels[index], levels[index], 0.0)
    return levels


def binomial_excess(count: int, n: int, share: float) -> float:
    """Return how likely at least ``count`` of n events are that each occur with probability ``share``."""
    from scipy import stats

    return float(stats.binom.sf(count - 1, n, share))


def two_samples(a: np.ndarray, b: np.ndarray) -> tuple[float, float]:
    """Return Kolmogorov and Smirnov's distance of two samples, and the p-value that they are of one
    distribution.

    Ties make the p-value too large, so that a difference is reported too rarely.

    Args:
        a: [m].
        b: [n].
    """
    from scipy import stats

    result = stats.ks_2samp(a, b, method="asymp")
    return float(result.statistic), float(result.pvalue)


def discordant(a_right: np.ndarray, b_right: np.ndarray) -> tuple[int, int]:
    """Return the number of examples on which only a is right, and on which only b is.

    Raises:
        ValueError: a and b have different numbers of examples, or none.
    """
    if a_right.shape != b_right.shape or not len(a_right):
        raise ValueError("a and b must be right or wrong on the same examples, at least one")
    return int(np.sum(a_right & ~b_right)), int(np.sum(~a_right & b_right))

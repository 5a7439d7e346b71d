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


def holm(p_values: Sequence[float]) -> list[float]:
    """Return p-values adjusted for their number by Holm's step-down rule (Holm 1979), in their order."""
    order = np.argsort(p_values, kind="stable")
    factors = np.arange(len(order), 0, -1)
    stepped = np.maximum.accumulate(np.asarray(p_values, dtype=float)[order] * factors)
    adjusted = np.empty(len(order))
    adjusted[order] = np.minimum(stepped, 1.0)
    return [float(value) for value in adjusted]


def discordant(a_right: np.ndarray, b_right: np.ndarray) -> tuple[int, int]:
    """Return the number of examples on which only a is right, and on which only b is.

    Raises:
        ValueError: a and b have different numbers of examples, or none.
    """
    if a_right.shape != b_right.shape or not len(a_right):
        raise ValueError("a and b must be right or wrong on the same examples, at least one")
    return int(np.sum(a_right & ~b_right)), int(np.sum(~a_right & b_right))

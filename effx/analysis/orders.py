"""Whether two tasks, or two lengths of the inputs, order the techniques alike."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from effx.analysis import resampling
from effx.analysis.objectives import Interval
from effx.stats import ranks

LEAST_RANKED = 3
"""Techniques below which an order says nothing."""


@dataclass(frozen=True)
class Ranked:
    """What techniques are ordered by, on one task or at one length."""

    values: Sequence[float]
    draws: np.ndarray
    """In joint resamplings [techniques, resamples]; independent of those of the other task or length."""
    widened: float = 1.0
    """By how much these are too narrow."""
    single_readings: bool = False
    """Whether nobody knows how far other readings would be from the values."""


def independent(name: str, draws: np.ndarray) -> np.ndarray:
    """Return draws [., resamples] in an order of their own.

    Draws of as many rows, or rounds, are the same draws, and yet rows of several tasks, and rounds of several
    workloads, are independent.

    Args:
        name: by which the order is drawn.
        draws: in joint resamplings.
    """
    order = np.random.default_rng(list(name.encode())).permutation(resampling.RESAMPLES)
    return np.asarray(draws[:, order])


def agreement(a: Ranked, b: Ranked, *, exact: bool = False) -> tuple[float | None, Interval]:
    """Return Kendall's tau-b of two orders of the same techniques, and its interval.

    Args:
        a: what they are ordered by.
        b: likewise.
        exact: values that do not vary are known without error.

    Returns:
        No tau for fewer than :data:`LEAST_RANKED` techniques, or where all are equal; no interval of single
        readings.
    """
    if len(a.values) < LEAST_RANKED:
        return None, None
    values = [np.array(each.values) for each in (a, b)]
    tau = ranks.kendall(*values)
    if tau is None or a.single_readings or b.single_readings:
        return tau, None
    ends = ranks.kendall_interval(
        (values[0], a.draws), (values[1], b.draws), widened=(a.widened, b.widened), exact=exact
    )
    # ties of what was measured raise tau-b
    return tau, None if ends is None else (min(ends[0], tau), max(ends[1], tau))

"""Which engines are truly on a frontier, and which are truly dominated, as far as the measurements prove it.

The engines on a measured frontier are the best of many on the rows that were measured, and so on average a
little lucky. A proof is a test at a level that is adjusted for the number of engines (Holm):

    on          for every other engine, this one is better in some objective. The largest of these p-values is
                that of the engine (intersection-union test, Berger 1982, Technometrics 24:295-300); that of a
                pair is the smallest over the objectives, times their number
    dominated   some engine of the measured frontier dominates it. The p-value is the smallest over those
                engines, times their number

P-values of a difference come from paired resamplings of rows and rounds: the larger of the share of
resamplings in which the difference is not in favour, and that of a normal distribution with their mean and
standard deviation, which also resolves values below one resampling.
"""

from __future__ import annotations

from typing import Literal

import numpy as np
from scipy import special

from effx.stats import CONFIDENCE
from effx.stats.tests import holm

Proof = Literal["on", "dominated"]


def prove(draws: np.ndarray, best: np.ndarray, left: np.ndarray) -> list[Proof | None]:
    """Return what is proven of each engine at 95 %, jointly for all; None: nothing is.

    Args:
        draws: [engines, resamples, objectives], to be minimised, resampled jointly.
        best: which engines are non-dominated as measured, [engines].
        left: indices of the engines that no engine of the measured frontier dominates in every resampling.
            Others need no comparison: an engine that is better than what dominates them is better than
            they are.
    """
    winners = np.flatnonzero(best)
    draws = np.ascontiguousarray(draws.swapaxes(1, 2))  # [engines, objectives, resamples]
    p_values = [
        _p_on(draws, index, left) if best[index] else _p_dominated(draws, index, winners)
        for index in range(len(draws))
    ]
    proofs: list[Proof | None] = []
    for index, adjusted in enumerate(holm(p_values)):
        claim: Proof = "on" if best[index] else "dominated"
        proofs.append(claim if adjusted <= 1 - CONFIDENCE else None)
    return proofs


def _p_on(draws: np.ndarray, index: int, left: np.ndarray) -> float:
    """Return the p-value of an engine being better than each other one in some objective."""
    others = left[left != index]
    if not len(others):
        return 0.0
    differences = draws[others] - draws[index]  # positive: this engine is better
    pairs = np.minimum(1.0, _p_positive(differences).min(axis=-1) * draws.shape[1])
    return float(pairs.max())


def _p_dominated(draws: np.ndarray, index: int, winners: np.ndarray) -> float:
    """Return the p-value of some engine of the frontier dominating this one."""
    differences = draws[index] - draws[winners]  # positive: the winner is better
    equal = np.all(differences == 0, axis=-1)  # as sizes may be: nowhere worse
    worst = np.where(equal, 0.0, _p_positive(differences)).max(axis=-1)
    worst = np.where(equal.all(axis=-1), 1.0, worst)
    return float(min(1.0, worst.min() * len(winners)))


def _p_positive(differences: np.ndarray) -> np.ndarray:
    """Return one-sided p-values [..., objectives] of differences [..., objectives, resamples] above zero."""
    n = differences.shape[-1]
    share = np.count_nonzero(differences <= 0, axis=-1) / n
    mean = differences.mean(axis=-1)
    centred = differences - mean[..., None]
    deviation = np.sqrt(np.einsum("...i,...i", centred, centred) / n)
    scores = np.divide(mean, deviation, out=np.where(mean > 0, np.inf, -np.inf), where=deviation > 0)
    return np.asarray(np.maximum(share, special.ndtr(-scores)))

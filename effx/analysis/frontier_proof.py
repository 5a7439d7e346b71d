"""Which engines are truly on a frontier, and which are truly dominated, as far as the measurements prove it.

The engines on a measured frontier are the best of many on the rows that were measured, and so on average a
little lucky. A proof is a test at a level that is adjusted for the number of engines (Holm):

    on          for every other engine, this one is better in some objective. The largest of these p-values is
                that of the engine (intersection-union test, Berger 1982, Technometrics 24:295-300); that of a
                pair is the smallest over the objectives, times their number
    dominated   some engine of the measured frontier dominates it. The p-value is the smallest over those
                engines, times the number of all other engines, as the measurements chose who is on it

P-values of a difference come from paired resamplings of rows and rounds: the larger of the share of
resamplings in which the difference is not in favour, and that of Student's t with their mean and standard
deviation, which also resolves values below one resampling. Resamplings of n rounds spread sqrt((n-1)/n) times
as much as measurements of n rounds do, and there are n-1 degrees of freedom.

Changes of a machine between two sessions are in no round, so times and energies are no evidence between
engines of different sessions.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from scipy import special

from effx.analysis import objectives
from effx.analysis.objectives import Objective
from effx.results import Run
from effx.stats import CONFIDENCE
from effx.stats.tests import holm

Proof = Literal["on", "dominated"]


@dataclass(frozen=True)
class Evidence:
    """How the values of each objective were measured."""

    rounds: np.ndarray
    """Rounds that were resampled, of the engine with the fewest [objectives]; inf: it is not of rounds."""
    depends_on_session: np.ndarray
    """Whether the state of the machine changes it: times and energies, bool [objectives]."""
    sessions: np.ndarray
    """Number of the session of each engine, [engines]."""

    @classmethod
    def of(cls, runs: Sequence[Run], axes: Sequence[Objective]) -> Evidence:
        """Return that of results which have a value for each objective."""
        rounds = [
            min(objectives.rounds(axis, run) for run in runs) if axis.least_rounds else np.inf
            for axis in axes
        ]
        changing = [axis.least_rounds > 0 or axis.uses_energy for axis in axes]
        names = [run.session for run in runs]
        return cls(
            np.array(rounds, dtype=float), np.array(changing),
            np.array([names.index(name) for name in names]),
        )  # fmt: skip

    def p_positive(self, differences: np.ndarray, one: int, others: np.ndarray) -> np.ndarray:
        """Return one-sided p-values [others, objectives] of differences above zero.

        Args:
            differences: of one engine from others [others, objectives, resamples].
            one: index of the engine.
            others: indices of the others.
        """
        n = differences.shape[-1]
        share = np.count_nonzero(differences <= 0, axis=-1) / n
        mean = differences.mean(axis=-1)
        centred = differences - mean[..., None]
        deviation = np.sqrt(np.einsum("...i,...i", centred, centred) / n)
        scores = np.divide(mean, deviation, out=np.where(mean > 0, np.inf, -np.inf), where=deviation > 0)
        p_values = np.maximum(share, self._above(scores))
        apart = self.sessions[others] != self.sessions[one]
        return np.asarray(np.where(apart[:, None] & self.depends_on_session, 1.0, p_values))

    def _above(self, scores: np.ndarray) -> np.ndarray:
        """Return P(T > score) of Student's t for each objective, [..., objectives]."""
        result = special.ndtr(-scores)
        for position in np.flatnonzero(np.isfinite(self.rounds)):
            rounds = self.rounds[position]
            shrunk = scores[..., position] * np.sqrt((rounds - 1) / rounds)
            result[..., position] = special.stdtr(rounds - 1, -shrunk) if rounds > 1 else 1.0
        return np.array(result)


def prove(draws: np.ndarray, best: np.ndarray, left: np.ndarray, evidence: Evidence) -> list[Proof | None]:
    """Return what is proven of each engine at 95 %, jointly for all; None: nothing is.

    Args:
        draws: [engines, resamples, objectives], to be minimised, resampled jointly.
        best: which engines are non-dominated as measured, [engines].
        left: indices of the engines that no engine of the measured frontier dominates in every resampling.
            Others need no comparison: an engine that is better than what dominates them is better than
            they are.
        evidence: how the values were measured.
    """
    winners = np.flatnonzero(best)
    draws = np.ascontiguousarray(draws.swapaxes(1, 2))  # [engines, objectives, resamples]
    p_values = [
        _p_on(draws, index, left, evidence) if best[index] else _p_dominated(draws, index, winners, evidence)
        for index in range(len(draws))
    ]
    proofs: list[Proof | None] = []
    for index, adjusted in enumerate(holm(p_values)):
        claim: Proof = "on" if best[index] else "dominated"
        proofs.append(claim if adjusted <= 1 - CONFIDENCE else None)
    return proofs


def _p_on(draws: np.ndarray, index: int, left: np.ndarray, evidence: Evidence) -> float:
    """Return the p-value of an engine being better than each other one in some objective."""
    others = left[left != index]
    if not len(others):
        return 0.0
    differences = draws[others] - draws[index]  # positive: this engine is better
    better = evidence.p_positive(differences, index, others)
    pairs = np.minimum(1.0, better.min(axis=-1) * draws.shape[1])
    return float(pairs.max())


def _p_dominated(draws: np.ndarray, index: int, winners: np.ndarray, evidence: Evidence) -> float:
    """Return the p-value of some engine of the frontier dominating this one."""
    differences = draws[index] - draws[winners]  # positive: the winner is better
    equal = np.all(differences == 0, axis=-1)  # as sizes may be: nowhere worse
    worst = np.where(equal, 0.0, evidence.p_positive(differences, index, winners)).max(axis=-1)
    worst = np.where(equal.all(axis=-1), 1.0, worst)
    return float(min(1.0, worst.min() * (len(draws) - 1)))

"""What techniques cost, relative to the baseline, in joint resamplings of rounds.

relative cost    engine's cost / baseline's, in the same rounds; of a throughput the inverse
interval         Student's t on the logarithms of the resamplings; energy: their percentiles
single reading   a cost that does not vary in resamplings, so that nobody knows how far another would be
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from effx.analysis import objectives
from effx.analysis.objectives import Interval, Objective
from effx.results import Run
from effx.stats import intervals

_EXACT = ("size", "parameters")
"""Costs that another measurement would find again."""


@dataclass(frozen=True)
class RelativeCosts:
    """Costs of techniques relative to that of their baseline; less is better."""

    values: tuple[float, ...]
    intervals: tuple[Interval, ...]
    """95 %; None: single readings, or too few rounds."""
    draws: np.ndarray
    """In joint resamplings [techniques, resamples]."""
    errors: tuple[tuple[float, float] | None, ...]
    """Standard error of the logarithm of each, and its degrees of freedom; None: as for intervals."""
    single: tuple[bool, ...]
    """Whether a technique's cost, or the baseline's, is a single reading."""
    rounds: int | None
    """That the costs were measured in, of the engine with the fewest; None: not all are of rounds."""

    @property
    def single_readings(self) -> bool:
        """Whether any cost is a single reading."""
        return any(self.single)

    @property
    def widened(self) -> float:
        """By how much resamplings of few rounds are too narrow, see :func:`intervals.block_interval`."""
        if self.rounds is None:
            return 1.0
        few = intervals.student(self.rounds - 1) / intervals.normal()
        return few * float(np.sqrt(self.rounds / (self.rounds - 1)))


def measure(baseline: Run, engines: Sequence[Run], cost: Objective) -> RelativeCosts:
    """Return what engines cost, all of which have a cost.

    Args:
        baseline: the unreduced engine.
        engines: the reduced ones.
        cost: what is compared.
    """
    runs = [baseline, *engines]
    drawn = cost.draws(runs)
    draws = drawn[0] / drawn[1:] if cost.maximise else drawn[1:] / drawn[0]
    single = [_is_single(cost, run, values) for run, values in zip(runs, drawn, strict=True)]
    values = tuple(ratio(baseline, run, cost) for run in engines)
    found = tuple(
        None if single[0] or single[1 + index] else
        objectives.drawn_interval(cost, [baseline, run], draws[index], values[index])
        for index, run in enumerate(engines)
    )  # fmt: skip
    rounds = None
    if not (any(single) or cost.uses_energy or is_exact(cost)):
        rounds = min(objectives.rounds(cost, run) for run in runs)
    errors = tuple(
        None if interval is None else _error(cost, [baseline, run], draws[index])
        for index, (run, interval) in enumerate(zip(engines, found, strict=True))
    )
    alone = tuple(single[0] or each for each in single[1:])
    return RelativeCosts(values, found, draws, errors, alone, rounds)


def ratio(baseline: Run, run: Run, cost: Objective) -> float:
    """Return an engine's cost relative to the baseline's; both have one."""
    before, after = cost.value(baseline), cost.value(run)
    assert before and after  # techniques without are left out
    return before / after if cost.maximise else after / before


def _error(cost: Objective, runs: Sequence[Run], drawn: np.ndarray) -> tuple[float, float]:
    """Return the standard error of the logarithm of a relative cost, and its degrees of freedom.

    Args:
        cost: what is compared.
        runs: the baseline and the engine.
        drawn: the relative cost in joint resamplings [resamples].
    """
    error = float(np.std(np.log(drawn)))
    if cost.uses_energy:
        return error, float("inf")
    count = min(objectives.rounds(cost, run) for run in runs)
    return error * float(np.sqrt(count / (count - 1))), count - 1


def is_exact(cost: Objective) -> bool:
    """Whether another measurement would find the same cost."""
    return cost.name in _EXACT


def _is_single(cost: Objective, run: Run, drawn: np.ndarray) -> bool:
    """Whether a cost is a single reading, so that nobody knows how far another would be from it.

    Args:
        cost: what was measured.
        run: of which engine.
        drawn: its value in resamplings [resamples].
    """
    if cost.uses_energy:  # energy per correct prediction also varies by rows
        found = objectives.energy(cost, run)
        return found is None or found.interval is None
    return not is_exact(cost) and not np.ptp(drawn) > 0

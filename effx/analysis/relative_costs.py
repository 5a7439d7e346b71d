"""What techniques cost, relative to the baseline, in joint resamplings of rounds.

relative cost    engine's cost / baseline's, in the same rounds; of a throughput the inverse
interval         Student's t on the logarithms of the resamplings; energy: their percentiles
single reading   a cost of which nobody knows how far another would be: it does not vary in resamplings, or
                 is a percentile above p90 of fewer than 20 rounds, whose resamplings say too little
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
    """Standard error of the logarithm of each time, and its degrees of freedom; None: as for intervals, and
    for energies."""
    reasons: tuple[str | None, ...]
    """Why there is no interval; None: there is one."""
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
    single = [
        has_few_rounds(cost, run) or _is_single(cost, run, values)
        for run, values in zip(runs, drawn, strict=True)
    ]
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
        None if interval is None or cost.uses_energy else _error(cost, [baseline, run], draws[index])
        for index, (run, interval) in enumerate(zip(engines, found, strict=True))
    )
    reasons = tuple(
        None if interval is not None else _no_interval(cost, [baseline, run])
        for run, interval in zip(engines, found, strict=True)
    )
    alone = tuple(single[0] or each for each in single[1:])
    return RelativeCosts(values, found, draws, errors, reasons, alone, rounds)


def has_few_rounds(cost: Objective, run: Run) -> bool:
    """Whether a cost was measured in fewer rounds than its interval needs."""
    return objectives.rounds(cost, run) < cost.least_rounds


def few_rounds(costs: Sequence[Objective], runs: Sequence[Run]) -> list[str]:
    """Return a remark that names the engines with fewer rounds than an interval of their cost needs.

    Args:
        costs: one, of several workloads that have as many rounds.
        runs: engines; those that were not measured have no rounds, and are not named.
    """
    few = [
        (run.name, timed.workload) for run in runs for cost in costs
        if (timed := cost.timed(run)) is not None and has_few_rounds(cost, run)
    ]  # fmt: skip
    if not few:
        return []
    return [
        f"{_statistic(costs[0])} has no interval and is not tested below {costs[0].least_rounds} rounds; "
        f"profile with more {objectives.rounds_setting(few[0][1])}: "
        f"{', '.join(dict.fromkeys(name for name, _ in few))}"
    ]


def _statistic(cost: Objective) -> str:
    """Return the label without the workload."""
    return cost.label.partition(",")[0]


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
    count = min(objectives.rounds(cost, run) for run in runs)
    return error * float(np.sqrt(count / (count - 1))), count - 1


def _no_interval(cost: Objective, runs: Sequence[Run]) -> str:
    """Return why the relative cost of two engines has no interval."""
    if any(has_few_rounds(cost, run) for run in runs):
        count = min(objectives.rounds(cost, run) for run in runs)
        return f"{_statistic(cost)} needs {cost.least_rounds} rounds for a test, {count} were measured"
    return "costs are single readings"


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

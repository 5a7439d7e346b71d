"""Constraints on an engine as thresholds on objectives."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from effx.analysis import cohorts
from effx.analysis.objectives import AGREEMENT, LABELLED_QUALITY, OBJECTIVES, Objective
from effx.errors import UsageError
from effx.results import Run
from effx.specs.constraints import Constraints

ROUNDING = 1e-9
"""0.91 meets a threshold of 0.92 - 0.01."""
_OBJECTIVE_OF = {
    "max_p90_s": "latency_p90",
    "max_p99_s": "latency_p99",
    "max_memory_bytes": "memory",
    "max_size_bytes": "size",
    "max_joules": "energy",
}


@dataclass(frozen=True)
class Threshold:
    """A constraint as a threshold on an objective."""

    setting: str
    """A field of :class:`effx.specs.constraints.Constraints`."""
    objective: Objective
    limit: float
    """The setting's value."""
    value: float
    """What the objective must reach (accuracy) or not exceed."""
    baseline: Run | None = None
    """The engine relative to which the threshold is set; None: it is absolute."""

    def shortfall(self, value: float) -> float:
        """Return by what share of the threshold a value misses it; at most 0: it meets it."""
        over = self.value - value if self.objective.maximise else value - self.value
        return over / abs(self.value) if self.value else over

    def meets(self, run: Run) -> bool:
        """Return whether a run meets it as measured; without a value it does not."""
        value = self.objective.value(run)
        return value is not None and self.shortfall(value) <= ROUNDING

    def limit_admitting(self, value: float) -> float:
        """Return the setting's value that would admit a value of the objective."""
        return self.limit + (self.value - value) if self.baseline is not None else value

    def slack(self, draws: np.ndarray, of_baseline: np.ndarray | None) -> np.ndarray:
        """Return by how much it is met in resamplings, in the objective's unit; below 0: it is missed.

        Args:
            draws: values of the objective [..., resamples].
            of_baseline: the baseline's values [resamples]; None: the threshold is absolute.
        """
        value = self.value if of_baseline is None else of_baseline - self.limit
        return np.asarray(draws - value if self.objective.maximise else value - draws)


def thresholds(
    constraints: Constraints, baseline: Run | None, runs: Sequence[Run], remarks: list[str]
) -> list[Threshold]:
    """Return the thresholds that constraints set.

    Args:
        constraints: what the engines must meet.
        baseline: the engine that ``max_drop`` is relative to; None: ``max_drop`` sets no threshold.
        runs: the engines.
        remarks: gets the engines without a value.

    Raises:
        UsageError: no engine was measured by the objective of a constraint, or energy by different meters.
    """
    result = of_constraints(constraints, baseline)
    for threshold in result:
        objective, setting = threshold.objective, threshold.setting
        measured = [run for run in runs if objective.value(run) is not None]
        if not measured:
            raise UsageError(
                f"{setting}: no engine has {objective.label}: {objective.missing(runs[0])}.",
                settings=setting,
            )
        if objective.uses_energy:
            cohorts.check(measured, energy=True)
        without = [run for run in runs if objective.value(run) is None]
        leave_out(without, f"without {objective.label}, which {setting} needs", remarks)
    return result


def of_constraints(constraints: Constraints, baseline: Run | None) -> list[Threshold]:
    """Return the thresholds that constraints set, whatever was measured; see :func:`thresholds`."""
    result = []
    if constraints.max_drop is not None and baseline is not None:
        least = baseline.quality.value - constraints.max_drop
        result.append(Threshold("max_drop", OBJECTIVES["quality"], constraints.max_drop, least, baseline))
    if constraints.min_accuracy is not None:
        limit = constraints.min_accuracy
        result.append(Threshold("min_accuracy", LABELLED_QUALITY, limit, limit))
    if constraints.min_agreement is not None:
        limit = constraints.min_agreement
        result.append(Threshold("min_agreement", AGREEMENT, limit, limit))
    for setting, name in _OBJECTIVE_OF.items():
        value: float | None = getattr(constraints, setting)
        if value is not None:
            result.append(Threshold(setting, OBJECTIVES[name], value, value))
    return result


def leave_out(runs: Sequence[Run], why: str, remarks: list[str]) -> None:
    """Add a remark that engines are left out; a single one is named."""
    if len(runs) == 1:
        remarks.append(f"{runs[0].name} is left out: {why}")
    elif runs:
        remarks.append(f"{len(runs)} engines are left out: {why}")

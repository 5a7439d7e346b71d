"""Engines that may be compared, with their frontiers and their baseline."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

from effx.analysis import cohorts
from effx.analysis.baseline import intended_baseline
from effx.analysis.cohorts import Cohort
from effx.analysis.frontier import Frontier, comparable, frontier
from effx.analysis.objectives import OBJECTIVES
from effx.results import Run

MAIN_OBJECTIVES = (("quality", "latency"), ("quality", "energy"))
"""The frontiers that the terminal prints and frontier.json lists first."""
_COSTS = ("latency", "cpu_time", "energy", "memory", "size")
_MANY_ENGINES = 300
"""With more engines, only the main pairs of objectives are resampled."""


@dataclass(frozen=True)
class Group:
    """Engines measured on the same rows and the same host, each by its latest result."""

    cohort: Cohort
    runs: list[Run]
    frontiers: list[Frontier]
    baseline: Run
    """See :func:`effx.analysis.baseline.intended_baseline`."""

    @property
    def title(self) -> str:
        return f"{self.cohort.task} on {self.cohort.host}"


def group_runs(runs: Sequence[Run]) -> list[Group]:
    """Return the groups, with a frontier for every pair of objectives that has one."""
    return [
        Group(cohort, members, _frontiers(members), intended_baseline(members))
        for cohort, members in cohorts.split(cohorts.latest(runs)).items()
    ]


def _frontiers(runs: Sequence[Run]) -> list[Frontier]:
    """Return the frontiers of every pair; several where energies have several sources or meters."""
    usable = [run for run in runs if cohorts.has_predictions(run)]
    return [
        frontier(part, pair) for pair in _objective_pairs(len(usable)) for part in comparable(usable, pair)
    ]


def _objective_pairs(engines: int) -> list[tuple[str, str]]:
    """Return pairs of objectives: accuracy against each cost, and costs against each other.

    Resampling a percentile takes about a millisecond per engine, so with many engines only the main
    costs are paired with accuracy.
    """
    if engines > _MANY_ENGINES:
        return list(dict.fromkeys([*MAIN_OBJECTIVES, *(("quality", name) for name in _COSTS)]))
    others = [("quality", name) for name, objective in OBJECTIVES.items() if not objective.is_score]
    return list(dict.fromkeys([*MAIN_OBJECTIVES, *others, *itertools.combinations(_COSTS, 2)]))

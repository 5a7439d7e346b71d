"""What may stand beside each other: results of one task, host and evaluation set, and their frontiers."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass, field

from effx.analysis import cohorts
from effx.analysis import frontier as frontiers
from effx.analysis.frontier import Frontier
from effx.analysis.objectives import OBJECTIVES
from effx.results import Run

MAIN = (("accuracy", "latency"), ("accuracy", "energy"))
"""The pairs that the terminal, frontier.json and the first figures have."""
_COSTS = ("latency", "energy", "memory", "size")
_FEW = 300
"""Engines up to which every pair is resampled."""


@dataclass(frozen=True)
class Group:
    """Engines that were measured on the same rows and the same machine, each by its latest result."""

    task: str
    host: str
    rows: str
    """Where the evaluation rows came from."""
    n: int
    metric: str
    runs: list[Run]
    frontiers: list[Frontier] = field(default_factory=list)
    baseline: Run | None = None
    """See :func:`effx.analysis.frontier.baseline_of`."""


def groups(runs: Sequence[Run]) -> list[Group]:
    """Return the groups with a frontier for every pair of objectives that has one."""
    return [
        Group(
            task=cohort.task,
            host=cohort.host,
            rows=cohort.rows,
            n=cohort.n,
            metric=cohort.metric,
            runs=members,
            frontiers=_frontiers(members),
            baseline=frontiers.baseline_of(members),
        )
        for cohort, members in cohorts.split(cohorts.latest(runs)).items()
    ]


def _frontiers(runs: Sequence[Run]) -> list[Frontier]:
    """Return the frontiers of every pair; several where energies have several sources or meters."""
    usable = [run for run in runs if cohorts.has_predictions(run)]
    return [
        frontiers.frontier(part, pair)
        for pair in _pairs(len(usable))
        for part in frontiers.comparable(usable, pair)
    ]


def _pairs(engines: int) -> list[tuple[str, str]]:
    """Return pairs of objectives: accuracy with what else there is, costs with each other.

    A percentile of one engine takes a millisecond to resample, so many engines have the main costs only.
    """
    if engines > _FEW:
        return list(dict.fromkeys([*MAIN, *(("accuracy", name) for name in _COSTS)]))
    others = [("accuracy", name) for name, one in OBJECTIVES.items() if not one.scored]
    return list(dict.fromkeys([*MAIN, *others, *itertools.combinations(_COSTS, 2)]))

"""Per task and host: energy per correct prediction, and the cheapest engine that is accurate enough."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from effx.analysis import cohorts
from effx.analysis.baseline import intended_baseline
from effx.analysis.cohorts import Cohort
from effx.analysis.constraints import ROUNDING
from effx.analysis.objectives import OBJECTIVES, Objective
from effx.results import Run

_DROPS_PERCENT = (1, 2)
_JSON_KEYS = {"energy": "joules_per_example", "latency": "latency_s"}


@dataclass(frozen=True)
class Cheapest:
    """The cheapest engine within a loss of accuracy."""

    engine: str
    cost: float
    """Joules per example or seconds per query."""


@dataclass(frozen=True)
class Summary:
    """What the engines of one task on one host cost."""

    baseline: str
    """See :func:`effx.analysis.baseline.intended_baseline`; of the engines scored on the most rows,
    those with labels first."""
    energy_sources: list[str]
    energy_per_correct: dict[str, float]
    """Joules per correct prediction by engine; those without are left out."""
    cheapest: dict[tuple[str, int], Cheapest | None]
    """By objective (``energy`` or ``latency``) and loss in percent of the metric below the baseline, 1 or 2;
    None: no engine has a value, the energies are of different meters, or the baseline's quality is
    unavailable."""

    def to_json(self) -> dict[str, Any]:
        chosen = {
            f"min_{objective}_within_{percent}pct": None
            if best is None
            else {"engine": best.engine, _JSON_KEYS[objective]: best.cost}
            for (objective, percent), best in self.cheapest.items()
        }
        return {
            "baseline": self.baseline,
            "energy_source": self.energy_sources,
            "energy_per_correct": self.energy_per_correct,
            **chosen,
        }


def summary(runs: Sequence[Run]) -> dict[tuple[str, str], Summary]:
    """Return the summary of each task and host; an engine's latest result is used.

    Only engines scored on the baseline's rows can be the cheapest.
    """
    return {key: _summary(cohorts.latest(group)) for key, group in cohorts.by_task_and_host(runs).items()}


def _summary(runs: Sequence[Run]) -> Summary:
    labelled = [run for run in runs if run.quality.reference is None] or runs
    most = max(run.quality.n for run in labelled)
    baseline = intended_baseline([run for run in labelled if run.quality.n == most])
    same_rows = [run for run in runs if Cohort.of(run).has_rows_of(Cohort.of(baseline))]
    per_correct = {run.name: OBJECTIVES["energy_per_correct"].value(run) for run in labelled}
    return Summary(
        baseline=baseline.name,
        energy_sources=sorted({meter.source for meter in cohorts.energy_meters(runs)}),
        energy_per_correct={name: value for name, value in per_correct.items() if value is not None},
        cheapest={
            (name, percent): _cheapest(same_rows, baseline, percent / 100, OBJECTIVES[name])
            for name in _JSON_KEYS
            for percent in _DROPS_PERCENT
        },
    )


def _cheapest(runs: Sequence[Run], baseline: Run, drop: float, objective: Objective) -> Cheapest | None:
    """Return the cheapest of the engines at most ``drop`` below the baseline's accuracy, if that is known."""
    if baseline.withdrawn("quality"):
        return None
    least = baseline.quality.value - drop - ROUNDING
    costs = {
        run.id: (cost, -run.quality.value, run)
        for run in runs
        if not run.withdrawn("quality")
        and run.quality.value >= least
        and (cost := objective.value(run)) is not None
    }
    able = [run for _, _, run in costs.values()]
    if not able or (objective.uses_energy and len(cohorts.energy_meters(able)) > 1):
        return None
    cost, _, best = min(costs.values(), key=lambda entry: entry[:2])
    return Cheapest(best.name, cost)

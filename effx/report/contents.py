"""What frontier.json holds: frontiers, failures, failed gates, and why energy is missing."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import effx
from effx.analysis import cohorts, seeds
from effx.analysis.frontier import Frontier
from effx.analysis.seeds import SeedFrontier
from effx.analysis.summary import Summary, summary
from effx.artifacts import now
from effx.report.groups import MAIN_OBJECTIVES, Group
from effx.results import Failure, Run
from effx.specs.workloads import SINGLE_STREAM

SCHEMA = 3


@dataclass(frozen=True)
class EngineGateFailure:
    """A check that the latest result of an engine did not pass."""

    engine: str
    gate: str
    detail: str


@dataclass(frozen=True)
class FailedEngine:
    """An engine that could not be measured."""

    engine: str
    failure: str


@dataclass(frozen=True)
class ReportContents:
    """The report's findings."""

    created: str
    frontiers: list[Frontier]
    """By accuracy and latency, and by accuracy and energy."""
    other_frontiers: list[Frontier]
    """By the other pairs of objectives."""
    summary: dict[tuple[str, str], Summary]
    """By task and host."""
    failures: list[FailedEngine]
    failed_gates: list[EngineGateFailure]
    energy_unavailable: list[str]
    """Reasons why single queries have no energy."""
    seed_means: list[SeedFrontier] = field(default_factory=list)
    """Means over seeds by accuracy and latency, and by accuracy and energy; empty without several seeds."""

    def to_json(self) -> dict[str, Any]:
        return {
            "schema": SCHEMA,
            "created": self.created,
            "effx": effx.__version__,
            "frontiers": [frontier.to_json() for frontier in self.frontiers],
            "other_frontiers": [frontier.to_json() for frontier in self.other_frontiers],
            "seed_means": [frontier.to_json() for frontier in self.seed_means],
            "summary": {f"{task} on {host}": entry.to_json() for (task, host), entry in self.summary.items()},
            "failures": [asdict(failure) for failure in self.failures],
            "failed_gates": [asdict(gate) for gate in self.failed_gates],
            "energy_unavailable": self.energy_unavailable,
        }


def collect_contents(
    runs: Sequence[Run], groups: Sequence[Group], failures: Sequence[Failure] = ()
) -> ReportContents:
    """Return the contents of a report over results."""
    frontiers = [frontier for group in groups for frontier in group.frontiers]
    return ReportContents(
        created=now(),
        frontiers=[each for pair in MAIN_OBJECTIVES for each in frontiers if each.objectives == pair],
        other_frontiers=[each for each in frontiers if each.objectives not in MAIN_OBJECTIVES],
        seed_means=[frontier for group in groups for frontier in seeds.frontiers(group.runs)],
        summary=summary(runs),
        failures=[FailedEngine(failure.name, failure.failure) for failure in failures],
        failed_gates=[
            EngineGateFailure(run.name, gate.label, gate.detail)
            for run in cohorts.latest(runs)
            for gate in run.failed_gates
        ],
        energy_unavailable=energy_unavailable(cohorts.latest(runs)),
    )


def energy_unavailable(runs: Sequence[Run]) -> list[str]:
    """Return the reasons why single queries have no energy, sorted."""
    workloads = [(run, run.workload(SINGLE_STREAM)) for run in runs]
    energies = [run.energy_of(result) for run, result in workloads if result is not None]
    return sorted({energy.reason for energy in energies if energy.reason})

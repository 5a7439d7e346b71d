"""What may stand beside each other: results of one task, host and evaluation set, and their frontiers."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass, field

from effx.errors import UsageError
from effx.profile import frontier as frontiers
from effx.profile.frontier import OBJECTIVES, Frontier
from effx.results import Run

MAIN = (("accuracy", "latency"), ("accuracy", "energy"))
"""The pairs that the terminal, frontier.json and the first figures have."""
_FEW = 300
"""Engines up to which pairs without accuracy are resampled too."""


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
    """The most accurate fp32 engine; the most accurate one where there is no fp32 engine."""


def groups(runs: Sequence[Run]) -> list[Group]:
    """Return the groups with a frontier for every pair of objectives that has one."""
    found: dict[tuple[str, str, str, int, str], list[Run]] = {}
    for run in frontiers.latest(runs):
        scored = run.accuracy
        found.setdefault((run.task, run.host_id, scored.source, scored.n, scored.metric), []).append(run)
    return [
        Group(*key, runs=found[key], frontiers=_frontiers(found[key]), baseline=_baseline(found[key]))
        for key in sorted(found)
    ]


def has_predictions(run: Run) -> bool:
    """Whether a result still holds what resampling and pairing need: files may be shared without rows."""
    return len(run.accuracy.predictions) == len(run.accuracy.labels) == run.accuracy.n > 0


def _frontiers(runs: Sequence[Run]) -> list[Frontier]:
    """Return a frontier per pair, and per energy source where energy is one of the two."""
    usable = [run for run in runs if has_predictions(run)]
    found = []
    for pair in _pairs(len(usable)):
        split: dict[str, list[Run]] = {}
        for run in usable:
            if all(OBJECTIVES[name].value(run) is not None for name in pair):
                split.setdefault(_source(run) if "energy" in pair else "", []).append(run)
        for source in sorted(split):
            try:
                found.append(frontiers.frontier(split[source], pair))
            except UsageError:  # this pair has no frontier
                break
    return found


def _pairs(engines: int) -> list[tuple[str, str]]:
    """Return pairs of objectives, the main ones first."""
    gains = [name for name, objective in OBJECTIVES.items() if objective.maximise]
    costs = [name for name, objective in OBJECTIVES.items() if not objective.maximise]
    pairs = [*itertools.product(gains, costs)]
    if engines <= _FEW:
        pairs += [*itertools.combinations(gains, 2), *itertools.combinations(costs, 2)]
    else:
        pairs = [pair for pair in pairs if "accuracy" in pair]
    return [*MAIN, *(pair for pair in pairs if pair not in MAIN)]


def _source(run: Run) -> str:
    return frontiers.single_stream(run).energy.source


def _baseline(runs: Sequence[Run]) -> Run:
    plain = [run for run in runs if run.engine["precision"] == "fp32"] or runs
    return max(plain, key=lambda run: run.accuracy.value)

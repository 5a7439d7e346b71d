"""The workspace of a finished search for super tickets, as analyses read it."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from effx import records
from effx.errors import ArtifactError, UsageError, one_line
from effx.specs.levels import Level
from effx.stats.metrics import mean_score
from effx.structure import Layer, Structure
from effx.tickets import plan, scores
from effx.tickets.plan import Removal
from effx.tickets.scores import Importance

_SCHEMA = 1
_PARTS = ("whole", "rest", "selection")


def chosen_level(folder: Path) -> Level | None:
    """Return the level of the super ticket in a finished search's folder; None: it has none.

    Raises:
        ArtifactError: table.json is missing or damaged.
    """
    value = records.read_json(folder / "table.json")
    try:
        return None if value["super"] is None else Level.parse(value["super"]["level"])
    except (KeyError, TypeError, AttributeError, UsageError) as error:
        raise ArtifactError(f"{folder / 'table.json'}: it has no level of the super ticket.") from error


@dataclass(frozen=True)
class TrainedCell:
    """One model of a search: a full model or a ticket."""

    kind: str
    """``full``, ``winning``, ``random`` or ``losing``."""
    level: str | None
    """None: the full model."""
    seed: int
    weight_remaining: float
    scores: Mapping[str, Mapping[str, float]]
    """Part of the validation rows (whole, rest, selection) -> metric -> value."""


@dataclass(frozen=True)
class TicketSearch:
    """A finished search for the super ticket of one task."""

    folder: Path
    task: str
    model: str
    metric: str
    metrics: tuple[str, ...]
    seeds: tuple[int, ...]
    rows: Mapping[str, int]
    """Part of the validation rows -> how many."""
    granularity: str
    min_heads: int
    cells: tuple[TrainedCell, ...]
    level: str | None
    """The super ticket's; None: no winning tickets were trained."""
    phases: Mapping[str, Any] | None
    importance: Mapping[int, Importance]
    """Seed -> scores of the full model's structures."""
    training_rows: int | None
    """On how many rows structures were scored; None: the scores are not there."""

    @property
    def name(self) -> str:
        """Task and model, for messages."""
        return f"{self.task}, {self.model}"

    def group(self, kind: str, level: str | None) -> list[TrainedCell]:
        """Return the cells of a kind and level, by seed."""
        cells = [cell for cell in self.cells if (cell.kind, cell.level) == (kind, level)]
        return sorted(cells, key=lambda cell: cell.seed)

    @cached_property
    def full(self) -> list[TrainedCell]:
        """The full models, by seed."""
        return self.group("full", None)

    @cached_property
    def super(self) -> list[TrainedCell]:
        """The super tickets of the level that is best in the mean over seeds, by seed."""
        return [] if self.level is None else self.group("winning", self.level)

    @cached_property
    def super_per_seed(self) -> list[TrainedCell]:
        """The best winning ticket of every seed, chosen by its own score on the selection rows.

        On a tie, the ticket with fewer weights. This is how Liang et al. 2021 choose (table 7).
        """
        chosen = []
        for cell in self.full:
            tickets = [
                ticket for ticket in self.cells if (ticket.kind, ticket.seed) == ("winning", cell.seed)
            ]
            if tickets:
                chosen.append(
                    min(
                        tickets,
                        key=lambda ticket: (
                            -ticket.scores["selection"][self.metric],
                            ticket.weight_remaining,
                        ),
                    )
                )
        return chosen

    def removed(self, level: str, seed: int) -> Removal:
        """Return what the winning ticket of a level and seed loses, recomputed from the scores."""
        scored = self.importance[seed]
        layers, heads = scored.heads.shape
        neurons = 1 if scored.neurons is None else scored.neurons.shape[1]
        available = Structure(tuple(Layer(index, tuple(range(heads)), neurons) for index in range(layers)))
        return plan.removal(
            scored, available, Level.parse(level), "winning", min_heads=self.min_heads,
            granularity=self.granularity, seed=seed,
        )  # fmt: skip


def task_score(cell: TrainedCell, part: str) -> float:
    """Return a task's score, see :func:`effx.stats.metrics.mean_score`."""
    return mean_score(cell.scores[part])


def read(folder: Path) -> TicketSearch:
    """Read the workspace of a search: table.json, and importance-sSEED.json of every seed that has it.

    Raises:
        ArtifactError: there is no table, or a file is damaged or of another schema.
    """
    path = folder / "table.json"
    if not path.is_file():
        raise ArtifactError(
            f"{folder} is not the workspace of a finished search for tickets: it has no table.json. Make one "
            "with: effx train tickets TASK --model MODEL"
        )
    value = records.read_json(path)
    try:
        if value["schema"] != _SCHEMA:
            raise ValueError(f"schema {value['schema']!r}, expected {_SCHEMA}")
        return _search(folder, value)
    except (KeyError, TypeError, ValueError, AttributeError, IndexError, UsageError) as error:
        what = f"{error.args[0]!r} is missing" if isinstance(error, KeyError) else one_line(error)
        raise ArtifactError(f"{path} is not the table of a search for tickets ({what}).") from error


def _search(folder: Path, value: Mapping[str, Any]) -> TicketSearch:
    seeds = tuple(_integer(seed) for seed in value["seeds"])
    metrics = tuple(str(metric) for metric in value["metrics"])
    settings = value["settings"]
    importance, scored_rows = {}, set()
    for seed in seeds:
        path = folder / f"importance-s{seed}.json"
        if path.is_file():
            importance[seed], about = scores.read(path)
            scored_rows.add(_integer(about["rows"]))
    search = TicketSearch(
        folder=folder,
        task=str(value["task"]),
        model=str(value["model"]),
        metric=str(value["metric"]),
        metrics=metrics,
        seeds=seeds,
        rows={part: _integer(value["rows"][part]) for part in _PARTS},
        granularity=str(settings["granularity"]),
        min_heads=_integer(settings["min_heads"]),
        cells=tuple(_cell(cell, metrics) for cell in value["cells"]),
        level=None if value["super"] is None else Level.parse(value["super"]["level"]).text,
        phases=value["phases"],
        importance=importance,
        training_rows=scored_rows.pop() if len(scored_rows) == 1 else None,
    )
    if search.metric not in metrics:
        raise ValueError(f"metric {search.metric!r} is not one of metrics")
    if [cell.seed for cell in search.full] != sorted(seeds):
        raise ValueError("cells: expected a full model of every seed")
    if search.level is not None and [cell.seed for cell in search.super] != sorted(seeds):
        raise ValueError("super: expected a winning ticket of its level for every seed")
    if len({part.heads.shape for part in importance.values()}) > 1:
        raise ValueError("importance: scores of encoders of different sizes")
    return search


def _cell(value: Mapping[str, Any], metrics: tuple[str, ...]) -> TrainedCell:
    level = value["level"]
    return TrainedCell(
        kind=str(value["kind"]),
        level=None if level is None else Level.parse(level).text,
        seed=_integer(value["seed"]),
        weight_remaining=_number(value["weight_remaining"], 0, 1),
        scores={
            part: {metric: _number(value["scores"][part][metric], -1, 1) for metric in metrics}
            for part in _PARTS
        },
    )


def _integer(value: Any) -> int:
    if not isinstance(value, int) or isinstance(value, bool):
        raise ValueError(f"expected an integer, got {value!r}")
    return value


def _number(value: Any, low: float, high: float) -> float:
    if not isinstance(value, int | float) or isinstance(value, bool) or not math.isfinite(value):
        raise ValueError(f"expected a number, got {value!r}")
    if not low <= value <= high:
        raise ValueError(f"expected a number from {low:g} to {high:g}, got {value:g}")
    return float(value)

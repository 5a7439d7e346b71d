"""The cells of a search for super tickets.

    tickets-full ── tickets-scores ──┬── ticket (kind, level)   ──┬── tickets: table and figures
    (a seed's full model)            └── ticket                 ──┘

    halving:  all levels: ticket paused at STEPS ── tickets-rung ── the better half, continued ── ...

Successive halving decides which tickets continue when the results of a rung are there, so its cells are
known one rung at a time; ``artifacts`` gives the decisions so far.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from effx import files
from effx.analysis.tickets import searches
from effx.recipe.execute.protocol import LocalPaths
from effx.recipe.execute.stages import tickets_rung
from effx.recipe.graph import lottery
from effx.recipe.graph.cells import Cell, CellBuilder, data_paths
from effx.recipe.graph.chains import joined
from effx.recipe.graph.plan import Artifacts
from effx.recipe.language.recipe import ModelEntry, TaskEntry, TicketsEntry
from effx.specs import halving, presets
from effx.specs.distillation import GivenTeacher
from effx.specs.levels import Level
from effx.specs.stages import (
    TicketsFullStage,
    TicketsRungStage,
    TicketsScoresStage,
    TicketsStage,
    TicketStage,
)
from effx.specs.tickets import TicketSearchSettings

WINNING = "winning"


def add(
    builder: CellBuilder, task: TaskEntry, model: ModelEntry, wanted: TicketsEntry, artifacts: Artifacts
) -> Level | None:
    """Add a recipe's search for tickets; return the level that it chose, None: it is not done.

    Raises:
        ArtifactError: its table is damaged.
    """
    values = wanted.given()
    preset = values.pop("preset", None)
    chosen = presets.preset(preset, task.name).given() if preset else {}
    shared = {"limit": task.limit, "seed": builder.recipe.seeds[0]}
    settings = TicketSearchSettings.of(**{**builder.recipe.training.given(), **chosen, **values, **shared})
    add_search(builder, task, model, settings, artifacts)
    name = joined(task.name, model.label)
    table = next((cell for cell in builder.cells if (cell.stage, cell.name) == ("tickets", name)), None)
    folder = None if table is None else artifacts(table.id)
    return None if folder is None else searches.chosen_level(folder)


def add_search(
    builder: CellBuilder,
    task: TaskEntry,
    model: ModelEntry,
    settings: TicketSearchSettings,
    artifacts: Artifacts,
    *,
    views: str | None = None,
    scores: Mapping[int, Path] | None = None,
    teacher: GivenTeacher | None = None,
) -> None:
    """Add a search for tickets, as far as its cells are known.

    Args:
        builder: collects the cells.
        task: what is trained.
        model: the pretrained encoder.
        settings: which tickets, and how to train.
        artifacts: id of a cell -> its output folder.
        views: folder of the workspace for links to checkpoints and table; default: ``tickets/TASK-MODEL``.
        scores: seed -> file of scores by which tickets are pruned; None: by those of the full models.
        teacher: what full models and tickets learn from besides the labels.
    """
    search = _Search(builder, task, model, settings, views, scores, teacher)
    if settings.search == "halving":
        search.halving(artifacts)
    else:
        search.grid()


class _Search:
    """What the cells of one search share."""

    def __init__(
        self,
        builder: CellBuilder,
        task: TaskEntry,
        model: ModelEntry,
        settings: TicketSearchSettings,
        views: str | None,
        scores: Mapping[int, Path] | None,
        teacher: GivenTeacher | None,
    ) -> None:
        self._scores, self._taught = scores, lottery.taught(teacher)
        self._builder, self._task, self._model, self._settings = builder, task, model, settings
        self._stem = joined(task.name, model.label)
        folder = f"tickets/{self._stem}" if views is None else views
        paths = data_paths(task, model)
        if teacher is not None:
            paths = replace(paths, teacher=str(Path(teacher.folder).resolve()))
        self._folder = f"{folder}/" if folder else ""
        self._options: dict[str, Any] = {
            "local_paths": paths,
            "rows": builder.rows(task),
            "model": builder.digests.model(model.source),
            "group": model.label,
        }
        self._work = builder.amount(task, settings, "epochs")
        first = settings.finetune.training.seed
        self._seeds = range(first, first + settings.seeds)

    def grid(self) -> None:
        """Add every ticket, and the table."""
        cells = []
        for seed in self._seeds:
            cells += self._full(seed)
            cells += [
                self._ticket(kind, level, seed)
                for level in self._settings.levels
                for kind in self._settings.kinds
            ]
        self._table(cells)

    def halving(self, artifacts: Artifacts) -> None:
        """Add the full models, the rungs that are known, and, when all are decided, the last level."""
        settings = self._settings
        steps = self._builder.steps(self._task, settings.finetune)
        warmup_steps = int(settings.finetune.training.warmup * steps)
        levels = list(settings.levels)
        grid_steps = (len(levels) + 1) * settings.seeds * steps
        cells = [cell for seed in self._seeds for cell in self._full(seed)]
        for number, rung in enumerate(halving.rungs(len(levels), settings.seeds, steps, warmup_steps), 1):
            tickets = [cell for level in levels for cell in self._begun(level, rung.steps, steps)]
            decision = self._rung(number, rung.steps, levels, tickets)
            cells.append(decision)
            if (folder := artifacts(decision.id)) is None:
                self._table(cells, grid_steps)
                return
            levels = [Level.parse(text) for text in tickets_rung.remaining(folder)]
        cells += [self._ticket(WINNING, levels[0], seed) for seed in self._seeds]
        self._table(cells, grid_steps)

    def _full(self, seed: int) -> list[Cell]:
        """Add the full model of a seed and its scores."""
        finetune = self._settings.finetune.replace(seed=seed)
        pruning = self._settings.pruning
        full = self._builder.add(
            "tickets-full", self._full_name(seed),
            TicketsFullStage(
                task=self._task.name, head=self._model.head, finetune=finetune, **self._taught
            ),
            **self._options, work=self._work, keep=self._settings.keep != "none",
            view=f"{self._folder}checkpoints/{{name}}",
        )  # fmt: skip
        if self._scores is not None:
            path = self._scores[seed].resolve()
            scores = self._builder.add(
                "tickets-scores", self._full_name(seed),
                TicketsScoresStage(given_digest=files.sha256(path)), local_paths=LocalPaths(scores=str(path)),
            )  # fmt: skip
            return [full, scores]
        scores = self._builder.add(
            "tickets-scores", self._full_name(seed),
            TicketsScoresStage(
                importance=pruning.importance, granularity=pruning.granularity, training=finetune.training
            ),
            **self._options, sources=(full.id,), work=self._work,
        )  # fmt: skip
        return [full, scores]

    def _ticket(self, kind: str, level: Level, seed: int, pause_at: int | None = None) -> Cell:
        """Add a ticket, or the beginning of its training run; one that was added before is returned."""
        suffix = "" if pause_at is None else f"-at{pause_at}"
        name = f"{self._stem}-{kind}{level.name}-s{seed}{suffix}"
        known = next((c for c in self._builder.cells if c.stage == "ticket" and c.name == name), None)
        if known is not None:
            return known
        is_kept = self._settings.keep == "all" or (self._settings.keep == "winning" and kind == WINNING)
        return self._builder.add(
            "ticket", name,
            TicketStage(
                task=self._task.name, head=self._model.head, ticket=self._settings.ticket(level, kind, seed),
                **self._taught,
            ),
            **self._options,
            sources=(f"tickets-scores {self._full_name(seed)}",), pause_at=pause_at,
            keep=is_kept and pause_at is None, work=self._work,
            view=f"{self._folder}checkpoints/{{name}}",
        )  # fmt: skip

    def _begun(self, level: Level, steps: int, run_steps: int) -> list[Cell]:
        """Add a level's training runs up to ``steps``: complete runs of ``run_steps``, then part of one."""
        complete, part = divmod(steps, run_steps)
        cells = [self._ticket(WINNING, level, seed) for seed in self._seeds[:complete]]
        return cells + ([self._ticket(WINNING, level, self._seeds[complete], part)] if part else [])

    def _rung(self, number: int, steps: int, levels: list[Level], tickets: list[Cell]) -> Cell:
        """Add the decision of a rung."""
        stage = TicketsRungStage(
            task=self._task.name, levels=tuple(levels), rung=number, steps=steps,
            selection=self._settings.selection, seed=self._seeds[0],
        )  # fmt: skip
        sources = tuple(cell.id for cell in tickets)
        return self._builder.add(
            "tickets-rung", f"{self._stem}-rung{number}", stage, **{**self._options, "model": None},
            sources=sources,
        )  # fmt: skip

    def _table(self, cells: Iterable[Cell], grid_steps: int | None = None) -> None:
        """Add the table of a search."""
        stage = TicketsStage(
            task=self._task.name, model=self._model.label, grid_steps=grid_steps,
            tickets=self._settings.replace(keep="all"),  # keep does not change the table
            scores_given=self._scores is not None, **self._taught,
        )  # fmt: skip
        self._builder.add(
            "tickets", self._stem, stage, **{**self._options, "model": None},
            sources=tuple(cell.id for cell in cells), view=f"{self._folder}*",
        )  # fmt: skip

    def _full_name(self, seed: int) -> str:
        return f"{self._stem}-full-s{seed}"

"""The cells of a transfer of masks and tickets between tasks.

    unstructured   full of a task ── rounds ── mask ──┬── its ticket
                                                      └── lottery of every other task under that mask
    structured     full of a task ── tickets-scores ──┬── its ticket
                                                      └── ticket of every other task by these scores
    all of them ── transfer-table

Every full model is trained once; its task's masks and scores are found in it.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from effx.recipe.execute.protocol import LocalPaths
from effx.recipe.graph.cells import Cell, CellBuilder, data_paths
from effx.recipe.graph.chains import joined
from effx.recipe.graph.lottery import LotteryTicket, Names, search_names
from effx.recipe.language.recipe import ModelEntry, TaskEntry
from effx.specs.levels import Level
from effx.specs.lottery import SPARSITY_STEP, LotterySettings, MlmSettings
from effx.specs.stages import TicketsScoresStage, TicketStage, TransferTableStage
from effx.specs.transfer import (
    FULL,
    MLM,
    ONE_SHOT,
    OTHER_SEED,
    RANDOM,
    STRUCTURED,
    UNSTRUCTURED,
    TransferRun,
    TransferSettings,
)


def add(
    builder: CellBuilder, tasks: tuple[TaskEntry, ...], model: ModelEntry, settings: TransferSettings
) -> None:
    """Add the full models, the masks and tickets of every task and seed, what is trained with them on the
    other tasks, and the table.

    Args:
        builder: collects the cells.
        tasks: sources and targets.
        model: the pretrained encoder.
        settings: which masks and tickets, and how to train.
    """
    _Transfer(builder, tasks, model, settings).add()


@dataclass(frozen=True)
class _Source:
    """Where the mask of a fine-tuning comes from."""

    name: str
    """In the table."""
    suffix: str
    """In the name of the cell; empty: the mask of the target itself."""
    task: TaskEntry
    """Whose full model has the mask or the scores."""
    seed: int
    """Of that full model."""


class _Transfer:
    """The cells of one transfer, and what each is in the table."""

    def __init__(
        self,
        builder: CellBuilder,
        tasks: tuple[TaskEntry, ...],
        model: ModelEntry,
        settings: TransferSettings,
    ) -> None:
        self._builder, self._tasks, self._model, self._settings = builder, tasks, model, settings
        self._keep = settings.keep == "all"
        self._runs: list[TransferRun] = []

    def add(self) -> None:
        """Add all cells."""
        for seed in self._settings.every_seed:
            for task in self._tasks:
                self._record(self._full(task, seed), task, seed, FULL)
        for seed in self._settings.every_seed:
            for percent in sorted(self._settings.sparsities):
                for task in self._tasks:
                    self._masked(task, percent, seed)
            for level in self._settings.levels or ():
                for task in self._tasks:
                    self._pruned(task, level, seed)
        text = self._settings.mlm.text
        stage = TransferTableStage(
            model=self._model.label,
            runs=tuple(self._runs),
            transfer=self._settings.replace(keep="all", controls=(), **MlmSettings().flat()),
            mlm=None if text is None else MlmSettings.of(**{**self._settings.mlm.flat(), "text": None}),
            text_digest=None if text is None else self._builder.digests.file(Path(text)),
        )
        self._builder.add(
            "transfer-table", f"transfer-{self._model.label}", stage,
            sources=tuple(run.cell for run in self._runs),
            local_paths=LocalPaths(
                data_of_tasks={
                    task.name: task.source.absolute() for task in self._tasks if task.source is not None
                }
            ),
            rows={task.name: self._builder.rows(task) for task in self._tasks},
        )  # fmt: skip

    def _record(
        self, cell: Cell, target: TaskEntry, seed: int, source: str,
        family: str | None = None, amount: str | None = None,
    ) -> None:  # fmt: skip
        """Remember what a fine-tuning is in the table."""
        self._runs.append(
            TransferRun(
                cell=cell.id, target=target.name, seed=seed, source=source, family=family, amount=amount
            )
        )

    def _sources(self, target: TaskEntry, seed: int) -> Iterator[_Source]:
        """Yield the sources of masks that belong to a task; the target itself is the first."""
        yield _Source(target.name, "", target, seed)
        other = self._settings.other_seed(seed)
        if other is not None:
            yield _Source(OTHER_SEED, f"-from-seed{other}", target, other)
        for task in self._tasks:
            if task.name != target.name:
                yield _Source(task.name, f"-from-{task.name}", task, seed)

    # -- unstructured

    def _lottery(
        self, task: TaskEntry, settings: LotterySettings, names: Names | None = None, *, keep: bool = False
    ) -> LotteryTicket:
        stem = joined(task.name, self._model.label)
        return LotteryTicket(
            self._builder, task, self._model, settings, names or search_names(stem, task.name, settings),
            keep, keep,
        )  # fmt: skip

    def _full(self, task: TaskEntry, seed: int) -> Cell:
        """Add the full model of a task."""
        settings = self._settings.lottery(SPARSITY_STEP, seed, task.name)
        return self._lottery(task, settings, keep=self._keep).full()

    def _masked(self, target: TaskEntry, percent: int, seed: int) -> None:
        """Add the fine-tunings of a task under all masks of a percentage of the weights."""
        record = partial(self._record, target=target, seed=seed, family=UNSTRUCTURED, amount=str(percent))
        own = self._settings.lottery(percent, seed, target.name)
        for source in self._sources(target, seed):
            if not source.suffix:
                record(self._lottery(target, own, keep=self._keep).add(), source=source.name)
                continue
            found = self._settings.lottery(percent, source.seed, source.task.name)
            mask = self._lottery(source.task, found).mask()
            record(self._under(mask, target, own, source), source=source.name)
        for kind in (RANDOM, ONE_SHOT):
            if kind in self._settings.controls:
                settings = self._settings.lottery(percent, seed, target.name, kind=kind)
                record(self._lottery(target, settings, keep=self._keep).add(), source=kind)
        if MLM in self._settings.controls:
            first = self._tasks[0]  # its name and rows are not part of the mask
            settings = self._settings.by_language(percent, seed, first.name)
            mask = self._lottery(first, settings).mask()
            by_language = _Source(MLM, f"-from-{MLM}", first, seed)
            record(self._under(mask, target, own, by_language, MLM), source=MLM)

    def _under(
        self, mask: Cell, target: TaskEntry, own: LotterySettings, source: _Source, objective: str = "task"
    ) -> Cell:
        """Add the fine-tuning of a task under the mask of another source."""
        names = search_names(joined(target.name, self._model.label), target.name, own)
        ticket, _, seed = names.ticket.rpartition("-s")
        names = replace(names, ticket=f"{ticket}{source.suffix}-s{seed}")
        return self._lottery(target, own, names, keep=self._keep).under(mask, source.name, objective)

    # -- structured

    def _pruned(self, target: TaskEntry, level: Level, seed: int) -> None:
        """Add the tickets of a task by the scores of every source, and the random one."""
        for source in self._sources(target, seed):
            scores = self._scores(source.task, source.seed)
            self._ticket(target, level, seed, "winning", scores, source)
        if RANDOM in self._settings.controls:
            drawn = _Source(RANDOM, "", target, seed)
            self._ticket(target, level, seed, RANDOM, self._scores(target, seed), drawn)

    def _ticket(
        self, target: TaskEntry, level: Level, seed: int, kind: str, scores: Cell, source: _Source
    ) -> None:
        """Add a ticket."""
        ticket = self._settings.ticket(level, kind, seed, target.name)
        cell = self._builder.add(
            "ticket", f"{joined(target.name, self._model.label)}-{kind}{level.name}{source.suffix}-s{seed}",
            TicketStage(
                task=target.name, head=self._model.head, ticket=ticket,
                source=source.name if source.suffix else None,
            ),
            sources=(scores.id,), keep=self._keep,
            work=self._builder.amount(target, ticket.finetune, "epochs"),
            **self._inputs(target),
        )  # fmt: skip
        self._record(cell, target, seed, source.name, STRUCTURED, level.text)

    def _scores(self, task: TaskEntry, seed: int) -> Cell:
        """Add the scores of a task's full model, unless they are there."""
        name = f"{joined(task.name, self._model.label)}-full-s{seed}"
        cells = self._builder.cells
        known = next((cell for cell in cells if (cell.stage, cell.name) == ("tickets-scores", name)), None)
        if known is not None:
            return known
        pruning = self._settings.pruning
        finetune = self._settings.lottery(SPARSITY_STEP, seed, task.name).finetune
        return self._builder.add(
            "tickets-scores", name,
            TicketsScoresStage(
                importance=pruning.importance, granularity=pruning.granularity, training=finetune.training
            ),
            sources=(self._full(task, seed).id,), work=self._builder.amount(task, finetune, "epochs"),
            **self._inputs(task),
        )  # fmt: skip

    def _inputs(self, task: TaskEntry) -> dict[str, Any]:
        return {
            "local_paths": data_paths(task, self._model),
            "rows": self._builder.rows(task),
            "model": self._builder.digests.model(self._model.source),
            "group": self._model.label,
        }

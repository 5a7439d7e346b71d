"""The cells of unstructured lottery tickets.

    imp, standard   lottery 0 % ── lottery-mask 10 % ── lottery 10 % ── lottery-mask 20 % ── lottery 20 % ...
    mlm             lottery-mask 10 % ── lottery-mask 20 % ...     (each trains; pruned before: not the first)
    other kinds     lottery-mask SPARSITY %
    rewound         lottery-rewind, which every round after the first reads

    ticket          the lottery of the last mask: of the weights that ``init`` names, or of a given mask

Tickets whose rounds are the same share them: of a recipe with 30 % and 70 % the first is a round of the
second, and the mask of fresh or shuffled weights is that of the pretrained weights. Rounds are the same if
their settings, inputs and sources are.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from effx.errors import UsageError
from effx.recipe.execute.protocol import LocalPaths
from effx.recipe.graph import processor
from effx.recipe.graph.cells import Cell, CellBuilder, data_paths
from effx.recipe.graph.chains import joined
from effx.recipe.language.recipe import ModelEntry, TaskEntry
from effx.specs.distillation import GivenTeacher
from effx.specs.heads import HeadSettings
from effx.specs.lottery import SPARSITY_STEP, LotterySearchSettings, LotterySettings, rewind_refusal
from effx.specs.settings import Settings
from effx.specs.stages import (
    LotteryMaskStage,
    LotteryRewindStage,
    LotteryRoundStage,
    LotteryTableStage,
)
from effx.specs.training import FinetuneSettings

ITERATIVE = ("imp", "standard")
"""Kinds whose masks are found in the checkpoints of rounds."""


@dataclass(frozen=True)
class Names:
    """The names of a ticket's cells; {percent} stands for that of a round or mask."""

    ticket: str
    """The checkpoint of the ticket."""
    full: str
    """The checkpoint of the first round."""
    round: str
    """The checkpoints of the other rounds."""
    mask: str
    """The masks, and their files."""
    rewind: str
    """The state that rounds are rewound to."""
    tickets: Mapping[int, str] = field(default_factory=dict)
    """Percentages of rounds that are tickets themselves, and the names of their checkpoints."""

    def of_round(self, percent: int) -> str:
        """Return the name of a round's checkpoint."""
        return self.full if percent == 0 else self.tickets.get(percent) or self.round.format(percent=percent)


def add(
    builder: CellBuilder,
    task: TaskEntry,
    model: ModelEntry,
    settings: LotterySettings,
    name: str,
    every: Mapping[str, LotterySettings],
) -> Cell:
    """Add a lottery ticket of a recipe with its rounds; return the ticket.

    Args:
        builder: collects the cells.
        task: what is trained.
        model: the pretrained model.
        settings: of the ticket.
        name: of its checkpoint.
        every: the tickets of the recipe for the same task, model and seed, by the names of their checkpoints.

    Raises:
        UsageError: it is rewound to a step that its rounds do not have.
    """
    stem, _, seed = name.rpartition("-s")
    rounds = settings.replace(init="pretrained")
    tickets: dict[int, str] = {}
    for label, other in every.items():
        if rounds.replace(sparsity=other.sparsity).flat() == other.flat():
            tickets.setdefault(other.sparsity, label)
    if settings.init == "pretrained":
        tickets[settings.sparsity] = name
    names = Names(
        ticket=name,
        full=f"{stem}-round0-s{seed}",
        round=f"{stem}-round{{percent}}-s{seed}",
        mask=f"{stem}-mask{{percent}}-s{seed}",
        rewind=f"{stem}-rewind-s{seed}",
        tickets=tickets,
    )
    return LotteryTicket(builder, task, model, settings, names).add()


def add_search(
    builder: CellBuilder,
    task: TaskEntry,
    model: ModelEntry,
    settings: LotterySearchSettings,
    teacher: GivenTeacher | None = None,
) -> None:
    """Add the full model and the tickets of every seed, and their table.

    Args:
        builder: collects the cells.
        task: what is trained.
        model: the pretrained model.
        settings: which tickets, and how to train.
        teacher: what every fine-tuning learns from besides the labels.

    Raises:
        UsageError: tickets are rewound to a step that their rounds do not have.
    """
    stem, keep = joined(task.name, model.label), settings.keep == "all"
    for seed in settings.every_seed:
        for kind, init in settings.pairs:
            for percent in sorted(settings.sparsity):
                one = settings.ticket(kind, init, percent, seed)
                names = search_names(stem, task.name, one)
                ticket = LotteryTicket(builder, task, model, one, names, keep, keep, teacher)
                ticket.full()
                ticket.add()
    stage = LotteryTableStage(
        task=task.name, model=model.label,
        lottery=settings.replace(keep="all", text=None, mask=None),  # they do not change the table
    )  # fmt: skip
    sources = tuple(cell.id for cell in builder.cells if cell.stage == "lottery")
    builder.add(
        "lottery-table", stem, stage, sources=sources, local_paths=data_paths(task), rows=builder.rows(task)
    )


def search_names(stem: str, task: str, settings: LotterySettings) -> Names:
    """Return the names of the cells of a ticket in a search.

    Args:
        stem: task and model.
        task: of the masks.
        settings: of the ticket.
    """
    search, seed = settings.search, settings.finetune.training.seed
    kind = "" if settings.kind == "imp" else f"-{settings.kind}"
    rewind = "" if search.rewind is None else f"-rewind{search.rewind}"
    label, mask = f"lottery{kind}{{percent}}", f"{task}{kind}{{percent}}"
    if search.objective == "mlm":
        label = mask = "mlm{percent}"
    if search.mask is not None:
        label = "mask"
    init = "" if settings.init == "pretrained" else f"-{settings.init}"
    return Names(
        ticket=f"{stem}-{label.format(percent=settings.sparsity)}{init}{rewind}-s{seed}",
        full=f"{stem}-lottery0-s{seed}",
        round=f"{stem}-{label}{rewind}-s{seed}",
        mask=f"{mask}{rewind}-s{seed}",
        rewind=f"{stem}-lottery{rewind}-s{seed}",
    )


def taught(teacher: GivenTeacher | None) -> dict[str, Any]:
    """Return the settings of a :class:`effx.specs.stages.TaughtStage`."""
    if teacher is None:
        return {}
    return {"teacher_digest": teacher.digest, "distillation": teacher.settings}


class LotteryTicket:
    """The cells of one ticket: its masks, the rounds in which they are found, and its fine-tuning."""

    def __init__(
        self,
        builder: CellBuilder,
        task: TaskEntry,
        model: ModelEntry,
        settings: LotterySettings,
        names: Names,
        keep: bool = True,
        keep_rounds: bool = False,
        teacher: GivenTeacher | None = None,
    ) -> None:
        self._builder, self._task, self._settings, self._names = builder, task, settings, names
        self._head, self._teacher, self._group = model.head, teacher, model.label
        self._keep, self._keep_rounds = keep, keep_rounds
        self._finetune = settings.finetune.replace(lr=settings.learning_rate)
        digests, self._pretrained = builder.pretrained(model)
        paths = data_paths(task, model)
        self._inputs: dict[str, Any] = {
            "local_paths": LocalPaths(
                paths.data, paths.model, _absolute(settings.search.mlm.text), _absolute(settings.search.mask),
                teacher=None if teacher is None else _absolute(teacher.folder),
            ),
            "rows": builder.rows(task),
            "model": digests,
        }  # fmt: skip

    def add(self) -> Cell:
        """Add the ticket and what it needs; return its fine-tuning."""
        search, percent = self._settings.search, self._settings.sparsity
        if search.rewind is not None:
            steps = self._builder.steps(self._task, self._finetune)
            if reason := rewind_refusal(search.rewind, steps):
                raise UsageError(reason, settings="rewind")
        if search.mask is not None:
            return self._ticket(None)
        if self._is_round:
            return self._round(percent, self._before(), is_ticket=True)
        return self._ticket(self.mask())

    def full(self) -> Cell:
        """Add the fine-tuning of the full model, which is the first round."""
        return self._tune(0, self._names.full, (), kind=None, objective=None)

    def mask(self) -> Cell:
        """Add the mask of the ticket and what it needs; return the mask."""
        percent = self._settings.sparsity
        if self._settings.search.objective == "mlm":
            return self._language_masks()
        if self._settings.kind not in ITERATIVE:
            return self._mask(percent, self._start(), self._pretrained, **self._inputs)
        return self._mask(percent, FinetuneSettings(), (self._before().id,))

    def under(self, mask: Cell, source: str, objective: str = "task") -> Cell:
        """Add the fine-tuning of the pretrained weights under a mask that was found elsewhere.

        Args:
            mask: its cell.
            source: where it was found, for the manifest.
            objective: what the rounds of its search trained.
        """
        return self._tune(
            self._settings.sparsity, self._names.ticket, (mask.id,), kind=self._settings.kind,
            objective=objective, source=source, is_ticket=True,
        )  # fmt: skip

    @property
    def _is_round(self) -> bool:
        """Whether the fine-tuning of the ticket is the last round of its search."""
        settings = self._settings
        return (
            settings.search.objective == "task"
            and settings.kind in ITERATIVE
            and settings.init == "pretrained"
        )

    def _before(self) -> Cell:
        """Add the rounds before the ticket's mask; return the last."""
        before = self.full()
        for done in range(0, self._settings.sparsity - SPARSITY_STEP, SPARSITY_STEP):
            before = self._round(done + SPARSITY_STEP, before)
        return before

    def _round(self, percent: int, before: Cell, *, is_ticket: bool = False) -> Cell:
        """Add the mask of the smallest weights of the round before, and the fine-tuning under it."""
        mask, rewind = self._mask(percent, FinetuneSettings(), (before.id,)), self._settings.search.rewind
        sources = (mask.id, self._rewound(rewind).id) if rewind is not None else (mask.id,)
        if self._settings.kind == "standard":  # it goes on from the weights of that round
            sources = (*sources, before.id)
        return self._tune(
            percent, self._names.of_round(percent), sources,
            kind=self._settings.kind, objective="task", rewind=rewind, is_ticket=is_ticket,
        )  # fmt: skip

    def _ticket(self, mask: Cell | None) -> Cell:
        """Add the fine-tuning of the weights that ``init`` names under a mask; None: that of a file."""
        settings, given = self._settings, self._settings.search.mask
        trained = given is None and (settings.kind in ITERATIVE)
        return self._tune(
            None if mask is None else settings.sparsity,
            self._names.ticket,
            () if mask is None else (mask.id,),
            kind=None if mask is None else settings.kind,
            init=settings.init,
            objective=settings.search.objective if trained else None,
            mask_digest=None if given is None else self._builder.digests.file(Path(given)),
            is_ticket=True,
        )

    def _tune(
        self,
        percent: int | None,
        name: str,
        sources: tuple[str, ...],
        *,
        is_ticket: bool = False,
        **more: Any,
    ) -> Cell:
        """Add a fine-tuning."""
        stage = LotteryRoundStage(
            task=self._task.name, percent=percent, head=self._head, finetune=self._finetune,
            **more, **taught(self._teacher),
        )  # fmt: skip
        keep = self._keep if is_ticket or percent in self._names.tickets else self._keep_rounds
        return self._add(
            "lottery", name, stage, (*sources, *self._pretrained), is_named=is_ticket, keep=keep,
            work=self._builder.amount(self._task, self._finetune, "epochs"), **self._inputs,
        )  # fmt: skip

    def _rewound(self, steps: int) -> Cell:
        """Add the state that rounds are rewound to."""
        stage = LotteryRewindStage(
            task=self._task.name, rewind=steps, head=self._head, finetune=self._finetune,
            **taught(self._teacher),
        )  # fmt: skip
        return self._add(
            "lottery-rewind", self._names.rewind, stage, self._pretrained, keep=False,
            work=float(steps * self._finetune.training.batch_size), **self._inputs,
        )  # fmt: skip

    def _mask(
        self, percent: int, finetune: FinetuneSettings, sources: tuple[str, ...], **inputs: Any
    ) -> Cell:
        """Add a mask of the task; without ``inputs`` it is found in the checkpoint of a round."""
        stage = LotteryMaskStage(
            task=self._task.name, percent=percent, kind=self._settings.kind,
            head=self._head if inputs else HeadSettings(), finetune=finetune,
        )  # fmt: skip
        return self._add_mask(stage, sources, **inputs)

    def _language_masks(self) -> Cell:
        """Add the rounds of masked language modelling; return the last."""
        search, before = self._settings.search.mlm, tuple[str, ...]()
        finetune, text = search.rounds(self._finetune), search.text
        work = self._builder.amount(self._task, finetune, "epochs")
        for percent in range(SPARSITY_STEP, self._settings.sparsity + SPARSITY_STEP, SPARSITY_STEP):
            if not before and search.mlm_prune == "before":  # neither rows nor settings decide this mask
                stage = LotteryMaskStage(task="", percent=percent, kind="one-shot", objective="mlm")
                mask = self._add_mask(stage, self._pretrained, **self._of_text)
            elif text is not None:  # no task decides it
                stage = LotteryMaskStage(
                    task="", percent=percent, kind=self._settings.kind, objective="mlm",
                    text_digest=self._builder.digests.file(Path(text)), mlm_rows=search.mlm_rows,
                    finetune=finetune.replace(limit=None, share=None),
                )  # fmt: skip
                mask = self._add_mask(stage, (*before, *self._pretrained), work=work, **self._of_text)
            else:
                stage = LotteryMaskStage(
                    task=self._task.name, percent=percent, kind=self._settings.kind, objective="mlm",
                    head=self._head, finetune=finetune,
                )  # fmt: skip
                mask = self._add_mask(stage, (*before, *self._pretrained), work=work, **self._inputs)
            before = (mask.id,)
        return mask

    @property
    def _of_text(self) -> dict[str, Any]:
        """The inputs of a mask that no task decides."""
        paths: LocalPaths = self._inputs["local_paths"]
        return {**self._inputs, "rows": None, "local_paths": replace(paths, data=None)}

    def _add_mask(self, stage: LotteryMaskStage, sources: tuple[str, ...], **options: Any) -> Cell:
        """Add the cell of a mask."""
        name = self._names.mask.format(percent=stage.percent)
        return self._add("lottery-mask", name, stage, sources, **options)

    def _start(self) -> FinetuneSettings:
        """Return what decides the weights that a fine-tuning starts from."""
        given, names = self._finetune.given(), ("layers", "drop_layers", "seed")
        return FinetuneSettings.of(**{name: given[name] for name in names if name in given})

    def _add(
        self, stage: str, name: str, settings: Settings, sources: tuple[str, ...], *,
        is_named: bool = False, keep: bool = True, **options: Any,
    ) -> Cell:  # fmt: skip
        """Add a cell, unless there is the same one; ``is_named``: it must have this name."""
        settings = processor.trained(stage, settings)  # as those of the cells that there are
        cells, inputs = self._builder.cells, (options.get("rows"), options.get("model"))
        for index, cell in enumerate(cells):
            if (
                (cell.stage, cell.sources) == (stage, sources)
                and (cell.name == name or not is_named)
                and (cell.inputs.rows, cell.inputs.model) == inputs
                and cell.settings.flat() == settings.flat()
            ):
                cells[index] = replace(cell, keep=cell.keep or keep)
                return cells[index]
        return self._builder.add(
            stage, name, settings, sources=sources, keep=keep, group=self._group, **options
        )


def _absolute(path: str | None) -> str | None:
    return str(Path(path).resolve()) if path is not None else None

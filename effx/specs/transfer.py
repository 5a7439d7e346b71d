"""Settings of a transfer of masks and tickets between tasks, without PyTorch."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, Self

from pydantic import Field, model_validator

from effx.errors import UsageError
from effx.specs.layer_reduction import CONTRIBUTION
from effx.specs.levels import Level
from effx.specs.lottery import LR_LOTTERY, LotterySettings, MlmSettings, Sparsity
from effx.specs.multitask import TaskLimit
from effx.specs.settings import OneOf, Settings, wrong
from effx.specs.tickets import Levels, PruningSettings, TicketSettings
from effx.specs.training import Count, FinetuneSettings

RANDOM, ONE_SHOT, MLM = "random", "one-shot", "mlm"
CONTROLS = (RANDOM, ONE_SHOT, MLM)
OTHER_SEED = "other seed"
"""The source of the masks of the same task that were found with another seed."""
FULL = "full model"
"""The source of the full models, which have no mask."""
UNSTRUCTURED, STRUCTURED = "unstructured", "structured"

Control = Annotated[str, OneOf("control", CONTROLS)]


class TransferSettings(Settings):
    """Masks and tickets of several tasks, trained on each of them; ``seed`` is the first of ``seeds``."""

    NOTES: ClassVar[Mapping[str, str]] = {
        "lr": f"Default: {LR_LOTTERY:g}.",
        "limit": "It applies to each task. Default: all.",
        "seed": "A transfer uses this seed and the following ones.",
    }

    sparsity: Annotated[tuple[Sparsity, ...], Field(min_length=1)] | None = None
    """Percentages of the encoder's weights that the masks set to zero, multiples of 10; they are found by
    iterative magnitude pruning. Default: 70, or none if levels are given."""
    levels: Levels | None = None
    """Percentages to prune for super tickets: heads and FFNs, ranked by importance. L: L % of the heads and
    10/12 of L % of the FFNs; H/F, e.g. 20/10: H % of the heads and F % of the FFNs. Default: none."""
    controls: tuple[Control, ...] = (RANDOM,)
    """Masks of no task, compared with the others. random: weights, or heads and FFNs, drawn with the seed;
    one-shot: the smallest pretrained weights, without training; mlm: iterative magnitude pruning by masked
    language modelling on the passages of text."""
    mlm: MlmSettings = MlmSettings()
    seeds: Count = 3
    """Number of seeds. With two or more, masks of the same task that were found with another seed show how
    much a score depends on chance."""
    task_limit: tuple[TaskLimit, ...] | None = None
    """Maximum training rows of single tasks, instead of limit, e.g. sst2=8000,qqp=20000."""
    keep: Annotated[str, OneOf("keep", ("all", "none"))] = "none"
    """Checkpoints to keep. Masks, scores and the table always remain, and the same command resumes from
    them."""
    pruning: PruningSettings = PruningSettings()
    finetune: FinetuneSettings = FinetuneSettings()

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        for name, noun, words in (
            ("sparsity", "sparsity", [str(percent) for percent in self.sparsity or ()]),
            ("levels", "level", [level.text for level in self.levels or ()]),
            ("controls", "control", list(self.controls)),
        ):
            if double := next((word for word in words if words.count(word) > 1), None):
                raise wrong(f"duplicate {noun} {double}.", name)
        if (MLM in self.controls) != (self.mlm.text is not None):
            raise wrong("the control mlm trains on the passages of text: give both, or neither.",
                        "controls", "text")  # fmt: skip
        if MLM not in self.controls and (changed := self.mlm.changed()):
            raise wrong(f"{changed[0]} has no effect without the control mlm: add mlm to controls, or leave "
                        f"{changed[0]} out.", changed[0], "controls")  # fmt: skip
        if not self.sparsities and self.controls not in ((), (RANDOM,)):
            other = next(control for control in self.controls if control != RANDOM)
            raise wrong(f"control {other} sets single weights to zero: give sparsity too, or leave it out.",
                        "controls", "sparsity")  # fmt: skip
        if self.finetune.regime != "full":
            raise wrong(f"regime {self.finetune.regime}: masks and scores are found by training all weights: "
                        "leave regime out.", "regime")  # fmt: skip
        if self.finetune.drop_layers == CONTRIBUTION:
            raise wrong("drop_layers contribution: the layers would depend on the rows of a task, and masks "
                        "are used for all tasks: use another strategy.", "drop_layers")  # fmt: skip
        tasks = [task for task, _ in self.task_limit or ()]
        if double := next((task for task in tasks if tasks.count(task) > 1), None):
            raise wrong(f"the limit of task '{double}' is given twice: expected one.", "task_limit")
        try:
            for percent in self.sparsities:
                self.lottery(percent, self.finetune.training.seed)
                if MLM in self.controls:
                    self.by_language(percent, self.finetune.training.seed)
        except UsageError as error:
            raise wrong(str(error), *error.settings) from error
        return self

    @property
    def sparsities(self) -> tuple[int, ...]:
        """Percentages of zeros, given or default."""
        if self.sparsity is not None:
            return self.sparsity
        return () if self.levels else (70,)

    @property
    def every_seed(self) -> range:
        """The seeds of the transfer."""
        first = self.finetune.training.seed
        return range(first, first + self.seeds)

    def other_seed(self, seed: int) -> int | None:
        """Return the seed whose masks are compared with those of ``seed``; None: there is one seed.

        It is the seed before, for the first one the last: every mask is used once, so that no two of the
        compared scores share one.
        """
        seeds = self.every_seed
        return None if len(seeds) < 2 else seeds[seeds.index(seed) - 1]

    def limit_of(self, task: str) -> int | None:
        """Return the maximum training rows of a task; None: all."""
        return dict(self.task_limit or ()).get(task, self.finetune.training.limit)

    def lottery(self, percent: int, seed: int, task: str | None = None, **more: Any) -> LotterySettings:
        """Return the settings of an unstructured ticket; ``more``: kind, or those of a search by mlm."""
        return LotterySettings.of(sparsity=percent, **self._given(task, seed), **more)

    def by_language(self, percent: int, seed: int, task: str | None = None) -> LotterySettings:
        """Return the settings of a ticket whose mask is that of the control mlm."""
        return self.lottery(percent, seed, task, objective="mlm", **self.mlm.given())

    def ticket(self, level: Level, kind: str, seed: int, task: str) -> TicketSettings:
        """Return the settings of a ticket of heads and FFNs, fine-tuned with the same learning rate."""
        given = {"lr": LR_LOTTERY, **self.pruning.given(), **self._given(task, seed)}
        return TicketSettings.of(level=level, kind=kind, **given)

    def _given(self, task: str | None, seed: int) -> dict[str, Any]:
        """Return how to fine-tune on a task."""
        given = {**self.finetune.given(), "seed": seed}
        limit = None if task is None else self.limit_of(task)
        return {**given, **({} if limit is None else {"limit": limit})}


class TransferRun(Settings):
    """One fine-tuning of a transfer, as the table names it."""

    cell: str
    """Id of the cell that has its result."""
    target: str
    """The task that is trained."""
    seed: int
    """Of the fine-tuning."""
    source: str
    """Where its mask is from: a task, a control, :data:`OTHER_SEED`, or :data:`FULL`: it has none."""
    family: str | None = None
    """:data:`UNSTRUCTURED` or :data:`STRUCTURED`; None: the full model."""
    amount: str | None = None
    """Percentage of zeros, or the level, e.g. ``40`` or ``20/10``; None: the full model."""

"""How a checkpoint was trained, or where it was imported from, as its manifest records it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, ClassVar, Literal, Self

from pydantic import Field, JsonValue, model_validator

from effx.costs import Cost, total
from effx.manifests.fields import Count, Digest, Positive
from effx.records import Record
from effx.specs.distillation import DistillationSettings
from effx.specs.exits import EarlyExitSettings
from effx.specs.multitask import MultitaskSettings
from effx.specs.settings import Settings
from effx.specs.tokens import TokenPruningSettings
from effx.specs.training import PRECISIONS, FinetuneSettings


class DistillationRecord(Record):
    """What a checkpoint learned from a teacher."""

    teacher: str
    """Name of the checkpoint."""
    teacher_digest: Digest
    settings: Mapping[str, JsonValue]
    """All settings of distillation, by name."""
    hidden_layers: Count
    """Layers whose outputs were compared; 0: predictions alone."""
    unlabelled_rows: Count = 0
    """Rows without labels that it was trained on too."""
    unlabelled_left_out: Count = 0
    """Rows without labels that it was not trained on, as they are also rows that choose or prove."""

    @model_validator(mode="after")
    def _known(self) -> Self:
        DistillationSettings.from_json(self.settings)
        return self


@dataclass(frozen=True)
class TrainingStage:
    """What one training run took, from its first step on."""

    steps: int
    seconds: float
    loss: float
    """Mean over the steps, and over the processes."""
    precision: str
    cost: Cost | None = None
    """What it took, without evaluations; None: an earlier version wrote it."""
    evaluations: Count = 0
    """Times that held-out rows were scored during training."""
    evaluation: Cost | None = None
    """What these took together; None: there were none, or an earlier version wrote it."""


class RowDraw(Record):
    """Rows that limit, share and seed leave of a task's training rows."""

    limit: Positive | None = None
    """None: all."""
    share: Annotated[float, Field(gt=0, le=1)] | None = None
    """Of the rows that the limit leaves; None: all."""
    seed: Count = 0
    """Of the share."""


class TrainingRecord(Record):
    """How a checkpoint was trained."""

    SETTINGS: ClassVar[Mapping[str, type[Settings]]] = {
        "finetune": FinetuneSettings,
        "exits": EarlyExitSettings,
        "tokens": TokenPruningSettings,
        "multitask": MultitaskSettings,
    }

    kind: Literal["finetune", "exits", "tokens", "multitask"] | None = None
    """None: effx did not train it."""
    settings: Mapping[str, JsonValue] = {}
    """All settings of that kind, by name."""
    stages: tuple[TrainingStage, ...] = ()
    """The training runs, in order."""
    learning_rate: float | None = None
    """Peak learning rate."""
    limit: Positive | None = None
    """Number of rows that it was trained on (subsets are nested); None: all."""
    regime: str | None = None
    """What was trained; for exits and tokens, of the checkpoint before."""
    rows: Count | None = None
    """Number of training rows."""
    held_out_rows: Count = 0
    """Training rows that early stopping was decided on."""
    held_out_in_groups: bool = False
    """Whether rows with the same texts were held out together; older releases drew single rows."""
    draws: tuple[RowDraw, ...] = ()
    """Rows that this training and those of the checkpoint before it had, together, of the rows of the digest;
    empty: those of limit and share in settings."""
    head: str | None = None
    """Origin of the task head before training, in words; None: unknown."""
    source: str | None = None
    """Where the rows came from."""
    rows_digest: Digest | None = None
    """Digest of the task's complete training rows; None: unknown, or trained from a model that may have seen
    others: a checkpoint, or one that was fine-tuned elsewhere; or texts of rows that were left out were
    learned without labels, or as rows of another task of the same training; or weights were refitted on them
    when it was pruned."""
    distillation: DistillationRecord | None = None
    """None: it learned from labels alone."""
    processes: Positive = 1
    host: str | None = None
    """Kind of processor."""

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.kind is None:
            fields = type(self).model_fields
            stated = [name for name in fields if getattr(self, name) != fields[name].default]
            if stated:
                raise ValueError(f"{stated[0]}: expected no value, as kind is null")
        else:
            settings = self.SETTINGS[self.kind].from_json(self.settings).flat()
            if self.kind == "finetune" and self.regime != settings["regime"]:
                raise ValueError(f"regime: expected {settings['regime']}, as in settings")
            if self.kind == "finetune" and self.limit != settings["limit"]:
                raise ValueError(f"limit: expected {settings['limit']}, as in settings")
            if settings["lr"] is not None and self.learning_rate != settings["lr"]:
                raise ValueError(f"learning_rate: expected {settings['lr']}, as lr in settings")
        if self.limit is not None and (self.rows or 0) + self.held_out_rows > self.limit:
            raise ValueError(f"rows: expected at most {self.limit} with the held-out rows, as limit")
        if self.learning_rate is not None and self.learning_rate <= 0:
            raise ValueError("learning_rate: expected a number > 0")
        for stage in self.stages:
            if min(stage.steps, stage.seconds, stage.loss) < 0:
                raise ValueError("stages: expected steps, seconds and loss >= 0")
            if stage.precision not in PRECISIONS:
                raise ValueError(f"stages: unknown precision {stage.precision[:40]!r}")
        return self

    @property
    def steps(self) -> int:
        """Optimizer steps of all stages."""
        return sum(stage.steps for stage in self.stages)

    @property
    def seconds(self) -> float:
        """Seconds of all stages."""
        return sum(stage.seconds for stage in self.stages)

    @property
    def cost(self) -> Cost | None:
        """What all stages took; None: unknown."""
        return total(stage.cost for stage in self.stages)

    @property
    def loss(self) -> float:
        """Mean loss of the last stage."""
        return self.stages[-1].loss

    @property
    def seed(self) -> int:
        """The random seed of the training settings."""
        value = self.settings.get("seed")
        return value if isinstance(value, int) else 0


class SharedRecord(Record):
    """Several tasks that were trained with one encoder."""

    tasks: tuple[str, ...]
    average: float
    """Mean over the tasks of the mean of each task's metrics, on the validation rows."""
    encoder: Digest
    """Of the weights of the shared encoder; the same in the checkpoints of all tasks."""
    tickets: Mapping[str, Digest] = {}
    """Task -> digest of the checkpoint whose structure is its ticket; a task without one uses everything."""
    union: bool = False
    """Whether the checkpoint has the heads and FFNs of all tickets, instead of those of its task's."""

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if len(set(self.tasks)) < 2 or len(set(self.tasks)) < len(self.tasks):
            raise ValueError("shared: expected at least two different tasks")
        if unknown := sorted(set(self.tickets) - set(self.tasks)):
            raise ValueError(f"shared.tickets: {unknown[0]!r} is not one of the tasks")
        return self


IMPORT_READER = 3
"""Raised when a folder is read as another model than before. 2: tokenizer.json decides the tokens, and
settings of sentence-transformers that are not computed are refused. 3: a SentencePiece model decides how
texts are normalized."""


class ImportRecord(Record):
    """How a model that was fine-tuned elsewhere became a checkpoint."""

    digest: Digest
    """Of the files of the model's folder."""
    settings: Mapping[str, JsonValue] = {}
    """The settings of the import that were given, by name, without the task."""
    head: str
    """What became of its task head, in words."""
    notes: tuple[str, ...] = ()
    """What is unusual about the model, in words."""
    reader: int = 1
    """:data:`IMPORT_READER` of the version that imported it."""


class BaselineRecord(Record):
    """A model that gives the same answer to every row."""

    answer: str
    """The most frequent class of the training rows, in quotes, or their mean."""
    score: Annotated[float, Field(ge=-1, le=1)]
    """The task's primary metric on the validation rows."""

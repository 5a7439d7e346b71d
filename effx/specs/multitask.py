"""Settings of training several tasks with one encoder."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, ClassVar, Self

from pydantic import Field, model_validator

from effx.errors import UsageError
from effx.specs import variants
from effx.specs.quantities import parse_share
from effx.specs.settings import OneOf, Parsed, Settings, wrong
from effx.specs.training import ALL_ROWS, HEAD_POOLINGS, LR_ENCODER, Count, Positive, Share, TrainingSettings

SHARINGS = ("strict", "published", "none")


def parse_task_dropout(text: str) -> tuple[str, float]:
    """Parse ``TASK=P``: a task and the dropout in its head, a share.

    Raises:
        UsageError: the text is not of that form.
    """
    task, equals, share = (part.strip() for part in text.partition("="))
    if not equals or not task:
        raise UsageError(f"'{text}': expected TASK=P, e.g. cola=0.05.")
    value = parse_share(share)
    if not 0 <= value <= 1:
        raise UsageError(f"'{text}': expected a dropout from 0 to 1.")
    return task, value


TaskDropout = Annotated[
    tuple[str, float],
    Parsed(
        parse_task_dropout, "TASK=P", "a task and its dropout, e.g. cola=0.05",
        lambda value: f"{value[0]}={value[1]:g}",
    ),
]  # fmt: skip


def parse_task_limit(text: str) -> tuple[str, int]:
    """Parse ``TASK=N``: a task and its maximum number of training rows.

    Raises:
        UsageError: the text is not of that form.
    """
    task, equals, number = (part.strip() for part in text.partition("="))
    if not equals or not task or not number.isdecimal() or int(number) < 1:
        raise UsageError(f"'{text}': expected TASK=N, e.g. sst2=8000.")
    return task, int(number)


TaskLimit = Annotated[
    tuple[str, int],
    Parsed(
        parse_task_limit, "TASK=N", "a task and its maximum number of training rows, e.g. sst2=8000",
        lambda value: f"{value[0]}={value[1]}",
    ),
]  # fmt: skip


class MultitaskSettings(Settings):
    """How several tasks are trained with one encoder."""

    NOTES: ClassVar[Mapping[str, str]] = {
        "lr": f"Default: {LR_ENCODER:g}.",
        "limit": f"It applies to each task. {ALL_ROWS}",
        "batch_size": "A step uses rows of a single task.",
    }

    sharing: Annotated[str, OneOf("sharing", SHARINGS)] = "strict"
    """What a training step changes, if there are tickets. strict: only the weights of its task's ticket;
    published: as in the code of Liang et al. 2021, momentum and weight decay also change other weights; none:
    tickets cannot be given, and every step changes all weights."""
    mismatched: bool = False
    """Accept tickets that were trained with another learning rate or optimizer."""
    max_length: Annotated[int, Field(ge=variants.MIN_LENGTH)] = 128
    """Maximum tokens per example, in training and in all engines of the checkpoints."""
    epochs: Positive = 5.0
    """Passes over the training rows of all tasks."""
    training: TrainingSettings = TrainingSettings()
    patience: Count | None = None
    """Early stopping: stop after this many epochs without a better average score on a held-out tenth of every
    task's training rows, and keep the best weights."""
    head_dropout: Share | None = None
    """Dropout in the task heads. Default: the model's."""
    task_dropout: tuple[TaskDropout, ...] | None = None
    """Dropout in the heads of single tasks, instead of `head_dropout`, e.g. cola=0.05,mnli=0.3 as in
    MT-DNN."""
    task_limit: tuple[TaskLimit, ...] | None = None
    """Maximum training rows of single tasks, instead of `limit`, e.g. sst2=8000,qqp=20000."""
    head_pooling: Annotated[str, OneOf("pooling", HEAD_POOLINGS)] = "auto"
    """Input of the task heads: the first token (cls), or the mean over all tokens except padding (mean).
    auto: the pooling that the encoder was trained with if its folder has 1_Pooling/config.json, else cls."""

    @model_validator(mode="after")
    def _each_task_once(self) -> Self:
        for name, of_tasks in (("task_dropout", self.task_dropout), ("task_limit", self.task_limit)):
            tasks = [task for task, _ in of_tasks or ()]
            if double := next((task for task in tasks if tasks.count(task) > 1), None):
                word = name.removeprefix("task_")
                raise wrong(f"the {word} of task '{double}' is given twice: expected one.", name)
        return self

    @property
    def learning_rate(self) -> float:
        """The peak learning rate, given or default."""
        return self.training.lr or LR_ENCODER

    def training_of(self, task: str) -> TrainingSettings:
        """Return how the rows of a task are chosen."""
        limit = dict(self.task_limit or ()).get(task, self.training.limit)
        return self.training.replace(limit=limit)

    def dropout_of(self, task: str) -> float | None:
        """Return the dropout in the head of a task; None: the model's."""
        return dict(self.task_dropout or ()).get(task, self.head_dropout)

"""Types of task heads: which class of transformers has them, and what its outputs are.

sequence    logits [batch, outputs] of whole rows
token       logits [batch, length, outputs] of every token
span        start and end logits, stacked to [batch, length, 2]
embedding   no head: normalised vectors [batch, width]

A kind of task (:mod:`effx.specs.kinds`) names one of them as its ``head``.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from transformers import (
    AutoModelForQuestionAnswering,
    AutoModelForSequenceClassification,
    AutoModelForTokenClassification,
    PreTrainedConfig,
)

from effx.models.embedder import AutoEmbedder
from effx.specs.tasks import Task


@dataclass(frozen=True)
class HeadType:
    """A type of task head: a row of :data:`HEADS`."""

    auto_class: Any
    """The class of transformers that adds it to an encoder."""
    logits: Callable[[Any], torch.Tensor]
    """Output of such a model -> logits [batch, outputs], or [batch, length, outputs]."""
    per_token: bool
    """Whether every token has logits."""


HEADS: Mapping[str, HeadType] = {
    "sequence": HeadType(AutoModelForSequenceClassification, lambda out: out.logits, per_token=False),
    "token": HeadType(AutoModelForTokenClassification, lambda out: out.logits, per_token=True),
    "span": HeadType(
        AutoModelForQuestionAnswering,
        lambda out: torch.stack([out.start_logits, out.end_logits], -1),
        per_token=True,
    ),
    "embedding": HeadType(AutoEmbedder, lambda out: out.logits, per_token=False),
}


IDENTITY = "torch.nn.modules.linear.Identity"


def head_type(task: Task) -> HeadType:
    """Return the type of head that a task needs."""
    return HEADS[task.behavior.head]


def activation(config: Mapping[str, Any]) -> str | None:
    """Return the class that a CrossEncoder applies to the outputs, as the config says; None: unstated."""
    settings = config.get("sentence_transformers")
    named = settings.get("activation_fn") if isinstance(settings, Mapping) else None
    return named if isinstance(named, str) else None


def describe(
    config: PreTrainedConfig, task: Task, names: Sequence[str] | None = None, activation: str | None = None
) -> None:
    """Write the number and names of the task's outputs into a model's config.

    A CrossEncoder of sentence-transformers applies a sigmoid to a single output unless the config names
    another function.

    Args:
        config: changed in place.
        task: that the model is for.
        names: those that the model's users know, in the order of the task's labels; None: the task's labels.
        activation: class that a CrossEncoder applies to a single output; None: the identity.
    """
    if task.outputs:
        config.num_labels = task.outputs
    if task.labels:
        config.id2label = dict(enumerate(names or task.labels))
        config.label2id = {label: number for number, label in enumerate(names or task.labels)}
    if task.behavior.problem_type is not None:
        config.problem_type = task.behavior.problem_type
    if task.behavior.head == "sequence" and task.outputs == 1:
        config.sentence_transformers = {"activation_fn": activation or IDENTITY}

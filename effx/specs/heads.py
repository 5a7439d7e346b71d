"""The task head of a model that was fine-tuned before: what it predicts, and what becomes of it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

from pydantic import model_validator

from effx.specs import head_labels
from effx.specs.settings import Settings, wrong


class HeadSettings(Settings):
    """Whether a model's task head is kept or replaced; default: kept if its labels are the task's."""

    labels: tuple[str, ...] | None = None
    """Which label of the task each output of the model is, in the order of the outputs; for a model whose
    config calls them LABEL_0, LABEL_1, ..."""
    keep_head: bool = False
    """Keep the model's head although its labels have other names: its outputs, in their order, are used as
    the task's labels. Default: such a head is replaced."""
    fresh_head: bool = False
    """Initialise the head randomly, even if its labels are the task's."""

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.fresh_head and (self.keep_head or self.labels):
            raise wrong("fresh_head replaces the head: leave keep_head and labels out.", "fresh_head",
                        "keep_head", "labels")  # fmt: skip
        return self


@dataclass(frozen=True)
class Head:
    """The task head of a model."""

    kind: str
    """Kind of task that it is for, a key of :data:`effx.specs.kinds.KINDS`; ``none``: the model has no head;
    ``other``: of a kind that effx does not know."""
    outputs: tuple[str, ...]
    """Names of its outputs, in order; empty: it has none, or they have no names."""
    reason: str
    """How the kind is known."""
    sigmoid: bool = False
    """Whether its single output is the logit of the second of two classes, as in a CrossEncoder."""
    of_numbers: bool = False
    """Whether the config says that its single output is a number to predict, and not a logit."""


@dataclass(frozen=True)
class HeadPlan:
    """What becomes of a model's task head."""

    words: str
    keep: bool
    order: tuple[int, ...] | None = None
    """Numbers of the outputs in the order of the task's labels; None: as they are."""
    two_logits: bool = False
    """The single output z becomes the two logits 0 and z."""
    whole: bool = False
    """A new head replaces every Linear of the head, not only the last."""

    def names(self, outputs: Sequence[str]) -> tuple[str, ...] | None:
        """Return the model's names of its outputs in the order of the task's labels; None: it has none."""
        if not self.keep or self.two_logits or not outputs or head_labels.numbered(outputs):
            return None
        return tuple(outputs[number] for number in self.order or range(len(outputs)))


class OtherHeadError(Exception):
    """A head is not one for a task; the message says why."""

"""What a student learns from a teacher besides labels, without PyTorch."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Self

from pydantic import Field, model_validator

from effx.specs.settings import Settings, wrong

Weight = Annotated[float, Field(ge=0)]


class DistillationSettings(Settings):
    """How a student is trained to predict what its teacher predicts.

    The loss is label_weight * loss of the task + logit_weight * T^2 * KL(teacher || student) at temperature T
    (Hinton et al. 2015, section 2) + hidden_weight * squared distance of the hidden states.
    """

    temperature: Annotated[float, Field(gt=0)] = 2.0
    """Temperature of the teacher's and the student's probabilities. A higher one gives more weight to
    unlikely labels."""
    label_weight: Weight = 0.5
    """Weight of the task's own loss; 0: learn from the teacher alone."""
    logit_weight: Weight = 1.0
    """Weight of the distance between the student's and the teacher's predictions."""
    hidden_weight: Weight = 10.0
    """Weight of the squared distance between hidden states after each layer, relative to those of the
    teacher. It needs a teacher of the same width, number of layers and tokenizer."""

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if not self.logit_weight and not self.hidden_weight:
            raise wrong("nothing is learned from the teacher: set logit_weight or hidden_weight above 0.",
                        "logit_weight", "hidden_weight")  # fmt: skip
        return self


@dataclass(frozen=True)
class GivenTeacher:
    """A checkpoint that a sweep's models learn from."""

    folder: str
    digest: str
    """Of its manifest: another teacher makes other models."""
    settings: DistillationSettings = DistillationSettings()

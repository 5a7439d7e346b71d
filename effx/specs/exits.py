"""Settings of early exits and their training."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, ClassVar, Self

from pydantic import Field, model_validator

from effx.specs import exit_rules
from effx.specs.constraints import Confidence, Loss
from effx.specs.settings import OneOf, Settings, wrong
from effx.specs.training import (
    AS_CHECKPOINT,
    LR_ENCODER,
    LR_HEAD_ONLY,
    POOLINGS,
    Count,
    Positive,
    TrainingSettings,
)

EXIT_MODES = ("two-stage", "joint")


class EarlyExitSettings(Settings):
    """How early exits are trained and calibrated."""

    NOTES: ClassVar[Mapping[str, str]] = {
        "lr": f"Default: {LR_HEAD_ONLY:g} in mode two-stage, {LR_ENCODER:g} in mode joint.",
        "limit": AS_CHECKPOINT,
    }

    mode: Annotated[str, OneOf("mode", EXIT_MODES)] = "two-stage"
    """What is trained: the ramps only (two-stage), or the whole model (joint)."""
    after: Annotated[tuple[Count, ...], Field(min_length=1)] | None = None
    """Layers after which there is a ramp, counted from 1 in the unreduced model. Default: all but the
    last."""
    pooling: Annotated[str, OneOf("pooling", POOLINGS)] = "mean"
    """Input of a ramp: the mean over all tokens except padding, or the first token (cls)."""
    rule: Annotated[str, OneOf("exit rule", tuple(exit_rules.RULES))] = "entropy"
    """When a row exits. entropy: the entropy of the prediction is below the threshold; max-probability: the
    highest probability is above the threshold; patience: several consecutive ramps predict the same class;
    consecutive-entropy: several consecutive ramps have an entropy below the threshold."""
    depth: Positive | None = None
    """Calibrate the threshold so that a row runs through at most this many layers on average. Excludes
    `max_drop`."""
    max_drop: Loss | None = None
    """Calibrate the threshold so that the task's metric loses at most this much compared with no exits,
    proven on held-out rows; 0.01 or 1% is one percentage point. Default: 0.01, unless `depth` is set."""
    confidence: Confidence = 0.95
    """Confidence of the proof that the loss is at most `max_drop` (one-sided)."""
    epochs: Positive = 3.0
    """Passes over the training rows."""
    training: TrainingSettings = TrainingSettings()

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.depth is not None and self.max_drop is not None:
            raise wrong("depth and max_drop exclude each other: one of them chooses the threshold.",
                        "depth", "max_drop")  # fmt: skip
        return self

    @property
    def learning_rate(self) -> float:
        """The peak learning rate, given or default."""
        return self.training.lr or (LR_HEAD_ONLY if self.mode == "two-stage" else LR_ENCODER)

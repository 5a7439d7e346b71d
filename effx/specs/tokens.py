"""Settings of token schedules."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated, ClassVar, Self

from pydantic import Field, model_validator

from effx.errors import UsageError
from effx.specs.constraints import Confidence, Loss
from effx.specs.settings import OneOf, Settings, wrong
from effx.specs.training import AS_CHECKPOINT, LR_ENCODER, NotNegative, Positive, Share, TrainingSettings

TOKEN_RULES = ("share", "threshold")


def check_shares(shares: Sequence[float]) -> None:
    """Raise :class:`UsageError` for shares of tokens that no model takes: in (0, 1], never rising."""
    thousandths = [round(share, 3) for share in shares]
    if not all(0 < share <= 1 for share in thousandths):
        raise UsageError("token shares must be between 0.001 and 1.", settings="schedule")
    if any(after > before for before, after in zip(thousandths, thousandths[1:], strict=False)):
        raise UsageError(
            "token shares must not rise: a pruned token does not come back.", settings="schedule"
        )


class TokenPruningSettings(Settings):
    """How tokens are pruned."""

    NOTES: ClassVar[Mapping[str, str]] = {"lr": f"Default: {LR_ENCODER:g}.", "limit": AS_CHECKPOINT}

    rule: Annotated[str, OneOf("token rule", TOKEN_RULES)] = "share"
    """Which tokens a layer keeps: a fixed share of them (share), or those that receive at least a certain
    attention (threshold)."""
    schedule: Annotated[tuple[Share, ...], Field(min_length=1)] | None = None
    """One number per layer: the share of a row's tokens, or with rule threshold the attention that a token
    must receive. Default: learned."""
    keep: Annotated[float, Field(gt=0, le=1)] | None = None
    """Scale the learned schedule so that layers keep this share of the tokens on average. Default: do not
    scale it."""
    max_drop: Loss | None = None
    """Scale the learned schedule so that the task's metric loses at most this much compared with all tokens,
    proven on held-out rows; 0.01 or 1% is one percentage point."""
    confidence: Confidence = 0.95
    """Confidence of the proof that the loss is at most `max_drop` (one-sided)."""
    penalty: NotNegative = 0.3
    """Weight of the penalty on remaining tokens while the schedule is learned; a higher one keeps fewer
    tokens."""
    soft_epochs: Positive = 1.0
    """Epochs in which the schedule is learned."""
    epochs: NotNegative = 2.0
    """Epochs of training with the learned schedule applied; 0: do not train the weights any further."""
    training: TrainingSettings = TrainingSettings()

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.schedule is not None and self.keep is not None:
            raise wrong("schedule and keep exclude each other: a given schedule is not scaled.",
                        "schedule", "keep")  # fmt: skip
        if self.max_drop is not None and (self.schedule is not None or self.keep is not None):
            raise wrong("max_drop scales the learned schedule: leave schedule and keep out.",
                        "max_drop", "schedule", "keep")  # fmt: skip
        if self.schedule is not None and self.rule == "share":
            try:
                check_shares(self.schedule)
            except UsageError as error:
                raise wrong(str(error), *error.settings) from error
        return self

    @property
    def learning_rate(self) -> float:
        """The peak learning rate, given or default."""
        return self.training.lr or LR_ENCODER

"""Early exits and token schedules, as the manifests of checkpoints record them."""

from __future__ import annotations

from typing import Annotated, Self

from pydantic import Field, model_validator

from effx.manifests.fields import Positive, Scores, Share
from effx.records import Record
from effx.specs.exit_rules import ExitPoint, ExitRule
from effx.specs.exits import EXIT_MODES
from effx.specs.tokens import TOKEN_RULES


class ExitTarget(Record):
    """What the exits' settings were chosen for: one of the two."""

    depth: float | None = None
    """Maximum mean number of layers."""
    max_drop: float | None = None
    """Maximum loss of the primary metric."""


class ProvenLoss(Record):
    """What is proven of the loss of the primary metric on held-out rows."""

    proven: bool
    """False: no setting was proven, so rows never exit early, or keep all tokens."""
    confidence: float
    """One-sided."""
    rows: Positive
    """Number of rows that tested the setting."""
    loss: float
    """On these rows, against the final head."""
    bound: float
    """Largest loss that is not ruled out."""


class TwoSamples(Record):
    """How far two samples of rows differ (Kolmogorov and Smirnov)."""

    distance: float
    """Largest difference of the distribution functions, 0 to 1."""
    p_value: float
    """Of the hypothesis that both are drawn from one distribution."""


class RowShift(Record):
    """Whether the validation rows are like the held-out rows that chose the exits."""

    lengths: TwoSamples
    """Of the numbers of tokens."""
    depths: TwoSamples
    """Of the layers that rows run through."""


class ExitCalibration(Record):
    """What the exit rule did on the held-out rows that chose its settings."""

    rows: Positive
    seen_in_training: bool | None
    """Whether the checkpoint was trained on any of them; None: unknown."""
    mean_depth: float
    score: float
    final_head: float
    """Score of the final head on the same rows, without early exits."""
    points: tuple[ExitPoint, ...]
    """Best settings of the rule for a few mean depths."""
    proof: ProvenLoss | None = None
    """None: the exits were calibrated for a depth."""


class ExitValidation(Record):
    """What the exits did on the validation rows."""

    scores: Scores
    mean_depth: float
    """Layers that a row runs through on average."""
    layers: Positive
    lost: float
    """Primary metric without exits minus with exits."""
    lost_at_least: float | None
    """Its lower 95 % bound, one-sided; None: no interval."""
    shift: RowShift | None = None
    """Against the held-out rows; None: it was not tested."""


class ExitsRecord(Record):
    """Early exits of a checkpoint: their rule, and what it did."""

    rule: ExitRule
    mode: str
    target: ExitTarget
    calibration: ExitCalibration
    validation: ExitValidation

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.mode not in EXIT_MODES:
            raise ValueError(f"mode: expected one of {', '.join(EXIT_MODES)}")
        return self


class TokensTarget(Record):
    """What a learned token schedule was scaled to: one of the two."""

    keep: Share | None = None
    """Mean share of the tokens to keep."""
    max_drop: Annotated[float, Field(ge=0)] | None = None
    """Maximum loss of the primary metric, against the checkpoint with all tokens before this training."""


class TokensCalibration(Record):
    """What chose the scale of a learned token schedule, on held-out rows."""

    seen_in_training: bool | None
    """Whether the checkpoint was trained on any of them; None: unknown."""
    proof: ProvenLoss
    lengths: TwoSamples
    """Of the numbers of tokens, against the validation rows."""


class TokensValidation(Record):
    """What a token schedule did on the validation rows."""

    scores: Scores
    kept: tuple[Share, ...]
    """Mean share of the tokens that enter each layer's FFN."""


class TokensRecord(Record):
    """Token schedule of a checkpoint: its rule, and what it did."""

    rule: str
    target: TokensTarget | None = None
    """None: the schedule was given, or learned without a target."""
    calibration: TokensCalibration | None = None
    """None: the target is not a loss."""
    validation: TokensValidation

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.rule not in TOKEN_RULES:
            raise ValueError(f"rule: expected one of {', '.join(TOKEN_RULES)}")
        return self

"""Settings of few-shot adaptation: several models on the same small shares of a task's rows."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, ClassVar, Self

from pydantic import Field, model_validator

from effx.specs.settings import OneOf, Settings, wrong
from effx.specs.training import Count, FinetuneSettings, RowsShare, rows_share_text


class AdaptationSettings(Settings):
    """Fine-tuning of several models on the same small shares of a task's rows; ``seed`` is the first of
    ``draws``.
    """

    NOTES: ClassVar[Mapping[str, str]] = {
        **FinetuneSettings.NOTES,
        "seed": "Draws use this seed and the following ones.",
    }

    shares: Annotated[tuple[RowsShare, ...], Field(min_length=1)] = (0.001, 0.01, 0.1, 1.0)
    """Shares of the training rows to train on, e.g. 0.1%,1%,10%,100%. Numbers of rows are rounded down."""
    draws: Count = 5
    """Number of draws for each share: the seed of a draw decides the rows, the new task head and the order of
    training. All models have the same draws, and the rows of a smaller share are among those of a larger
    one."""
    keep: Annotated[str, OneOf("keep", ("all", "none"))] = "none"
    """Checkpoints to keep. Records and scores always remain, and the same command resumes from them."""
    finetune: FinetuneSettings = FinetuneSettings()

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if double := next((share for share in self.shares if self.shares.count(share) > 1), None):
            raise wrong(f"duplicate share {rows_share_text(double)}.", "shares")
        if self.finetune.training.share is not None:
            raise wrong("shares sets the shares: leave share out.", "share", "shares")
        return self

    def run(self, share: float, seed: int) -> FinetuneSettings:
        """Return the settings of one fine-tuning."""
        return self.finetune.replace(share=share, seed=seed)

    @property
    def seeds(self) -> range:
        """The seeds of the draws."""
        first = self.finetune.training.seed
        return range(first, first + self.draws)

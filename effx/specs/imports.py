"""How a model that was fine-tuned elsewhere becomes a checkpoint."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from effx.specs import variants
from effx.specs.heads import HeadSettings
from effx.specs.settings import Settings


class ImportSettings(Settings):
    """What a model that was fine-tuned elsewhere predicts; its config answers what is left out here."""

    task: str | None = None
    """Task of a model that is not a checkpoint: a name of the table, or any name for your rows. Default: the
    name of the data folder."""
    labels: tuple[str, ...] | None = None
    """Names of such a model's outputs in their order, e.g. negative,positive, where its config has none."""
    keep_head: bool = False
    """Take such a model's outputs for the task's labels in their order, although their names differ."""
    max_length: Annotated[int, Field(ge=variants.MIN_LENGTH)] | None = None
    """Maximum tokens per example of such a model. Default: that of its tokenizer."""

    @property
    def head(self) -> HeadSettings:
        """What to do with the model's task head."""
        return HeadSettings(labels=self.labels, keep_head=self.keep_head)

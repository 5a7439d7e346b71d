"""How a model that was fine-tuned elsewhere becomes a checkpoint."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from effx.specs import variants
from effx.specs.heads import HeadSettings
from effx.specs.settings import Settings


class ImportSettings(Settings):
    """What a model that was fine-tuned elsewhere predicts; what is not set is read from its config."""

    task: str | None = None
    """Task of a model that was fine-tuned elsewhere: a built-in task, or any name for your data. Default: the
    name of the data folder."""
    labels: tuple[str, ...] | None = None
    """For a model that was fine-tuned elsewhere: names of its outputs in their order, e.g. negative,positive;
    needed if its config has no names."""
    keep_head: bool = False
    """For a model that was fine-tuned elsewhere: use its outputs, in their order, as the task's labels,
    although their names differ."""
    max_length: Annotated[int, Field(ge=variants.MIN_LENGTH)] | None = None
    """For a model that was fine-tuned elsewhere: maximum tokens per example. Default: that of its
    tokenizer."""

    @property
    def head(self) -> HeadSettings:
        """What to do with the model's task head."""
        return HeadSettings(labels=self.labels, keep_head=self.keep_head)

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
    """For a model that was fine-tuned elsewhere: its task, a built-in one or a new name for your rows.
    Default: the name of the file or folder of the rows."""
    labels: tuple[str, ...] | None = None
    """For a model that was fine-tuned elsewhere: which label of the task each of its outputs is, in the order
    of the outputs, e.g. negative,positive; needed if its config does not name them."""
    keep_head: bool = False
    """For a model that was fine-tuned elsewhere: if the names of its outputs are not those of the task's
    labels, use the outputs in their order as the task's labels."""
    max_length: Annotated[int, Field(ge=variants.MIN_LENGTH)] | None = None
    """For a model that was fine-tuned elsewhere: maximum tokens per example. Default: that of its
    tokenizer."""

    @property
    def head(self) -> HeadSettings:
        """What to do with the model's task head."""
        return HeadSettings(labels=self.labels, keep_head=self.keep_head)

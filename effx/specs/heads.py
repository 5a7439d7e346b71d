"""What to do with the task head of a model that was fine-tuned before."""

from __future__ import annotations

from typing import Self

from pydantic import model_validator

from effx.specs.settings import Settings, wrong


class HeadSettings(Settings):
    """Whether a model's task head is kept or replaced; default: kept if its labels are the task's."""

    labels: tuple[str, ...] | None = None
    """Names of the model's outputs in their order, if its config calls them LABEL_0, LABEL_1, ..."""
    keep_head: bool = False
    """Keep a head with other labels: its outputs, in their order, are used as those of the task."""
    fresh_head: bool = False
    """Initialise the head randomly, even if its labels are the task's."""

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.fresh_head and (self.keep_head or self.labels):
            raise wrong("a fresh head keeps no outputs: leave keep_head and labels out.", "fresh_head",
                        "keep_head", "labels")  # fmt: skip
        return self

"""Settings of engines that were made elsewhere: what a graph does not say about itself."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from effx.errors import UsageError
from effx.specs.settings import Parsed, Settings

Array = Literal["input_ids", "attention_mask", "token_type_ids"]
ARRAYS: tuple[Array, ...] = ("input_ids", "attention_mask", "token_type_ids")
"""The arrays that engines take, int64 [rows, tokens]."""


def parse_input(text: str) -> tuple[str, str]:
    """Parse ``input_ids=NAME``: an array and the graph's input that takes it.

    Raises:
        UsageError: the text is not of that form, or there is no such array.
    """
    array, equals, name = (part.strip() for part in text.partition("="))
    if not equals or not name or array not in ARRAYS:
        raise UsageError(f"'{text}': expected ARRAY=NAME, where ARRAY is one of {', '.join(ARRAYS)}.")
    return array, name


InputName = Annotated[
    tuple[str, str],
    Parsed(parse_input, "ARRAY=NAME", "an array and an input, e.g. input_ids=ids", "=".join),
]


class ForeignSettings(Settings):
    """How to read a graph that was made elsewhere; what is None is read from the graph and config.json."""

    input_names: tuple[InputName, ...] | None = None
    """Inputs of the graph, e.g. input_ids=ids,attention_mask=mask. Default: by their names."""
    logits_output: str | None = None
    """Output of the graph with the logits. Default: logits, or the only one of a suitable shape."""
    labels: tuple[str, ...] | None = None
    """Class names in the order of the logits. Default: id2label of config.json."""
    max_length: Annotated[int, Field(ge=4)] | None = None
    """Maximum tokens per example. Default: that of the checkpoint, else the limit of model and
    tokenizer, 512 at most."""

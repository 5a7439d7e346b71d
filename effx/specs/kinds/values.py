"""Values of a label's column as texts, shared by the kinds of tasks."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from typing import Any

import numpy as np

from effx.errors import DataError
from effx.specs.kinds.kind import Where

UNLABELLED = ("-1", "-")
"""Marks of rows without a label, as in SNLI and in the hub's test splits."""
_MOST_NAMES_SHOWN = 12
_MAX_LABEL = 300
"""Characters of a class name at most."""


class ClassNamesError(DataError):
    """The names that a file has for its class numbers are not those of the task."""


def texts_of(values: Sequence[Any], where: Where) -> list[str]:
    """Return labels as texts without outer spaces.

    Raises:
        DataError: a label is empty, a list or an object.
    """
    return [_text(value, index, where) for index, value in enumerate(values)]


def _text(value: Any, index: int, where: Where) -> str:
    if isinstance(value, list | tuple):
        raise DataError(
            f"{where(index)}: the label is a list, {short(value)}, but the rows of this task have one label: "
            "expected a class name or number."
        )
    if isinstance(value, dict):
        raise DataError(
            f"{where(index)}: the label is an object, {short(value)}: expected one class or number."
        )
    missing = value is None or (isinstance(value, float) and math.isnan(value))  # json.dumps writes NaN
    if missing or not str(value).strip():
        raise DataError(f"{where(index)}: the label is empty.")
    text = str(value).strip()
    if isinstance(value, float) and math.isinf(value):
        raise DataError(f"{where(index)}: the label is not a finite number.")
    if len(text) > _MAX_LABEL:
        raise DataError(f"{where(index)}: a label of {len(text):,} characters: is this the label's column?")
    if re.fullmatch(r"\[.*\]|\{.*\}", text, re.DOTALL):
        raise DataError(
            f"{where(index)}: the label is written like a list, {short(text)}, but the rows of this task "
            "have one label: expected a class name or number."
        )
    return text


def objects(values: Sequence[Any]) -> np.ndarray:
    """Return values as an array of objects, also if they are tuples of the same length."""
    array = np.empty(len(values), dtype=object)
    array[:] = values
    return array


def short(value: Any) -> str:
    """Return a value as text, at most 40 characters of it."""
    text = str(value)
    return text if len(text) <= 40 else f"{text[:40]}..."


def listed(labels: Sequence[str]) -> str:
    """Return labels with their numbers, the first twelve of them."""
    shown = ", ".join(f"{number}={name}" for number, name in enumerate(labels[:_MOST_NAMES_SHOWN]))
    return shown + (f", ... ({len(labels)} labels)" if len(labels) > _MOST_NAMES_SHOWN else "")


def is_integer(value: str) -> bool:
    """Whether a label is an integer in ASCII digits."""
    return re.fullmatch(r"-?[0-9]+", value) is not None


def is_float(value: str) -> bool:
    """Whether a label is a finite number in ASCII characters."""
    try:
        return value.isascii() and "_" not in value and math.isfinite(float(value))
    except ValueError:
        return False

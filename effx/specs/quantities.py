"""Settings that are written with a unit, such as ``5ms`` or ``64MiB``, and shares, such as ``1%``."""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from pydantic import GetCoreSchemaHandler
from pydantic_core import CoreSchema, core_schema

from effx.errors import UsageError
from effx.specs.settings import Parsed, wrong

_NUMBER = r"[+-]?(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:[eE][+-]?[0-9]+)?"


@dataclass(frozen=True)
class Quantity(Parsed):
    """Annotation of a field that is written as a positive number with a unit.

    The field's value is in SI units. A number without a unit is accepted from Python, where the field's name
    says the unit, and refused as text.
    """

    suffix: str = ""
    """The unit at the end of the field's name, such as ``_s``; its option leaves it out."""

    def _read(self, value: Any) -> Any:
        if isinstance(value, int | float):
            if not 0 < value < math.inf:
                raise wrong(f"expected more than 0, got {value}.")
            return float(value)
        return super()._read(value)


def _parser(noun: str, units: dict[str, float], example: str) -> Callable[[str], float]:
    known = f"Units: {', '.join(units)}; e.g. {example}."

    def parse(text: str) -> float:
        match = re.fullmatch(rf"({_NUMBER})\s*([A-Za-zµ]*)", text.strip())
        if match is None:
            raise UsageError(f"'{text}' is not a {noun}. {known}")
        number, unit = match.groups()
        if not unit:
            raise UsageError(f"'{text}' has no unit. {known}")
        if unit not in units:
            raise UsageError(f"'{text}': unknown unit '{unit}'. {known}")
        amount = float(number) * units[unit]
        if not 0 < amount < math.inf:
            raise UsageError(f"'{text}': expected more than 0.")
        return amount

    return parse


_DURATIONS = {"s": 1.0, "ms": 1e-3, "us": 1e-6, "µs": 1e-6}
_PERIODS = {"s": 1.0, "m": 60.0, "min": 60.0, "h": 3600.0}
_SIZES = {"B": 1.0, "kB": 1e3, "MB": 1e6, "GB": 1e9, "KiB": 2.0**10, "MiB": 2.0**20, "GiB": 2.0**30}
_ENERGIES = {"J": 1.0, "mJ": 1e-3, "uJ": 1e-6, "µJ": 1e-6}


_MOST_LOSS = 2.0
"""From a correlation of 1 to one of -1; other metrics lose 1 at most."""


def _in(unit: str) -> Callable[[float], str]:
    """Return what writes an amount so that it is read as the same amount."""
    return lambda amount: f"{float(amount)!r}{unit}"


DURATION = Quantity(
    _parser("duration", _DURATIONS, "5ms or 0.005s"), "DURATION", "a duration, e.g. 5ms", _in("s"), "_s"
)
PERIOD = Quantity(_parser("period", _PERIODS, "45m or 2h"), "PERIOD", "a period, e.g. 45m", _in("s"), "_s")
SIZE = Quantity(_parser("size", _SIZES, "500MB or 64MiB"), "SIZE", "a size, e.g. 500MB", _in("B"), "_bytes")
ENERGY = Quantity(_parser("energy", _ENERGIES, "20mJ or 0.02J"), "ENERGY", "an energy, e.g. 20mJ", _in("J"))


def parse_share(text: str) -> float:
    """Parse ``0.01`` or ``1%`` as 0.01.

    Raises:
        UsageError: the text is not a number of that form, or is 1 or more without ``%``: ``1`` could mean
            1 % or 100 %.
    """
    match = re.fullmatch(rf"({_NUMBER})\s*(%?)", text.strip())
    if match is None:
        raise UsageError(f"'{text}' is not a share. Write 0.01 or 1%.")
    number, is_percentage = float(match[1]), bool(match[2])
    if number < 0 or not math.isfinite(number):
        raise UsageError(f"'{text}': expected at least 0.")
    if is_percentage and number > 100:
        raise UsageError(f"'{text}': expected at most 100%.")
    if not is_percentage and number >= 1:
        raise UsageError(
            f"'{text}' could mean {number:g} or {number:g} %: write {number / 100:g} or {number:g}%."
            if number <= 100
            else f"'{text}': expected less than 1, or a percentage."
        )
    return number / 100 if is_percentage else number


def parse_score(text: str) -> float:
    """Parse a value of a metric: ``0.91`` or ``91%`` as 0.91, from -1 to 1.

    Raises:
        UsageError: the text is not a number of that form, or out of range.
    """
    match = re.fullmatch(rf"({_NUMBER})\s*(%?)", text.strip())
    if match is None:
        raise UsageError(f"'{text}' is not a score. Write 0.91 or 91%.")
    score = float(match[1]) / (100 if match[2] else 1)
    if not -1 <= score <= 1:
        raise UsageError(f"'{text}': expected -1 to 1, e.g. 0.91 or 91%.")
    return score


def _share_text(share: float) -> str:
    return "100%" if share == 1 else str(share)  # "1.0" could mean 1 %


SHARE = Parsed(parse_share, "SHARE", "a share, e.g. 0.01 or 1%", _share_text)
SCORE = Parsed(parse_score, "SCORE", "a score, e.g. 0.91 or 91%")


def parse_confidence(text: str) -> float:
    """Parse ``0.95`` or ``95%`` as 0.95.

    Raises:
        UsageError: it is not above 0.5 and below 1.
    """
    confidence = parse_share(text)
    if not 0.5 < confidence < 1:
        raise UsageError(f"'{text}': expected more than 0.5 and less than 1, e.g. 0.95 or 95%.")
    return confidence


def parse_loss(text: str) -> float:
    """Parse a loss of a metric: ``0.01`` or ``1%`` as 0.01, at most 2, as from a correlation of 1 to -1.

    Raises:
        UsageError: the text is not a number of that form, out of range, or 1, which could mean 1 %.
    """
    if text.strip().endswith("%"):
        return parse_share(text)
    if re.fullmatch(_NUMBER, text.strip()) is None:
        raise UsageError(f"'{text}' is not a loss. Write 0.01 or 1%.")
    loss = float(text)
    if loss < 0:
        raise UsageError(f"'{text}': expected at least 0.")
    if loss > _MOST_LOSS:
        hint = f" {loss:g} percentage points are {loss:g}%." if loss <= 100 else ""
        raise UsageError(f"'{text}': no metric loses more than {_MOST_LOSS:g}.{hint}")
    if loss == 1:
        raise UsageError(f"'{text}' could mean 1 % or all: write 1% or 100%.")
    return loss


class _Loss(Parsed):
    """A loss, which is written in files as a number."""

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        return core_schema.no_info_before_validator_function(self._number, handler(source))

    def _number(self, value: Any) -> Any:
        if isinstance(value, float) and value == 1:  # as a manifest has 100%
            return value
        return self._read(value)


LOSS = _Loss(parse_loss, "LOSS", "a loss, e.g. 0.01 or 1%")
CONFIDENCE_LEVEL = Parsed(parse_confidence, "SHARE", "a confidence, e.g. 0.95 or 95%")

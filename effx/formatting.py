"""Format numbers and tables for people: the only module that decides on units, digits and signs.

Results hold SI units (seconds, joules, bytes). Terminal, tables, figures and the report's page show
them in milliseconds, millijoules and MiB, with three significant digits. The page formats with
``report/assets/base.js``, which follows the same rules; ``tests/report/test_page.py`` compares the two.
"""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from decimal import ROUND_HALF_UP, Context, Decimal

NOT_MEASURED = "–"
Cell = str | float | bool | None
_FORMULA = ("=", "+", "-", "@", "\t", "\r")
"""A cell that begins with one of these is a formula to a spreadsheet."""
SCORE_DECIMALS = 4
_LARGE_EXPONENT, _SMALL_EXPONENT = 7, -4
"""From 10^7 on, and below 10^-4, numbers are written with an exponent."""
_EXACT = Context(prec=400, rounding=ROUND_HALF_UP)


@dataclass(frozen=True)
class Unit:
    """How a quantity is shown."""

    factor: float
    """By which the SI value is multiplied."""
    symbol: str


UNITS: dict[str, Unit] = {
    "s": Unit(1e3, "ms"),
    "J": Unit(1e3, "mJ"),
    "J/example": Unit(1e3, "mJ/example"),
    "B": Unit(2**-20, "MiB"),
    "1/s": Unit(1.0, "examples/s"),
    "count": Unit(1e-6, "million"),
    "": Unit(1.0, ""),
}
"""By SI unit. ``count`` is a number of parameters; the empty unit is a score or share."""
_IN_JOULES = {"J": Unit(1.0, "J"), "J/example": Unit(1.0, "J/example")}
"""In sentences, energies of at least one joule."""
_SIZES = {"MiB": 2.0**20, "MB": 1e6, "GiB": 2.0**30, "GB": 1e9, "KiB": 2.0**10, "kB": 1e3, "B": 1.0}
"""Bytes per unit of size; of equally short texts, the first."""


def significant(value: float | None, digits: int = 3) -> str:
    """Return a number with so many significant digits, and all digits before the decimal point.

    Halves are rounded away from zero, as JavaScript's ``toFixed`` does.
    """
    if value is None or not math.isfinite(value):
        return NOT_MEASURED
    if value == 0:
        return "0"
    rounded = Context(prec=digits, rounding=ROUND_HALF_UP).create_decimal(Decimal(float(value)))
    exponent = rounded.adjusted()
    if _SMALL_EXPONENT <= exponent < _LARGE_EXPONENT:
        return fixed(value, _decimals(exponent, digits))
    return f"{fixed(float(rounded.scaleb(-exponent)), digits - 1)}e{exponent:+d}"


def fixed(value: float | None, decimals: int) -> str:
    """Return a number with so many decimals; what rounds to zero has no minus sign."""
    if value is None or not math.isfinite(value):
        return NOT_MEASURED
    rounded = _EXACT.quantize(Decimal(float(value)), Decimal(1).scaleb(-decimals))
    return f"{rounded if rounded else abs(rounded):f}"


def score(value: float | None) -> str:
    """Return a metric of a task, such as accuracy or F1, with four decimals."""
    return fixed(value, SCORE_DECIMALS)


def in_column(value: float | None, unit: str) -> str:
    """Return a value of an SI unit without the unit, for a column or axis headed by :func:`symbol`."""
    if value is None:
        return NOT_MEASURED
    return score(value) if unit == "" else significant(value * UNITS[unit].factor)


def symbol(unit: str) -> str:
    """Return the unit in which columns and axes show values of an SI unit."""
    return UNITS[unit].symbol


def with_unit(value: float, unit: str, *, like: float | None = None) -> str:
    """Return a value of an SI unit with the unit it is shown in, for a sentence.

    Args:
        value: in SI units.
        unit: a key of :data:`UNITS`.
        like: energies are shown in J if this value (default: ``value``) is at least 1 J, else in mJ.
    """
    if unit == "":
        return score(value)
    shown = _in_sentence(value if like is None else like, unit)
    return f"{significant(value * shown.factor)} {shown.symbol}"


def limit(value: float, unit: str) -> str:
    """Return a limit as it was given, not rounded: a value close to it must not read as equal.

    A size is shown in the unit in which it is shortest, such as ``500 MB``, followed by the rounded size in
    MiB, which measured sizes are shown in.
    """
    if unit == "B":
        texts = {symbol: f"{value / size:.10g}" for symbol, size in _SIZES.items()}
        given = min(texts, key=lambda symbol: len(texts[symbol]))
        return f"{texts[given]} {given}" + ("" if given == "MiB" else f" ({with_unit(value, unit)})")
    shown = _in_sentence(value, unit)
    return f"{value * shown.factor:.10g} {shown.symbol}".rstrip()


def rounded_outwards(value: float, unit: str, *, up: bool, like: float | None = None) -> str:
    """Return a value with its unit, rounded so that it meets itself as a limit.

    Args:
        value: in SI units.
        unit: a key of :data:`UNITS`.
        up: whether the limit is a maximum, so that it is rounded up; a minimum is rounded down.
        like: as :func:`with_unit` takes it.
    """
    if not math.isfinite(value):
        return with_unit(value, unit, like=like)
    shown = _in_sentence(value if like is None else like, unit)
    scaled = value * shown.factor
    exponent = math.floor(math.log10(abs(scaled) or 1.0))
    decimals = SCORE_DECIMALS if unit == "" else _decimals(exponent, 3)
    return f"{fixed(outwards(scaled, decimals, up=up), decimals)} {shown.symbol}".rstrip()


def outwards(value: float, decimals: int, *, up: bool) -> float:
    """Return ``value`` rounded up or down to so many decimals; noise of floating point is ignored."""
    scale = 10.0**decimals
    noise = 1e-11 * abs(value * scale)
    return (math.ceil(value * scale - noise) if up else math.floor(value * scale + noise)) / scale


def interval(ends: Sequence[float] | None, unit: str = "") -> str:
    """Return an interval of an SI unit as ``[low, high]`` without the unit; nothing where there is none."""
    return "" if ends is None else f"[{in_column(ends[0], unit)}, {in_column(ends[1], unit)}]"


def times(value: float, decimals: int = 2) -> str:
    """Return a ratio with two decimals, or three significant digits outside 0.1 to 10."""
    return fixed(value, decimals) if 0.1 <= value < 10 else significant(value)


def from_to(ends: Sequence[float], form: Callable[[float], str]) -> str:
    """Return a 95 % interval for a sentence, such as ``95 % 0.91 to 0.93``."""
    return f"95 % {form(ends[0])} to {form(ends[1])}"


def percent(share: float | None, decimals: int = 0) -> str:
    """Return a share as a percentage; with one decimal where it would otherwise read as 0 % or 100 %."""
    if share is None:
        return NOT_MEASURED
    extreme = 0 < share < 0.01 or 0.99 < share < 1
    return f"{fixed(100 * share, max(decimals, 1) if extreme else decimals)} %"


def confidence(share: float) -> str:
    """Return a confidence as it was given: rounded, 99.99 % would read as certain."""
    return f"{100 * share:.10g} %"


def limit_points(max_drop: float) -> str:
    """Return the limit of a loss in points, as it was given: rounded, 0.04 points would read as none."""
    number = f"{100 * max_drop:.10g}"
    return f"{number} point" if number == "1" else f"{number} points"


def points(difference: float) -> str:
    """Return a difference of scores in signed percentage points."""
    text = fixed(100 * difference, 1)
    return text if text.startswith("-") else f"+{text}"


def p_value(p: float) -> str:
    """Return ``p = 0.012``, or ``p < 0.0001``."""
    return "p < 0.0001" if p < 1e-4 else f"p = {significant(p, 2)}"


def _in_sentence(value: float, unit: str) -> Unit:
    return _IN_JOULES[unit] if unit in _IN_JOULES and value >= 1 else UNITS[unit]


def _decimals(exponent: int, digits: int) -> int:
    return max(0, digits - 1 - exponent)


def not_a_formula(cell: Cell) -> Cell:
    """Return a cell that a spreadsheet does not run: names come from files of others."""
    return f"'{cell}" if isinstance(cell, str) and cell.startswith(_FORMULA) else cell


def csv_text(head: Sequence[str], rows: Iterable[Sequence[Cell]]) -> str:
    """Return a table as CSV with all digits; missing values are empty, and no cell is a formula."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow([not_a_formula(name) for name in head])
    writer.writerows([["" if cell is None else not_a_formula(cell) for cell in row] for row in rows])
    return out.getvalue()


def markdown_table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Return a table as Markdown, without a newline at its end; names may contain ``|`` and newlines."""
    return "\n".join([_markdown_row(head), "|" + "---|" * len(head), *map(_markdown_row, rows)])


def _markdown_row(cells: Sequence[str]) -> str:
    return "| " + " | ".join(" ".join(cell.split()).replace("|", r"\|") for cell in cells) + " |"

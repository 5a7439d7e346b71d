"""Colours and units, the same in figures and page.

The colours are Okabe and Ito's, told apart by colour-blind readers; shapes repeat what colours
say.
"""

from __future__ import annotations

from collections.abc import Sequence

from effx.analysis.cohorts import single_stream
from effx.analysis.objectives import Objective, three
from effx.results import Run

COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#f0e442")
MARKERS = ("o", "s", "^", "D", "v", "P", "X")


def marker(number: int) -> str:
    """Return the shape of a series: with its colour, ``number`` modulo seven, no two of 49 are alike."""
    return MARKERS[(number + 3 * (number // len(MARKERS))) % len(MARKERS)]


def milliseconds(seconds: float | None) -> str:
    """Return seconds as milliseconds with three significant digits, or a dash."""
    return "–" if seconds is None else three(seconds * 1e3, zeros=True)


def mebibytes(count: float | None) -> str:
    """Return bytes as MiB, or a dash."""
    return "–" if count is None else f"{count / 2**20:.0f}"


def millijoules(joules: float | None) -> str:
    """Return joules as millijoules with three significant digits, or a dash."""
    return "–" if joules is None else three(joules * 1e3, zeros=True)


def energy_sources(runs: Sequence[Run]) -> list[str]:
    """Return where the energy of single queries is from."""
    return sorted({single_stream(run).energy.source for run in runs} - {"none"})


def joules(run: Run, sources: Sequence[str]) -> str:
    """Return millijoules per example of single queries; with their source where a column has several."""
    energy = single_stream(run).energy
    text = millijoules(energy.joules_per_example)
    return f"{text} ({energy.source})" if len(sources) > 1 and energy.source != "none" else text


def four(value: float) -> str:
    """Return a score with four decimals."""
    return f"{value:.4f}"


def span(interval: tuple[float, float] | list[float] | None, form: object = four) -> str:
    """Return an interval in brackets, or nothing."""
    if interval is None:
        return ""
    assert callable(form)
    return f"[{form(interval[0])}, {form(interval[1])}]"


def unit(objective: Objective) -> str:
    """Return an objective's unit; ``count`` for what has none and is no share."""
    return objective.unit or ("" if objective.scored else "count")


def shown(unit: str) -> tuple[float, str]:
    """Return by what a figure is multiplied to be read, and in which unit it then is."""
    return _SHOWN.get(unit, (1.0, unit))


_SHOWN = {
    "s": (1e3, "ms"),
    "J/example": (1e3, "mJ/example"),
    "J": (1e3, "mJ"),
    "B": (2**-20, "MiB"),
    "count": (1e-6, "million"),
}

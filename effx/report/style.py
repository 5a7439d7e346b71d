"""Colours and shapes, the same in figures and page, and the energy column of tables.

The colours are Okabe and Ito's, told apart by colour-blind readers; shapes repeat what colours
say.
"""

from __future__ import annotations

from collections.abc import Sequence

from effx.analysis.cohorts import single_stream
from effx.formatting import in_column
from effx.results import Run

COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#f0e442")
MARKERS = ("o", "s", "^", "D", "v", "P", "X")


def marker(number: int) -> str:
    """Return the shape of a series: with its colour, ``number`` modulo seven, no two of 49 are alike."""
    return MARKERS[(number + 3 * (number // len(MARKERS))) % len(MARKERS)]


def energy_sources(runs: Sequence[Run]) -> list[str]:
    """Return where the energy of single queries is from."""
    return sorted({single_stream(run).energy.source for run in runs} - {"none"})


def joules(run: Run, sources: Sequence[str]) -> str:
    """Return millijoules per example of single queries; with their source where a column has several."""
    energy = single_stream(run).energy
    text = in_column(energy.joules_per_example, "J/example")
    return f"{text} ({energy.source})" if len(sources) > 1 and energy.source != "none" else text

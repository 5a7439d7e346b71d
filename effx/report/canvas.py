"""A figure that is drawn once and saved as PNG and SVG."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

import matplotlib as mpl
from matplotlib.figure import Figure

MOST = 12
"""Panels in a figure; a page of paper has no room for more."""
_RC = {
    "font.size": 9,
    "font.family": "sans-serif",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "svg.hashsalt": "effx",
    "svg.fonttype": "none",
    "text.parse_math": False,  # a name is a name, whatever dollars it holds
}
_WIDTH_INCHES = 7.2


@contextlib.contextmanager
def canvas(stem: Path, height_inches: float) -> Iterator[Figure]:
    """Yield a figure; afterwards ``stem``.png and ``stem``.svg hold it, the same bytes for the same data."""
    with mpl.rc_context(_RC):
        figure = Figure(figsize=(_WIDTH_INCHES, height_inches), layout="constrained")
        yield figure
        figure.savefig(stem.with_name(f"{stem.name}.png"), dpi=160)
        figure.set_layout_engine("none")  # laid out already, and doing it again takes as long as drawing
        figure.savefig(stem.with_name(f"{stem.name}.svg"), dpi=160, metadata={"Date": None})


def note_left_out(figure: Figure, panels: int) -> None:
    """Say in the figure that it holds the first panels only."""
    if panels > MOST:
        figure.supxlabel(f"the first {MOST} of {panels}; index.html has all", fontsize=7, color="#555555")

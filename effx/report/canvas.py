"""A figure that is drawn once and saved as PNG and SVG."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

import matplotlib as mpl
from matplotlib.figure import Figure

MAX_PANELS = 12
"""Panels of a figure; more do not fit a page of a paper."""
_RC = {
    "font.size": 9,
    "font.family": "sans-serif",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "svg.hashsalt": "effx",
    "svg.fonttype": "none",
    "text.parse_math": False,  # dollar signs in names are not formulas
}
_WIDTH_INCHES = 7.2


@contextlib.contextmanager
def canvas(stem: Path, height_inches: float) -> Iterator[Figure]:
    """Yield a figure that is then saved as ``stem``.png and ``stem``.svg; same data, same bytes."""
    with mpl.rc_context(_RC):
        figure = Figure(figsize=(_WIDTH_INCHES, height_inches), layout="constrained")
        yield figure
        figure.savefig(stem.with_name(f"{stem.name}.png"), dpi=160)
        figure.set_layout_engine("none")  # layout is done; repeating it takes as long as drawing
        figure.savefig(stem.with_name(f"{stem.name}.svg"), dpi=160, metadata={"Date": None})


def note_omitted(figure: Figure, panels: int) -> None:
    """Note in the figure if it shows only the first panels."""
    if panels > MAX_PANELS:
        note = f"first {MAX_PANELS} of {panels}; index.html shows all"
        figure.supxlabel(note, fontsize=7, color="#555555")

"""The style of the figures of trainings, and how they are saved."""

from __future__ import annotations

from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import matplotlib as mpl
from matplotlib.figure import Figure

COLOURS = ("#0072b2", "#009e73", "#d55e00", "#cc79a7", "#e69f00", "#56b4e9")
"""Okabe and Ito: can be distinguished by people with impaired colour vision."""
MARKERS = ("o", "^", "s", "D", "v", "P")
_RC: dict[str, Any] = {
    "font.size": 9, "font.family": "sans-serif", "svg.hashsalt": "effx", "svg.fonttype": "none",
    "axes.spines.top": False, "axes.spines.right": False,
}  # fmt: skip


def style() -> AbstractContextManager[None]:
    """Return a context in which figures have the common style."""
    return mpl.rc_context(_RC)


def save(figure: Figure, path: Path) -> None:
    """Save a figure as .png or .svg; the same figure gives the same bytes."""
    metadata: dict[str, Any] = {"Date": None} if path.suffix == ".svg" else {}
    figure.savefig(path, dpi=160, metadata=metadata)

"""Colours and markers, the same in figures and page.

The colours are those of Okabe and Ito (2008), distinguishable by colour-blind readers; markers repeat
what colours say.
"""

from __future__ import annotations

COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#f0e442")
MARKERS = ("o", "s", "^", "D", "v", "P", "X")


def marker(index: int) -> str:
    """Return the marker of a series; with colour ``index`` modulo 7, the first 49 series differ."""
    return MARKERS[(index + 3 * (index // len(MARKERS))) % len(MARKERS)]

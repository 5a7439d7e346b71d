"""Figures of means over seeds."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from matplotlib.axes import Axes

from effx import formatting
from effx.analysis.objectives import OBJECTIVES
from effx.analysis.seeds import SeedFrontier
from effx.report.canvas import MAX_PANELS, canvas, note_omitted
from effx.report.style import COLOURS, marker

_MAX_NAMED = 20
"""Techniques in a panel up to which each has a colour, a marker and an entry in the legend."""


def draw(frontiers: Sequence[SeedFrontier], stem: Path) -> None:
    """Draw mean score against mean cost, a panel per frontier.

    Thick bars are the standard deviation over seeds, thin ones the 95 % interval over rows.
    """
    panels = min(len(frontiers), MAX_PANELS)
    with canvas(stem, 4.0 * panels) as figure:
        for number, frontier in enumerate(frontiers[:MAX_PANELS], 1):
            _draw(figure.add_subplot(panels, 1, number), frontier)
        note_omitted(figure, len(frontiers))


def _draw(axes: Axes, frontier: SeedFrontier) -> None:
    objective = OBJECTIVES[frontier.cost]
    factor = formatting.UNITS[objective.unit].factor
    named = len(frontier.points) <= _MAX_NAMED
    for index, point in enumerate(frontier.points):
        colour = COLOURS[index % len(COLOURS)] if named else "#888888"
        x, y = factor * point.cost.mean, point.quality.mean
        low, high = point.quality_interval or (y, y)
        seeds = "1 seed" if point.quality.n == 1 else f"{point.quality.n} seeds"
        axes.errorbar(
            [x], [y], yerr=[[max(0.0, y - low)], [max(0.0, high - y)]], fmt=marker(index) if named else "o",
            color=colour, ecolor=colour + "70", elinewidth=1, markersize=6 if named else 3,
            label=f"{point.technique} ({seeds})",
        )  # fmt: skip
        if point.quality.std is not None:
            axes.errorbar([x], [y], yerr=[point.quality.std], fmt="none", ecolor=colour, elinewidth=3)
    best = [point for point in frontier.points if point.non_dominated]
    axes.step(
        [factor * point.cost.mean for point in best], [point.quality.mean for point in best], where="post",
        color="#888888", linewidth=1, zorder=0,
    )  # fmt: skip
    unit = formatting.symbol(objective.unit)
    axes.set_xlabel(f"{objective.label}, mean over seeds, {unit}")
    axes.set_ylabel(f"{frontier.metric}, mean over seeds, n = {frontier.n}")
    axes.set_title(f"{frontier.task} on {frontier.host}", loc="left", fontsize=10, pad=16)
    axes.grid(color="#00000018", linewidth=0.6)
    if named:
        axes.legend(frameon=False, fontsize=7, loc="center left", bbox_to_anchor=(1.0, 0.5))
    axes.annotate(
        "thick: standard deviation over seeds; thin: 95 % interval over rows; line: non-dominated means",
        (0, 1.01), xycoords="axes fraction", ha="left", va="bottom", fontsize=7, color="#777777",
    )  # fmt: skip

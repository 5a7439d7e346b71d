"""Frontier pictures, as PNG and SVG."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import matplotlib as mpl
from matplotlib.figure import Figure

from effx.profile.frontier import OBJECTIVES, Frontier, Point
from effx.profile.report.style import COLOURS, MARKERS
from effx.results import Run

_RC = {"font.size": 9, "svg.hashsalt": "effx", "svg.fonttype": "none", "axes.spines.top": False,
       "axes.spines.right": False, "font.family": "sans-serif"}  # fmt: skip


def draw(frontiers: Sequence[Frontier], runs: Sequence[Run], cost: str, path: Path) -> None:
    """Draw one panel per frontier; without a number to draw, the reason."""
    with mpl.rc_context(_RC):
        height = 4.4 * len(frontiers) if frontiers else 1.6
        figure = Figure(figsize=(7.2, height), layout="constrained")
        if not frontiers:
            _reason(figure, runs)
        for number, frontier in enumerate(frontiers, 1):
            _panel(figure.add_subplot(len(frontiers), 1, number), frontier, cost)
        metadata: dict[str, Any] = {"Date": None} if path.suffix == ".svg" else {}
        figure.savefig(path, dpi=160, metadata=metadata)


def _reason(figure: Figure, runs: Sequence[Run]) -> None:
    reasons = {
        workload.energy.reason
        for run in runs
        for workload in run.workloads
        if (workload.scenario, workload.timing) == ("single-stream", "end-to-end") and workload.energy.reason
    }
    axes = figure.add_subplot()
    axes.set_axis_off()
    text = "energy: unavailable\n\n" + "\n".join(sorted(map(str, reasons)))
    axes.text(0.5, 0.5, text, ha="center", va="center", wrap=True)


def _panel(axes: Any, frontier: Frontier, cost: str) -> None:
    objective = OBJECTIVES[cost]
    metered = cost == "energy"
    unit = f"mJ per example ({frontier.energy_source})" if metered else "ms"
    kinds = list(dict.fromkeys(_kind(point) for point in frontier.points))
    for number, kind in enumerate(kinds):
        for precision, filled in (("fp32", False), ("other", True)):
            chosen = [
                point for point in frontier.points
                if _kind(point) == kind and (point.run.engine["precision"] == "fp32") != filled
            ]  # fmt: skip
            if not chosen:
                continue
            label = f"{kind}, {chosen[0].run.engine['precision'] if filled else precision}"
            _points(axes, chosen, cost, number, filled, label)
    best = [point for point in frontier.points if point.non_dominated]
    axes.step(
        [point.values[cost] * 1e3 for point in best],
        [point.values["accuracy"] for point in best],
        where="post", color="#888888", linewidth=1, zorder=0,
    )  # fmt: skip
    n = frontier.points[0].run.accuracy.n
    axes.set_xlabel(f"{objective.label}, {unit}")
    axes.set_ylabel(f"{frontier.metric}, n = {n}")
    axes.set_title(f"{frontier.task} on {frontier.host}", loc="left", fontsize=10)
    axes.grid(color="#00000018", linewidth=0.6)
    axes.legend(frameon=False, fontsize=8, loc="center left", bbox_to_anchor=(1.0, 0.5))
    axes.annotate(
        "bars: 95 % intervals; line: non-dominated engines",
        (1, 1.01), xycoords="axes fraction", ha="right", va="bottom", fontsize=7, color="#777777",
    )  # fmt: skip


def _points(axes: Any, points: Sequence[Point], cost: str, number: int, filled: bool, label: str) -> None:
    colour = COLOURS[number % len(COLOURS)]
    axes.errorbar(
        [point.values[cost] * 1e3 for point in points],
        [point.values["accuracy"] for point in points],
        xerr=_bars(points, cost, 1e3),
        yerr=_bars(points, "accuracy", 1.0),
        fmt=MARKERS[number % len(MARKERS)], color=colour, ecolor=colour + "70",
        markerfacecolor=colour if filled else "white", elinewidth=1, markersize=7, label=label,
    )  # fmt: skip


def _bars(points: Sequence[Point], name: str, scale: float) -> list[list[float]] | None:
    """Return distances to the interval's ends, [[below...], [above...]]."""
    intervals = [point.intervals[name] for point in points]
    if any(interval is None for interval in intervals):
        return None
    pairs = [
        (point.values[name], interval or (0.0, 0.0))
        for point, interval in zip(points, intervals, strict=True)
    ]
    below = [max(0.0, value - interval[0]) * scale for value, interval in pairs]
    above = [max(0.0, interval[1] - value) * scale for value, interval in pairs]
    return [below, above]


def _kind(point: Point) -> str:
    """Return what a point's colour stands for: its checkpoint."""
    checkpoint = str(point.run.engine["checkpoint"]["name"])
    return checkpoint.removeprefix(f"{point.run.task}-")

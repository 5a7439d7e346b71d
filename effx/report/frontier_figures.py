"""Frontier pictures, as PNG and SVG."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

from effx.analysis.frontier import Frontier, Point
from effx.analysis.objectives import OBJECTIVES
from effx.analysis.techniques import technique
from effx.formatting import UNITS
from effx.report import technique_figures
from effx.report.canvas import MOST, canvas, note_left_out
from effx.report.groups import Group
from effx.report.short_names import short_names
from effx.report.style import COLOURS, marker
from effx.results import Run

_COSTS = ("latency", "energy", "latency_p90", "memory", "size")
_ALWAYS = ("latency", "energy")
_KINDS = 13
"""Kinds that have a colour and shape of their own: more are not told apart."""
_NUMBERED = 12
"""Engines on the frontier that are numbered and named; more leave no room."""
_FEW = 500
"""Points beyond which they are small, without their intervals, and pixels inside the SVG."""


def write(
    groups: Sequence[Group], runs: Sequence[Run], pairs: Sequence[dict[str, Any]], folder: Path
) -> None:
    """Write every figure as PNG and SVG: a frontier per cost, techniques, grids.

    Args:
        groups: whose engines are drawn.
        runs: all results, for the reason why there is no energy.
        pairs: comparisons as JSON; the grids' ratios are theirs.
        folder: where the figures go.
    """
    for cost in _COSTS:
        found = [one for group in groups for one in group.frontiers if one.objectives == ("accuracy", cost)]
        if not found and cost not in _ALWAYS:
            continue
        frontier(found, runs, cost, folder / f"frontier-{cost.replace('_', '-')}")
    panels.techniques(groups, folder / "techniques")
    panels.grids(groups, pairs, folder / "grid")


def frontier(frontiers: Sequence[Frontier], runs: Sequence[Run], cost: str, path: Path) -> None:
    """Draw one panel per frontier; without a number to draw, the reason."""
    with canvas(path, 4.4 * min(len(frontiers), MOST) if frontiers else 1.6) as figure:
        if not frontiers:
            _reason(figure, runs)
        for number, one in enumerate(frontiers[:MOST], 1):
            _panel(figure.add_subplot(min(len(frontiers), MOST), 1, number), one, cost)
        note_left_out(figure, len(frontiers))


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
    scale, unit = UNITS[objective.unit].factor, UNITS[objective.unit].symbol
    if metered:
        unit = f"mJ per example ({frontier.energy_source})"
    kind_of = _kinds(frontier)
    sizes = Counter(map(kind_of, frontier.points))
    own = [kind for kind, _ in sizes.most_common(_KINDS)]
    kinds = {kind: kind if kind in own else f"{len(sizes) - _KINDS} other checkpoints" for kind in sizes}
    for number, kind in enumerate(dict.fromkeys(kinds.values())):
        for precision, filled in (("fp32", False), ("other", True)):
            chosen = [
                point for point in frontier.points
                if kinds[kind_of(point)] == kind and (point.run.engine["precision"] == "fp32") != filled
            ]  # fmt: skip
            if not chosen:
                continue
            reduced = {str(point.run.engine["precision"]) for point in chosen}
            label = f"{kind}, {'/'.join(sorted(reduced)) if filled else precision}"
            _points(axes, chosen, cost, scale, number, filled, label)
    best = [point for point in frontier.points if point.non_dominated]
    axes.step(
        [point.values[cost] * scale for point in best],
        [point.values["accuracy"] for point in best],
        where="post", color="#888888", linewidth=1, zorder=0,
    )  # fmt: skip
    numbers = {point.run.name: str(place) for place, point in enumerate(best, 1)}
    names = short_names([point.run for point in frontier.points])
    for point in frontier.points:
        numbered = numbers.get(point.run.name) if len(best) <= _NUMBERED else None
        mark = numbered or ("knee" if point.run.name == frontier.knee else "~" if point.tied_with else "")
        if numbered:
            knee = " (knee)" if point.run.name == frontier.knee else ""
            axes.plot([], [], " ", label=f"{numbered}  {names[point.run.name]}{knee}")
        if mark:
            left = numbered is not None and int(numbered) % 2 == 0  # neighbours stand apart
            axes.annotate(
                mark, (point.values[cost] * scale, point.values["accuracy"]), xytext=(-5 if left else 5, 4),
                textcoords="offset points", ha="right" if left else "left", fontsize=8,
            )  # fmt: skip
    n = frontier.points[0].run.accuracy.n
    axes.set_xlabel(f"{objective.label}, {unit}" if unit else objective.label)
    axes.set_ylabel(f"{frontier.metric}, n = {n}")
    axes.set_title(f"{frontier.task} on {frontier.host}", loc="left", fontsize=10, pad=16)
    axes.grid(color="#00000018", linewidth=0.6)
    entries = zip(*axes.get_legend_handles_labels(), strict=True)
    ordered = sorted(entries, key=lambda entry: entry[1][:1].isdigit())  # kinds, then the numbered engines
    axes.legend(
        *zip(*ordered, strict=True), frameon=False, fontsize=8, loc="center left", bbox_to_anchor=(1.0, 0.5)
    )
    axes.annotate(
        "bars: 95 % intervals; line and numbers: non-dominated; ~: not distinguishable from them",
        (0, 1.01), xycoords="axes fraction", ha="left", va="bottom", fontsize=7, color="#777777",
    )  # fmt: skip


def _points(
    axes: Any, points: Sequence[Point], cost: str, scale: float, number: int, filled: bool, label: str
) -> None:
    colour = COLOURS[number % len(COLOURS)]
    bars = len(points) <= _FEW
    axes.errorbar(
        [point.values[cost] * scale for point in points],
        [point.values["accuracy"] for point in points],
        xerr=_bars(points, cost, scale) if bars else None,
        yerr=_bars(points, "accuracy", 1.0) if bars else None,
        fmt=marker(number), color=colour, ecolor=colour + "70",
        markerfacecolor=colour if filled else "white", elinewidth=1,
        markersize=7 if len(points) <= _FEW else 3, label=label,
        rasterized=len(points) > _FEW,
    )  # fmt: skip


def _bars(points: Sequence[Point], name: str, scale: float) -> list[list[float]] | None:
    """Return distances to the interval's ends, [[below...], [above...]]; 0 where there is no interval."""
    if all(point.intervals[name] is None for point in points):
        return None
    values = [point.values[name] for point in points]
    intervals = [point.intervals[name] for point in points]
    pairs = [(value, own or (value, value)) for value, own in zip(values, intervals, strict=True)]
    below = [max(0.0, value - interval[0]) * scale for value, interval in pairs]
    above = [max(0.0, interval[1] - value) * scale for value, interval in pairs]
    return [below, above]


def _kinds(frontier: Frontier) -> Callable[[Point], str]:
    """Return what a point's colour stands for: its reduction, or its checkpoint where all have the same."""
    found = {point.run.id: technique(point.run).name for point in frontier.points}
    if len(set(found.values())) > 1:
        return lambda point: "not reduced" if found[point.run.id] == "full" else found[point.run.id]
    return lambda point: str(point.run.engine["checkpoint"]["name"]).removeprefix(f"{point.run.task}-")

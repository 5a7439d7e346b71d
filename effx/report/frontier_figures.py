"""Figures of frontiers, as PNG and SVG."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from effx import formatting
from effx.analysis import cohorts
from effx.analysis.comparison import Comparison
from effx.analysis.frontier import Frontier, FrontierPoint
from effx.analysis.objectives import OBJECTIVES, QUALITY, Objective
from effx.analysis.techniques import Compared, kind
from effx.report import technique_figures
from effx.report.canvas import MAX_PANELS, canvas, note_omitted
from effx.report.contents import energy_unavailable
from effx.report.groups import Group
from effx.report.short_names import short_names
from effx.report.style import COLOURS, marker
from effx.results import Run

_COSTS = ("latency", "cpu_time", "energy", "latency_p90", "memory", "size")
_ALWAYS_DRAWN = ("latency", "energy")
_MAX_KINDS = 13
"""Kinds with a colour and marker; further kinds share one."""
_MAX_NUMBERED = 12
"""Engines on the frontier up to which they are numbered and named."""
_MANY_POINTS = 500
"""With more points, they are drawn small, without intervals, and as pixels in the SVG."""


def write(
    groups: Sequence[Group], runs: Sequence[Run], comparisons: Sequence[Comparison], folder: Path
) -> None:
    """Write every figure as PNG and SVG: a frontier per cost, techniques, grids.

    Args:
        groups: the engines to draw.
        runs: all results, for the reason why a frontier is missing.
        comparisons: the source of the ratios in the grids.
        folder: where the figures are written.
    """
    for cost in _COSTS:
        frontiers = [
            frontier
            for group in groups
            for frontier in group.frontiers
            if frontier.objectives == ("quality", cost)
        ]
        if frontiers or cost in _ALWAYS_DRAWN:
            draw_frontiers(frontiers, runs, cost, folder / f"frontier-{cost.replace('_', '-')}")
    technique_figures.draw_techniques(groups, folder / "techniques")
    technique_figures.draw_grids(groups, comparisons, folder / "grid")


def draw_frontiers(frontiers: Sequence[Frontier], runs: Sequence[Run], cost: str, stem: Path) -> None:
    """Draw one panel per frontier; where there is none, the reasons."""
    panels = min(len(frontiers), MAX_PANELS)
    with canvas(stem, 4.4 * panels if frontiers else 1.6) as figure:
        if not frontiers:
            _draw_reasons(figure, runs, cost)
        for number, frontier in enumerate(frontiers[:MAX_PANELS], 1):
            _draw_panel(figure.add_subplot(panels, 1, number), frontier, cost)
        note_omitted(figure, len(frontiers))


def _draw_reasons(figure: Figure, runs: Sequence[Run], cost: str) -> None:
    axes = figure.add_subplot()
    axes.set_axis_off()
    text = "\n".join(_reasons(cohorts.latest(runs), OBJECTIVES[cost]))
    axes.text(0.5, 0.5, text, ha="center", va="center", wrap=True)


def _reasons(runs: Sequence[Run], cost: Objective) -> list[str]:
    """Return why results have no frontier by accuracy and a cost: a heading, then the reasons."""
    if cost.uses_energy and all(cost.value(run) is None for run in runs):
        return ["energy: unavailable", "", *energy_unavailable(runs)]
    reasons = set()
    for run in runs:
        missing = [axis for axis in (QUALITY, cost) if axis.value(run) is None]
        reasons |= {f"{axis.label} unavailable: {axis.missing(run)}" for axis in missing}
        if not cohorts.has_predictions(run):
            reasons.add("the results do not contain predictions, which frontiers are resampled from")
    return [f"no frontier of accuracy and {cost.short}", "", *sorted(reasons)]


def _draw_panel(axes: Axes, frontier: Frontier, cost: str) -> None:
    _draw_kinds(axes, frontier, cost)
    best = [point for point in frontier.points if point.non_dominated]
    axes.step(
        [_shown(point.values[cost], cost) for point in best],
        [point.values["quality"] for point in best],
        where="post", color="#888888", linewidth=1, zorder=0,
    )  # fmt: skip
    _label_points(axes, frontier, best, cost)
    objective = OBJECTIVES[cost]
    unit = formatting.symbol(objective.unit)
    if objective.uses_energy:
        unit = f"{unit} ({frontier.energy_source})"
    axes.set_xlabel(f"{objective.label}, {unit}" if unit else objective.label)
    axes.set_ylabel(f"{frontier.metric}, n = {frontier.points[0].run.quality.n}")
    axes.set_title(f"{frontier.task} on {frontier.host}", loc="left", fontsize=10, pad=16)
    axes.grid(color="#00000018", linewidth=0.6)
    entries = zip(*axes.get_legend_handles_labels(), strict=True)
    kinds_first = sorted(entries, key=lambda entry: entry[1][:1].isdigit())  # then the numbered engines
    axes.legend(
        *zip(*kinds_first, strict=True),
        frameon=False, fontsize=8, loc="center left", bbox_to_anchor=(1.0, 0.5),
    )  # fmt: skip
    axes.annotate(
        "bars: 95 % intervals; line and numbers: non-dominated; "
        "~: statistically indistinguishable from the frontier",
        (0, 1.01), xycoords="axes fraction", ha="left", va="bottom", fontsize=7, color="#777777",
    )  # fmt: skip


def _draw_kinds(axes: Axes, frontier: Frontier, cost: str) -> None:
    """Draw the points, with a colour and marker per kind, hollow for fp32."""
    kind_of = _kind_of(frontier)
    sizes = Counter(map(kind_of, frontier.points))
    largest = [kind for kind, _ in sizes.most_common(_MAX_KINDS)]
    rest = f"{len(sizes) - _MAX_KINDS} other checkpoints"
    labels = {kind: kind if kind in largest else rest for kind in sizes}
    for index, label in enumerate(dict.fromkeys(labels.values())):
        points = [point for point in frontier.points if labels[kind_of(point)] == label]
        exact = [point for point in points if point.run.engine.precision == "fp32"]
        reduced = [point for point in points if point.run.engine.precision != "fp32"]
        if exact:
            _draw_points(axes, exact, cost, index, False, f"{label}, fp32")
        if reduced:
            precisions = sorted({point.run.engine.precision for point in reduced})
            _draw_points(axes, reduced, cost, index, True, f"{label}, {'/'.join(precisions)}")


def _label_points(axes: Axes, frontier: Frontier, best: Sequence[FrontierPoint], cost: str) -> None:
    """Number the engines on the frontier, name them in the legend, and mark those tied with it."""
    numbers = {point.run.name: number for number, point in enumerate(best, 1)}
    if len(best) > _MAX_NUMBERED:
        numbers = {}
    names = short_names([point.run for point in frontier.points])
    for point in frontier.points:
        is_knee = point.run.name == frontier.knee
        number = numbers.get(point.run.name)
        text = str(number or ("knee" if is_knee else "~" if point.tied_with else ""))
        if number:
            knee = " (knee)" if is_knee else ""
            axes.plot([], [], " ", label=f"{number}  {names[point.run.name]}{knee}")
        if text:
            on_left = number is not None and number % 2 == 0  # so that neighbours do not overlap
            axes.annotate(
                text, (_shown(point.values[cost], cost), point.values["quality"]),
                xytext=(-5 if on_left else 5, 4), textcoords="offset points",
                ha="right" if on_left else "left", fontsize=8,
            )  # fmt: skip


def _draw_points(
    axes: Axes, points: Sequence[FrontierPoint], cost: str, index: int, filled: bool, label: str
) -> None:
    colour = COLOURS[index % len(COLOURS)]
    few = len(points) <= _MANY_POINTS
    axes.errorbar(
        [_shown(point.values[cost], cost) for point in points],
        [point.values["quality"] for point in points],
        xerr=_error_bars(points, cost) if few else None,
        yerr=_error_bars(points, "quality") if few else None,
        fmt=marker(index), color=colour, ecolor=colour + "70",
        markerfacecolor=colour if filled else "white", elinewidth=1,
        markersize=7 if few else 3, label=label, rasterized=not few,
    )  # fmt: skip


def _error_bars(points: Sequence[FrontierPoint], objective: str) -> list[list[float]] | None:
    """Return distances to the ends of the intervals, [[below...], [above...]]; 0 without an interval."""
    if all(point.intervals[objective] is None for point in points):
        return None
    values = [point.values[objective] for point in points]
    intervals = [point.intervals[objective] or (point.values[objective],) * 2 for point in points]
    below = [max(0.0, value - low) for value, (low, _) in zip(values, intervals, strict=True)]
    above = [max(0.0, high - value) for value, (_, high) in zip(values, intervals, strict=True)]
    return [[_shown(distance, objective) for distance in side] for side in (below, above)]


def _shown(value: float, objective: str) -> float:
    """Return an objective's value in the unit that its axis shows."""
    return value * formatting.UNITS[OBJECTIVES[objective].unit].factor


def _kind_of(frontier: Frontier) -> Callable[[FrontierPoint], str]:
    """Return what colours distinguish: encoder and reduction, or the checkpoint if these are all the same."""
    compared = Compared.of([point.run for point in frontier.points])
    kinds = {point.run.id: kind(point.run, compared) for point in frontier.points}
    if len(set(kinds.values())) > 1:
        return lambda point: kinds[point.run.id]
    return lambda point: point.run.engine.checkpoint.name.removeprefix(f"{point.run.task}-")

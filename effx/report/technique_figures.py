"""Figures of reduction techniques and of the grid of batch sizes and lengths."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes

from effx.analysis.cohorts import single_stream
from effx.analysis.comparison import Comparison, LatencyRatio
from effx.analysis.techniques import Compared, series, technique
from effx.formatting import times
from effx.report.canvas import MAX_PANELS, canvas, note_omitted
from effx.report.groups import Group
from effx.report.short_names import short_names
from effx.report.style import COLOURS, marker
from effx.results import Run

_COLUMNS = 3
_MAX_LINES = 20
"""Series in a panel; more could not be distinguished."""
_MAX_LABELLED = 30
"""Engines in a panel up to which each is labelled with its level."""
_LONGEST_TITLE = 34

Shape = tuple[int, int]
"""Batch size and length."""


def draw_techniques(groups: Sequence[Group], stem: Path) -> None:
    """Draw accuracy against median latency, one line per series; no figure without a reduction."""
    groups = [group for group in groups if any(technique(run).is_reduction for run in group.runs)]
    if not groups:
        return
    panels = min(len(groups), MAX_PANELS)
    with canvas(stem, 4.4 * panels) as figure:
        for number, group in enumerate(groups[:MAX_PANELS], 1):
            _draw_series(figure.add_subplot(panels, 1, number), group)
        note_omitted(figure, len(groups))


def _draw_series(axes: Axes, group: Group) -> None:
    lines = _runs_by_series(group)
    labelled = sum(map(len, lines.values())) <= _MAX_LABELLED
    if len(lines) > _MAX_LINES:
        axes.annotate(
            f"first {_MAX_LINES} of {len(lines)} series", (1, 1.01), xycoords="axes fraction",
            ha="right", va="bottom", fontsize=7, color="#555555",
        )  # fmt: skip
    for index, (name, runs) in enumerate(sorted(lines.items())[:_MAX_LINES]):
        runs = sorted(runs, key=lambda run: technique(run).level or 0.0)
        reduced = technique(runs[0]).is_reduction
        alone = len(runs) == 1 and reduced
        label = f"{name}: {technique(runs[0]).text}" if alone else name
        _draw_line(axes, runs, index, label, connected=reduced)
        if labelled and reduced and not alone:
            _label_levels(axes, runs)
    axes.set_xlabel("median latency, single queries at real lengths, ms")
    axes.set_ylabel(f"{group.cohort.described}, n = {group.cohort.n}")
    axes.set_title(group.title, loc="left", fontsize=10)
    axes.grid(color="#00000018", linewidth=0.6)
    axes.legend(frameon=False, fontsize=7, loc="upper left", bbox_to_anchor=(0, -0.16), ncols=2)


def _runs_by_series(group: Group) -> dict[str, list[Run]]:
    """Return the runs of each series, without engines of several reductions or of unavailable quality."""
    lines: dict[str, list[Run]] = {}
    compared = Compared.of(group.runs)
    for run in group.runs:
        if run.withdrawn("quality"):
            continue
        reduction = technique(run)
        if reduction.name != "combined":
            lines.setdefault(series(run, reduction, compared), []).append(run)
    return lines


def _draw_line(axes: Axes, runs: Sequence[Run], index: int, label: str, *, connected: bool) -> None:
    colour = COLOURS[index % len(COLOURS)]
    below, above = (np.abs([run.quality.interval[end] - run.quality.value for run in runs]) for end in (0, 1))
    axes.errorbar(
        [_median_ms(run) for run in runs], [run.quality.value for run in runs], yerr=[below, above],
        fmt=marker(index) + ("-" if connected else ""), color=colour, ecolor=colour + "60", elinewidth=1,
        markersize=6, label=label, markeredgecolor="#333333", markeredgewidth=0.5,
    )  # fmt: skip


def _label_levels(axes: Axes, runs: Sequence[Run]) -> None:
    for index, run in enumerate(runs):
        axes.annotate(
            technique(run).text, (_median_ms(run), run.quality.value),
            xytext=(5, -9 if index % 2 else 4), textcoords="offset points", fontsize=6.5,
        )  # fmt: skip


def _median_ms(run: Run) -> float:
    return (single_stream(run).latency_s["p50"] or math.nan) * 1e3


def draw_grids(groups: Sequence[Group], comparisons: Sequence[Comparison], stem: Path) -> None:
    """Draw the ratio of the median latency to the baseline's by batch and length, a panel per engine."""
    ratios = {comparison.results: _ratios_by_shape(comparison) for comparison in comparisons}
    panels = []
    for group in groups:
        names = short_names(group.runs)
        for run in group.runs:
            by_shape = ratios.get((group.baseline.id, run.id))
            if by_shape:
                panels.append((names[run.name], by_shape))
    if not panels:
        return
    rows = math.ceil(min(len(panels), MAX_PANELS) / _COLUMNS)
    with canvas(stem, 1.7 * rows + 0.4) as figure:
        for number, (name, by_shape) in enumerate(panels[:MAX_PANELS], 1):
            _draw_heat_map(figure.add_subplot(rows, _COLUMNS, number), name, by_shape)
        figure.suptitle(
            "median latency relative to the baseline, paired by round; y axis: batch size, x axis: length\n"
            "below 1: faster; ~: the 95 % interval includes 1; ?: too few rounds for an interval",
            fontsize=8,
        )
        note_omitted(figure, len(panels))


def _ratios_by_shape(comparison: Comparison) -> dict[Shape, LatencyRatio]:
    """Return the ratios of medians by batch size and length."""
    return {
        (ratio.batch, int(ratio.length)): ratio
        for ratio in comparison.latency
        if ratio.scenario == "grid" and ratio.statistic == "p50"
    }


def _draw_heat_map(axes: Axes, name: str, by_shape: Mapping[Shape, LatencyRatio]) -> None:
    from matplotlib.colors import LinearSegmentedColormap

    batches, lengths = (sorted({shape[axis] for shape in by_shape}) for axis in (0, 1))
    values = np.full((len(batches), len(lengths)), np.nan)
    for (batch, length), ratio in by_shape.items():
        row, column = batches.index(batch), lengths.index(length)
        differs = ratio.interval is not None and (ratio.interval[0] > 1 or ratio.interval[1] < 1)
        values[row, column] = ratio.value if differs else 1.0
        mark = "" if differs else "?" if ratio.interval is None else "~"
        axes.text(
            column, row, f"{mark}{times(ratio.value)}", ha="center", va="center", fontsize=8, color="black"
        )
    # the page's colours, pale enough for black text: blue is faster, orange is slower
    colours = LinearSegmentedColormap.from_list("ratio", ["#7ab8dc", "#ffffff", "#f0a878"])
    axes.imshow(np.log2(values), cmap=colours, vmin=-2, vmax=2, aspect="auto")
    axes.set_xticks(range(len(lengths)), [str(length) for length in lengths])
    axes.set_yticks(range(len(batches)), [str(batch) for batch in batches])
    axes.tick_params(length=0, labelsize=7)
    axes.set_title(name if len(name) <= _LONGEST_TITLE else f"{name[: _LONGEST_TITLE - 1]}…", fontsize=7)

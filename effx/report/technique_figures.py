"""Figures of strategies and of the batch x length grid."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from effx.analysis.cohorts import single_stream
from effx.analysis.techniques import longest, series, technique
from effx.report.canvas import MOST, canvas, note_left_out
from effx.report.groups import Group
from effx.report.short_names import short_names
from effx.report.style import COLOURS, marker
from effx.results import Run

_COLUMNS = 3
_LINES = 20
"""Strategies in a panel: more are not told apart."""


def techniques(groups: Sequence[Group], stem: Path) -> None:
    """Draw accuracy against median latency, one line per strategy; nothing without a reduction."""
    groups = [group for group in groups if any(technique(run).is_reduction for run in group.runs)]
    if not groups:
        return
    with canvas(stem, 4.4 * min(len(groups), MOST)) as figure:
        for number, group in enumerate(groups[:MOST], 1):
            _strategies(figure.add_subplot(min(len(groups), MOST), 1, number), group)
        note_left_out(figure, len(groups))


def _strategies(axes: Any, group: Group) -> None:
    lines: dict[str, list[Run]] = {}
    tokens = longest(group.runs)
    for run in group.runs:
        of = technique(run)
        if of.name != "combined":
            lines.setdefault(series(run, of, tokens), []).append(run)
    few = sum(map(len, lines.values())) <= 30
    if len(lines) > _LINES:
        axes.annotate(
            f"the first {_LINES} of {len(lines)} strategies", (1, 1.01), xycoords="axes fraction",
            ha="right", va="bottom", fontsize=7, color="#555555",
        )  # fmt: skip
    for number, (name, runs) in enumerate(sorted(lines.items())[:_LINES]):
        runs = sorted(runs, key=lambda run: technique(run).level or 0.0)
        reduced = technique(runs[0]).is_reduction
        x = [(single_stream(run).latency_s["p50"] or math.nan) * 1e3 for run in runs]
        y = [run.accuracy.value for run in runs]
        low, high = (
            np.abs([run.accuracy.interval[end] - run.accuracy.value for run in runs]) for end in (0, 1)
        )
        colour = COLOURS[number % len(COLOURS)]
        alone = len(runs) == 1 and reduced
        axes.errorbar(
            x, y, yerr=[low, high], fmt=marker(number) + ("-" if reduced else ""), color=colour,
            ecolor=colour + "60", elinewidth=1, markersize=6,
            label=f"{name}: {technique(runs[0]).text}" if alone else name,
            markeredgecolor="#333333", markeredgewidth=0.5,
        )  # fmt: skip
        for place, (run, left, top) in enumerate(zip(runs, x, y, strict=True)):
            if few and reduced and not alone:
                axes.annotate(
                    technique(run).text, (left, top), xytext=(5, -9 if place % 2 else 4),
                    textcoords="offset points", fontsize=6.5,
                )  # fmt: skip
    axes.set_xlabel("median latency, one query at real lengths, ms")
    axes.set_ylabel(f"{group.metric}, n = {group.n}")
    axes.set_title(f"{group.task} on {group.host}", loc="left", fontsize=10)
    axes.grid(color="#00000018", linewidth=0.6)
    axes.legend(frameon=False, fontsize=7, loc="upper left", bbox_to_anchor=(0, -0.16), ncols=2)


def grids(groups: Sequence[Group], pairs: Sequence[dict[str, Any]], stem: Path) -> None:
    """Draw the ratio of the median latency to the baseline's, batch by length, a panel per engine."""
    cells = {one["results"]: _cells(one) for one in pairs}
    found = []
    for group in groups:
        assert group.baseline is not None
        names = short_names(group.runs)
        for run in group.runs:
            own = cells.get((group.baseline.id, run.id))
            if own:
                found.append((names[run.name], own))
    if not found:
        return
    rows = math.ceil(min(len(found), MOST) / _COLUMNS)
    with canvas(stem, 1.7 * rows + 0.4) as figure:
        for number, (name, own) in enumerate(found[:MOST], 1):
            _heat(figure.add_subplot(rows, _COLUMNS, number), name, own)
        figure.suptitle(
            "median latency over the baseline's, paired by round, batch (down) x length\n"
            "below 1: faster; ~: the 95 % interval holds 1; ?: too few rounds for an interval",
            fontsize=8,
        )
        note_left_out(figure, len(found))


def _cells(pair: dict[str, Any]) -> dict[tuple[int, int], dict[str, Any]]:
    """Return the ratios of medians by batch and length."""
    return {
        (one["batch"], int(one["sequence"])): one
        for one in pair["latency"]
        if one["scenario"] == "grid" and one["statistic"] == "p50"
    }


def _heat(axes: Any, name: str, cells: dict[tuple[int, int], dict[str, Any]]) -> None:
    from matplotlib.colors import LinearSegmentedColormap

    batches, lengths = (sorted({shape[end] for shape in cells}) for end in (0, 1))
    values = np.full((len(batches), len(lengths)), np.nan)
    for (batch, length), one in cells.items():
        row, column = batches.index(batch), lengths.index(length)
        interval = one["interval"]
        sure = interval is not None and (interval[0] > 1 or interval[1] < 1)
        values[row, column] = one["value"] if sure else 1.0
        mark = "" if sure else "?" if interval is None else "~"
        axes.text(
            column, row, f"{mark}{one['value']:.2f}", ha="center", va="center", fontsize=8, color="black"
        )
    # the page's colours, pale enough for black text: blue is faster, orange slower
    colours = LinearSegmentedColormap.from_list("ratio", ["#7ab8dc", "#ffffff", "#f0a878"])
    axes.imshow(np.log2(values), cmap=colours, vmin=-2, vmax=2, aspect="auto")
    axes.set_xticks(range(len(lengths)), [str(length) for length in lengths])
    axes.set_yticks(range(len(batches)), [str(batch) for batch in batches])
    axes.tick_params(length=0, labelsize=7)
    axes.set_title(name if len(name) <= 34 else f"{name[:33]}…", fontsize=7)

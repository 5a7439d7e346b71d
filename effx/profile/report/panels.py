"""Figures of strategies and of the batch x length grid."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from effx.profile.frontier import single_stream
from effx.profile.report.canvas import MOST, canvas, note_left_out
from effx.profile.report.groups import Group
from effx.profile.report.style import COLOURS, MARKERS, milliseconds
from effx.profile.report.techniques import series, technique
from effx.results import Run

_COLUMNS = 3


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
    for run in group.runs:
        of = technique(run)
        if of.name != "combined":
            lines.setdefault(series(run, of), []).append(run)
    few = sum(map(len, lines.values())) <= 30
    for number, (name, runs) in enumerate(sorted(lines.items())):
        runs = sorted(runs, key=lambda run: technique(run).level or 0.0)
        reduced = technique(runs[0]).is_reduction
        x = [(single_stream(run).latency_s["p50"] or math.nan) * 1e3 for run in runs]
        y = [run.accuracy.value for run in runs]
        low, high = (np.abs([run.accuracy.interval[end] - run.accuracy.value for run in runs]) for end in (0, 1))
        colour = COLOURS[number % len(COLOURS)]
        axes.errorbar(
            x, y, yerr=[low, high], fmt=MARKERS[number % len(MARKERS)] + ("-" if reduced else ""),
            color=colour, ecolor=colour + "60", elinewidth=1, markersize=6, label=name,
            markeredgecolor="#333333", markeredgewidth=0.5,
        )  # fmt: skip
        for run, left, top in zip(runs, x, y, strict=True):
            if few and reduced:
                axes.annotate(
                    technique(run).text, (left, top), xytext=(5, 4), textcoords="offset points", fontsize=6.5
                )
    axes.set_xlabel("median latency, one query at real lengths, ms")
    axes.set_ylabel(f"{group.metric}, n = {group.n}")
    axes.set_title(f"{group.task} on {group.host}", loc="left", fontsize=10)
    axes.grid(color="#00000018", linewidth=0.6)
    axes.legend(frameon=False, fontsize=7, loc="upper left", bbox_to_anchor=(0, -0.16), ncols=2)


def grids(groups: Sequence[Group], stem: Path) -> None:
    """Draw the median latency over that of the baseline, batch by length, a panel per engine."""
    found = [
        (group, run)
        for group in groups
        for run in group.runs
        if run is not group.baseline and any(one.scenario == "grid" for one in run.workloads)
    ]
    if not found:
        return
    shown = found[:MOST]
    rows = math.ceil(len(shown) / _COLUMNS)
    with canvas(stem, 2.3 * rows + 0.4) as figure:
        for number, (group, run) in enumerate(shown, 1):
            _heat(figure.add_subplot(rows, _COLUMNS, number), run, group)
        figure.suptitle(
            "median latency over the baseline's, batch (down) x length; below 1: faster; ms in brackets",
            fontsize=8,
        )
        note_left_out(figure, len(found))


def _heat(axes: Any, run: Run, group: Group) -> None:
    assert group.baseline is not None
    cells = {(w.batch, int(w.sequence)): w.latency_s["p50"] for w in run.workloads if w.scenario == "grid"}
    batches, lengths = (sorted({shape[end] for shape in cells}) for end in (0, 1))
    values = np.full((len(batches), len(lengths)), np.nan)
    for (batch, length), own in cells.items():
        base = group.baseline.workload("grid", batch, length)
        if base is None or not own or not base.latency_s["p50"]:
            continue
        place = batches.index(batch), lengths.index(length)
        values[place] = own / base.latency_s["p50"]
        text = f"{values[place]:.2f}\n({milliseconds(own)})"
        axes.text(place[1], place[0], text, ha="center", va="center", fontsize=7, color="black")
    # pale, so that black text is read on it; blue faster, orange slower, as on the page
    axes.imshow(np.log2(values), cmap="PuOr_r", vmin=-4, vmax=4, aspect="auto")
    axes.set_xticks(range(len(lengths)), [str(length) for length in lengths])
    axes.set_yticks(range(len(batches)), [str(batch) for batch in batches])
    axes.tick_params(length=0, labelsize=7)
    name = run.name.removeprefix(f"{run.task}-")
    axes.set_title(name if len(name) <= 34 else f"{name[:33]}…", fontsize=7)

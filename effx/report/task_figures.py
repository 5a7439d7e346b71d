"""Frontiers of several tasks as small panels with one scale."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes

from effx.analysis import pareto
from effx.analysis.objectives import OBJECTIVES
from effx.analysis.task_results import TaskDependence, TaskOutcome
from effx.report.canvas import MAX_PANELS, canvas, note_omitted
from effx.report.style import COLOURS, marker

_BASELINE = "not reduced"
_COLUMNS = 3
_MAX_NAMED = 24
"""Techniques up to which each has a colour, a marker and an entry in the legend."""


def draw(study: TaskDependence, stem: Path) -> None:
    """Draw loss against relative cost, a panel per task; all have the same axes."""
    panels = study.tasks[:MAX_PANELS]
    columns = min(_COLUMNS, len(panels))
    rows = math.ceil(len(panels) / columns)
    techniques = _techniques(study)
    named = len(techniques) <= _MAX_NAMED
    legend_rows = math.ceil(len(techniques) / 2) if named else 0
    with canvas(stem, 2.6 * rows + 0.18 * legend_rows + 0.5) as figure:
        first: Axes | None = None
        for number, task in enumerate(panels, 1):
            axes = figure.add_subplot(rows, columns, number, sharex=first, sharey=first)
            first = first or axes
            _draw_task(axes, task, same=study.same_metric, named=named)
            axes.set_xlabel(f"{OBJECTIVES[study.objective].short}, relative", fontsize=8)
            axes.label_outer()
        assert first is not None
        first.invert_yaxis()  # up is better, as in other figures; the others share its axis
        unit = "loss, points" if study.same_metric else "loss, % of the score above a constant answer"
        figure.supylabel(unit, fontsize=8)
        if named:
            # a task without relative losses has none of the techniques
            handles = {
                label: handle
                for axes in figure.axes
                for handle, label in zip(*axes.get_legend_handles_labels(), strict=True)
            }
            labels = [label for label in (_BASELINE, *techniques) if label in handles]
            figure.legend(
                [handles[label] for label in labels], labels, frameon=False, fontsize=7, ncols=2,
                loc="outside lower center",
            )  # fmt: skip
        figure.suptitle(
            "bars: 95 % intervals; line: non-dominated; dashed: no loss", fontsize=7, color="#777777"
        )
        if len(study.tasks) > MAX_PANELS:
            note_omitted(figure, len(study.tasks))


def _techniques(study: TaskDependence) -> list[str]:
    return [each.technique for each in study.tasks[0].techniques]


def _draw_task(axes: Axes, task: TaskOutcome, *, same: bool, named: bool) -> None:
    points = [(1.0, 0.0)]
    axes.plot([1.0], [0.0], marker="*", linestyle="none", color="#333333", label=_BASELINE)
    for index, each in enumerate(task.techniques):
        value, ends = each.in_percent(relative=not same)
        if value is None:
            continue
        points.append((each.cost, value))
        colour = COLOURS[index % len(COLOURS)] if named else "#888888"
        low, high = each.cost_interval or (each.cost, each.cost)
        axes.errorbar(
            [each.cost], [value],
            xerr=[[max(0.0, each.cost - low)], [max(0.0, high - each.cost)]],
            yerr=None if ends is None else [[max(0.0, value - ends[0])], [max(0.0, ends[1] - value)]],
            fmt=marker(index) if named else "o", color=colour, ecolor=colour + "70", elinewidth=1,
            markersize=5 if named else 3, label=each.technique,
        )  # fmt: skip
    best = np.array(points)[pareto.non_dominated(np.array(points))]
    best = best[np.argsort(best[:, 0])]
    axes.step(best[:, 0], best[:, 1], where="post", color="#888888", linewidth=1, zorder=0)
    axes.axhline(0, color="#00000040", linewidth=0.6, linestyle="--")
    axes.set_title(f"{task.task} ({task.metric}, n = {task.n})", loc="left", fontsize=8)
    axes.tick_params(labelsize=7)
    axes.grid(color="#00000018", linewidth=0.6)

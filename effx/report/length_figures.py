"""Relative cost against the length of the inputs, a panel for each batch size."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes

from effx.analysis.length_results import BatchOutcome, LengthDependence
from effx.analysis.objectives import OBJECTIVES
from effx.report.canvas import MAX_PANELS, canvas, note_omitted
from effx.report.style import COLOURS, marker

_COLUMNS = 3
_MAX_NAMED = 24
"""Techniques up to which each has a colour, a marker and an entry in the legend."""
_APART = 0.012
"""Share of the axis by which the marks of techniques are apart, so that bars do not hide others."""


def draw(study: LengthDependence, stem: Path) -> None:
    """Draw relative cost against length, a panel per batch size and a line per technique."""
    panels = study.batches[:MAX_PANELS]
    columns = min(_COLUMNS, len(panels))
    rows = math.ceil(len(panels) / columns)
    named = len(study.losses) <= _MAX_NAMED
    legend_rows = math.ceil(len(study.losses) / 2) if named else 0
    with canvas(stem, 2.8 * rows + 0.18 * legend_rows + 0.5) as figure:
        first: Axes | None = None
        for number, batch in enumerate(panels, 1):
            axes = figure.add_subplot(rows, columns, number, sharey=first)
            first = first or axes
            _draw_batch(axes, batch, named=named)
            axes.set_xlabel("tokens", fontsize=8)
        assert first is not None
        figure.supylabel(f"{OBJECTIVES[study.objective].short}, relative", fontsize=8)
        if named:
            figure.legend(
                *first.get_legend_handles_labels(), frameon=False, fontsize=7, ncols=2,
                loc="outside lower center",
            )  # fmt: skip
        figure.suptitle(
            "bars: 95 % intervals; dashed: the unreduced engine; no mark: not measured",
            fontsize=7, color="#777777",
        )  # fmt: skip
        if len(study.batches) > MAX_PANELS:
            note_omitted(figure, len(study.batches))


def _draw_batch(axes: Axes, batch: BatchOutcome, *, named: bool) -> None:
    lengths = np.array([length.length for length in batch.lengths], dtype=float)
    span, count = np.log(lengths[-1] / lengths[0]), len(batch.lengths[0].techniques)
    for index in range(count):
        found = [length.techniques[index] for length in batch.lengths]
        values = np.array([math.nan if each.cost is None else each.cost for each in found])
        # a line ends where a length is missing: nothing is drawn between lengths that were not measured
        low, high = (
            np.array([value if each.cost_interval is None else each.cost_interval[end]
                      for each, value in zip(found, values, strict=True)])
            for end in (0, 1)
        )  # fmt: skip
        apart = np.exp(_APART * span * (index - (count - 1) / 2) * (1 if named else 0))
        colour = COLOURS[index % len(COLOURS)] if named else "#888888"
        axes.errorbar(
            lengths * apart, values,
            yerr=[np.maximum(0.0, values - low), np.maximum(0.0, high - values)],
            marker=marker(index) if named else "o", color=colour, ecolor=colour + "70", elinewidth=1,
            linewidth=1, markersize=5 if named else 3, label=found[0].technique,
        )  # fmt: skip
    axes.axhline(1, color="#00000060", linewidth=0.6, linestyle="--")
    axes.set_xscale("log")
    axes.set_xticks(lengths, [f"{length:.0f}" for length in lengths])
    axes.minorticks_off()
    axes.set_ylim(bottom=0)
    axes.set_title(f"batch size {batch.batch}", loc="left", fontsize=8)
    axes.tick_params(labelsize=7)
    axes.grid(color="#00000018", linewidth=0.6)

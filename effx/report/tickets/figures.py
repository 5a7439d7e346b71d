"""The figures of a report on searches for super tickets."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from effx.analysis.tickets.structures import SharedImportance
from effx.analysis.tickets.tasks import TaskTable
from effx.report.canvas import canvas
from effx.report.style import COLOURS, marker


def draw_gains(table: TaskTable, stem: Path) -> None:
    """Draw the gain of every task's super ticket against its remaining weights (the paper's figure 3)."""
    with canvas(stem, 4.0) as figure:
        axes = figure.add_subplot()
        axes.axhline(0, color="#444444", linewidth=0.8, linestyle="--")
        for number, result in enumerate(table.tasks):
            axes.errorbar(
                [100 * result.weight_remaining], [100 * result.gain],
                yerr=[100 * (result.test.std or 0.0)], color=COLOURS[number % len(COLOURS)],
                marker=marker(number), markersize=7, elinewidth=1, capsize=2, linestyle="none",
                label=f"{table.label(result)} (level {result.search.level})",
            )  # fmt: skip
        axes.set_xlabel("weights remaining, %")
        axes.set_ylabel("gain over the full model, points")
        axes.grid(color="#00000018", linewidth=0.6)
        axes.legend(frameon=False, fontsize=8, loc="center left", bbox_to_anchor=(1.0, 0.5))
        axes.annotate("bars: standard deviation of the paired differences over seeds", (1, 1.01),
                      xycoords="axes fraction", ha="right", va="bottom", fontsize=7,
                      color="#777777")  # fmt: skip


def draw_importance(parts: Sequence[SharedImportance], stem: Path) -> None:
    """Draw the importance of heads and FFNs, the most important first, divided among tasks (figure 6)."""
    with canvas(stem, 2.9 * len(parts)) as figure:
        for number, part in enumerate(parts, 1):
            axes = figure.add_subplot(len(parts), 1, number)
            places, bottom = np.arange(len(part.names)), np.zeros(len(part.names))
            for index, task in enumerate(part.tasks):
                height = part.importance * part.share[index]
                axes.bar(places, height, 0.9, bottom=bottom, color=COLOURS[index % len(COLOURS)], label=task)
                bottom += height
            axes.set_ylabel(f"importance of {part.what}")
            few = len(part.names) <= 12
            names = [name.removeprefix("layer ") for name in part.names]
            axes.set_xticks(places if few else [], [name.split()[0] for name in names] if few else [])
            axes.set_xlabel("layer" if few else f"{len(part.names)} {part.what}, the most important first")
            axes.legend(frameon=False, fontsize=8, loc="upper right")

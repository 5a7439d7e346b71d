"""The figure of a transfer: what each mask gains or loses against the full model, as heat maps."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.figure import Figure

from effx.train import figures
from effx.train.transfer.table import matrices, sources, title


def matrix(table: dict[str, Any], path: Path) -> None:
    """Draw a heat map per family and amount: source by target, the mean difference from the full model."""
    panels, tasks = list(matrices(table)), list(table["tasks"])
    grids = [
        np.array([[rows[source, task]["from_full"]["difference"] for task in tasks]
                  for source in sources(table, rows)])
        for _, _, rows in panels
    ]  # fmt: skip
    limit = 100 * max((float(np.abs(grid).max()) for grid in grids), default=0.0) or 1.0
    with figures.style():
        width = 1.6 + len(panels) * (1.3 + 0.75 * len(tasks))
        height = 1.6 + 0.36 * max(len(grid) for grid in grids)
        figure = Figure(figsize=(width, height), layout="constrained")
        shown = None
        for number, ((family, amount, rows), grid) in enumerate(zip(panels, grids, strict=True), 1):
            axes = figure.add_subplot(1, len(panels), number)
            shown = axes.imshow(
                100 * grid, cmap=mpl.colormaps["RdBu"], vmin=-limit, vmax=limit, aspect="auto"
            )
            names = sources(table, rows)
            axes.set_xticks(range(len(tasks)), tasks, rotation=30, ha="right")
            axes.set_yticks(range(len(names)), names)
            axes.spines[:].set_visible(False)
            for (row, column), value in np.ndenumerate(100 * grid):
                is_own = names[row] == tasks[column]
                axes.text(
                    column, row, f"{value:+.1f}", ha="center", va="center", fontsize=7.5,
                    color="white" if abs(value) > 0.6 * limit else "black",
                    fontweight="bold" if is_own else "normal",
                )  # fmt: skip
            axes.set_title(title(family, amount), fontsize=8.5)
            axes.set_xlabel("trained on")
            if number == 1:
                axes.set_ylabel("mask of")
        if shown is not None:
            figure.colorbar(shown, ax=figure.axes, label="points against the full model", shrink=0.8)
        seeds = len(table["seeds"])
        over = "one seed" if seeds == 1 else f"means over {seeds} seeds"
        figure.suptitle(f"transfer of masks, {table['model']}: {over}; bold: own mask", x=0.01, ha="left",
                        fontsize=10)  # fmt: skip
        figures.save(figure, path)

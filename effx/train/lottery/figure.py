"""The figure of a search for lottery tickets: scores against zeros, a line per kind of ticket."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

from effx.train import figures
from effx.train.lottery.result import FULL
from effx.train.lottery.table import lines


def scores(table: dict[str, Any], path: Path) -> None:
    """Draw the means with bars of one standard deviation over seeds, and the full model with its own."""
    metric, seeds = table["metric"], len(table["seeds"])
    with figures.style():
        figure = Figure(figsize=(7.2, 4.4), layout="constrained")
        axes = figure.add_subplot()
        base = next(row for row in table["summary"] if row["kind"] == FULL)["scores"][metric]
        axes.axhline(base["mean"], color="#444444", linewidth=1, linestyle="--", label="full model")
        if base["std"] is not None:
            low, high = base["mean"] - base["std"], base["mean"] + base["std"]
            axes.axhspan(low, high, color="#44444418", linewidth=0)
        for number, rows in enumerate(lines(table["summary"])):
            spreads = [row["scores"][metric] for row in rows]
            axes.errorbar(
                [row["percent"] for row in rows],
                [spread["mean"] for spread in spreads],
                yerr=[spread["std"] or 0.0 for spread in spreads],
                color=figures.COLOURS[number % len(figures.COLOURS)],
                marker=figures.MARKERS[number % len(figures.MARKERS)],
                markersize=5, elinewidth=1, capsize=2, linewidth=1.2, label=rows[0]["label"],
            )  # fmt: skip
        axes.set_xlabel("weights that are zero, %")
        axes.set_ylabel(f"{metric}, {table['validation_rows']} validation rows")
        axes.set_title(f"lottery tickets: {table['task']}, {table['model']}", loc="left", fontsize=10)
        axes.grid(color="#00000018", linewidth=0.6)
        axes.legend(frameon=False, fontsize=8, loc="center left", bbox_to_anchor=(1.0, 0.5))
        bars = "one seed" if seeds == 1 else f"bars: standard deviation over {seeds} seeds"
        axes.annotate(bars, (1, 1.01), xycoords="axes fraction", ha="right", va="bottom", fontsize=7,
                      color="#777777")  # fmt: skip
        figures.save(figure, path)

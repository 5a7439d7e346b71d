"""The figure of a few-shot adaptation: scores against training rows, a line per model."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

from effx.train import figures

_BESIDE = 0.02
"""Distance of two models' bars for the same rows, as a share of the rows: they would hide each other."""


def scores(table: dict[str, Any], path: Path) -> None:
    """Draw the means with bars of one standard deviation over draws; the rows are on a logarithmic axis."""
    metric, draws = table["metric"], len(table["seeds"])
    with figures.style():
        figure = Figure(figsize=(7.2, 4.4), layout="constrained")
        axes = figure.add_subplot()
        for number, model in enumerate(table["models"]):
            rows = sorted(
                (row for row in table["summary"] if row["model"] == model), key=lambda row: int(row["rows"])
            )
            spreads = [row["scores"][metric] for row in rows]
            beside = 1 + _BESIDE * (number - (len(table["models"]) - 1) / 2)
            axes.errorbar(
                [row["rows"] * beside for row in rows],
                [spread["mean"] for spread in spreads],
                yerr=[spread["std"] or 0.0 for spread in spreads],
                color=figures.COLOURS[number % len(figures.COLOURS)],
                marker=figures.MARKERS[number % len(figures.MARKERS)],
                markersize=5, elinewidth=1, capsize=2, linewidth=1.2, label=model,
            )  # fmt: skip
        axes.set_xscale("log")
        counts = sorted({row["rows"] for row in table["summary"]})
        axes.set_xticks(counts, [f"{count:,}" for count in counts])
        axes.set_xticks([], minor=True)
        axes.set_xlabel("training rows")
        axes.set_ylabel(f"{metric}, {table['validation_rows']} validation rows")
        axes.set_title(f"adaptation to {table['task']}", loc="left", fontsize=10)
        axes.grid(color="#00000018", linewidth=0.6)
        axes.legend(frameon=False, fontsize=8, loc="center left", bbox_to_anchor=(1.0, 0.5))
        bars = "one draw" if draws == 1 else f"bars: standard deviation over {draws} draws"
        axes.annotate(bars, (1, 1.01), xycoords="axes fraction", ha="right", va="bottom", fontsize=7,
                      color="#777777")  # fmt: skip
        figures.save(figure, path)

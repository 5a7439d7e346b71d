"""Figures of a ticket search: phase transition, and importance scores as a heat map."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

from effx.tickets.scores import Importance
from effx.train import figures

_KINDS = {"winning": ("#0072b2", "o"), "random": ("#009e73", "^"), "losing": ("#d55e00", "s")}
"""Kind -> colour (Okabe and Ito) and marker, so that kinds can be distinguished without colours."""


def phases(table: dict[str, Any], path: Path) -> None:
    """Draw scores against weights remaining: the full model, and a line with error bars per kind."""
    metric = table["metric"]
    with figures.style():
        figure = Figure(figsize=(7.2, 4.4), layout="constrained")
        axes = figure.add_subplot()
        rows = [row for row in table["summary"] if row["level"] is not None]
        full = next(row for row in table["summary"] if row["level"] is None)
        base = full["scores"]["whole"][metric]
        axes.axhline(base["mean"], color="#444444", linewidth=1, linestyle="--", label="full model")
        if base["std"] is not None:
            low, high = base["mean"] - base["std"], base["mean"] + base["std"]
            axes.axhspan(low, high, color="#44444418", linewidth=0)
        for kind, (colour, marker) in _KINDS.items():
            points = sorted(
                (row for row in rows if row["kind"] == kind), key=lambda row: -float(row["weight_remaining"])
            )
            if not points:
                continue
            scores = [row["scores"]["whole"][metric] for row in points]
            axes.errorbar(
                [row["weight_remaining"] * 100 for row in points],
                [score["mean"] for score in scores],
                yerr=[score["std"] or 0.0 for score in scores],
                color=colour, marker=marker, markersize=5, elinewidth=1, capsize=2, linewidth=1.2, label=kind,
            )  # fmt: skip
        _mark_super(axes, table, rows, metric)
        if table["phases"]:
            _mark_phases(axes, table["phases"], rows)
        axes.invert_xaxis()
        axes.set_xlabel("weights remaining, %")
        axes.set_ylabel(f"{metric}, {table['rows']['whole']} validation rows")
        axes.set_title(f"{table['task']}, {table['model']}", loc="left", fontsize=10)
        axes.grid(color="#00000018", linewidth=0.6)
        axes.legend(frameon=False, fontsize=8, loc="center left", bbox_to_anchor=(1.0, 0.5))
        seeds = len(table["seeds"])
        bars = "one seed" if seeds == 1 else f"bars: standard deviation over {seeds} seeds"
        axes.annotate(bars, (1, 1.01), xycoords="axes fraction", ha="right", va="bottom", fontsize=7,
                      color="#777777")  # fmt: skip
        figures.save(figure, path)


def _mark_super(axes: Any, table: dict[str, Any], rows: list[dict[str, Any]], metric: str) -> None:
    best = table["super"]
    if best is None:
        return
    row = next(row for row in rows if (row["kind"], row["level"]) == ("winning", best["level"]))
    axes.plot(
        [row["weight_remaining"] * 100], [row["scores"]["whole"][metric]["mean"]],
        linestyle="none", marker="o", markersize=11, fillstyle="none", color="#000000", label="super ticket",
    )  # fmt: skip


def _mark_phases(axes: Any, levels: dict[str, Any], rows: list[dict[str, Any]]) -> None:
    """Write the names of the phases at the top, and draw the borders half way between their levels."""
    weights = {row["level"]: row["weight_remaining"] * 100 for row in rows if row["kind"] == "winning"}
    spans = [(name, [weights[text] for text in levels[name]]) for name in ("I", "II", "III") if levels[name]]
    for number, (name, values) in enumerate(spans):
        axes.annotate(
            name, ((max(values) + min(values)) / 2, 0.98), xycoords=("data", "axes fraction"), ha="center",
            va="top", fontsize=9, color="#555555",
        )  # fmt: skip
        if number:
            border = (min(spans[number - 1][1]) + max(values)) / 2
            axes.axvline(border, color="#999999", linewidth=0.8, linestyle=":")


def heat_map(scored: Importance, layers: Sequence[int], title: str, path: Path) -> None:
    """Draw scores: a row per layer, a column per head, and a separate column of the FFNs.

    Args:
        scored: the scores.
        layers: the number that each layer has in the unreduced model.
        title: what was scored.
        path: .png or .svg.
    """
    with figures.style():
        count, heads = scored.heads.shape
        figure = Figure(figsize=(2.2 + 0.34 * heads, 1.3 + 0.34 * count), layout="constrained")
        left, right = figure.subplots(1, 2, width_ratios=(heads, 1))
        for axes, values, what in (
            (left, scored.heads, "head"),
            (right, scored.ffns[:, None], "FFN"),
        ):
            image = axes.imshow(values, aspect="auto", cmap="viridis", vmin=0.0)
            axes.set_xlabel(what)
            axes.set_xticks(range(values.shape[1]) if what == "head" else [])
            axes.set_yticks(range(count), [str(layer) for layer in layers])
            figure.colorbar(image, ax=axes, fraction=0.046 if what == "head" else 0.4)
        left.set_ylabel("layer")
        left.set_title(f"importance: {title}", loc="left", fontsize=10)
        figures.save(figure, path)

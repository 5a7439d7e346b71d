"""The table of a search for lottery tickets, as JSON, CSV and Markdown.

A ticket *matches* if its mean score over seeds is not below that of the full model by more than one standard
deviation of the full model's scores over the seeds, n - 1 in the denominator (Chen et al. 2020, section 3.1).
That is a convention, not a test: the table also has the paired difference with its interval.

It contains no times, so that the same cells give the same bytes.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from effx.formatting import csv_text, markdown_table
from effx.specs.lottery import LotterySearchSettings, MlmSettings
from effx.specs.tasks import Task
from effx.stats import runs
from effx.train import tables
from effx.train.lottery.result import EXACT, FULL, IDENTITY, LotteryResult

_SCHEMA = 1


def build(
    task: Task,
    validation_rows: int,
    model: str,
    settings: LotterySearchSettings,
    results: Sequence[LotteryResult],
) -> dict[str, Any]:
    """Return the table.

    Args:
        task: its metrics are scored.
        validation_rows: how many there are.
        model: the pretrained model's name.
        settings: of the search.
        results: of the full model and the tickets, of every seed.

    Returns:
        schema, task, model, metric, metrics, seeds, settings, validation_rows,
        cells[name, label, kind, objective, init, rewind, percent, seed, steps, checkpoint, zeros, metrics],
        summary[label, kind, objective, init, rewind, percent, zeros,
        scores{metric: {mean, std, low, high, n}}, difference, difference_low, difference_high, p, p_adjusted,
        reason, matching], the full model first; the difference from the full model is paired over seeds, with
        the ends of the 95 % interval of Student's t, null for one seed; ``p_adjusted`` is p after Holm's
        adjustment over all rows; ``matching`` is null for one seed; and
        matching {threshold, highest[label, kind, objective, init, rewind, percent]}, the largest percentage
        that matches, null: none does; null for one seed.
    """
    groups: dict[tuple[Any, ...], list[LotteryResult]] = {}
    for result in sorted(results, key=lambda result: result.seed):
        groups.setdefault(result.identity, []).append(result)
    ordered = sorted(groups.values(), key=lambda group: _position(group[0], settings))
    full = next(group for group in ordered if group[0].kind == FULL)
    spread = _spread(task.metric, full)
    threshold = None if spread.std is None else spread.mean - spread.std
    rows = [_row(task, group, full, threshold) for group in ordered]
    tables.adjust(rows)
    left_out = ["sparsity", "kind", "init", "rewind", "seeds", "keep", "text", "mask"]
    left_out += [] if settings.search.objective == "mlm" else MlmSettings.model_fields
    return {
        "schema": _SCHEMA,
        "task": task.name,
        "model": model,
        "metric": task.metric,
        "metrics": list(task.metrics),
        "seeds": list(settings.every_seed),
        "settings": {key: value for key, value in settings.to_json().items() if key not in left_out},
        "validation_rows": validation_rows,
        "cells": [asdict(result) for group in ordered for result in group],
        "summary": rows,
        "matching": None if threshold is None else {"threshold": threshold, "highest": _highest(rows)},
    }


def _position(result: LotteryResult, settings: LotterySearchSettings) -> tuple[int, int, int]:
    """Return where a ticket stands in the table: as the settings name kinds and weights."""
    kinds, inits = [FULL, *settings.kind], ["pretrained", *settings.init]
    kind = kinds.index(result.kind) if result.kind in kinds else len(kinds)
    return kind, inits.index(result.init), result.percent


def _spread(metric: str, group: Sequence[LotteryResult]) -> runs.Spread:
    return runs.Spread.of([result.metrics[metric] for result in group])


def _row(
    task: Task, group: Sequence[LotteryResult], full: Sequence[LotteryResult], threshold: float | None
) -> dict[str, Any]:
    """Return a row of the summary."""
    spreads = {metric: _spread(metric, group) for metric in task.metrics}
    row = {
        **{name: getattr(group[0], name) for name in IDENTITY},
        "zeros": float(np.mean([result.zeros for result in group])),
        "scores": {metric: asdict(spread) for metric, spread in spreads.items()},
    }
    if group is full:
        none = ("difference", "difference_low", "difference_high", "p", "reason", "matching")
        return {**row, **dict.fromkeys(none)}
    before, after = ([result.metrics[task.metric] for result in part] for part in (full, group))
    compared = tables.paired(before, after)
    return {
        **row,
        "difference": compared["difference"],
        "difference_low": compared["low"],
        "difference_high": compared["high"],
        "p": compared["p"],
        "reason": compared["reason"],
        "matching": None if threshold is None else spreads[task.metric].mean >= threshold,
    }


def _highest(rows: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return the largest percentage that matches, for each line of tickets."""
    return [
        {
            **{name: line[0][name] for name in IDENTITY[:-1]},
            "percent": max((row["percent"] for row in line if row["matching"]), default=None),
        }
        for line in lines(rows)
    ]


def lines(rows: Sequence[dict[str, Any]]) -> Iterator[list[dict[str, Any]]]:
    """Yield the rows of tickets that differ in their percentage alone, the densest first."""
    groups: dict[tuple[Any, ...], list[dict[str, Any]]] = {}
    for row in rows:
        if row["kind"] != FULL:
            groups.setdefault(tuple(row[name] for name in IDENTITY[:-1]), []).append(row)
    yield from groups.values()


def write(folder: Path, value: dict[str, Any]) -> None:
    """Write table.json, table.csv and table.md."""
    tables.write(folder, value, as_csv(value), markdown(value))


def as_csv(value: dict[str, Any]) -> str:
    """Return one line per row and metric; the full model is compared with by the primary metric."""
    compared = ("difference", "difference_low", "difference_high", "p", "p_adjusted", "matching")
    rows = [
        [*(row[name] for name in IDENTITY), row["zeros"], metric, *tables.spread(spread),
         *(row[name] if metric == value["metric"] else None for name in compared)]
        for row in value["summary"] for metric, spread in row["scores"].items()
    ]  # fmt: skip
    return csv_text([*IDENTITY, "zeros", "metric", *tables.SPREAD, "seeds", *compared], rows)


def markdown(value: dict[str, Any]) -> str:
    """Return the table as Markdown: means and standard deviations over seeds, then the conclusions."""
    metrics, several = value["metrics"], len(value["seeds"]) > 1
    heads = ["ticket", "zeros", *metrics, f"{value['metric']} minus full model"]
    heads += ["matching"] if several else []
    body = []
    for row in value["summary"]:
        cells = [row["label"], _zeros(row)]
        cells += [tables.mean_and_std(row["scores"][metric]) for metric in metrics]
        cells.append(_difference(row, value["metric"]))
        cells += [{True: "yes", False: "no", None: ""}[row["matching"]]] if several else []
        body.append(cells)
    return "\n".join([markdown_table(heads, body), "", *remarks(value), ""])


def remarks(value: dict[str, Any]) -> list[str]:
    """Return the conclusions of the table, one per line."""
    seeds, rows = len(value["seeds"]), f"{value['validation_rows']} validation rows."
    matching = value["matching"]
    if matching is None:
        return [f"One seed, {rows} Without a spread over seeds it cannot be tested whether tickets match the "
                "full model: use two or more seeds."]  # fmt: skip
    compared = sum(row["p"] is not None for row in value["summary"])
    metric, threshold = value["metric"], matching["threshold"]
    result = [
        f"Mean ± standard deviation over {seeds} seeds, {rows} Differences are paired over seeds, with the "
        f"95 % interval of Student's t and p-values after Holm's adjustment over {compared} comparisons.",
        f"Matching: the mean {metric} is at least {threshold:.4f}, that of the full model minus one standard "
        "deviation of the full model over the seeds. This is a convention, not a test: the interval says how "
        "much a ticket may lose.",
    ]
    highest = [f"{line['label']}: {_percent(line['percent'])}" for line in matching["highest"]]
    return [*result, f"Highest matching percentage of zeros: {'; '.join(highest)}."]


def _zeros(row: dict[str, Any]) -> str:
    """Return the percentage of a mask, and the share of the weights that are zero if that is another one."""
    text = f"{row['percent']} %"
    exact = abs(row["zeros"] - row["percent"] / 100) <= EXACT
    return text if exact else f"{text} ({100 * row['zeros']:.1f} % are zero)"


def _percent(percent: int | None) -> str:
    return "none matches" if percent is None else f"{percent} %"


def _difference(row: dict[str, Any], metric: str) -> str:
    if row["difference"] is None:
        return ""
    if row["scores"][metric]["n"] == 1:
        return f"{row['difference']:+.4f}"
    return tables.difference({**row, "low": row["difference_low"], "high": row["difference_high"]})

"""The table of a few-shot adaptation, as JSON, CSV and Markdown.

It contains no times, so that the same cells give the same bytes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from effx import records
from effx.artifacts import Checkpoint
from effx.formatting import csv_text, markdown_table
from effx.specs.adaptation import AdaptationSettings
from effx.specs.tasks import Task
from effx.specs.training import rows_share_text
from effx.stats import runs
from effx.train import tables

_SCHEMA = 1


@dataclass(frozen=True)
class AdaptationResult:
    """One model, fine-tuned on one draw."""

    model: str
    """Name of the model that was adapted."""
    share: float
    seed: int
    """Of the draw."""
    rows: int
    """Training rows, those held out for early stopping included."""
    steps: int
    """Optimizer steps."""
    checkpoint: str
    """Digest of the checkpoint."""
    weight_remaining: float
    metrics: dict[str, float]
    """On all validation rows."""

    @classmethod
    def of(cls, checkpoint: Checkpoint, model: str, share: float, seed: int) -> AdaptationResult:
        """Return the result in a checkpoint's manifest."""
        manifest = checkpoint.manifest
        training = manifest.training
        return cls(
            model,
            share,
            seed,
            (training.rows or 0) + training.held_out_rows,
            training.steps,
            checkpoint.digest,
            manifest.weight_remaining,
            dict(manifest.metrics),
        )

    @classmethod
    def read(cls, path: Path) -> AdaptationResult:
        """Read a result's file; :class:`ArtifactError`: it is missing or damaged."""
        return records.read_result(cls, path, "the model")


def build(
    task: Task,
    validation_rows: int,
    models: Sequence[str],
    settings: AdaptationSettings,
    results: Sequence[AdaptationResult],
) -> dict[str, Any]:
    """Return the table.

    Args:
        task: the target.
        validation_rows: how many there are.
        models: their names; the others are compared with the first.
        settings: of the adaptation.
        results: one for every model, share and seed.

    Returns:
        schema, task, metric, metrics, models, seeds, settings, validation_rows,
        cells[model, share, seed, rows, steps, checkpoint, weight_remaining, metrics],
        summary[model, share, rows, weight_remaining, scores{metric: {mean, std, low, high, n}}],
        comparisons[model, with, share, difference, low, high, p, p_adjusted, n, reason]: paired over draws;
        ``low`` and ``high`` are the ends of the 95 % interval of Student's t, null for one draw, and
        ``p_adjusted`` is p after Holm's adjustment over all comparisons.
    """
    by_group = {
        (model, share): sorted(
            (result for result in results if (result.model, result.share) == (model, share)),
            key=lambda result: result.seed,
        )
        for model in models
        for share in settings.shares
    }
    comparisons = [
        _comparison(task.metric, by_group[models[0], share], by_group[model, share])
        for model in models[1:]
        for share in settings.shares
    ]
    tables.adjust(comparisons)
    return {
        "schema": _SCHEMA,
        "task": task.name,
        "metric": task.metric,
        "metrics": list(task.metrics),
        "models": list(models),
        "seeds": list(settings.seeds),
        "settings": {
            key: value
            for key, value in settings.to_json().items()
            if key not in ("shares", "draws", "share", "keep")
        },
        "validation_rows": validation_rows,
        "cells": [asdict(result) for group in by_group.values() for result in group],
        "summary": [_summary(task.metrics, group) for group in by_group.values()],
        "comparisons": comparisons,
    }


def _summary(metrics: Sequence[str], group: Sequence[AdaptationResult]) -> dict[str, Any]:
    first = group[0]
    return {
        "model": first.model,
        "share": first.share,
        "rows": first.rows,
        "weight_remaining": first.weight_remaining,
        "scores": {
            metric: asdict(runs.Spread.of([result.metrics[metric] for result in group])) for metric in metrics
        },
    }


def _comparison(
    metric: str, baseline: Sequence[AdaptationResult], group: Sequence[AdaptationResult]
) -> dict[str, Any]:
    """Return the paired comparison of a model with the first one on the same draws."""
    before, after = ([result.metrics[metric] for result in part] for part in (baseline, group))
    return {
        "model": group[0].model,
        "with": baseline[0].model,
        "share": group[0].share,
        **tables.paired(before, after),
    }


def write(folder: Path, value: dict[str, Any]) -> None:
    """Write table.json, table.csv and table.md."""
    tables.write(folder, value, as_csv(value), markdown(value))


def as_csv(value: dict[str, Any]) -> str:
    """Return one line per model, share and metric."""
    names = ("model", "share", "rows", "weight_remaining")
    rows = [
        [*(row[name] for name in names), metric, *tables.spread(spread)]
        for row in value["summary"]
        for metric, spread in row["scores"].items()
    ]
    return csv_text([*names, "metric", *tables.SPREAD, "draws"], rows)


def markdown(value: dict[str, Any]) -> str:
    """Return the table as Markdown: a row per model, a column per share, then the comparisons."""
    shares = list(dict.fromkeys(row["share"] for row in value["summary"]))
    rows = {(row["model"], row["share"]): row for row in value["summary"]}
    first, draws = value["models"][0], len(value["seeds"])
    heads = [f"{rows_share_text(share)} ({rows[first, share]['rows']:,} rows)" for share in shares]
    body = []
    for model in value["models"]:
        weights = f"{rows[model, shares[0]]['weight_remaining']:.1%}"
        scores = [tables.mean_and_std(rows[model, share]["scores"][value["metric"]]) for share in shares]
        body.append([model, weights, *scores])
    spread = "One draw." if draws == 1 else f"Mean ± standard deviation over {draws} draws."
    lines = [markdown_table([f"model, {value['metric']}", "weights", *heads], body)]
    lines += ["", f"{spread} {value['validation_rows']} validation rows."]
    if value["comparisons"] and draws > 1:
        by_group = {(entry["model"], entry["share"]): entry for entry in value["comparisons"]}
        body = [
            [model, *(tables.difference(by_group[model, share]) for share in shares)]
            for model in value["models"][1:]
        ]
        lines += ["", f"Difference from {first} on the same draws, with its 95 % interval (Student's t) and "
                  f"the p-value after Holm's adjustment over {len(value['comparisons'])} comparisons:", "",
                  markdown_table(["model", *map(rows_share_text, shares)], body)]  # fmt: skip
    return "\n".join([*lines, ""])

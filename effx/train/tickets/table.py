"""The table of a search for tickets, as JSON, CSV and Markdown.

It contains no times, so that the same cells give the same bytes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from effx.formatting import csv_text, markdown_table
from effx.specs.levels import Level
from effx.specs.tasks import Task
from effx.specs.tickets import TicketSearchSettings
from effx.stats import runs
from effx.train import tables
from effx.train.tickets import selection
from effx.train.tickets.halving import RungDecision
from effx.train.tickets.result import FULL, TicketResult

_SCHEMA = 1
PARTS = ("whole", "rest", "selection")
"""All validation rows, those that are not selection rows, the selection rows."""


def build(
    task: Task,
    labels: np.ndarray,
    model: str,
    settings: TicketSearchSettings,
    results: Sequence[TicketResult],
    rungs: Sequence[RungDecision] = (),
    *,
    grid_steps: int | None = None,
    scores_of: Sequence[str] | None = None,
    teacher: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """Return the table.

    Args:
        task: its metrics are scored.
        labels: [n], of the validation rows.
        model: the pretrained model's name.
        settings: of the search.
        results: of the full models and of complete tickets.
        rungs: the decisions of successive halving, in order.
        grid_steps: for successive halving, the maximum optimizer steps of the complete grid; None: the
            search is a grid.
        scores_of: tasks whose scores decided what is pruned; None: those of the full models of this search.
        teacher: name, digest and settings of distillation of the checkpoint that full models and tickets
            learned from besides the labels; None: there was none.

    Returns:
        schema, task, model, metric, metrics, seeds, settings, scores_of, teacher,
        rows (numbers of validation rows),
        cells[checkpoint, kind, level, seed, steps, parameters, weight_remaining, removed,
        scores{part: {metric}}],
        summary[kind, level, n, weight_remaining, removed, scores{part: {metric: {mean, std, low, high, n}}}],
        super {level, weight_remaining, checkpoints, test{part}} or null,
        cross_fitted {folds, levels{level: folds}, scores{metric: spread}, test} or null, phases or null,
        search.
    """
    first = settings.finetune.training.seed
    chosen, rest = selection.split(len(labels), settings.selection, first)
    parts = {"whole": np.arange(len(labels)), "rest": rest, "selection": chosen}
    cells: list[dict[str, Any]] = [
        {
            "checkpoint": result.name,
            "kind": result.kind,
            "level": result.level.text if result.level else None,
            "seed": result.seed,
            "steps": result.steps,
            "parameters": result.parameters,
            "weight_remaining": result.weight_remaining,
            "removed": result.removed.to_json(),
            "scores": {part: result.score(task, labels, rows) for part, rows in parts.items()},
        }
        for result in results
    ]
    groups: dict[tuple[str, str | None], list[dict[str, Any]]] = {}
    for cell in cells:
        groups.setdefault((cell["kind"], cell["level"]), []).append(cell)
    best = _best_level(task, labels, chosen, settings, results)
    halving = grid_steps is not None
    return {
        "schema": _SCHEMA,
        "task": task.name,
        "model": model,
        "metric": task.metric,
        "metrics": list(task.metrics),
        "seeds": list(range(first, first + settings.seeds)),
        "settings": {
            key: value for key, value in settings.to_json().items() if key not in ("levels", "kinds", "keep")
        },
        "scores_of": None if scores_of is None else list(scores_of),
        "teacher": None if teacher is None else dict(teacher),
        "rows": {part: len(rows) for part, rows in parts.items()},
        "cells": cells,
        "summary": [_summary(list(task.metrics), group) for group in groups.values()],
        "super": None if best is None else _super(task.metric, groups, best.text),
        "cross_fitted": (None if halving or best is None else _cross_fitted(task, labels, settings, results)),
        "phases": None if halving else _phases(task.metric, groups),
        "search": _search(settings, results, rungs, grid_steps),
    }


def _best_level(
    task: Task,
    labels: np.ndarray,
    rows: np.ndarray,
    settings: TicketSearchSettings,
    results: Sequence[TicketResult],
) -> Level | None:
    """Return the level of the super ticket; None: no winning tickets were trained."""
    winning = [result for result in results if result.kind == "winning"]
    levels = [level for level in settings.levels if any(result.level == level for result in winning)]
    if not levels:
        return None
    candidates = [
        selection.candidate(level, [r for r in winning if r.level == level], task, labels, rows)
        for level in levels
    ]
    return selection.best(candidates).level


def _cross_fitted(
    task: Task, labels: np.ndarray, settings: TicketSearchSettings, results: Sequence[TicketResult]
) -> dict[str, Any] | None:
    """Return the super ticket's scores on all rows, with its level chosen on others; None: too few rows."""
    winning = [result for result in results if result.kind == "winning"]
    levels = [level for level in settings.levels if any(result.level == level for result in winning)]
    found = selection.cross_fitted(levels, winning, task, labels, settings.finetune.training.seed)
    if found is None:
        return None
    full = sorted((result for result in results if result.kind == FULL), key=lambda result: result.seed)
    every = np.arange(len(labels))
    before = [result.score(task, labels, every)[task.metric] for result in full]
    after = [scores[task.metric] for scores in found.scores]
    return {
        "folds": selection.FOLDS,
        "levels": {level.text: found.levels[level] for level in levels if level in found.levels},
        "scores": {
            metric: asdict(runs.Spread.of([scores[metric] for scores in found.scores]))
            for metric in task.metrics
        },
        "test": runs.paired_test(before, after).to_json(),
    }


def _search(
    settings: TicketSearchSettings,
    results: Sequence[TicketResult],
    rungs: Sequence[RungDecision],
    grid_steps: int | None,
) -> dict[str, Any]:
    """Return the optimizer steps of the search, each counted once."""
    if grid_steps is None:
        return {"search": "grid", "steps": sum(result.steps for result in results), "rungs": []}
    used = {(level, seed): steps for rung in rungs for level, seed, steps in rung.used}
    used |= {(result.level, result.seed): result.steps for result in results if result.level is not None}
    steps = sum(used.values()) + sum(result.steps for result in results if result.level is None)
    return {
        "search": "halving",
        "steps": steps,
        "grid_steps": grid_steps,  # a maximum with early stopping; then the share is unknown
        "share": None if settings.finetune.patience else steps / grid_steps,
        "rungs": [rung.table_entry() for rung in rungs],
    }


def _summary(metrics: Sequence[str], group: Sequence[dict[str, Any]]) -> dict[str, Any]:
    first = group[0]
    return {
        "kind": first["kind"],
        "level": first["level"],
        "n": len(group),
        "weight_remaining": float(np.mean([cell["weight_remaining"] for cell in group])),
        "removed": first["removed"],
        "scores": {
            part: {metric: asdict(runs.Spread.of(_scores(group, part, metric))) for metric in metrics}
            for part in PARTS
        },
    }


def _super(
    metric: str, groups: dict[tuple[str, str | None], list[dict[str, Any]]], level: str
) -> dict[str, Any]:
    full, ticket = groups[FULL, None], groups["winning", level]
    return {
        "level": level,
        "weight_remaining": float(np.mean([cell["weight_remaining"] for cell in ticket])),
        "checkpoints": [cell["checkpoint"] for cell in ticket],
        "test": {
            part: runs.paired_test(_scores(full, part, metric), _scores(ticket, part, metric)).to_json()
            for part in ("rest", "whole")
        },
    }


def _phases(metric: str, groups: dict[tuple[str, str | None], list[dict[str, Any]]]) -> dict[str, Any] | None:
    by_kind: dict[str, dict[Level, list[float]]] = {}
    weights: dict[Level, float] = {}
    for (kind, text), group in groups.items():
        if text is not None:
            level = Level.parse(text)
            by_kind.setdefault(kind, {})[level] = _scores(group, "whole", metric)
            weights[level] = min(group[0]["weight_remaining"], weights.get(level, np.inf))
    if "winning" not in by_kind:
        return None
    lightest_first = sorted(by_kind["winning"], key=lambda level: -weights[level])
    full = _scores(groups[FULL, None], "whole", metric)
    return selection.phases(lightest_first, full, by_kind["winning"], by_kind.get("random"))


def _scores(group: Sequence[dict[str, Any]], part: str, metric: str) -> list[float]:
    return [cell["scores"][part][metric] for cell in sorted(group, key=lambda cell: int(cell["seed"]))]


def write(folder: Path, value: dict[str, Any]) -> None:
    """Write table.json, table.csv and table.md."""
    tables.write(folder, value, as_csv(value), markdown(value))


def as_csv(value: dict[str, Any]) -> str:
    """Return one line per kind, level, part and metric."""
    head = ["kind", "level", "heads_removed", "ffns_removed", "neurons_removed", "weight_remaining", "rows",
            "metric", *tables.SPREAD, "seeds"]  # fmt: skip
    rows = [
        [row["kind"], row["level"], *(row["removed"][name] for name in ("heads", "ffns", "neurons")),
         row["weight_remaining"], part, metric, *tables.spread(spread)]
        for row in value["summary"] for part in PARTS for metric, spread in row["scores"][part].items()
    ]  # fmt: skip
    return csv_text(head, rows)


def markdown(value: dict[str, Any]) -> str:
    """Return the table as Markdown: means and standard deviations over seeds, weights in percent."""
    metrics, rows = value["metrics"], value["rows"]
    heads = [f"{metric}, {n} rows" for metric in metrics for n in (rows["whole"],)]
    heads.append(f"{value['metric']}, {rows['rest']} rows without selection rows")
    body = []
    for row in value["summary"]:
        scores = [tables.mean_and_std(row["scores"]["whole"][metric]) for metric in metrics]
        scores.append(tables.mean_and_std(row["scores"]["rest"][value["metric"]]))
        cells = [row["kind"], row["level"] or "", _removed(row["removed"]), f"{row['weight_remaining']:.1%}"]
        body.append([*cells, *scores])
    table = markdown_table(["ticket", "level", "removed", "weights", *heads], body)
    return "\n".join([table, "", *remarks(value), ""])


def remarks(value: dict[str, Any]) -> list[str]:
    """Return the conclusions of the table, one per line."""
    seeds = len(value["seeds"])
    lines = ["One seed." if seeds == 1 else f"Mean ± standard deviation over {seeds} seeds."]
    if value["scores_of"] is not None:
        lines.append(
            f"Tickets are pruned by importance scores of {', '.join(value['scores_of'])}, not by those of "
            "the full models of this search."
        )
    if teacher := value["teacher"]:
        lines.append(
            f"Full models and tickets learned from the teacher {teacher['name']} ({teacher['digest'][:8]}): "
            "differences between them are not the gain of distillation."
        )
    if best := value["super"]:
        test = "no test of one seed" if seeds == 1 else f"paired t-test over {seeds} seeds"
        on = {part: _test_text(best["test"][part]) for part in ("rest", "whole")}
        lines.append(
            f"Super ticket: level {best['level']}, {best['weight_remaining']:.1%} of the weights, chosen on "
            f"{value['rows']['selection']} rows; on the other {value['rows']['rest']} it differs from the "
            f"full model by {on['rest']}, on all {value['rows']['whole']} by {on['whole']}; {test}. "
            f"Its checkpoints: {', '.join(best['checkpoints'])}."
        )
    if fitted := value["cross_fitted"]:
        score = tables.mean_and_std(fitted["scores"][value["metric"]])
        most_first = sorted(fitted["levels"].items(), key=lambda item: -item[1])
        chosen = ", ".join(f"{level} in {count}" for level, count in most_first)
        lines.append(
            f"Cross-fitted on all {value['rows']['whole']} rows, each answered by the level that is best on "
            f"the other {fitted['folds'] - 1} of {fitted['folds']} folds: {value['metric']} {score}, "
            f"different from the full model by {_test_text(fitted['test'])}; levels of the folds: {chosen}."
        )
    if phases := value["phases"]:
        phases_text = ", ".join(f"{name}: {_levels(phases[name])}" for name in ("I", "II", "III"))
        lines.append(f"Phases (levels) {phases_text}. Rule: {phases['rule']}.")
    search = value["search"]
    if search["search"] == "halving":
        grid = f"{search['grid_steps']} (full models and winning tickets)"
        compared = (
            f"; the grid takes at most {grid}, fewer with early stopping"
            if search["share"] is None
            else f", {search['share']:.1%} of the grid's {grid}"
        )
        lines.append(f"Halving took {search['steps']} training steps{compared}.")
    else:
        lines.append(f"The grid took {search['steps']} training steps.")
    return lines


def _test_text(test: Mapping[str, Any]) -> str:
    difference = f"{test['difference']:+.4f}"
    if test["n"] == 1:
        return difference
    p = f"p = {test['p']:.3f}" if test["p"] is not None else f"no p-value: {test['reason']}"
    return f"{difference} ({p})"


def _levels(phase: list[str] | None) -> str:
    return "unknown without random tickets" if phase is None else " ".join(phase) or "none"


def _removed(removed: dict[str, int]) -> str:
    names = {"heads": "heads", "ffns": "FFNs", "neurons": "neurons"}
    return ", ".join(f"{count} {names[key]}" for key, count in removed.items() if count)

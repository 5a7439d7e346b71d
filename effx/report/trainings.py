"""The tables that compare ways of training over tasks and seeds."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any

from effx import files
from effx.analysis.trainings import SCHEMA, TRAININGS, Difference, MethodScores, MethodTable
from effx.report.sheets import Sheet, SheetCell, SheetColumn
from effx.stats.runs import Spread

_PAIRED = (
    "Differences are paired by seed, with the 95 % interval and the p-value of Student's t-test; p is "
    "adjusted over the methods (Holm). A few seeds detect only large differences."
)
_METHOD = (SheetColumn("method"), SheetColumn("weights", 2, percent=True))


def write(table: MethodTable, out: Path) -> None:
    """Write the tables as CSV, Markdown and LaTeX, and trainings.json."""
    out.mkdir(parents=True, exist_ok=True)
    for sheet in _sheets(table):
        sheet.write(out)
    files.write_json(out / TRAININGS, to_json(table))


def to_json(table: MethodTable) -> dict[str, Any]:
    """Return what trainings.json has."""
    return {
        "schema": SCHEMA,
        "baseline": table.baseline,
        "tasks": list(table.tasks),
        "methods": [asdict(method) for method in table.methods],
        "trainings": [training.to_json() for training in table.trainings],
        "tables": {sheet.name: sheet.to_json() for sheet in _sheets(table)},
    }


def _sheets(table: MethodTable) -> list[Sheet]:
    return [scores(table), differences(table), spreads(table)]


def scores(table: MethodTable) -> Sheet:
    """Return the scores: a row for each method."""
    columns = (*_METHOD, *map(SheetColumn, (*table.tasks, "average", "seeds")))
    rows: list[tuple[SheetCell, ...]] = [
        (method.method, method.weight_remaining, *map(_spread, _task_spreads(table, method)), _seeds(method))
        for method in table.methods
    ]
    note = (
        "Mean ± standard deviation over seeds of a task's score, the mean of its metrics on the validation "
        "rows (of CoLA, Matthews correlation alone). Average: of the seeds that have all tasks."
    )
    return Sheet("scores", "Scores", columns, tuple(rows), note, numbers=_score_numbers(table))


def _score_numbers(table: MethodTable) -> Sheet:
    """Return the scores with columns of means and of standard deviations."""
    names = [*table.tasks, "average"]
    labels = [label for name in names for label in (f"{name}, mean", f"{name}, std")]
    rows: list[tuple[SheetCell, ...]] = []
    for method in table.methods:
        numbers = [
            number
            for spread in _task_spreads(table, method)
            for number in ((None, None) if spread is None else (spread.mean, spread.std))
        ]
        rows.append((method.method, method.weight_remaining, *numbers, _seeds(method)))
    return Sheet("scores", "Scores", (*_METHOD, *map(SheetColumn, (*labels, "seeds"))), tuple(rows))


def differences(table: MethodTable) -> Sheet:
    """Return the differences from the baseline: a row for each method and task, and for the averages."""
    labels = ("method", "task", "difference", "low", "high", "p", "p adjusted", "seeds")
    columns = tuple(SheetColumn(label, signed=label in labels[2:5]) for label in labels)
    rows: list[tuple[SheetCell, ...]] = []
    for method in table.methods[1:]:
        entries = [("average", method.average_difference), *method.differences.items()]
        for task, each in entries:
            if each is not None:
                low, high = each.interval or (None, None)
                rows.append(
                    (method.method, task, each.test.difference, low, high, each.test.p, each.p_adjusted,
                     each.test.n)
                )  # fmt: skip
    return Sheet("differences", f"Differences from {table.baseline}", columns, tuple(rows), _PAIRED)


def spreads(table: MethodTable) -> Sheet:
    """Return the standard deviations over seeds beside the baseline's."""
    labels = ("method", "task", "baseline std", "std", "ratio", "low", "high", "p", "p adjusted")
    rows: list[tuple[SheetCell, ...]] = []
    for method in table.methods[1:]:
        entries: list[tuple[str, Difference | None]] = [("average", method.average_difference)]
        for task, each in [*entries, *method.differences.items()]:
            if each is not None and (known := each.spread) is not None:
                rows.append(
                    (method.method, task, known.baseline, known.other, known.ratio, known.low, known.high,
                     known.p, each.spread_p_adjusted)
                )  # fmt: skip
    note = (
        "Standard deviation over seeds of the baseline divided by that of the method, with its 95 % interval "
        "from the F distribution, which assumes independent samples; p is adjusted over the methods (Holm)."
    )
    return Sheet("spreads", "Spread over seeds", tuple(map(SheetColumn, labels)), tuple(rows), note)


def _task_spreads(table: MethodTable, method: MethodScores) -> list[Spread | None]:
    """Return the scores of a method on every task and on average."""
    return [*(method.tasks.get(task) for task in table.tasks), method.average]


def _seeds(method: MethodScores) -> str:
    """Return the number of seeds, or the fewest and the most of a task."""
    seeds = sorted({spread.n for spread in method.tasks.values()})
    return "-".join(map(str, (seeds[0], seeds[-1]) if len(seeds) > 1 else seeds))


def _spread(value: Spread | None) -> str | None:
    if value is None:
        return None
    return f"{value.mean:.4f}" + ("" if value.std is None else f" ± {value.std:.4f}")

"""The tables of a report on searches for super tickets."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from effx.analysis.tickets.structures import Agreement
from effx.analysis.tickets.tasks import REPORTED, TaskResult, TaskTable, Trend
from effx.report.sheets import Sheet, SheetCell, SheetColumn
from effx.stats.runs import Spread, spread_ratio

_FEW_SEEDS = "A standard deviation over a few seeds is itself uncertain: see the intervals."


def sheets(table: TaskTable, agreements: Sequence[Agreement], level: str) -> list[Sheet]:
    """Return the tables: tasks, metrics, seeds, phases and, where importance is known, agreement."""
    result = [_tasks(table), _metrics(table), _seeds(table), _phases(table)]
    return [*result, _agreement(agreements, level)] if agreements else result


def trend(value: Trend | None) -> dict[str, Any] | None:
    """Return a trend as JSON."""
    return None if value is None else asdict(value)


def trend_text(table: TaskTable) -> str:
    """Return the trends with the size of the training data as a sentence."""
    if len(table.models) > 1:
        return (f"The searches are of several encoders, {', '.join(table.models)}: there are no averages "
                "and no trend over them. Report the searches of each encoder apart.")  # fmt: skip
    if table.gain_trend is None or table.weight_trend is None:
        return ("No trend with the number of training rows is fitted: it needs at least three tasks whose "
                "numbers of training rows are known and not all equal.")  # fmt: skip
    parts = [
        f"{name} {100 * line.slope:+.2f} points [{100 * line.low:+.2f}, {100 * line.high:+.2f}], "
        f"p = {line.p:.3f}"
        for name, line in (("gain", table.gain_trend), ("weights remaining", table.weight_trend))
    ]
    return (f"Per factor of ten in training rows, over {table.gain_trend.n} tasks: {'; '.join(parts)} (least "
            "squares, 95 % intervals).")  # fmt: skip


def _tasks(table: TaskTable) -> Sheet:
    columns = (
        SheetColumn("task"), SheetColumn("model"), SheetColumn("training rows"), SheetColumn("seeds"),
        SheetColumn("full, mean"), SheetColumn("full, std"),
        SheetColumn("super ticket, mean"), SheetColumn("super ticket, std"),
        SheetColumn("gain", signed=True), SheetColumn("p, paired t", 3), SheetColumn("p, Holm", 3),
        SheetColumn("level"), SheetColumn("weights remaining", 3, percent=True),
    )  # fmt: skip
    rows = [
        (
            result.search.task, result.search.model, result.search.training_rows, result.full.n,
            result.full.mean, result.full.std, result.super.mean, result.super.std, result.gain,
            result.test.p, result.p_adjusted, result.search.level, result.weight_remaining,
        )
        for result in table.tasks
    ]  # fmt: skip
    average: list[tuple[SheetCell, ...]] = []
    if table.full is not None and table.super is not None:
        average = [
            ("average", None, None, None, table.full, None, table.super, None, table.super - table.full, None,
             None, None, table.weight_remaining)
        ]  # fmt: skip
    note = (
        "Scores are means of the metrics of a task, on the validation rows that were not used to choose the "
        f"level{'; the average is the mean over tasks' if average else ''}. p: paired t-test over seeds, and "
        f"after Holm's adjustment over {len(table.tasks)} {'tasks' if average else 'searches'}. "
        f"{trend_text(table)}"
    )
    return Sheet("tasks", "Full models and super tickets", columns, (*rows, *average), note)


def _metrics(table: TaskTable) -> Sheet:
    columns = (
        SheetColumn("task"), SheetColumn("model"), SheetColumn("metric"), SheetColumn("validation rows"),
        SheetColumn("full, mean"), SheetColumn("full, std"),
        SheetColumn("super ticket, mean"), SheetColumn("super ticket, std"),
    )  # fmt: skip
    rows: list[tuple[SheetCell, ...]] = []
    for result in table.tasks:
        search = result.search
        for metric in search.metrics:
            full, ticket = (
                Spread.of([cell.scores[REPORTED][metric] for cell in cells])
                for cells in (search.full, search.super)
            )
            rows.append((search.task, search.model, metric, search.rows[REPORTED], full.mean, full.std,
                         ticket.mean, ticket.std))  # fmt: skip
    return Sheet("metrics", "Every metric", columns, tuple(rows))


def _seeds(table: TaskTable) -> Sheet:
    columns = (
        SheetColumn("task"), SheetColumn("model"), SheetColumn("seeds"), SheetColumn("std, full"),
        SheetColumn("std, super ticket"), SheetColumn("ratio", 2),
        SheetColumn("ratio, low", 2), SheetColumn("ratio, high", 2),
        SheetColumn("p, F-test", 3), SheetColumn("super ticket per seed, mean"),
        SheetColumn("super ticket per seed, std"), SheetColumn("weights per seed, mean", 3, percent=True),
        SheetColumn("weights per seed, std", 3, percent=True),
    )  # fmt: skip
    rows = [_seed_row(result) for result in table.tasks]
    note = (
        "Standard deviations over seeds; the ratio is full / super ticket, with its 95 % interval from the "
        "F distribution, which assumes independent samples. Per seed: the level is chosen separately for "
        f"each seed, as in Liang et al. 2021. {_FEW_SEEDS}"
    )
    return Sheet("seeds", "Spread over seeds", columns, tuple(rows), note)


def _seed_row(result: TaskResult) -> tuple[SheetCell, ...]:
    known = spread_ratio(result.full, result.super)
    ratio = (None,) * 4 if known is None else (known.ratio, known.low, known.high, known.p)
    return (
        result.search.task, result.search.model, result.full.n, result.full.std, result.super.std, *ratio,
        result.per_seed.mean, result.per_seed.std, result.per_seed_weights.mean, result.per_seed_weights.std,
    )  # fmt: skip


def _phases(table: TaskTable) -> Sheet:
    columns = tuple(map(SheetColumn, ("task", "model", "training rows", "phase I", "phase II", "phase III")))
    rows = []
    for result in sorted(table.tasks, key=lambda result: result.search.training_rows or 0):
        phases = result.search.phases or {}
        levels = [phases.get(name) for name in ("I", "II", "III")]
        rows.append(
            (result.search.task, result.search.model, result.search.training_rows,
             *(None if part is None else " ".join(map(str, part)) or "none" for part in levels))
        )  # fmt: skip
    note = "Levels of each phase (Liang et al. 2021, section 4.3); tasks with the fewest training rows first."
    return Sheet("phases", "Phases", columns, tuple(rows), note)


def _agreement(agreements: Sequence[Agreement], level: str) -> Sheet:
    columns = (
        SheetColumn("structures"), SheetColumn("task"), SheetColumn("other task"),
        SheetColumn("rank correlation", 3, signed=True), SheetColumn(f"overlap at level {level}", 3),
        SheetColumn("overlap by chance", 3),
    )  # fmt: skip
    rows = tuple(
        (part.what, part.a, "other seeds" if part.a == part.b else part.b, part.spearman, part.overlap,
         part.overlap_by_chance)
        for part in agreements
    )  # fmt: skip
    note = (
        "Rank correlation: Spearman's, of importance scores. Overlap: Jaccard index of the structures that "
        "are removed from winning tickets. Means over pairs of seeds. Rows with 'other seeds' compare seeds "
        "of one task: two tasks cannot be expected to agree more than these."
    )
    return Sheet("agreement", "Agreement between tasks", columns, rows, note)

"""Means over seeds: a table, a section of the page, and columns of frontier.csv."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from effx import formatting
from effx.analysis.objectives import OBJECTIVES
from effx.analysis.seeds import SeedFrontier, SeedMean
from effx.formatting import Cell
from effx.report.sections import Section, SectionColumn, SectionTable
from effx.report.sheets import Sheet, SheetCell, SheetColumn
from effx.results import Run

_NOTE = (
    "Engines that differ in their seed alone are one technique. Low and high: 95 % interval over rows of the "
    "mean score, for these trained models. Std over seeds: standard deviation of the scores of models that "
    "were trained with other seeds, on the same rows; few seeds give it roughly. P(frontier) is over rows and "
    "rounds; other seeds may give another frontier."
)


def write(frontiers: Sequence[SeedFrontier], folder: Path) -> None:
    """Write seeds.csv, .md and .tex, and a figure for each cost; nothing without several seeds."""
    if not frontiers:
        return
    from effx.report import seed_figures

    table(frontiers).write(folder)
    for cost in dict.fromkeys(frontier.cost for frontier in frontiers):
        seed_figures.draw(
            [each for each in frontiers if each.cost == cost], folder / f"seeds-{cost.replace('_', '-')}"
        )


def table(frontiers: Sequence[SeedFrontier]) -> Sheet:
    """Return a row for each technique, task, host and cost."""
    columns = (
        SheetColumn("technique"), SheetColumn("task"), SheetColumn("host"), SheetColumn("seeds"),
        SheetColumn("metric"), SheetColumn("mean score"), SheetColumn("low"), SheetColumn("high"),
        SheetColumn("std over seeds"), SheetColumn("least"), SheetColumn("most"), SheetColumn("cost"),
        SheetColumn("unit"), SheetColumn("mean cost", 3), SheetColumn("cost low", 3),
        SheetColumn("cost high", 3), SheetColumn("cost std over seeds", 3), SheetColumn("frontier"),
        SheetColumn("P(frontier)", 2),
    )  # fmt: skip
    rows = [_row(frontier, point) for frontier in frontiers for point in frontier.points]
    return Sheet("seeds", "Means over seeds", columns, tuple(rows), _NOTE)


def _row(frontier: SeedFrontier, point: SeedMean) -> tuple[SheetCell, ...]:
    unit = OBJECTIVES[frontier.cost].unit
    factor = formatting.UNITS[unit].factor
    low, high = point.quality_interval or (None, None)
    ends = (None, None) if point.cost_interval is None else point.cost_interval
    several = point.quality.n > 1
    costs = [None if value is None else factor * value for value in (point.cost.mean, *ends, point.cost.std)]
    return (
        point.technique, frontier.task, frontier.host, point.quality.n, frontier.metric, point.quality.mean,
        low, high, point.quality.std, point.quality.low if several else None,
        point.quality.high if several else None, OBJECTIVES[frontier.cost].short, formatting.symbol(unit),
        *costs, "yes" if point.non_dominated else "", point.p_non_dominated,
    )  # fmt: skip


def section(frontiers: Sequence[SeedFrontier]) -> Section | None:
    """Return the section for the page; None without several seeds."""
    if not frontiers:
        return None
    sheet = table(frontiers)
    return Section(
        title="Means over seeds",
        schema=1,
        text=_NOTE,
        tables=[
            SectionTable(
                sheet.title,
                [SectionColumn(column.label) for column in sheet.columns],
                [["" if cell is None else cell for cell in row] for row in sheet.rows],
            )
        ],
    )


def cells(frontiers: Sequence[SeedFrontier]) -> Mapping[str, dict[str, Cell]]:
    """Return by result what frontier.csv says about its technique's seeds; nothing for a single seed."""
    return {
        result: _cells(point)
        for frontier in frontiers
        for point in frontier.points
        if point.quality.n > 1
        for result in point.results
    }


def columns(run: Run, of_seeds: Mapping[str, dict[str, Cell]]) -> dict[str, Cell]:
    """Return the columns of frontier.csv about the seed of a result, and about those of its technique."""
    seed = None if run.engine.origin is None else run.engine.origin.seed
    return {"seed": seed, **(of_seeds.get(run.id) or _NO_CELLS)}


def _cells(point: SeedMean) -> dict[str, Cell]:
    return {
        "technique_of_seeds": point.technique,
        "seeds": point.quality.n,
        "score_mean_over_seeds": point.quality.mean,
        "score_std_over_seeds": point.quality.std,
    }


_NO_CELLS: dict[str, Cell] = dict.fromkeys(
    ("technique_of_seeds", "seeds", "score_mean_over_seeds", "score_std_over_seeds")
)

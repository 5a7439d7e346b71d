"""Means over seeds: a table and a section of the page."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from effx import formatting
from effx.analysis.objectives import OBJECTIVES
from effx.analysis.seeds import SeedFrontier, SeedMean
from effx.report.sections import Section
from effx.report.sheets import Sheet, SheetCell, SheetColumn

_NOTE = (
    "Engines that differ in their seed alone are one technique. Low and high: 95 % interval over rows of the "
    "mean score, for these trained models. Std over seeds: standard deviation of the scores of models that "
    "were trained with other seeds, on the same rows; few seeds give it roughly. P(frontier) is over rows "
    "and rounds; other seeds may give another frontier. Where sessions had different numbers of threads, "
    "names say which: a technique may be on the frontier for its threads alone."
)


def write(frontiers: Sequence[SeedFrontier], folder: Path) -> None:
    """Write seeds.csv, .md and .tex, and a figure for each cost; nothing without several seeds."""
    if not frontiers:
        return
    from effx.report import seed_figures

    table(frontiers).write(folder)
    for cost in dict.fromkeys(frontier.cost for frontier in frontiers):
        of_cost = [each for each in frontiers if each.cost == cost]
        seed_figures.draw(of_cost, folder / f"seeds-{cost.replace('_', '-')}")


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
        tables=[sheet.section_table()],
    )

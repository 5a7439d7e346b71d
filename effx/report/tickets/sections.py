"""The section of the report page on searches for super tickets."""

from __future__ import annotations

from collections.abc import Sequence

from effx.analysis.tickets.structures import SharedImportance
from effx.analysis.tickets.tasks import TaskTable
from effx.report.sections import (
    Section,
    SectionAxis,
    SectionChart,
    SectionMap,
    SectionPoint,
    SectionSeries,
)
from effx.report.sheets import Sheet

_MOST_STRUCTURES = 24
"""Columns of a map; more are hard to read."""


def section(table: TaskTable, importance: Sequence[SharedImportance], sheets: Sequence[Sheet]) -> Section:
    """Return the section."""
    gains = SectionChart(
        title="Gain of the super ticket against its remaining weights",
        x=SectionAxis("weights remaining", "%"),
        y=SectionAxis("gain over the full model", "points"),
        series=[
            SectionSeries(
                table.label(result),
                [SectionPoint(100 * result.weight_remaining, 100 * result.gain,
                              label=f"{table.label(result)}, level {result.search.level}")],
            )
            for result in table.tasks
        ],
    )  # fmt: skip
    return Section(
        title="Super tickets over tasks",
        schema=1,
        text=" ".join(sheet.note for sheet in sheets if sheet.note),
        source="tickets.json",
        charts=[gains],
        maps=[_map(part) for part in importance],
        tables=[sheet.printed_table() for sheet in sheets],
    )


def _map(part: SharedImportance) -> SectionMap:
    count = min(len(part.names), _MOST_STRUCTURES)
    return SectionMap(
        title=f"Share of each task in the importance of the {count} most important {part.what}",
        unit="%",
        corner="task",
        rows=list(part.tasks),
        columns=list(part.names[:count]),
        values=[[round(100 * float(share), 1) for share in row[:count]] for row in part.share],
    )

"""The table of what reductions cost to make, and when they have paid for themselves."""

from __future__ import annotations

from collections.abc import Sequence

from effx.analysis.break_even import CPU_TIME, ENERGY, ReductionCost, reduction_costs
from effx.report.groups import Group
from effx.report.sections import Section
from effx.report.sheets import NumberText, Sheet, SheetCell, SheetColumn

NAME = "training-costs"
_NOTE = (
    "What had to be computed for the engine's checkpoint and not for that of the unreduced engine: "
    "trainings, importance scores and teachers. What was tried and not used, exports and evaluations are not "
    "included; the training of several tasks counts whole for each of them. Queries until it pays: after so "
    "many queries, what they save equals what training took; 95 % from both intervals, 'never' where a query "
    "may take no less."
)


def sheet(groups: Sequence[Group]) -> Sheet | None:
    """Return the table of all groups; None: no reduction took a known computation of its own."""
    rows = [row for group in groups for row in map(_row, reduction_costs(group.runs))]
    if not rows:
        return None
    columns = (
        SheetColumn("engine"), SheetColumn("compared with"), SheetColumn("computed for it alone"),
        SheetColumn("training s", 0, signed=True), SheetColumn("training CPU s", 0, signed=True),
        SheetColumn("training J", 0, signed=True), SheetColumn("source"), SheetColumn("host peak MB", 0),
        SheetColumn("queries until it pays, CPU time"), SheetColumn("queries until it pays, energy"),
    )  # fmt: skip
    return Sheet(NAME, "What reductions cost to make, and when they pay", columns, tuple(rows), _NOTE)


def section(table: Sheet) -> Section:
    """Return the table as a section of the page."""
    return Section(title=table.title, schema=1, text=table.note, tables=[table.printed_table()])


def _row(cost: ReductionCost) -> tuple[SheetCell, ...]:
    cpu, energy = (
        next(each for each in cost.paybacks if each.quantity == name) for name in (CPU_TIME, ENERGY)
    )
    peaks = [each.cost.host_peak_bytes for each in cost.computations if each.cost]
    known = [peak for peak in peaks if peak is not None]
    return (
        cost.engine,
        cost.unreduced,
        ", ".join(dict.fromkeys(f"{each.kind} of {each.name}" for each in cost.computations)),
        cost.seconds,
        cpu.extra,
        energy.extra,
        energy.source,
        max(known) / 1e6 if known else None,
        NumberText(cpu.text(), cpu.queries),
        # why a machine has no counters is a paragraph; the manifest and effx compare have it
        NumberText("not known", None) if energy.extra is None else NumberText(energy.text(), energy.queries),
    )

"""The tables of what reduced engines lose on parts of the rows."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from effx import files
from effx.analysis import slices as measured
from effx.analysis.slices import LEVEL, SliceLoss, SliceReport, summary
from effx.formatting import percent
from effx.report.groups import Group
from effx.report.sections import FOLDER, SCHEMA, Section
from effx.report.sheets import Sheet, SheetCell, SheetColumn

SECTION = "slices"
"""Name of the report's section."""


def write(report: SliceReport, texts: list[tuple[str, ...]], out: Path) -> None:
    """Write slices.csv, .md, .tex, lost-rows.csv, slices.json, and the section for ``effx report``.

    Args:
        report: the losses.
        texts: of the rows, for the list of those that are lost.
        out: folder.
    """
    out.mkdir(parents=True, exist_ok=True)
    table(report).write(out)
    lost_rows(report, texts).write(out)
    files.write_json(out / "slices.json", to_json(report))
    files.write_json(out / FOLDER / f"{SECTION}.json", {"schema": SCHEMA, **section(report).to_json()})


def to_json(report: SliceReport) -> dict[str, Any]:
    """Return what slices.json has."""
    return {
        "schema": 1,
        "task": report.task,
        "baseline": report.baseline,
        "unit": report.unit,
        "slices": [
            {"group": each.group, "name": each.name, "rows": len(each.rows)} for each in report.slices
        ],
        "losses": [{**asdict(each), "flagged": each.flagged} for each in report.losses],
        "lost": [asdict(each) for each in report.lost],
        "left_out": [asdict(each) for each in report.left_out],
    }


def table(report: SliceReport) -> Sheet:
    """Return a row for each engine and slice, those that lose more than the other rows first."""
    factor, decimals = _scale(report)
    columns = (
        SheetColumn("engine"), SheetColumn("slice"), SheetColumn("rows"),
        SheetColumn("baseline", decimals), SheetColumn("score", decimals),
        SheetColumn("loss", decimals, signed=True), SheetColumn("low", decimals, signed=True),
        SheetColumn("high", decimals, signed=True), SheetColumn("more than others", decimals, signed=True),
        SheetColumn("p adjusted"), SheetColumn("loses more"),
    )  # fmt: skip
    ordered = sorted(report.losses, key=lambda each: (not each.flagged, each.engine, -each.excess))
    rows: list[tuple[SheetCell, ...]] = []
    for each in ordered:
        low, high = each.interval or (None, None)
        numbers = [
            None if value is None else factor * value
            for value in (each.before, each.after, each.loss, low, high, each.excess)
        ]
        rows.append((each.engine, each.slice, each.rows, *numbers, each.p_adjusted,
                     "yes" if each.flagged else ""))  # fmt: skip
    return Sheet(SECTION, f"Losses on parts of the rows, against {report.baseline}", columns, tuple(rows),
                 _note(report))  # fmt: skip


def lost_rows(report: SliceReport, texts: list[tuple[str, ...]]) -> Sheet:
    """Return the rows that the baseline gets right and an engine does not."""
    columns = tuple(SheetColumn(label) for label in ("engine", "row", "slices", "text"))
    rows = [
        (each.engine, each.row, "; ".join(each.slices), " | ".join(texts[each.row])) for each in report.lost
    ]
    return Sheet("lost-rows", "Rows that became wrong", columns, tuple(rows))


def section(report: SliceReport) -> Section:
    """Return the section for the page of ``effx report``."""
    sheet = table(report)
    return Section(
        title=_title(report.task),
        schema=1,
        text=" ".join([*lines(report), _note(report)]),
        tables=[sheet.section_table()],
    )


def _title(task: str) -> str:
    return f"Who is lost: {task}"


def of_groups(groups: Sequence[Group], further: Sequence[Section]) -> list[Section]:
    """Return a section for each group of engines whose results have slices, where one loses more on some.

    Args:
        groups: engines that may be compared.
        further: sections that are shown anyway; those of ``effx slices`` have more slices.
    """
    shown = {each.title for each in further}
    found = []
    for group in groups:
        if _title(group.cohort.task) in shown or not measured.is_quick(len(group.runs), group.baseline):
            continue
        report = measured.of_results(group.runs, group.baseline)
        if report is not None and any(each.flagged for each in report.losses):
            found.append(section(report))
    return found


def lines(report: SliceReport) -> list[str]:
    """Return a sentence for each engine."""
    result = []
    for engine, flagged in summary(report).items():
        if not flagged:
            result.append(f"{engine}: no slice is shown to lose more than the other rows.")
            continue
        loses = "loses more" if all(each.loss > 0 for each in flagged) else "loses more, or gains less,"
        named = "; ".join(
            f"{each.slice} ({_amount(each, report)} on {each.rows} rows, p = {each.p_adjusted:.2g})"
            for each in flagged
        )
        result.append(f"{engine} {loses} on {named}.")
    return result


def _amount(loss: SliceLoss, report: SliceReport) -> str:
    factor, decimals = _scale(report)
    unit = " points" if report.unit == "points" else ""
    elsewhere = factor * (loss.loss - loss.excess)
    return f"{factor * loss.loss:.{decimals}f}{unit} instead of {elsewhere:.{decimals}f}"


def _scale(report: SliceReport) -> tuple[float, int]:
    """Return the factor of scores and losses, and their decimals."""
    return (100.0, 1) if report.unit == "points" else (1.0, 4)


def _note(report: SliceReport) -> str:
    unit = (
        "Scores in points" if report.unit == "points" else "Scores are absolute errors, as negative numbers"
    )
    return (
        f"{unit}; losses with 95 % intervals. A slice loses more than the other rows if a permutation test "
        f"says so at {percent(LEVEL)}, adjusted for all slices and engines together (Holm). Few rows show "
        "only large differences: what is not flagged is not shown to be equal."
        + "".join(
            f" {each.engine} is left out: its quality is unavailable: {each.reason.removesuffix('.')}."
            for each in report.left_out
        )
    )

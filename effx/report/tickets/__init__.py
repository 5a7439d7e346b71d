"""The report on finished searches for super tickets: tables, figures, and a section of the report page."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from effx import files
from effx.analysis.tickets import searches as finished
from effx.analysis.tickets import structures, tasks
from effx.errors import UsageError, need
from effx.report.sections import SCHEMA
from effx.report.tickets import figures, sections, sheets


def report(workspaces: Sequence[Path], out: Path, *, level: str = "40") -> dict[str, Any]:
    """Write the report on the searches in some workspaces into a new folder.

    Args:
        workspaces: of ``effx train tickets``, one for each task.
        out: the folder; files of an earlier report in it are replaced.
        level: of the winning tickets whose removed structures are compared between tasks.

    Returns:
        The content of tickets.json.

    Raises:
        UsageError: the searches cannot be compared.
        ArtifactError: a workspace is unfinished or damaged.
    """
    need("report", "matplotlib")
    searches = [finished.read(folder) for folder in workspaces]
    table = tasks.compare(searches)
    importance, agreements, reason = [], [], None
    try:
        structures.check_same_encoder(searches)
    except UsageError as error:
        reason = str(error)
    else:
        importance = [structures.shared_importance(searches, what) for what in structures.WHAT]
        agreements = [part for what in structures.WHAT
                      for part in structures.agreements(searches, what, level)]  # fmt: skip
    written = sheets.sheets(table, agreements, level)
    value = {
        "schema": 1,
        "level": level,
        "importance_unavailable": reason,
        "average": {"full": table.full, "super": table.super, "weight_remaining": table.weight_remaining},
        "trends": {
            "gain": sheets.trend(table.gain_trend),
            "weight_remaining": sheets.trend(table.weight_trend),
        },
        "tables": {sheet.name: sheet.to_json() for sheet in written},
    }
    out.mkdir(parents=True, exist_ok=True)
    for sheet in written:
        sheet.write(out)
    figures.draw_gains(table, out / "gain")
    if importance:
        figures.draw_importance(importance, out / "importance")
    page = sections.section(table, importance, written)
    files.write_json(out / "sections" / "tickets.json", {"schema": SCHEMA, **page.to_json()})
    files.write_json(out / "tickets.json", value)
    return value

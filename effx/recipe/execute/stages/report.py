"""Draw the frontiers of all sessions of a recipe."""

from __future__ import annotations

from pathlib import Path

from effx.recipe.execute.protocol import CellSpec, StageOutput
from effx.recipe.execute.stages import common


def run(cell: CellSpec, out: Path) -> StageOutput:
    """Draw the frontiers of all sessions of a recipe."""
    from effx.report import report

    sections = [source.artifact / common.SECTION for source in cell.sources if source.stage == "answer"]
    results = [source.artifact for source in cell.sources if source.stage == "profile"]
    content, _ = report(results, out / cell.name, sections=sections)
    points = sum(point.non_dominated for frontier in content.frontiers for point in frontier.points)
    return StageOutput(None, f"{points} points on {len(content.frontiers)} frontiers")

"""Draw the frontiers of all sessions of a recipe."""

from __future__ import annotations

from pathlib import Path

from effx.recipe.execute.protocol import CellSpec, StageOutput


def run(cell: CellSpec, out: Path) -> StageOutput:
    """Draw the frontiers of all sessions of a recipe."""
    from effx.report import report

    content, _ = report([source.artifact for source in cell.sources], out / cell.name)
    points = sum(point.non_dominated for frontier in content.frontiers for point in frontier.points)
    return StageOutput(None, f"{points} points on {len(content.frontiers)} frontiers")

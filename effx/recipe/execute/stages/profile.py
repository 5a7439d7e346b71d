"""Measure the engines of a task in one interleaved session."""

from __future__ import annotations

from pathlib import Path

from effx.recipe.execute.protocol import CellSpec, StageOutput
from effx.recipe.execute.stages import common
from effx.recipe.execute.store import CellStore
from effx.specs.stages import ProfileStage


def run(cell: CellSpec, out: Path) -> StageOutput:
    """Measure the engines of a task in one interleaved session; one that was interrupted is resumed."""
    from effx.profile import profile

    settings = common.settings(cell, ProfileStage)
    runs, failures = profile(
        [source.artifact for source in cell.sources],
        out=out / cell.name,
        plan=settings.plan,
        meter=settings.meter,
        data_folder=cell.local_paths.data,
        journal=CellStore(cell.workspace).paused_folder(cell.run_key) / "session.jsonl",
    )
    if not runs:
        raise failures[0]
    return StageOutput(None, f"{len(runs)} engines" + (f", {len(failures)} failed" if failures else ""))

"""Measure the engines of a task in one interleaved session."""

from __future__ import annotations

from pathlib import Path

from effx.recipe.execute.protocol import CellSpec, StageOutput


def run(cell: CellSpec, out: Path) -> StageOutput:
    """Measure the engines of a task in one interleaved session."""
    from effx.profile import profile
    from effx.specs.measurement import MeasurementPlan

    runs, failures = profile(
        [source.artifact for source in cell.sources],
        out=out / cell.name,
        plan=MeasurementPlan.of(**cell.settings["plan"]),
        meter=cell.settings["meter"],
        data_folder=cell.places.data,
    )
    if not runs:
        raise failures[0]
    return StageOutput(None, f"{len(runs)} engines" + (f", {len(failures)} failed" if failures else ""))

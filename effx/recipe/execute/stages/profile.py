"""Measure the engines of a task in one interleaved session."""

from __future__ import annotations

from pathlib import Path

from effx.recipe.execute.protocol import CellSpec, StageOutput


def run(cell: CellSpec, out: Path) -> StageOutput:
    """Measure the engines of a task in one interleaved session."""
    from effx.profile import Plan, profile
    from effx.profile.plan import parse_grid
    from effx.specs.workloads import SCENARIOS

    settings = dict(cell.settings["plan"])
    wanted = settings.pop("scenarios", ())
    if "grid" in settings:
        settings["grid"] = tuple(pair for part in settings["grid"] for pair in parse_grid(part))
    scenarios = tuple(SCENARIOS) if "all" in wanted else tuple(dict.fromkeys(("single-stream", *wanted)))
    runs, failures = profile(
        [source.artifact for source in cell.sources],
        out=out / cell.name,
        plan=Plan(scenarios=scenarios, **settings),
        meter=cell.settings["meter"],
        data_folder=cell.places.data,
    )
    if not runs:
        raise failures[0]
    return StageOutput(None, f"{len(runs)} engines" + (f", {len(failures)} failed" if failures else ""))

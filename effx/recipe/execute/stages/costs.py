"""Measure what attention and FFNs of every size cost."""

from __future__ import annotations

from pathlib import Path

from effx.recipe.execute.protocol import CellSpec, StageOutput
from effx.recipe.execute.stages import common
from effx.specs.stages import CostsStage


def run(cell: CellSpec, out: Path) -> StageOutput:
    """Measure the layers of the checkpoint, and write costs.json."""
    from effx.optimize import measure_costs

    settings = common.settings(cell, CostsStage)
    (table,) = measure_costs.measure(
        common.checkpoint(cell),
        variant=settings.variant,
        backend=settings.backend,
        device=settings.device,
        workloads=(settings.workload,),
        data_folder=cell.local_paths.data,
        rounds=settings.rounds,
        checks=settings.checks,
        seed=settings.seed,
        coarse=True,
    )
    folder = out / cell.name
    folder.mkdir()
    table.write(folder / common.COSTS)
    error = "not checked" if table.median_error is None else f"error of predictions {table.median_error:.1%}"
    return StageOutput(None, f"{1e3 * table.unreduced_s:.3f} ms unreduced, {error}")

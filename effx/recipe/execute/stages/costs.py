"""Measure what attention and FFNs of every size cost."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from effx.recipe.execute.protocol import CellSpec, StageOutput
from effx.recipe.execute.stages import common
from effx.specs.stages import CostsStage

if TYPE_CHECKING:
    from effx.optimize.cost_table import CostTable


_WINDOWS = 2
"""Of energy, of each graph: fewer than in ``effx cost-table``, to save time."""


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
        meter=settings.meter,
        windows=_WINDOWS,
    )
    folder = out / cell.name
    folder.mkdir()
    table.write(folder / common.COSTS)
    error = "not checked" if table.median_error is None else f"error of predictions {table.median_error:.1%}"
    text = f"{1e3 * table.unreduced_s:.3f} ms unreduced, {error}"
    if settings.meter != "none":
        text += f"; {_energy(table)}"
    return StageOutput(None, text)


def _energy(table: CostTable) -> str:
    if table.energy is None:
        return f"no energy, so milliseconds choose structures: {table.no_energy}"
    found = f"{1e3 * table.energy.unreduced_j:.3g} mJ ({table.energy.source}) unreduced"
    if table.passed_for("energy"):
        return found
    error = table.energy.median_error or 0.0
    return f"{found}, which do not add up (error {error:.1%}), so milliseconds choose structures"

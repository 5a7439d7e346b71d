"""Prune a checkpoint without training, to a speed-up by a table of costs."""

from __future__ import annotations

from pathlib import Path

from effx.recipe.execute.protocol import CellSpec, StageOutput
from effx.recipe.execute.stages import common
from effx.specs.stages import OneShotStage
from effx.specs.training import TrainingSettings


def run(cell: CellSpec, out: Path) -> StageOutput:
    """Prune the checkpoint and refit the weights that remain."""
    from effx.optimize import one_shot
    from effx.optimize.cost_table import CostTable

    settings, costs = common.settings(cell, OneShotStage), cell.source("costs")
    before = cell.source("recovery") or cell.source("given")
    assert before is not None and costs is not None
    checkpoint = one_shot.prune(
        before.artifact,
        CostTable.read(costs.artifact / common.COSTS),
        settings.one_shot,
        out=out,
        name=cell.name,
        data_folder=cell.local_paths.data,
        strict=False,  # the table only chooses; the engines are measured
        training=TrainingSettings.of(limit=settings.limit, share=settings.share, seed=settings.one_shot.seed),
    )
    return StageOutput(checkpoint.digest, checkpoint.scores_text())

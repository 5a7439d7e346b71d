"""Score the structures of a full model."""

from __future__ import annotations

from pathlib import Path

from effx.recipe.execute.protocol import CellSpec, StageOutput
from effx.recipe.execute.stages import common
from effx.specs.stages import TicketsScoresStage


def run(cell: CellSpec, out: Path) -> StageOutput:
    """Score the heads, FFNs and neurons of a full model on the training rows."""
    from effx.specs.training import PruningSettings
    from effx.train.tickets import draw

    settings = common.settings(cell, TicketsScoresStage)
    pruning = PruningSettings(importance=settings.importance, granularity=settings.granularity)
    draw.write_scores(
        common.checkpoint(cell),
        out / cell.name / common.SCORES,
        data_folder=cell.local_paths.data,
        pruning=pruning,
        training=settings.training,
    )
    return StageOutput(None, settings.importance)

"""Fine-tune a checkpoint further on its task."""

from __future__ import annotations

from pathlib import Path

from effx.recipe.execute.protocol import CellSpec, StageOutput
from effx.recipe.execute.stages import common, teachers
from effx.specs.stages import FurtherStage


def run(cell: CellSpec, out: Path) -> StageOutput:
    """Fine-tune the checkpoint, with its heads and FFNs and its task head."""
    from effx.train import finetune

    settings = common.settings(cell, FurtherStage)
    checkpoint = finetune(
        settings.task,
        common.checkpoint(cell),
        out=out,
        name=cell.name,
        data_folder=cell.local_paths.data,
        settings=settings.finetune,
        distillation=teachers.distillation(cell, settings),
    )
    return StageOutput(checkpoint.digest, checkpoint.scores_text())

"""Train a pruned checkpoint with the unpruned one as its teacher."""

from __future__ import annotations

from pathlib import Path

from effx.artifacts import Checkpoint
from effx.recipe.execute.protocol import CellSpec, StageOutput
from effx.recipe.execute.stages import common
from effx.specs.stages import RecoveryStage


def run(cell: CellSpec, out: Path) -> StageOutput:
    """Fine-tune the pruned checkpoint; its teacher is the checkpoint that the user gave."""
    from effx.train import finetune
    from effx.train.distillation import Distillation

    settings, given = common.settings(cell, RecoveryStage), cell.source("given")
    pruned = cell.source("one-shot")
    assert given is not None and pruned is not None
    text = cell.local_paths.unlabelled
    distillation = Distillation(given.artifact, settings.distillation, Path(text) if text else None)
    checkpoint = finetune(
        settings.task,
        pruned.artifact,
        out=out,
        name=cell.name,
        data_folder=cell.local_paths.data,
        settings=settings.finetune.replace(max_length=Checkpoint.open(pruned.artifact).max_length),
        distillation=distillation,
        limit_s=settings.limit_s,
    )
    steps = checkpoint.manifest.training.stages[-1].steps
    return StageOutput(checkpoint.digest, f"{common.scores(checkpoint)}, {steps} steps")

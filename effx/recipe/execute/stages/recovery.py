"""Train a pruned checkpoint with the unpruned one as its teacher."""

from __future__ import annotations

from pathlib import Path

from effx.artifacts import Checkpoint
from effx.recipe.execute.protocol import CellSpec, StageOutput
from effx.recipe.execute.stages import common
from effx.specs.stages import RecoveryStage


def run(cell: CellSpec, out: Path) -> StageOutput:
    """Fine-tune the pruned checkpoint; its teacher is the checkpoint that the user gave.

    Further texts that are also validation rows, or training rows that limit and share leave out, would be
    trained on before they choose, calibrate or prove.
    """
    from effx import data
    from effx.train import finetune, rows
    from effx.train.distillation import Distillation

    settings, given = common.settings(cell, RecoveryStage), cell.source("given")
    pruned = cell.source("one-shot")
    assert given is not None and pruned is not None
    text, apart = cell.local_paths.unlabelled, list[tuple[str, ...]]()
    if text is not None:
        task = Checkpoint.open(given.artifact).task
        train, validation = (
            data.load(task, split, cell.local_paths.data) for split in ("train", "validation")
        )
        left_out = rows.left_out(train, settings.finetune.training, len(train))
        apart = [*validation.texts, *train.take(left_out).texts]
    distillation = Distillation(given.artifact, settings.distillation, text, frozenset(apart))
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
    return StageOutput(checkpoint.digest, f"{checkpoint.scores_text()}, {steps} steps")

"""Fine-tune a pretrained encoder on a task."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from effx.artifacts import Checkpoint
from effx.recipe.execute.protocol import CellSpec, StageOutput
from effx.recipe.execute.stages import common, teachers
from effx.specs.stages import FinetuneStage
from effx.specs.training import FinetuneSettings


def run(cell: CellSpec, out: Path) -> StageOutput:
    """Fine-tune a pretrained encoder on a task."""
    settings = common.settings(cell, FinetuneStage)
    checkpoint = finetuned(
        cell,
        out,
        settings.task,
        settings.finetune,
        trust_remote_code=settings.trust_remote_code,
        head=settings.head,
        distillation=teachers.distillation(cell, settings),
    )
    return StageOutput(checkpoint.digest, checkpoint.scores_text())


def finetuned(cell: CellSpec, out: Path, task: str, settings: FinetuneSettings, **options: Any) -> Checkpoint:
    """Fine-tune a cell's pretrained encoder; ``options`` are those of :func:`effx.train.finetune`."""
    from effx.train import finetune

    return finetune(
        task,
        common.pretrained(cell),
        out=out,
        name=cell.name,
        data_folder=cell.local_paths.data,
        settings=settings,
        **options,
    )

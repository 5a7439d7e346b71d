"""Fine-tune a pretrained encoder on a task."""

from __future__ import annotations

from pathlib import Path

from effx.recipe.execute.protocol import CellSpec, StageOutput
from effx.recipe.execute.stages import common
from effx.specs.stages import FinetuneStage


def run(cell: CellSpec, out: Path) -> StageOutput:
    """Fine-tune a pretrained encoder on a task."""
    settings = common.settings(cell, FinetuneStage)
    checkpoint = common.finetuned(
        cell, out, settings.task, settings.finetune, trust_remote_code=settings.trust_remote_code
    )
    return StageOutput(checkpoint.digest, common.scores(checkpoint))

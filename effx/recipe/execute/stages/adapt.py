"""Fine-tune one model on one draw of a share of a task's rows."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path

from effx import files
from effx.recipe.execute.protocol import CellSpec, StageOutput
from effx.recipe.execute.stages import common
from effx.recipe.execute.stages.finetune import finetuned
from effx.specs.stages import AdaptStage


def run(cell: CellSpec, out: Path) -> StageOutput:
    """Fine-tune the model, and write its scores."""
    from effx.train.adaptation.table import AdaptationResult

    settings = common.settings(cell, AdaptStage)
    training = settings.finetune.training
    checkpoint = finetuned(cell, out, settings.task, settings.finetune, head=settings.head)
    result = AdaptationResult.of(checkpoint, settings.model, training.share or 1.0, training.seed)
    files.write_json(out / common.RESULT, asdict(result))
    return StageOutput(checkpoint.digest, f"{checkpoint.scores_text()}, {result.rows} training rows")

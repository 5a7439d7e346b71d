"""Fine-tune the full model of one seed of a search for tickets."""

from __future__ import annotations

from pathlib import Path

from effx import files
from effx.recipe.execute.protocol import CellSpec, StageOutput
from effx.recipe.execute.stages import common, teachers
from effx.recipe.execute.stages.finetune import finetuned
from effx.specs.stages import TicketsFullStage


def run(cell: CellSpec, out: Path) -> StageOutput:
    """Fine-tune the full model, and write its scores and predictions."""
    from effx.train.tickets.result import FULL, TicketResult

    settings = common.settings(cell, TicketsFullStage)
    checkpoint = finetuned(
        cell,
        out,
        settings.task,
        settings.finetune,
        keep_predictions=True,
        head=settings.head,
        distillation=teachers.given_distillation(cell, settings),
    )
    result = TicketResult.of(checkpoint, FULL, None, settings.finetune.training.seed)
    files.write_json(out / common.RESULT, result.to_json())
    return StageOutput(checkpoint.digest, checkpoint.scores_text())

"""The mask of a percentage of the weights, as a file."""

from __future__ import annotations

from pathlib import Path

from effx import files
from effx.recipe.execute.protocol import CellSpec, StageOutput
from effx.recipe.execute.stages import common
from effx.specs.stages import LotteryMaskStage


def run(cell: CellSpec, out: Path) -> StageOutput:
    """Find a mask in the checkpoint of the round before, by training, or without; write its file."""
    from effx.artifacts import Checkpoint
    from effx.train.lottery import language, masks

    settings = common.settings(cell, LotteryMaskStage)
    before, mask_before = cell.source("lottery"), cell.source("lottery-mask")
    parent, expenses = None, None
    if before is not None:
        checkpoint = Checkpoint.open(before.artifact)
        found, parent = masks.of_checkpoint(checkpoint, settings.percent), checkpoint.digest
        expenses = [expense.to_json() for expense in checkpoint.expenses()]
    elif settings.objective == "mlm":
        found = language.language_round(
            settings.task,
            common.pretrained(cell),
            masks.read(masks.file_in(mask_before.artifact)) if mask_before else None,
            settings.percent,
            data_folder=cell.local_paths.data,
            text=cell.local_paths.text,
            settings=settings.finetune,
        )
    else:
        expenses = []
        found = masks.untrained(
            settings.kind,
            settings.task,
            common.pretrained(cell),
            settings.percent,
            data_folder=cell.local_paths.data,
            settings=settings.finetune,
            head=settings.head,
        )
    masks.write(masks.file_in(out / cell.name), found)
    files.write_json(out / common.RESULT, {"parent": parent, "expenses": expenses})
    return StageOutput(None, f"{settings.percent} % zeros")

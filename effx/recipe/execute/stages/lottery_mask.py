"""The mask of a percentage of the weights, as a file."""

from __future__ import annotations

from pathlib import Path

from effx import files
from effx.costs import MASK_ROUND, Expense
from effx.recipe.execute.protocol import CellSpec, StageOutput
from effx.recipe.execute.stages import common
from effx.specs.stages import LotteryMaskStage


def run(cell: CellSpec, out: Path) -> StageOutput:
    """Find a mask in the checkpoint of the round before, by training, or without; write its file."""
    from effx.artifacts import Checkpoint
    from effx.train.lottery import language, masks
    from effx.train.lottery.result import MaskResult

    settings = common.settings(cell, LotteryMaskStage)
    before, mask_before = cell.source("lottery"), cell.source("lottery-mask")
    path = masks.file_in(out / cell.name)
    parent, training = None, None
    expenses: tuple[Expense, ...] | None = ()
    if before is not None:
        checkpoint = Checkpoint.open(before.artifact)
        found, parent = masks.of_checkpoint(checkpoint, settings.percent), checkpoint.digest
        expenses = checkpoint.expenses()
    elif settings.objective == "mlm" and settings.kind == "one-shot":
        found = language.untrained(common.pretrained(cell), settings.percent)
    elif settings.objective == "mlm":
        done = language.language_round(
            settings.task,
            common.pretrained(cell),
            masks.read(masks.file_in(mask_before.artifact)) if mask_before else None,
            settings.percent,
            data_folder=cell.local_paths.data,
            text=cell.local_paths.text,
            settings=settings.finetune,
            mlm_rows=settings.mlm_rows,
        )
        found, training = done.found, done.training
        if mask_before is not None:
            expenses = MaskResult.read(Path(mask_before.folder) / common.RESULT).expenses
    else:
        found = masks.untrained(
            settings.kind,
            settings.task,
            common.pretrained(cell),
            settings.percent,
            data_folder=cell.local_paths.data,
            settings=settings.finetune,
            head=settings.head,
        )
    masks.write(path, found)
    if training is not None and expenses is not None:
        round_ = Expense(
            kind=MASK_ROUND, checkpoint=files.sha256(path), name=cell.name,
            settings=files.json_digest(settings.to_json()), cost=training.cost,
        )  # fmt: skip
        expenses = (*expenses, round_)
    MaskResult(parent, expenses).write(out / common.RESULT)
    return StageOutput(None, f"{settings.percent} % zeros")

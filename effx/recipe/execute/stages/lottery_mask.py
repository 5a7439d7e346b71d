"""One round of masked language modelling under the mask of the previous round, and the mask after it."""

from __future__ import annotations

from pathlib import Path

from effx.recipe.execute.protocol import CellSpec, StageOutput
from effx.recipe.execute.stages import common
from effx.specs.stages import LotteryMaskStage


def run(cell: CellSpec, out: Path) -> StageOutput:
    """Train the language model under the mask of the round before; write the mask of its smallest weights."""
    from effx.train import lottery

    settings = common.settings(cell, LotteryMaskStage)
    before = cell.source("lottery-mask")
    masks = lottery.language_round(
        settings.task,
        common.pretrained(cell),
        lottery.read_masks(before.artifact / lottery.MASK) if before else None,
        settings.percent,
        data_folder=cell.local_paths.data,
        text=cell.local_paths.text,
        settings=settings.finetune,
    )
    lottery.write_masks(out / cell.name / lottery.MASK, masks)
    return StageOutput(None, f"{settings.percent} % zeros")

"""One round of a lottery ticket: the pretrained weights under a mask, fine-tuned."""

from __future__ import annotations

from pathlib import Path

from effx.recipe.execute.protocol import CellSpec, StageOutput
from effx.recipe.execute.stages import common
from effx.specs.stages import LotteryRoundStage


def run(cell: CellSpec, out: Path) -> StageOutput:
    """Fine-tune the pretrained weights under the mask of the smallest weights of the round before."""
    from effx.artifacts import Checkpoint
    from effx.train import lottery

    settings = common.settings(cell, LotteryRoundStage)
    before, mask_cell = cell.source("lottery"), cell.source("lottery-mask")
    parent = Checkpoint.open(before.artifact) if before else None
    masks = None
    if parent is not None and settings.percent:
        masks = lottery.smallest(parent, settings.percent)
    elif mask_cell is not None:
        masks = lottery.read_masks(mask_cell.artifact / lottery.MASK)
    elif cell.local_paths.mask is not None:
        masks = lottery.read_masks(Path(cell.local_paths.mask))
    checkpoint = lottery.train_round(
        settings.task,
        common.pretrained(cell),
        masks,
        out=out,
        name=cell.name,
        data_folder=cell.local_paths.data,
        settings=settings.finetune,
        parent=parent.digest if parent else None,
        objective=settings.objective,
        mask_digest=settings.mask_digest,
        head=settings.head,
        distillation=common.given_distillation(cell, settings),
    )
    assert checkpoint.manifest.sparsity is not None
    zeros = f"{checkpoint.manifest.sparsity.share:.0%} zeros"
    return StageOutput(checkpoint.digest, f"{common.scores(checkpoint)}, {zeros}")

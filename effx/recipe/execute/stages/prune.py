"""Prune a ticket by the scores of a checkpoint and fine-tune it from the pretrained weights."""

from __future__ import annotations

from pathlib import Path

from effx.recipe.execute.protocol import CellSpec, StageOutput
from effx.recipe.execute.stages import common, teachers
from effx.specs.stages import PruneStage


def run(cell: CellSpec, out: Path) -> StageOutput:
    """Prune a ticket by the scores of a checkpoint and fine-tune it from the pretrained weights."""
    from effx.train.tickets import draw

    settings = common.settings(cell, PruneStage)
    checkpoint = draw.draw(
        common.checkpoint(cell),
        common.pretrained(cell),
        out=out,
        name=cell.name,
        data_folder=cell.local_paths.data,
        settings=settings.ticket,
        trust_remote_code=settings.trust_remote_code,
        head=settings.head,
        distillation=teachers.distillation(cell, settings),
    )
    remaining = f"{checkpoint.manifest.weight_remaining:.0%} of the weights"
    return StageOutput(checkpoint.digest, f"{checkpoint.scores_text()}, {remaining}")

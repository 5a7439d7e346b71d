"""The state that the rounds of a lottery ticket are rewound to."""

from __future__ import annotations

from pathlib import Path

from effx.recipe.execute.protocol import CellSpec, StageOutput
from effx.recipe.execute.stages import common, teachers
from effx.specs.stages import LotteryRewindStage


def run(cell: CellSpec, out: Path) -> StageOutput:
    """Fine-tune the pretrained weights for some steps, and write the state after them."""
    from effx.train.lottery import rounds

    settings = common.settings(cell, LotteryRewindStage)
    rounds.first_steps(
        settings.task,
        common.pretrained(cell),
        settings.rewind,
        out / cell.name,
        data_folder=cell.local_paths.data,
        settings=settings.finetune,
        head=settings.head,
        distillation=teachers.given_distillation(cell, settings),
    )
    return StageOutput(None, f"{settings.rewind} steps")

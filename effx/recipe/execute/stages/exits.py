"""Give a checkpoint early exits."""

from __future__ import annotations

from pathlib import Path

from effx.recipe.execute.protocol import CellSpec, StageOutput
from effx.recipe.execute.stages import common, teachers
from effx.specs.stages import ExitsStage


def run(cell: CellSpec, out: Path) -> StageOutput:
    """Give a checkpoint early exits."""
    from effx.train import exits

    settings = common.settings(cell, ExitsStage)
    checkpoint = exits.train(
        common.checkpoint(cell),
        out=out,
        name=cell.name,
        data_folder=cell.local_paths.data,
        settings=settings.exits,
        distillation=teachers.distillation(cell, settings),
        limit_s=settings.limit_s,
        rows_apart=settings.rows_apart,
    )
    assert checkpoint.manifest.exits is not None
    measured = checkpoint.manifest.exits.validation
    note = f"{measured.mean_depth:.2f} of {measured.layers} layers"
    return StageOutput(checkpoint.digest, f"{checkpoint.scores_text(measured.scores)}, {note}")

"""Give a checkpoint a token schedule."""

from __future__ import annotations

from pathlib import Path

from effx.recipe.execute.protocol import CellSpec, StageOutput
from effx.recipe.execute.stages import common, teachers
from effx.specs.stages import TokensStage


def run(cell: CellSpec, out: Path) -> StageOutput:
    """Give a checkpoint a token schedule."""
    from effx.train import tokens

    settings = common.settings(cell, TokensStage)
    checkpoint = tokens.train(
        common.checkpoint(cell),
        out=out,
        name=cell.name,
        data_folder=cell.local_paths.data,
        settings=settings.tokens,
        distillation=teachers.distillation(cell, settings),
        limit_s=settings.limit_s,
        rows_apart=settings.rows_apart,
    )
    assert checkpoint.manifest.tokens is not None
    measured = checkpoint.manifest.tokens.validation
    share = sum(measured.kept) / len(measured.kept)
    return StageOutput(
        checkpoint.digest, f"{checkpoint.scores_text(measured.scores)}, {share:.0%} of the tokens"
    )

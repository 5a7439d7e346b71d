"""Score the structures of a full model, or take the scores of a file."""

from __future__ import annotations

import hashlib
from pathlib import Path

from effx import files
from effx.errors import ArtifactError
from effx.recipe.execute.protocol import CellSpec, StageOutput
from effx.recipe.execute.stages import common
from effx.specs.stages import TicketsScoresStage


def run(cell: CellSpec, out: Path) -> StageOutput:
    """Score the heads, FFNs and neurons of a full model on the training rows, or copy a file of scores."""
    from effx.specs.tickets import PruningSettings
    from effx.train.tickets import draw

    settings = common.settings(cell, TicketsScoresStage)
    path = out / cell.name / common.SCORES
    if settings.given_digest is not None:
        assert cell.local_paths.scores is not None
        content = Path(cell.local_paths.scores).read_bytes()
        if hashlib.sha256(content).hexdigest() != settings.given_digest:
            raise ArtifactError(f"{cell.local_paths.scores} has changed since the search was planned.")
        files.write_atomic(path, content)
        return StageOutput(None, "given")
    pruning = PruningSettings(importance=settings.importance, granularity=settings.granularity)
    draw.write_scores(
        common.checkpoint(cell),
        path,
        data_folder=cell.local_paths.data,
        pruning=pruning,
        training=settings.training,
    )
    return StageOutput(None, settings.importance)

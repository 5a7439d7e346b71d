"""Take a checkpoint that the user gave."""

from __future__ import annotations

import shutil
from pathlib import Path

from effx.artifacts import Checkpoint
from effx.errors import ArtifactError
from effx.recipe.execute.protocol import CellSpec, StageOutput


def run(cell: CellSpec, out: Path) -> StageOutput:
    """Copy the checkpoint: later changes of the user's folder then do not change what is built from it."""
    if cell.local_paths.model is None:
        raise ArtifactError(f"{cell.id}: the checkpoint's folder is not known.")
    shutil.copytree(cell.local_paths.model, out / cell.name)
    checkpoint = Checkpoint.open(out / cell.name)
    return StageOutput(checkpoint.digest, checkpoint.scores_text())

"""Take the checkpoint of one task from a multi-task training."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

from effx.artifacts import Checkpoint
from effx.recipe.execute.protocol import CellSpec, StageOutput
from effx.recipe.execute.stages import common
from effx.specs.stages import MultitaskCheckpointStage


def run(cell: CellSpec, out: Path) -> StageOutput:
    """Put the checkpoint under the name of the cell; its files are shared with the training's."""
    settings = common.settings(cell, MultitaskCheckpointStage)
    source = cell.source("multitask")
    assert source is not None
    shutil.copytree(
        source.artifact / f"{source.name}-{settings.task}", out / cell.name, copy_function=_link_or_copy
    )
    checkpoint = Checkpoint.open(out / cell.name)
    return StageOutput(checkpoint.digest, checkpoint.scores_text())


def _link_or_copy(source: str, target: str) -> str:
    try:
        os.link(source, target)
    except OSError:  # the file system has no hard links
        shutil.copyfile(source, target)
    return target

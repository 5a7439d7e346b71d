"""What the functions of several stages share."""

from __future__ import annotations

from pathlib import Path
from typing import TypeVar

from effx.errors import ArtifactError
from effx.recipe.execute.protocol import CellSpec
from effx.specs.settings import Settings

S = TypeVar("S", bound=Settings)
RESULT = "result.json"
"""File of a ticket's scores and predictions, which remains when its checkpoint is removed."""
SCORES = "importance.json"
"""In the artifact of ``tickets-scores``."""
COSTS = "costs.json"
"""In the artifact of ``costs``."""
FASTEST = "fastest.json"
"""In the artifact of ``fastest``."""
CHOOSING = "choosing.json"
"""In the artifact of ``choosing``."""
ANSWER, SECTION = "answer.json", "section.json"
"""In the artifact of ``answer``."""
RUNG = "rung.json"
"""In the artifact of ``tickets-rung``."""


def settings(cell: CellSpec, kind: type[S]) -> S:
    """Return a cell's settings as its stage's type."""
    return kind.of(**cell.settings)


def pretrained(cell: CellSpec) -> str | Path:
    """Return the pretrained encoder that a cell starts from: a cell's, a folder, or a name on the hub."""
    if source := cell.source("pretrain"):
        return source.artifact
    if cell.local_paths.model is None:
        raise ArtifactError(f"{cell.id}: the recipe has no pretrained model for this cell.")
    return cell.local_paths.model


def checkpoint(cell: CellSpec) -> Path:
    """Return the checkpoint that a cell reads."""
    source = next(source for source in cell.sources if source.stage != "pretrain")
    return source.artifact

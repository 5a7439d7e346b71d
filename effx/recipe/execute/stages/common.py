"""What the functions of several stages share."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

from effx.errors import ArtifactError
from effx.recipe.execute.protocol import CellSpec
from effx.specs.settings import Settings

S = TypeVar("S", bound=Settings)
RESULT = "result.json"
"""Beside a ticket's checkpoint: its scores and predictions, which stay when the checkpoint is removed."""
SCORES = "importance.json"
"""In the artifact of ``tickets-scores``."""
RUNG = "rung.json"
"""In the artifact of ``tickets-rung``."""


def settings(cell: CellSpec, kind: type[S]) -> S:
    """Return a cell's settings as its stage's type."""
    return kind.of(**cell.settings)


def pretrained(cell: CellSpec) -> str | Path:
    """Return the pretrained encoder that a cell starts from: a cell's, a folder, or a name on the hub."""
    if source := cell.source("pretrain"):
        return source.artifact
    if cell.places.model is None:
        raise ArtifactError(f"{cell.id}: the recipe names no pretrained model for it.")
    return cell.places.model


def checkpoint(cell: CellSpec) -> Path:
    """Return the checkpoint that a cell reads."""
    source = next(source for source in cell.sources if source.stage != "pretrain")
    return source.artifact


def scores(metrics: Sequence[str], values: Mapping[str, Any]) -> str:
    """Return a task's metrics as one line."""
    return ", ".join(f"{metric} {values[metric]:.4f}" for metric in metrics)

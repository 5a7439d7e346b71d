"""Pretrain the demo's encoder."""

from __future__ import annotations

from pathlib import Path

from effx.recipe.execute.protocol import CellSpec, StageOutput


def run(cell: CellSpec, out: Path) -> StageOutput:
    """Pretrain the demo's encoder."""
    from effx.demo import pretraining

    pretraining.pretrain(out / cell.name)
    return StageOutput(None)

"""Give a checkpoint early exits."""

from __future__ import annotations

from pathlib import Path

from effx.recipe.execute.protocol import CellSpec, StageOutput
from effx.recipe.execute.stages import common
from effx.specs.stages import ExitsStage


def run(cell: CellSpec, out: Path) -> StageOutput:
    """Give a checkpoint early exits."""
    from effx.train import exits

    checkpoint = exits.train(
        common.checkpoint(cell),
        out=out,
        name=cell.name,
        data_folder=cell.places.data,
        settings=common.settings(cell, ExitsStage).exits,
    )
    scores = checkpoint.manifest["exits"]["validation"]
    note = f"{scores['mean_depth']:.2f} of {scores['layers']} layers"
    if "kept" in scores:
        note += f", {sum(scores['kept']) / len(scores['kept']):.0%} of the tokens"
    return StageOutput(checkpoint.digest, f"{common.scores(checkpoint.task.metrics, scores)}, {note}")

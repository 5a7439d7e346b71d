"""Train one encoder on all tasks of a recipe."""

from __future__ import annotations

from pathlib import Path

from effx.recipe.execute.protocol import CellSpec, StageOutput
from effx.recipe.execute.stages import common
from effx.recipe.execute.store import CellStore
from effx.specs.stages import MultitaskStage


def run(cell: CellSpec, out: Path) -> StageOutput:
    """Train the tasks together, with the tickets among the cells that this one reads."""
    from effx.train.multitask import multitask

    settings = common.settings(cell, MultitaskStage)
    checkpoints = multitask(
        settings.tasks,
        common.pretrained(cell),
        out=out / cell.name,
        name=cell.name,
        data_folders=cell.local_paths.data_of_tasks,
        tickets=[source.artifact for source in cell.sources if source.stage == "prune"],
        settings=settings.multitask,
        trust_remote_code=settings.trust_remote_code,
        state=CellStore(cell.workspace).paused_folder(cell.run_key),
    )
    shared = checkpoints[0].manifest.shared
    assert shared is not None
    return StageOutput(None, f"average score {shared.average:.4f}")

"""Predict training rows that no pruned model was trained on, with every engine."""

from __future__ import annotations

from pathlib import Path

from effx.recipe.execute.protocol import CellSpec, StageOutput
from effx.recipe.execute.stages import common
from effx.specs.measurement import built_for
from effx.specs.stages import ChoosingStage


def run(cell: CellSpec, out: Path) -> StageOutput:
    """Write choosing.json."""
    from effx import data
    from effx.artifacts import Engine
    from effx.optimize import choosing

    settings = common.settings(cell, ChoosingStage)
    engines = [Engine.open(source.artifact) for source in cell.sources]
    every_row = data.load(engines[0].task, "train", cell.local_paths.data)
    rows = choosing.choose(every_row, settings.training, settings.rows)
    found = choosing.predict(engines, rows, built_for(settings.workload), settings.unseen)
    folder = out / cell.name
    folder.mkdir()
    found.write(folder / common.CHOOSING)
    return StageOutput(None, f"{len(rows)} training rows")

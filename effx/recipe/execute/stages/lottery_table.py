"""Write the table and the figure of a search for lottery tickets."""

from __future__ import annotations

from pathlib import Path

from effx.recipe.execute.protocol import CellSpec, StageOutput
from effx.recipe.execute.stages import common, drawing
from effx.specs.stages import LotteryTableStage


def run(cell: CellSpec, out: Path) -> StageOutput:
    """Write table.json, .csv and .md, and the figure where matplotlib is installed."""
    from effx import data
    from effx.train.lottery import table
    from effx.train.lottery.result import LotteryResult

    settings = common.settings(cell, LotteryTableStage)
    task = data.resolve(settings.task, cell.local_paths.data)
    results = [LotteryResult.read(Path(source.folder) / common.RESULT) for source in cell.sources]
    validation = data.load(task, "validation", cell.local_paths.data)
    value = table.build(task, len(validation), settings.model, settings.lottery, results)
    folder = out / cell.name
    folder.mkdir()
    table.write(folder, value)
    if drawing.can_draw("figure"):
        from effx.train.lottery import figure

        for suffix in (".png", ".svg"):
            figure.scores(value, folder / f"lottery{suffix}")
    return StageOutput(None, f"{len(results)} fine-tunings")

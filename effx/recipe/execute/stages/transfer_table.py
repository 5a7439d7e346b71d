"""Write the table and the figure of a transfer of masks and tickets between tasks."""

from __future__ import annotations

from pathlib import Path

from effx.recipe.execute.protocol import CellSpec, StageOutput
from effx.recipe.execute.stages import common, drawing
from effx.specs.stages import TransferTableStage


def run(cell: CellSpec, out: Path) -> StageOutput:
    """Write table.json, .csv and .md, and the figure where matplotlib is installed."""
    from effx import data
    from effx.train.transfer import table
    from effx.train.transfer.result import TransferResult

    settings = common.settings(cell, TransferTableStage)
    folders = {source.id: Path(source.folder) for source in cell.sources}
    results = [TransferResult.read(run, folders[run.cell] / common.RESULT) for run in settings.runs]
    targets = []
    for name in dict.fromkeys(run.target for run in settings.runs):
        location = cell.local_paths.data_of_tasks.get(name)
        task = data.resolve(name, location)
        targets.append(table.Target(task, len(data.load(task, "validation", location))))
    mlm = None
    if settings.mlm is not None:
        mlm = {**settings.mlm.to_json(), "text": settings.text_digest}
    value = table.build(settings.model, targets, settings.transfer, results, mlm)
    folder = out / cell.name
    folder.mkdir()
    table.write(folder, value)
    if drawing.can_draw("figure"):
        from effx.train.transfer import figure

        for suffix in (".png", ".svg"):
            figure.matrix(value, folder / f"transfer{suffix}")
    return StageOutput(None, f"{len(targets)} tasks, {len(results)} fine-tunings")

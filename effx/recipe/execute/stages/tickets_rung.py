"""Choose the better half of the levels of a rung of successive halving."""

from __future__ import annotations

import json
from pathlib import Path

from effx import files
from effx.recipe.execute.protocol import CellSpec, StageOutput
from effx.recipe.execute.stages import common
from effx.specs.stages import TicketsRungStage


def run(cell: CellSpec, out: Path) -> StageOutput:
    """Rank the levels by their scores on the rows that select, and write which of them remain."""
    from effx import data
    from effx.train.tickets import halving
    from effx.train.tickets.result import TicketResult

    settings = common.settings(cell, TicketsRungStage)
    task = data.resolve(settings.task, cell.local_paths.data)
    decision = halving.decide(
        [
            TicketResult.read(Path(source.folder) / common.RESULT)
            for source in cell.sources
            if source.stage == "ticket"
        ],
        task,
        data.load(task, "validation", cell.local_paths.data).labels,
        steps=settings.steps,
        selection=settings.selection,
        seed=settings.seed,
    )
    (out / cell.name).mkdir()
    files.write_json(out / cell.name / common.RUNG, decision.to_json())
    return StageOutput(None, f"levels {', '.join(level.text for level in decision.remaining)} remain")


def remaining(folder: Path) -> list[str]:
    """Return the levels that a rung left, from the artifact of its cell."""
    return [str(level) for level in json.loads((folder / common.RUNG).read_bytes())["remaining"]]

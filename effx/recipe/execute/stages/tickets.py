"""Write the table and the figures of a search for tickets."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from effx import files
from effx.costs import total, united
from effx.recipe.execute.protocol import CellSpec, StageOutput
from effx.recipe.execute.stages import common, drawing
from effx.specs.stages import TicketsStage

if TYPE_CHECKING:
    from effx.train.tickets.halving import RungDecision
    from effx.train.tickets.result import TicketResult


def run(cell: CellSpec, out: Path) -> StageOutput:
    """Write table.json, .csv and .md, the figure of the phases, and the scores with their heat maps."""
    from effx import data
    from effx.train.tickets import table
    from effx.train.tickets.halving import RungDecision
    from effx.train.tickets.result import TicketResult

    settings = common.settings(cell, TicketsStage)
    task = data.resolve(settings.task, cell.local_paths.data)
    results = [
        TicketResult.read(Path(source.folder) / common.RESULT)
        for source in cell.sources
        if source.stage in ("tickets-full", "ticket")
    ]
    rungs = [
        RungDecision.read(source.artifact / common.RUNG)
        for source in cell.sources
        if source.stage == "tickets-rung"
    ]
    folder = out / cell.name
    value = table.build(
        task,
        data.load(task, "validation", cell.local_paths.data).labels,
        settings.model,
        settings.tickets,
        results,
        rungs,
        grid_steps=settings.grid_steps,
        scores_of=_scored_tasks(cell) if settings.scores_given else None,
        teacher=_teacher(cell, settings),
    )
    folder.mkdir()
    table.write(folder, value)
    # not in table.json: a search that is done again has the same table, but takes another time
    files.write_json(folder / "cost.json", _cost(results, rungs))
    scores = {}
    for source in cell.sources:
        if source.stage == "tickets-scores":
            seed = source.name.rpartition("-s")[2]
            path = folder / f"importance-s{seed}.json"
            files.write_atomic(path, (source.artifact / common.SCORES).read_bytes())
            scores[path] = f"{cell.name}, seed {seed}"
    _draw(folder, value, scores)
    best = value["super"]
    return StageOutput(
        None, "no winning tickets" if best is None else f"super ticket at level {best['level']}"
    )


def _teacher(cell: CellSpec, settings: TicketsStage) -> dict[str, Any] | None:
    """Return the teacher of the full models and tickets, for the table."""
    if settings.teacher_digest is None:
        return None
    assert cell.local_paths.teacher is not None
    return {
        "name": Path(cell.local_paths.teacher).name,
        "digest": settings.teacher_digest,
        "settings": settings.distillation.to_json(),
    }


def _cost(results: Sequence[TicketResult], rungs: Sequence[RungDecision]) -> dict[str, Any]:
    """Return what all computations of a search took together, or why that is not known."""
    known = [result.expenses for result in results if result.expenses is not None]
    cost, reason = None, None
    if rungs:
        reason = "levels that halving dropped have no result"
    elif len(known) < len(results):
        reason = "an earlier version trained a part of the search"
    else:
        cost = total(expense.cost for expense in united(*known))
        reason = None if cost else "what a checkpoint took that the search began with is not known"
    return {"schema": 1, "cost": None if cost is None else cost.to_json(), "reason": reason}


def _scored_tasks(cell: CellSpec) -> list[str]:
    """Return the tasks on which the given scores were computed; a file may not say it."""
    from effx.tickets import scores as score_files

    paths = [source.artifact / common.SCORES for source in cell.sources if source.stage == "tickets-scores"]
    return sorted({str(score_files.read(path)[1].get("task", "unknown")) for path in paths})


def _draw(folder: Path, value: dict[str, Any], scores: dict[Path, str]) -> None:
    """Draw the phases and each seed's scores, where matplotlib is installed."""
    if not drawing.can_draw("figures"):
        return
    from effx.tickets import scores as score_files
    from effx.train.tickets import figure

    for suffix in (".png", ".svg"):
        figure.phases(value, folder / f"phases{suffix}")
        for path, title in scores.items():
            scored, about = score_files.read(path)
            figure.heat_map(scored, about["layers"], title, path.with_suffix(suffix))

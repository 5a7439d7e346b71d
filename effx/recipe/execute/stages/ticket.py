"""Train one ticket of a search, or the beginning of its training run."""

from __future__ import annotations

from pathlib import Path

from effx import files
from effx.recipe.execute.protocol import CellSpec, StageOutput
from effx.recipe.execute.stages import common, teachers
from effx.recipe.execute.store import CellStore
from effx.specs.stages import TicketStage


def run(cell: CellSpec, out: Path) -> StageOutput:
    """Train a ticket by the scores of its seed's full model, from where its training run was paused last."""
    from effx.train.segment import RunSegment
    from effx.train.tickets import draw
    from effx.train.tickets.result import TicketResult

    settings = common.settings(cell, TicketStage)
    ticket = settings.ticket
    store, scores = CellStore(cell.workspace), cell.source("tickets-scores")
    assert scores is not None
    states = store.paused(cell.run_key)
    earlier = [steps for steps in states if cell.pause_at is None or steps < cell.pause_at]
    begin = states[max(earlier)] if earlier else None
    state = None if cell.pause_at is None else store.paused_state(cell.run_key, cell.pause_at)
    checkpoint = draw.draw_scored(
        settings.task,
        common.pretrained(cell),
        scores.artifact / common.SCORES,
        out=out,
        name=cell.name,
        data_folder=cell.local_paths.data,
        settings=ticket,
        head=settings.head,
        segment=RunSegment(begin, cell.pause_at, state),
        distillation=teachers.given_distillation(cell, settings),
        source=settings.source,
    )
    seed = ticket.finetune.training.seed
    result = TicketResult.of(checkpoint, ticket.kind, ticket.level, seed, cell.pause_at)
    files.write_json(out / common.RESULT, result.to_json())
    return StageOutput(
        checkpoint.digest, f"{checkpoint.scores_text()}, {result.weight_remaining:.0%} of the weights"
    )

"""Find the cheapest engine of a session that is proven to lose at most what is accepted."""

from __future__ import annotations

from pathlib import Path

from effx import files
from effx.recipe.execute.protocol import CellSpec, StageOutput
from effx.recipe.execute.stages import common
from effx.specs.measurement import built_for
from effx.specs.stages import AnswerStage


def run(cell: CellSpec, out: Path) -> StageOutput:
    """Write answer.json, answer.md, answer.txt, and the answer as a section of the report's page."""
    from effx import results
    from effx.analysis import optimized, optimized_text
    from effx.optimize.choosing_predictions import ChoosingPredictions

    settings = common.settings(cell, AnswerStage)
    session, choosing = cell.source("profile"), cell.source("choosing")
    assert session is not None
    chosen_on = None
    if choosing is not None:
        chosen_on = ChoosingPredictions.read(choosing.artifact / common.CHOOSING).as_rows()
    runs, failures = results.read([session.artifact])
    answer = optimized.answer(
        runs,
        settings.optimize,
        built_for(settings.workload),
        by_agreement=settings.by_agreement,
        choosing=chosen_on,
        overlap=settings.overlap,
        different_texts=settings.different_texts,
        failures=failures,
    )
    folder = out / cell.name
    folder.mkdir()
    files.write_json(folder / common.ANSWER, answer.to_json())
    (folder / "answer.txt").write_text(optimized_text.text(answer) + "\n", encoding="utf-8")
    (folder / "answer.md").write_text(optimized_text.markdown(answer), encoding="utf-8")
    files.write_json(folder / common.SECTION, optimized_text.section(answer))
    return StageOutput(None, answer.engine or f"nothing is proven at {answer.max_drop:g}")

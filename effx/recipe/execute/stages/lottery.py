"""One fine-tuning of a search for lottery tickets: weights under a mask."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path

from effx import files
from effx.costs import Expense
from effx.errors import ArtifactError
from effx.recipe.execute.protocol import CellSpec, StageOutput
from effx.recipe.execute.stages import common, teachers
from effx.specs.heads import HeadSettings
from effx.specs.stages import LotteryRoundStage


def run(cell: CellSpec, out: Path) -> StageOutput:
    """Fine-tune the weights that the settings name under the mask of a cell or a file."""
    from effx.train.lottery import masks, rounds
    from effx.train.lottery.result import LotteryResult, MaskResult

    settings = common.settings(cell, LotteryRoundStage)
    before, mask_cell = cell.source("lottery"), cell.source("lottery-mask")
    state = cell.source("lottery-rewind")
    digest, parent, mask_file = settings.mask_digest, None, None
    expenses: tuple[Expense, ...] | None = ()
    if mask_cell is not None:
        mask_file = masks.file_in(mask_cell.artifact)
        digest = files.sha256(mask_file)
        found = MaskResult.read(Path(mask_cell.folder) / common.RESULT)
        parent, expenses = found.parent, found.expenses
    elif digest is not None:  # of a file, which the full model of the same search has in its paths, too
        assert cell.local_paths.mask is not None
        mask_file, expenses = Path(cell.local_paths.mask), None
        if files.sha256(mask_file) != digest:
            raise ArtifactError(f"{mask_file} has changed since the run was planned: begin it again.")
    origin = rounds.MaskOrigin(
        settings.kind, settings.objective, digest, settings.init, settings.rewind, settings.source
    )
    checkpoint = rounds.train_round(
        settings.task,
        before.artifact if before else common.pretrained(cell),
        None if mask_file is None else masks.read(mask_file),
        origin,
        out=out,
        name=cell.name,
        data_folder=cell.local_paths.data,
        settings=settings.finetune,
        parent=parent,
        expenses=expenses,
        state=state.artifact if state else None,
        head=HeadSettings() if before else settings.head,
        distillation=teachers.given_distillation(cell, settings),
        found_for=None if mask_file is None else masks.model_of(mask_file),
    )
    result = LotteryResult.of(checkpoint, settings.percent)
    files.write_json(out / common.RESULT, asdict(result))
    return StageOutput(checkpoint.digest, f"{checkpoint.scores_text()}, {result.zeros:.0%} zeros")

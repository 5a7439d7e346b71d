"""The cells of an unstructured lottery ticket: one per round.

task objective   lottery 0 % -> lottery 10 % -> ... -> lottery SPARSITY %     fine-tunings
mlm objective    lottery-mask 10 % -> ... -> lottery-mask SPARSITY % -> lottery    the last on the task
a mask given     lottery
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from effx import files
from effx.recipe.execute.protocol import LocalPaths
from effx.recipe.graph.cells import Cell, CellBuilder, data_paths
from effx.recipe.language.recipe import ModelEntry, TaskEntry
from effx.specs.distillation import GivenTeacher
from effx.specs.stages import LotteryMaskStage, LotteryRoundStage
from effx.specs.training import SPARSITY_STEP, LotterySettings


def add(
    builder: CellBuilder,
    task: TaskEntry,
    model: ModelEntry,
    settings: LotterySettings,
    name: str,
    *,
    round_name: str | None = None,
    keep_rounds: bool = False,
    teacher: GivenTeacher | None = None,
) -> Cell:
    """Add the rounds of a lottery ticket; return the last.

    Args:
        builder: collects the cells.
        task: what is trained.
        model: the pretrained encoder.
        settings: how sparse, and how to train.
        name: of the last round's checkpoint.
        round_name: of the earlier rounds' results, with {percent}; default: NAME-roundPERCENT.
        keep_rounds: keep the checkpoints of earlier rounds too.
        teacher: what every fine-tuning learns from besides the labels.
    """
    stem, _, seed = name.rpartition("-s")
    names = round_name or f"{stem}-round{{percent}}-s{seed}"
    rounds = _Rounds(builder, task, model, settings, names, keep_rounds, teacher)
    if settings.mask is not None:
        return rounds.tune(None, name, None, objective=None, mask_digest=files.sha256(Path(settings.mask)))
    if settings.objective == "mlm":
        return rounds.tune(None, name, rounds.masks())
    last: Cell | None = None
    for percent in range(0, settings.sparsity + SPARSITY_STEP, SPARSITY_STEP):
        is_last = percent == settings.sparsity
        last = rounds.tune(percent, name if is_last else names.format(percent=percent), last, keep=is_last)
    assert last is not None
    return last


class _Rounds:
    """What the rounds of one lottery ticket share."""

    def __init__(
        self,
        builder: CellBuilder,
        task: TaskEntry,
        model: ModelEntry,
        settings: LotterySettings,
        names: str,
        keep_rounds: bool,
        teacher: GivenTeacher | None,
    ) -> None:
        self._builder, self._task, self._settings, self._names = builder, task, settings, names
        self._head = model.head
        self._keep_rounds, self._teacher = keep_rounds, teacher
        self._finetune = settings.finetune.replace(lr=settings.learning_rate)
        digests, self._pretrained = builder.pretrained(model)
        local_paths = data_paths(task, model)
        self._local_paths = LocalPaths(
            local_paths.data, local_paths.model, _absolute(settings.text), _absolute(settings.mask),
            teacher=None if teacher is None else _absolute(teacher.folder),
        )  # fmt: skip
        self._options: dict[str, Any] = {
            "local_paths": self._local_paths,
            "rows": builder.rows(task),
            "model": digests,
            "work": builder.amount(task, self._finetune, "epochs"),
            "group": model.label,
        }

    def tune(
        self,
        percent: int | None,
        name: str,
        before: Cell | None,
        *,
        keep: bool = True,
        objective: str | None = "",
        mask_digest: str | None = None,
    ) -> Cell:
        """Add a fine-tuning under the mask of the cell before, if there is one."""
        stage = LotteryRoundStage(
            task=self._task.name,
            percent=percent,
            objective=self._settings.objective if objective == "" else objective,
            mask_digest=mask_digest,
            head=self._head,
            finetune=self._finetune,
            **taught(self._teacher),
        )
        sources = (*((before.id,) if before else ()), *self._pretrained)
        return self._builder.add(
            "lottery", name, stage, sources=sources, keep=keep or self._keep_rounds, **self._options
        )

    def masks(self) -> Cell:
        """Add the rounds of masked language modelling; return the last."""
        text = self._settings.text
        last: Cell | None = None
        for percent in range(SPARSITY_STEP, self._settings.sparsity + SPARSITY_STEP, SPARSITY_STEP):
            stage = LotteryMaskStage(
                task=self._task.name,
                percent=percent,
                text_digest=files.sha256(Path(text)) if text else None,
                finetune=self._finetune,
            )
            sources = (*((last.id,) if last else ()), *self._pretrained)
            last = self._builder.add(
                "lottery-mask", self._names.format(percent=percent), stage, sources=sources, **self._options
            )
        assert last is not None
        return last


def taught(teacher: GivenTeacher | None) -> dict[str, Any]:
    """Return the settings of a :class:`effx.specs.stages.TaughtStage`."""
    if teacher is None:
        return {}
    return {"teacher_digest": teacher.digest, "distillation": teacher.settings}


def _absolute(path: str | None) -> str | None:
    return str(Path(path).resolve()) if path is not None else None

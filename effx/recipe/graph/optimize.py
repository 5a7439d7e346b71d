"""The cells of ``effx optimize``: from one checkpoint to the cheapest engine that keeps its promise.

    given ── export (fp32 on every backend, and the wanted precision in every form) ── fastest
          └─ costs (of the fastest form) ── one-shot (the least speed-up) ── recovery ── export
                                            one-shot (the next) of it ── recovery ── export
    given, and each recovery ── exits, tokens ── export
    all exports ── profile ── answer ── report
                └─ choosing ──┘

Each speed-up is pruned from the one before after its recovery: several small steps lose less than a large one
(Kurtic et al. 2023, "ZipLM", section 3.3), and one run gives a family of models.

The form (:mod:`effx.optimize.forms`) whose layers are measured is the one in which the unreduced engine is
the fastest, so its cells are known once ``fastest`` is done. Pruned models are also built in a second form if
that is nearly as fast; with exits and other parts, in the fastest alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from effx import files, records
from effx.optimize.forms import EngineForm, FastestForms, of_costs
from effx.recipe.execute.protocol import LocalPaths
from effx.recipe.execute.stages import common
from effx.recipe.graph import processor
from effx.recipe.graph.cells import Cell, CellBuilder, chosen_by_time
from effx.recipe.graph.plan import Artifacts
from effx.recipe.language.recipe import TaskEntry
from effx.specs.exits import EarlyExitSettings
from effx.specs.measurement import BuiltFor, MeasurementPlan, parse_shape
from effx.specs.optimize import ALSO_PARTS, EXITS, OptimizeSettings
from effx.specs.settings import Settings
from effx.specs.stages import (
    AnswerStage,
    ChoosingStage,
    CostsStage,
    ExitsStage,
    ExportStage,
    FastestStage,
    GivenStage,
    OneShotStage,
    ProfileStage,
    RecoveryStage,
    ReportStage,
    TokensStage,
)
from effx.specs.tokens import TokenPruningSettings
from effx.specs.training import FinetuneSettings

if TYPE_CHECKING:
    from effx.optimize.check import Checked

UNREDUCED = "fp32"
_CHECKS = 12
"""Random structures of the cost table: fewer than in ``effx cost-table``, to save time."""
_ROUNDS = 15
_ALSO_DROP = 0.5
"""Of the accepted loss: what exits or fewer tokens may lose; pruning and precision lose something before."""


def add(
    builder: CellBuilder,
    task: TaskEntry,
    checked: Checked,
    settings: OptimizeSettings,
    artifacts: Artifacts,
    *,
    workload: BuiltFor,
    meter: str,
    host: str,
    unlabelled: Path | None,
) -> None:
    """Add the cells, as far as they are known.

    Args:
        builder: collects the cells.
        task: what the checkpoint predicts.
        checked: the checkpoint, its rows, and what is tried.
        settings: what is looked for.
        artifacts: id of a cell -> its output folder.
        workload: that engines are built and measured for.
        meter: energy meter.
        host: id of the machine that measures.
        unlabelled: further texts for the recovery.
    """
    made = _Cells(builder, task, checked, settings, workload, unlabelled, host)
    full = made.unreduced()
    folder = artifacts(made.fastest(full).id)
    if folder is None:
        return
    path = folder / common.FASTEST
    forms = records.build(FastestForms, records.read_json(path), path).forms
    engines = [*full, *made.reduced(forms, meter if settings.objective == "energy" else "none")]
    session = made.session(engines, meter)
    choosing = made.choosing(engines)
    answer = builder.add(
        "answer",
        made.name,
        AnswerStage(
            optimize=settings, workload=workload, by_agreement=checked.by_agreement,
            overlap=checked.overlap, different_texts=checked.different_texts,
        ),
        sources=(session.id, *(cell.id for cell in choosing)),
    )  # fmt: skip
    builder.add("report", made.name, ReportStage(), sources=(session.id, answer.id))


class _Cells:
    """What the cells have in common."""

    def __init__(
        self, builder: CellBuilder, task: TaskEntry, checked: Checked, settings: OptimizeSettings,
        workload: BuiltFor, unlabelled: Path | None, host: str,
    ) -> None:  # fmt: skip
        self._host = host
        self._builder, self._task, self._settings, self._workload = builder, task, settings, workload
        self._also_trained, checkpoint = checked.also_trained, checked.checkpoint
        self._forms, self._typical_length = checked.forms, checked.typical_length
        self._device = checked.device
        self.name = checkpoint.name
        self._choosing_rows = checked.choosing_rows
        self._of_recovered: set[str] = set()
        self._finetune = FinetuneSettings.of(
            epochs=settings.epochs, batch_size=settings.batch_size, lr=settings.lr, limit=settings.limit,
            share=checked.training_share, seed=settings.seed,
            quantization_aware=settings.quantization_aware,
        )  # fmt: skip
        source = None if task.source is None else task.source.absolute()
        further = None if unlabelled is None else str(unlabelled.resolve())
        self._paths = LocalPaths(data=source)
        self._training_paths = LocalPaths(data=source, unlabelled=further)
        self._text = None if unlabelled is None else files.sha256(unlabelled)
        self._given = builder.add(
            "given", self.name, GivenStage(), local_paths=LocalPaths(model=str(checkpoint.resolve())),
            model=builder.digests.model(str(checkpoint)),
        )  # fmt: skip

    def unreduced(self) -> list[Cell]:
        """Add the engines of the checkpoint itself: in fp32 on every backend, and in every form."""
        names = dict.fromkeys(form.backend for form in self._forms)
        forms = dict.fromkeys(
            [*(EngineForm(variant=UNREDUCED, backend=name) for name in names), *self._forms]
        )
        return [self._engine(self._given, form) for form in forms]

    def fastest(self, engines: Sequence[Cell]) -> Cell:
        """Add the choice of the forms among the unreduced engines."""
        wanted = [
            cell for cell in engines
            if isinstance(cell.settings, ExportStage)
            and EngineForm(variant=cell.settings.variant, backend=cell.settings.backend) in self._forms
        ]  # fmt: skip
        stage = FastestStage(workload=self._workload, host=self._host)
        return self._add("fastest", self.name, stage, wanted, backends=_backends(wanted), alone=True)

    def reduced(self, forms: Sequence[EngineForm], meter: str) -> list[Cell]:
        """Add the cost table, and for each speed-up the pruning, the recovery and the engines.

        Args:
            forms: of the engines, the fastest first; its costs are measured.
            meter: of the costs' energy.
        """
        settings, fastest, backend = self._settings, forms[0], forms[0].backend
        measured = of_costs(fastest.variant, self._typical_length)
        name = f"{self.name}.{measured}.{backend}{self._suffix}.{self._workload}"
        costs = self._add(
            "costs", name,
            CostsStage(
                variant=measured, backend=backend, device=self._device, workload=self._workload,
                rounds=_ROUNDS, checks=_CHECKS, seed=settings.seed, host=self._host, meter=meter,
            ),
            (self._given,), backends=(backend,), meter=meter, alone=True,
        )  # fmt: skip
        engines, before = self._also(self._given, fastest), self._given
        for speedup in sorted(settings.speedups):
            training = self._finetune.training  # the same rows are left out
            pruned = self._add(
                "one-shot", f"{self.name}-pruned{speedup:g}x",
                OneShotStage(
                    one_shot=settings.one_shot(speedup), limit=training.limit, share=training.share
                ),
                (before, costs), keep=False,
            )  # fmt: skip
            stage = RecoveryStage(
                task=self._task.name, limit_s=settings.recovery_s, finetune=self._finetune,
                distillation=settings.distillation, text_digest=self._text,
            )  # fmt: skip
            recovered = self._add(
                "recovery", f"{self.name}-{speedup:g}x", stage, (pruned, self._given),
                work=self._builder.amount(self._task, self._finetune, "epochs"), group=f"{speedup:g}x",
                paths=self._training_paths,
            )  # fmt: skip
            before = recovered
            of_recovered = [
                *(self._engine(recovered, form) for form in forms),
                *self._also(recovered, fastest),
            ]
            self._of_recovered |= {cell.id for cell in of_recovered}
            engines += of_recovered
        return engines

    def _also(self, checkpoint: Cell, form: EngineForm) -> list[Cell]:
        """Add what else is tried on a model, in one form; return the engines."""
        engines = [self._engine(checkpoint, form, part) for part in self._settings.parts]
        sources = [checkpoint] if checkpoint is self._given else [checkpoint, self._given]
        for word in self._also_trained:
            stage, settings, epochs = self._stage_of(word)
            trained = self._add(
                word, f"{checkpoint.name}-{word}", stage, sources,
                work=self._builder.amount(self._task, settings, *epochs), group=word,
            )  # fmt: skip
            engines.append(self._engine(trained, form, ALSO_PARTS[word]))
        return engines

    def _stage_of(self, word: str) -> tuple[Settings, Settings, tuple[str, ...]]:
        """Return the stage that trains exits or a token schedule, its settings, and those that are epochs."""
        settings = self._settings
        training = self._finetune.training  # the same rows are left out
        values: dict[str, Any] = {
            "max_drop": _ALSO_DROP * settings.max_drop, "confidence": settings.confidence,
            "batch_size": settings.batch_size, "seed": settings.seed, "limit": training.limit,
            "share": training.share,
        }  # fmt: skip
        common: dict[str, Any] = {
            "task": self._task.name, "teacher": self._given.name, "distillation": settings.distillation,
            "limit_s": settings.also_s(len(self._also_trained)), "rows_apart": self._choosing_rows,
        }  # fmt: skip
        if word == EXITS:
            exits = EarlyExitSettings.of(epochs=settings.epochs, **values)
            return ExitsStage(exits=exits, **common), exits, ("epochs",)
        tokens = TokenPruningSettings.of(**values)
        return TokensStage(tokens=tokens, **common), tokens, ("soft_epochs", "epochs")

    def choosing(self, engines: Sequence[Cell]) -> list[Cell]:
        """Add what the engines predict for training rows that no pruned model was trained on, if any."""
        if not self._choosing_rows:
            return []
        stage = ChoosingStage(
            rows=self._choosing_rows, training=self._finetune.training, workload=self._workload,
            unseen=tuple(cell.name for cell in engines if cell.id in self._of_recovered),
        )  # fmt: skip
        return [self._add("choosing", self.name, stage, engines, backends=_backends(engines))]

    def session(self, engines: Sequence[Cell], meter: str) -> Cell:
        """Add the session that measures all engines."""
        stage = ProfileStage(plan=_plan(self._workload), meter=meter, host=self._host)
        return self._add(
            "profile", self.name, stage, engines, backends=_backends(engines), meter=meter, alone=True,
            work=float(len(engines)),
        )  # fmt: skip

    def _engine(self, checkpoint: Cell, form: EngineForm, part: str | None = None) -> Cell:
        variant, backend = form.variant if part is None else f"{part}+{form.variant}", form.backend
        timed = chosen_by_time(variant, backend, self._device, self._workload)
        return self._add(
            "export", f"{checkpoint.name}.{variant}.{backend}{self._suffix}",
            ExportStage(
                variant=variant, backend=backend, device=self._device, built_for=self._workload,
                host=self._host if timed else None,
                **processor.of_engine(variant, backend, self._device),
            ),
            (checkpoint,), backends=(backend,), alone=True, group=f"{variant} {backend}",
        )  # fmt: skip

    @property
    def _suffix(self) -> str:
        """The device in the names of engines, unless it is the backends' own."""
        return f".{self._device}" if self._device else ""

    def _add(
        self, stage: str, name: str, settings: Settings, sources: Sequence[Cell],
        paths: LocalPaths | None = None, **options: Any,
    ) -> Cell:  # fmt: skip
        return self._builder.add(
            stage, name, settings, local_paths=paths or self._paths,
            sources=tuple(cell.id for cell in sources), rows=self._builder.rows(self._task), **options,
        )  # fmt: skip


def _backends(engines: Sequence[Cell]) -> tuple[str, ...]:
    names = [cell.settings.backend for cell in engines if isinstance(cell.settings, ExportStage)]
    return tuple(dict.fromkeys(names))


def _plan(workload: BuiltFor) -> MeasurementPlan:
    """Return what a session measures: single rows, and the workload.

    Batches of a fixed shape have no answers of their own to score: the offline scenario scores batches of as
    many rows.
    """
    if workload == "single":
        return MeasurementPlan(grid=())
    if workload == "offline":
        return MeasurementPlan(grid=(), scenarios=("offline",))
    plan, (batch, _) = MeasurementPlan.of(grid=workload), parse_shape(workload)
    return plan if batch == 1 else plan.replace(scenarios=("offline",), batch_size=batch)

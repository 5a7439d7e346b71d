"""The cells of a recipe: its chains of trainings, its engines, its searches for tickets, its sessions."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from effx.recipe.graph import lottery, multitask, processor, sweeps
from effx.recipe.graph.cells import Cell, CellBuilder, chosen_by_time, data_paths
from effx.recipe.graph.chains import Chain, chains, chains_of, exported_variants, has_search, joined
from effx.recipe.graph.digests import Digests
from effx.recipe.graph.plan import Artifacts
from effx.recipe.language.recipe import ModelEntry, Recipe, TaskEntry, level_of, lottery_settings
from effx.specs.levels import SUPER, Level
from effx.specs.stages import ExportStage, ProfileStage, ReportStage
from effx.specs.variants import distinct


def cells(recipe: Recipe, digests: Digests, host: str, artifacts: Artifacts) -> list[Cell]:
    """Return the cells of a recipe that are known so far; a cell comes after the cells that it reads.

    Args:
        recipe: the recipe.
        digests: the digests of the files and code that its cells read.
        host: id of the machine that measures.
        artifacts: id of a cell -> its output folder, for cells that depend on results.

    Raises:
        DataError: a task's files are missing, or its rows do not fit.
    """
    builder = CellBuilder(recipe, digests)
    joins_tasks = any(chain.joins_tasks for chain in chains(recipe))
    engines: dict[str, list[Cell]] = {task.name: [] for task in recipe.tasks}
    complete = dict.fromkeys(engines, True)
    parts: list[_Part] = []
    for task in recipe.tasks:
        for model in recipe.models:
            chosen: Level | None = None
            searches = recipe.tickets is not None and has_search(recipe, model)
            if recipe.tickets is not None and searches and recipe.needs_search:
                chosen = sweeps.add(builder, task, model, recipe.tickets, artifacts)
                complete[task.name] &= chosen is not None
            for seed in recipe.seeds:
                part = _Part(builder, task, model, seed, chosen, host)
                engines[task.name] += part.add()
                parts.append(part)
            if recipe.tickets is not None and searches and not recipe.needs_search:
                sweeps.add(builder, task, model, recipe.tickets, artifacts)
        if not joins_tasks and engines[task.name] and complete[task.name]:
            _profile(builder, task, engines[task.name], host)  # one session measures all of them
    if joins_tasks:
        _add_joint(builder, parts, engines)
        for task in recipe.tasks:
            if engines[task.name] and all(complete.values()):
                _profile(builder, task, engines[task.name], host)
    sessions = tuple(cell.id for cell in builder.cells if cell.stage == "profile")
    if sessions:
        builder.add("report", recipe.name, ReportStage(), sources=sessions)
    return builder.cells


@dataclass
class _Part:
    """The trainings and exports of one task, model and seed."""

    builder: CellBuilder
    task: TaskEntry
    model: ModelEntry
    seed: int
    chosen: Level | None
    """The level of the super ticket; until it is known, tickets of that level, and what is made of them, are
    left out."""
    host: str
    """Id of the machine that measures."""
    checkpoints: dict[tuple[str, ...], Cell] = field(default_factory=dict)
    """Labels of a chain -> the cell of its checkpoint."""

    def add(self) -> list[Cell]:
        """Add the chains of this task alone; return the exports."""
        engines: list[Cell] = []
        for chain in chains_of(self.builder.recipe, self.model):
            if self.is_known(chain) and not chain.joins_tasks:
                engines += self.add_chain(chain)
        return engines

    def is_known(self, chain: Chain) -> bool:
        """Whether the levels of all tickets of a chain are known."""
        return self.chosen is not None or all(level_of(stage) != SUPER for stage in chain.stages)

    def add_chain(self, chain: Chain, joint: Cell | None = None) -> list[Cell]:
        """Add the last stage of a chain, and its exports, which are returned.

        ``joint`` is the training of all tasks whose checkpoint the last stage takes.
        """
        builder, task = self.builder, self.task
        name = f"{joined(task.name, self.model.label, *chain.labels)}-s{self.seed}"
        if joint is not None:
            cell = multitask.add_checkpoint(builder, joint, task.name, name)
        else:
            parent = self.checkpoints.get(chain.labels[:-1])
            taught = chain.last.teaching.teacher
            teacher = None if taught is None else self.checkpoints[taught,]
            cell = _checkpoint(
                builder, task, self.model, self.seed, chain, name, parent, self.chosen, teacher
            )
        self.checkpoints[chain.labels] = cell
        engines: list[Cell] = []
        for variant in distinct(entry.text for entry in exported_variants(builder.recipe, chain)):
            engines += _engines(builder, cell, task, variant.text, self.host)
        return engines


def _add_joint(builder: CellBuilder, parts: Sequence[_Part], engines: dict[str, list[Cell]]) -> None:
    """Add the trainings of all tasks together, and what follows from them; add the exports to ``engines``."""
    recipe = builder.recipe
    for model, seed in itertools.product(recipe.models, recipe.seeds):
        of_tasks = [part for part in parts if part.model is model and part.seed == seed]
        for chain in chains_of(recipe, model):
            if not chain.joins_tasks or not all(part.is_known(chain) for part in of_tasks):
                continue
            joint = None
            if chain.rows[-1].name == "multitask":
                tickets = tuple(part.checkpoints[chain.labels[:-1]] for part in of_tasks if chain.labels[1:])
                name = "-".join((model.label, *chain.labels))
                joint = multitask.add(builder, model, chain.last, seed, name, tickets)
            for part in of_tasks:
                engines[part.task.name] += part.add_chain(chain, joint)


def _checkpoint(
    builder: CellBuilder,
    task: TaskEntry,
    model: ModelEntry,
    seed: int,
    chain: Chain,
    name: str,
    parent: Cell | None,
    chosen: Level | None,
    teacher: Cell | None,
) -> Cell:
    """Add the last stage of a chain; ``parent`` is the cell of the stage before it, if there is one.

    The stage's row decides what the cell reads: a stage that follows ``pretrain`` starts from the pretrained
    weights and limits the rows as the task does; other stages read the parent's checkpoint. A share is of the
    task's limited rows in every stage.
    """
    row = chain.rows[-1]
    pretrained = "pretrain" in row.follows  # if it has a parent, it repeats the parent's fine-tuning
    repeated: dict[str, Any] = {}
    if parent is not None and pretrained:
        repeated = chain.stages[0].settings.given()
    elif row.name == "further":
        repeated = {"max_length": chain.stages[-2].settings.flat()["max_length"]}
    values = {**builder.recipe.training.given(), **repeated, **chain.last.settings.given(), "seed": seed}
    if level_of(chain.last) == SUPER:
        values["level"] = chosen
    if pretrained or row.name == "further" or values.get("share") is not None:
        values["limit"] = task.limit  # other stages have it from the parent's checkpoint
    if row.name == "lottery":  # several cells, one for each round and mask
        tickets = {
            f"{joined(task.name, model.label, entry.label)}-s{seed}": lottery_settings(
                builder.recipe, entry, seed=seed, limit=task.limit
            )
            for entry in builder.recipe.entries("lottery")
            if model.trains(entry.label)
        }
        return lottery.add(builder, task, model, tickets[name], name, tickets)
    values |= {"task": task.name}
    if teacher is not None:
        values |= {"teacher": teacher.name, **chain.last.teaching.distillation.given()}
    if "trust_remote_code" in row.settings.model_fields:
        values["trust_remote_code"] = model.trust_remote_code
    if "head" in row.settings.model_fields:
        values |= model.head.given()
    settings = row.settings.of(**values)
    digests, sources = builder.pretrained(model) if pretrained else (None, ())
    known = settings.flat()
    parts = [parent.group if parent else model.label]
    parts += [str(known[key]) for key in ("regime", "layers", "mode", "rounds") if known.get(key) is not None]
    parts += ["distilled"] if teacher is not None else []
    return builder.add(
        row.name,
        name,
        settings,
        local_paths=data_paths(task, model if pretrained else None),
        sources=(*dict.fromkeys(cell.id for cell in (parent, teacher) if cell is not None), *sources),
        rows=builder.rows(task),
        model=digests,
        work=builder.amount(task, settings, *_epochs(known)),
        group=" ".join(parts),
    )


def _epochs(settings: dict[str, Any]) -> list[str]:
    """Return the names of the settings whose epochs a training adds up; a given schedule is not learned."""
    learned = "soft_epochs" in settings and settings["schedule"] is None
    return [*(["soft_epochs"] if learned else []), "epochs"]


def _engines(builder: CellBuilder, checkpoint: Cell, task: TaskEntry, variant: str, host: str) -> list[Cell]:
    """Add the engines of one variant of a checkpoint, one for each backend and device."""
    engines = []
    for wanted in builder.recipe.backends:
        suffix = f".{wanted.device}" if wanted.device else ""
        built_for = builder.recipe.built_for
        timed = chosen_by_time(variant, wanted.backend, wanted.device, built_for)
        settings = ExportStage(
            variant=variant,
            backend=wanted.backend,
            device=wanted.device,
            calibration_rows=builder.recipe.calibration_rows,
            built_for=built_for,
            host=host if timed else None,
            **processor.of_engine(variant, wanted.backend, wanted.device),
        )
        engines.append(
            builder.add(
                "export",
                f"{checkpoint.name}.{variant}.{wanted.backend}{suffix}",
                settings,
                local_paths=data_paths(task),
                sources=(checkpoint.id,),
                backends=(wanted.backend,),
                alone=timed,  # what else the host does would be measured, too
                group=f"{variant} {wanted.backend}",
            )
        )
    return engines


def _profile(builder: CellBuilder, task: TaskEntry, engines: list[Cell], host: str) -> None:
    """Add the session that measures a task's engines."""
    workloads = builder.recipe.workloads
    backends = tuple(
        dict.fromkeys(
            engine.settings.backend for engine in engines if isinstance(engine.settings, ExportStage)
        )
    )
    builder.add(
        "profile",
        task.name,
        ProfileStage(plan=workloads.plan, meter=workloads.meter, host=host),
        local_paths=data_paths(task),
        sources=tuple(engine.id for engine in engines),
        rows=builder.rows(task),
        backends=backends,
        meter=workloads.meter,
        alone=True,
        work=float(len(engines)),
    )

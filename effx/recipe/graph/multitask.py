"""The cells of multi-task training: one training of all tasks, and what follows from it for each task.

prune of every task ── multitask ── multitask-checkpoint of every task ── further
"""

from __future__ import annotations

from typing import Any

from effx.recipe.execute.protocol import LocalPaths
from effx.recipe.graph.cells import Cell, CellBuilder, data_paths
from effx.recipe.language.recipe import ModelEntry, StageEntry
from effx.specs.multitask import MultitaskSettings
from effx.specs.stages import MultitaskCheckpointStage, MultitaskStage


def add(
    builder: CellBuilder,
    model: ModelEntry,
    entry: StageEntry,
    seed: int,
    name: str,
    tickets: tuple[Cell, ...],
) -> Cell:
    """Add the training of all tasks with one model and one seed.

    Args:
        builder: collects the cells.
        model: the pretrained encoder.
        entry: of the section ``multitask``.
        seed: of the training.
        name: of the cell, without task and seed.
        tickets: the checkpoints of the tasks' tickets; empty: every task uses all heads and FFNs.
    """
    recipe = builder.recipe
    limits = [(task.name, task.limit) for task in recipe.tasks if task.limit is not None]
    values: dict[str, Any] = {**recipe.training.given(), **entry.settings.given(), "seed": seed}
    known = MultitaskSettings.of(**values, **({"task_limit": limits} if limits else {}))
    digests, sources = builder.pretrained(model)
    paths = data_paths(recipe.tasks[0], model)
    training = known.training
    work = (training.share or 1.0) * known.epochs * sum(map(builder.training_rows, recipe.tasks))
    if training.max_steps:
        work = float(training.max_steps * training.batch_size)
    return builder.add(
        "multitask",
        f"{name}-s{seed}",
        MultitaskStage(
            tasks=tuple(task.name for task in recipe.tasks),
            trust_remote_code=model.trust_remote_code,
            multitask=known,
        ),
        local_paths=LocalPaths(
            model=paths.model,
            data_of_tasks={
                task.name: task.source.absolute() for task in recipe.tasks if task.source is not None
            },
        ),
        sources=(*(ticket.id for ticket in tickets), *sources),
        rows={task.name: builder.rows(task) for task in recipe.tasks},
        model=digests,
        work=work,
        group=model.label,
    )


def add_checkpoint(builder: CellBuilder, joint: Cell, task: str, name: str) -> Cell:
    """Add the checkpoint of one task of a multi-task training."""
    return builder.add("multitask-checkpoint", name, MultitaskCheckpointStage(task=task), sources=(joint.id,))

"""Batches of one task each, every task in proportion to its rows."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np

from effx.train.trainer import grouped_order


class TaskBatch(NamedTuple):
    """Rows of one task; with several processes, those of one process."""

    task: int
    """Number of the task."""
    rows: tuple[int, ...]
    """Numbers of its rows."""
    weight: float = 1.0
    """Factor of the loss: the mean gradient of the processes is then that of the mean loss of all rows."""


def count(lengths: Sequence[np.ndarray], batch_size: int) -> int:
    """Return the number of batches in an epoch; a task's last batch may be smaller."""
    return sum(math.ceil(len(task) / batch_size) for task in lengths)


def order(lengths: Sequence[np.ndarray], batch_size: int, rng: np.random.Generator) -> list[TaskBatch]:
    """Return an epoch's batches in random order; every row occurs once.

    Tasks are thereby drawn in proportion to their batches (Liu et al. 2019, MT-DNN, algorithm 1). Rows of a
    batch have similar lengths.

    Args:
        lengths: for each task, tokens per row, int64 [n].
        batch_size: rows per batch at most.
        rng: random generator.
    """
    batches: list[TaskBatch] = []
    for number, task in enumerate(lengths):
        rows = grouped_order(task, batch_size, rng).tolist()
        batches += [
            TaskBatch(number, tuple(rows[at : at + batch_size])) for at in range(0, len(rows), batch_size)
        ]
    return [batches[index] for index in rng.permutation(len(batches))]


def divided(epoch: Sequence[TaskBatch], processes: int) -> Iterator[TaskBatch]:
    """Yield, for each batch, the part of each of the processes, which train one task in a step.

    Where a batch has fewer rows than there are processes, some processes get its first row with weight 0.
    """
    for batch in epoch:
        for process in range(processes):
            rows = batch.rows[process::processes]
            weight = len(rows) * processes / len(batch.rows)
            yield TaskBatch(batch.task, rows or batch.rows[:1], weight)

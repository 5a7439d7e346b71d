"""Batches of one task each, every task in proportion to its rows."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from effx.train.trainer import grouped_order

TaskBatch = tuple[int, tuple[int, ...]]
"""Number of the task, and numbers of its rows."""


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
        batches += [(number, tuple(rows[at : at + batch_size])) for at in range(0, len(rows), batch_size)]
    return [batches[index] for index in rng.permutation(len(batches))]

"""Simulated results of several tasks with known losses and costs of each technique; nothing was measured."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np

from effx.results import Run
from tests.analysis.simulated_run import simulated_run


def changed(rng: np.random.Generator, before: np.ndarray, lost: float, gained: float) -> np.ndarray:
    """Return which rows are wrong after a reduction: each right one becomes wrong, or each wrong one right,
    so that shares ``lost`` and ``gained`` of all rows change on average.

    Args:
        rng: of the rows.
        before: whether each row is wrong, bool [n].
        lost: share of all rows.
        gained: likewise.
    """
    wrong = float(before.mean())
    chance = np.where(before, gained / max(wrong, 1e-9), lost / max(1 - wrong, 1e-9))
    return before ^ (rng.random(len(before)) < chance)


def task_runs(
    rng: np.random.Generator,
    task: str,
    techniques: Mapping[str, tuple[float, float, float]],
    *,
    n: int = 400,
    wrong: float = 0.1,
    metric: str = "accuracy",
    rounds: int = 5,
) -> list[Run]:
    """Return the results of a task.

    Args:
        rng: of the rows.
        task: its name.
        techniques: variant -> share of rows lost, share gained, and seconds per query.
        n: rows.
        wrong: share of rows that the baseline gets wrong.
        metric: the primary one.
        rounds: of blocks.
    """
    before = rng.random(n) < wrong
    runs = [simulated_run(f"{task}-e.fp32", np.flatnonzero(before), 0.01, precision="fp32", task=task, n=n,
                          metric=metric, rounds=rounds, queries=3, session=f"s-{task}")]  # fmt: skip
    for variant, (lost, gained, seconds) in techniques.items():
        after = np.flatnonzero(changed(rng, before, lost, gained))
        precision = "int8" if "int8" in variant else "fp32"
        run = simulated_run(f"{task}-e.{variant}", after, seconds, precision=precision, task=task, n=n,
                            metric=metric, rounds=rounds, queries=3, session=f"s-{task}")  # fmt: skip
        runs.append(replace(run, engine=replace(run.engine, variant=variant)))
    return runs


def study(
    seed: int, tasks: Sequence[str], techniques: Mapping[str, tuple[float, float, float]], **options: object
) -> list[Run]:
    """Return the results of tasks on which every technique loses the same on average."""
    rng = np.random.default_rng(seed)
    return [
        run
        for task in tasks
        for run in task_runs(rng, task, techniques, **options)  # type: ignore[arg-type]
    ]

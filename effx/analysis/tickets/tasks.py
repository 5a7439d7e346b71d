"""Super tickets of several tasks: the table over tasks, spreads over seeds, and the trend with data size."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from scipy import stats

from effx.analysis.tickets.searches import TicketSearch, TrainedCell, task_score
from effx.errors import UsageError
from effx.stats import intervals, tests
from effx.stats.runs import PairedTest, Spread, paired_test

REPORTED = "rest"
"""Rows that scores are reported on: those that did not choose the level of the super ticket."""
_LEAST_TASKS = 3
"""A line through two points fits always."""


@dataclass(frozen=True)
class TaskResult:
    """Full model and super ticket of one task. Scores are means of the task's metrics."""

    search: TicketSearch
    full: Spread
    super: Spread
    """Level chosen in the mean over seeds."""
    per_seed: Spread
    """Level chosen by each seed for itself."""
    weight_remaining: float
    per_seed_weights: Spread
    test: PairedTest
    """Super ticket of the mean against the full model, over seeds."""
    p_adjusted: float | None
    """After Holm's adjustment over the tasks; None: there is no p-value."""

    @property
    def gain(self) -> float:
        """Score of the super ticket minus that of the full model."""
        return self.super.mean - self.full.mean


@dataclass(frozen=True)
class Trend:
    """A line through the tasks against the logarithm of their training rows, by least squares."""

    slope: float
    """Change per factor of ten."""
    low: float
    """95 %, Student's t with n - 2 degrees of freedom."""
    high: float
    p: float
    n: int


@dataclass(frozen=True)
class TaskTable:
    """All tasks, and their averages, which there are of one encoder only."""

    tasks: tuple[TaskResult, ...]
    full: float | None
    """Average score: the mean over tasks of the mean of each task's metrics (Liu et al. 2019); None: the
    tasks are of several encoders, so that it would compare these too."""
    super: float | None
    weight_remaining: float | None
    gain_trend: Trend | None
    """None: several encoders, or fewer than three tasks with known and different numbers of training rows."""
    weight_trend: Trend | None

    @property
    def models(self) -> tuple[str, ...]:
        """The encoders, sorted."""
        return tuple(sorted({result.search.model for result in self.tasks}))

    def label(self, result: TaskResult) -> str:
        """Return the name of a task; of several encoders also which."""
        return result.search.task if len(self.models) == 1 else result.search.name


def compare(searches: Sequence[TicketSearch]) -> TaskTable:
    """Return the table over tasks; of several encoders without averages and trends.

    Raises:
        UsageError: there is no search, one has no winning tickets, or two are of the same task and model.
    """
    if not searches:
        raise UsageError("expected at least one workspace of a finished search for tickets.")
    seen: dict[tuple[str, str], TicketSearch] = {}
    for search in searches:
        if search.level is None:
            raise UsageError(
                f"{search.folder}: no winning tickets were trained, so there is no super ticket."
            )
        other = seen.setdefault((search.task, search.model), search)
        if other is not search:
            raise UsageError(
                f"{other.folder} and {search.folder} are both searches of {search.name}: leave one out."
            )
    results = [_result(search) for search in searches]
    adjusted = iter(tests.holm([result.test.p for result in results if result.test.p is not None]))
    results = [
        replace(result, p_adjusted=None if result.test.p is None else next(adjusted)) for result in results
    ]
    if len({search.model for search in searches}) > 1:
        return TaskTable(tuple(results), None, None, None, None, None)
    return TaskTable(
        tasks=tuple(results),
        full=float(np.mean([result.full.mean for result in results])),
        super=float(np.mean([result.super.mean for result in results])),
        weight_remaining=float(np.mean([result.weight_remaining for result in results])),
        gain_trend=_trend(results, [result.gain for result in results]),
        weight_trend=_trend(results, [result.weight_remaining for result in results]),
    )


def _result(search: TicketSearch) -> TaskResult:
    def scores(cells: Sequence[TrainedCell]) -> list[float]:
        return [task_score(cell, REPORTED) for cell in cells]

    per_seed = search.super_per_seed
    return TaskResult(
        search=search,
        full=Spread.of(scores(search.full)),
        super=Spread.of(scores(search.super)),
        per_seed=Spread.of(scores(per_seed)),
        weight_remaining=float(np.mean([cell.weight_remaining for cell in search.super])),
        per_seed_weights=Spread.of([cell.weight_remaining for cell in per_seed]),
        test=paired_test(scores(search.full), scores(search.super)),
        p_adjusted=None,
    )


def _trend(results: Sequence[TaskResult], values: Sequence[float]) -> Trend | None:
    points = [
        (math.log10(result.search.training_rows), value)
        for result, value in zip(results, values, strict=True)
        if result.search.training_rows
    ]
    if len(points) < _LEAST_TASKS or len({x for x, _ in points}) < 2:
        return None
    line = stats.linregress(*zip(*points, strict=True))
    half = intervals.student(len(points) - 2) * line.stderr
    return Trend(float(line.slope), line.slope - half, line.slope + half, float(line.pvalue), len(points))

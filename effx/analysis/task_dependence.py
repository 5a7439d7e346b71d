"""Does the best reduction depend on the task? The same techniques on several tasks, with intervals.

What is compared is in :mod:`effx.analysis.task_results`, which results may be in
:mod:`effx.analysis.task_runs`. Rows of different tasks are independent, and so are their resamplings here.

The error of a difference of losses adds the errors of both in squares. Each is the standard deviation of the
paired bootstrap over rows; of accuracies at least the adjusted one of Bonett and Price (2012), as a bootstrap
of few differing rows has none. Other metrics with fewer than ten differing predictions on a task are not
tested.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from effx import progress
from effx.analysis import (
    batches,
    cohorts,
    majority,
    objectives,
    orders,
    relative_costs,
    resampling,
    task_runs,
    technique_choices,
    technique_runs,
)
from effx.analysis.objectives import OBJECTIVES, Objective
from effx.analysis.orders import Ranked
from effx.analysis.task_results import (
    POINTS,
    RELATIVE,
    Interaction,
    Interval,
    RankAgreement,
    TaskDependence,
    TaskOutcome,
    TechniqueOnTask,
)
from effx.analysis.task_runs import Selection
from effx.analysis.technique_runs import TaskRuns
from effx.errors import UsageError
from effx.results import Run
from effx.specs.constraints import TechniqueComparisonSettings
from effx.stats import intervals, tests
from effx.stats.metrics import METRICS, same_rows


@dataclass(frozen=True)
class _Losses:
    """What varies of one technique's loss on a scale."""

    value: float
    error: float | None
    """Standard error; None: too few predictions differ to know it."""


@dataclass(frozen=True)
class _Measured:
    """One task, and what its techniques are ordered by."""

    outcome: TaskOutcome
    points: list[_Losses]
    relative: list[_Losses] | None
    losses: Ranked
    costs: Ranked
    """Relative to the baseline."""


def compare(
    runs: Sequence[Run],
    objective: str = "latency",
    settings: TechniqueComparisonSettings | None = None,
    *,
    tasks: Sequence[str] = (),
) -> list[TaskDependence]:
    """Compare techniques over tasks, for each encoder, host, backend and device with at least two tasks.

    Args:
        runs: results; of each engine the latest is used.
        objective: what is to be low, or high, apart from the loss: a cost in ``OBJECTIVES``.
        settings: what a technique may lose, and with which confidence; None: the defaults.
        tasks: only these; empty: all.

    Raises:
        UsageError: no two tasks can be compared, or the objective is unknown, a score, or not measured.
    """
    cost = objectives.get(objective)
    if cost.is_score:
        raise UsageError(
            f"objective {objective} is a score: choose a cost, such as latency.", settings="objective"
        )
    selections = task_runs.select(batches.scored_for(runs, [objective]), tasks)
    settings = settings or TechniqueComparisonSettings()
    able: list[Selection] = []
    refused: list[UsageError] = []
    for selection in selections:
        try:
            able.append(_with_cost(selection, cost))
        except UsageError as error:
            refused.append(error)
    if not able:
        raise refused[0]
    progress.say(*(f"not compared: {reason}" for reason in refused))
    return [_compare(selection, cost, settings) for selection in able]


def _with_cost(selection: Selection, cost: Objective) -> Selection:
    """Return a selection without the techniques whose cost was not measured on every task.

    Raises:
        UsageError: the cost of a baseline, or of all techniques, was not measured, or by several meters.
    """
    for one in selection.tasks:
        if not cost.value(one.baseline):
            raise UsageError(
                f"{one.task}, {one.baseline.name}: objective {cost.name}: {cost.missing(one.baseline)}.",
                settings="objective",
            )
    able = [title for title in selection.techniques
            if all(cost.value(one.engines[title]) for one in selection.tasks)]  # fmt: skip
    if not able:
        first = selection.tasks[0]
        run = first.engines[selection.techniques[0]]
        raise UsageError(f"objective {cost.name} was not measured of one technique on all tasks; {run.name}: "
                         f"{cost.missing(run)}.", settings="objective")  # fmt: skip
    tasks = tuple(
        TaskRuns(one.task, one.baseline, {title: one.engines[title] for title in able})
        for one in selection.tasks
    )
    for one in tasks:
        cohorts.check([one.baseline, *one.engines.values()], energy=cost.uses_energy)
    remarks = selection.remarks
    if left := len(selection.techniques) - len(able):
        remarks = (*remarks, f"{left} techniques are left out: {cost.label} was not measured on every task")
    return replace(selection, tasks=tasks, remarks=remarks)


def _compare(selection: Selection, cost: Objective, settings: TechniqueComparisonSettings) -> TaskDependence:
    measured = [_measure(one, cost, settings) for one in selection.tasks]
    pairs = list(itertools.combinations(measured, 2))
    metrics = sorted({one.outcome.metric for one in measured})
    remarks = list(selection.remarks)
    remarks += [
        f"{one.task}: {few}"
        for one in selection.tasks
        for few in relative_costs.few_rounds([cost], [one.baseline, *one.engines.values()])
    ]
    if len(metrics) > 1:
        remarks.append(
            f"tasks have different metrics, {', '.join(metrics)}: a point of one is not a point of another, "
            "so losses of such tasks are compared relative to the baseline's score above a constant answer"
        )
    remarks += [
        f"{one.outcome.task}: relative losses are not known, as {_no_room(one)}"
        for one in measured
        if one.relative is None
    ]
    return TaskDependence(
        encoder=selection.encoder,
        host=selection.host,
        backend=selection.backend,
        device=selection.device,
        objective=cost.name,
        max_drop=settings.max_drop,
        confidence=settings.confidence,
        tasks=tuple(one.outcome for one in measured),
        agreements=tuple(agreement for a, b in pairs for agreement in _agreements(a, b, cost)),
        interactions=_adjusted([each for a, b in pairs for each in _interactions(a, b)]),
        choices=tuple(
            technique_choices.pair(a.outcome.choice, b.outcome.choice, pairs=len(pairs)) for a, b in pairs
        ),
        remarks=tuple(remarks),
    )


def _measure(one: TaskRuns, cost: Objective, settings: TechniqueComparisonSettings) -> _Measured:
    runs = [one.baseline, *one.engines.values()]
    quality = one.baseline.quality
    scores = OBJECTIVES["quality"].draws(runs)
    losses = scores[0] - scores[1:]
    costs = relative_costs.measure(one.baseline, list(one.engines.values()), cost)
    room = _room(one.baseline, scores[0])
    found, points, relative = [], [], []
    for index, (title, run) in enumerate(one.engines.items()):
        loss = quality.value - run.quality.value
        in_points = _Losses(loss, _error(one.baseline, run, losses[index]))
        points.append(in_points)
        of_room: Interval = None
        if room is not None:
            drawn = losses[index] / room.draws
            error = in_points.error and max(float(np.std(drawn)), in_points.error / room.value)
            relative.append(_Losses(loss / room.value, error))
            of_room = None if error is None else _normal(loss / room.value, error)
        found.append(
            TechniqueOnTask(
                technique=title,
                engine=run.name,
                result=run.id,
                score=run.quality.value,
                loss=loss,
                loss_interval=technique_runs.loss_interval(one.baseline, run),
                relative_loss=None if room is None else loss / room.value,
                relative_interval=of_room,
                cost=costs.values[index],
                cost_interval=costs.intervals[index],
            )
        )
    choice = technique_choices.choose(one.task, one, cost, losses, costs, settings)
    outcome = TaskOutcome(
        one.task, quality.metric, quality.n, one.baseline.name, one.baseline.id, quality.value,
        majority.majority_score(one.baseline) or 0.0, tuple(found), choice,
    )  # fmt: skip
    return _Measured(
        outcome, points, relative if room else None,
        Ranked([each.loss for each in found], orders.independent(one.task, losses)),
        Ranked(costs.values, orders.independent(one.task, costs.draws), costs.widened,
               costs.single_readings),
    )  # fmt: skip


def _no_room(one: _Measured) -> str:
    """Return why a task has no relative losses."""
    return f"{one.outcome.baseline} is not better than a constant answer in every resampling of rows"


@dataclass(frozen=True)
class _Room:
    """By how much the baseline's score is above that of a constant answer."""

    value: float
    draws: np.ndarray
    """In joint resamplings of rows [resamples], positive."""


def _room(baseline: Run, draws: np.ndarray) -> _Room | None:
    """Return the baseline's score above a constant answer's; None: it is not above 0 in every resampling.

    Losses are divided by it, and a ratio whose divisor may be 0 has no standard error.

    Args:
        baseline: the unreduced engine.
        draws: its scores in joint resamplings [resamples].
    """
    quality = baseline.quality
    constant = majority.constant_predictions(baseline)
    score = 0.0
    if constant is not None:
        labels = quality.label_array.astype(float)
        metric = METRICS[quality.metric]
        weights = resampling.example_weights(len(labels))
        score = metric(labels, constant)
        draws = draws - metric.weighted(labels, np.asarray(constant, dtype=float)[None], weights)[0]
    return None if np.any(draws <= 0) or quality.value <= score else _Room(quality.value - score, draws)


def _error(baseline: Run, run: Run, drawn: np.ndarray) -> float | None:
    """Return the standard error of a loss; None: too few predictions differ.

    Args:
        baseline: the unreduced engine.
        run: the reduced one.
        drawn: the loss in joint resamplings [resamples].
    """
    labels = baseline.quality.label_array
    before, after = baseline.quality.prediction_array, run.quality.prediction_array
    if METRICS[baseline.quality.metric].is_share:
        counts = tests.discordant(same_rows(before, labels), same_rows(after, labels))
        return max(float(np.std(drawn)), intervals.adjusted_difference(*counts, len(labels))[1])
    differing = int(np.sum(~same_rows(before, after)))
    return float(np.std(drawn)) if differing >= intervals.LEAST_DIFFERING else None


def _normal(centre: float, error: float) -> tuple[float, float]:
    half = intervals.normal() * error
    return centre - half, centre + half


def _agreements(a: _Measured, b: _Measured, cost: Objective) -> list[RankAgreement]:
    pair, count = (a.outcome.task, b.outcome.task), len(a.outcome.techniques)
    exact = relative_costs.is_exact(cost)
    return [
        RankAgreement(pair, "loss", count, *orders.agreement(a.losses, b.losses, exact=exact)),
        RankAgreement(pair, "cost", count, *orders.agreement(a.costs, b.costs, exact=exact)),
    ]


def _interactions(a: _Measured, b: _Measured) -> list[Interaction]:
    """Return the difference of the losses of every technique, not yet adjusted."""
    same = a.outcome.metric == b.outcome.metric
    tasks = (a.outcome.task, b.outcome.task)
    result = []
    for index, technique in enumerate(a.outcome.techniques):
        first, second = (
            one.points[index] if same else one.relative[index] if one.relative is not None else None
            for one in (a, b)
        )
        scale = POINTS if same else RELATIVE
        if first is None or second is None:
            reason = _no_room(a if first is None else b)
            result.append(Interaction(technique.technique, tasks, scale, None, None, None, None, reason))
            continue
        difference = first.value - second.value
        if first.error is None or second.error is None:
            where = a if first.error is None else b
            reason = (
                f"on {where.outcome.task}, fewer than {intervals.LEAST_DIFFERING} predictions differ from "
                "the baseline's"
            )
            result.append(
                Interaction(technique.technique, tasks, scale, difference, None, None, None, reason)
            )
            continue
        error = float(np.hypot(first.error, second.error))
        p = tests.normal_two_sided(difference, error)
        result.append(
            Interaction(
                technique.technique, tasks, scale, difference, _normal(difference, error), p, None, None
            )
        )
    return result


def _adjusted(found: Sequence[Interaction]) -> tuple[Interaction, ...]:
    values = tests.holm_of_known([each.p for each in found])
    return tuple(replace(each, p_adjusted=value) for each, value in zip(found, values, strict=True))

"""The cheapest technique that loses little, task by task, and whether the answer depends on the task.

    measured   the cheapest whose measured loss is at most the limit: what the data suggest
    proven     the cheapest whose loss is proven to be at most the limit (:mod:`effx.analysis.certification`):
               what may be deployed. It also depends on how many rows a task has: with few, nothing is proven
               but the baseline, which says nothing about the task

The baseline is always a candidate, with no loss and its own cost. Each choice is repeated in joint
resamplings of rows and rounds; the share in which a technique is chosen says how certain the choice is. Tasks
have different rows, so two tasks choose differently with probability 1 - sum over techniques of the product
of their shares. The answers are shown to differ where that is at least 95 %, adjusted for the number of
pairs. Where two techniques are truly equal, a share is anywhere from 0 to 1, so that tasks on which the same
two are equal are shown to differ in far less than 5 % of studies.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from effx.analysis import certification, recommend
from effx.analysis.constraints import ROUNDING, of_constraints
from effx.analysis.objectives import Objective
from effx.analysis.task_runs import TaskRuns
from effx.specs.constraints import Constraints, TaskComparisonSettings

BASELINE = "not reduced"
"""The technique of the baseline."""


@dataclass(frozen=True)
class Choice:
    """The cheapest technique of one task within the limit."""

    task: str
    measured: str
    """A technique, or :data:`BASELINE`."""
    measured_cost: float
    """Relative to the baseline."""
    measured_loss: float
    shares: Mapping[str, float]
    """Technique -> share of joint resamplings in which it is the measured choice; only those above 0."""
    proven: str
    proven_cost: float
    proven_shares: Mapping[str, float]
    costs: Mapping[str, float]
    """Of all candidates, relative to the baseline."""
    losses: Mapping[str, float]


@dataclass(frozen=True)
class ChoicePair:
    """The choices of two tasks."""

    tasks: tuple[str, str]
    measured: tuple[str, str]
    p_measured_differ: float
    """Probability that resamplings of both tasks choose different techniques."""
    proven: tuple[str, str]
    p_proven_differ: float
    exchanged_losses: tuple[float, float]
    """What the second task's measured choice loses on the first, and the first's on the second."""
    exchanged_costs: tuple[float, float]
    """Cost of the other task's choice, relative to that of its own; at most 1 where its loss is too large."""


def choose(
    one: TaskRuns,
    cost: Objective,
    losses: np.ndarray,
    costs: np.ndarray,
    settings: TaskComparisonSettings,
) -> Choice:
    """Return the cheapest technique of a task, as measured and as proven.

    Args:
        one: the task's engines.
        cost: what is to be low.
        losses: in joint resamplings [techniques, resamples].
        costs: relative to the baseline, likewise.
        settings: the largest accepted loss, and the confidence of its proof.
    """
    names = [BASELINE, *one.engines]
    runs = [one.baseline, *one.engines.values()]
    measured_losses = np.array([one.baseline.quality.value - run.quality.value for run in runs])
    values = np.array([cost.value(run) for run in runs], dtype=float)
    relative = values[0] / values if cost.maximise else values / values[0]
    drawn_costs = np.concatenate([np.ones((1, costs.shape[1])), costs])
    drawn_losses = np.concatenate([np.zeros((1, losses.shape[1])), losses])
    limit = settings.max_drop + ROUNDING
    limits = of_constraints(Constraints(max_drop=settings.max_drop), one.baseline)
    certified = certification.certify(runs, limits, cost, settings.confidence)
    draws = cost.draws(runs)
    proven_drawn = certification.proven_in_resamplings(runs, limits, cost, certified, draws)
    first = _cheapest(relative, measured_losses, measured_losses <= limit)
    proven = _cheapest(relative, measured_losses, certified.proven)
    return Choice(
        task=one.task,
        measured=names[first],
        measured_cost=float(relative[first]),
        measured_loss=float(measured_losses[first]),
        shares=_shares(names, drawn_costs, drawn_losses <= limit, cost),
        proven=names[proven],
        proven_cost=float(relative[proven]),
        proven_shares=_shares(names, drawn_costs, proven_drawn, cost),
        costs=dict(zip(names, relative.tolist(), strict=True)),
        losses=dict(zip(names, measured_losses.tolist(), strict=True)),
    )


def pair(a: Choice, b: Choice) -> ChoicePair:
    """Return whether two tasks choose differently."""
    return ChoicePair(
        tasks=(a.task, b.task),
        measured=(a.measured, b.measured),
        p_measured_differ=_differ(a.shares, b.shares),
        proven=(a.proven, b.proven),
        p_proven_differ=_differ(a.proven_shares, b.proven_shares),
        exchanged_losses=(a.losses[b.measured], b.losses[a.measured]),
        exchanged_costs=(
            a.costs[b.measured] / a.measured_cost,
            b.costs[a.measured] / b.measured_cost,
        ),
    )


def _cheapest(costs: np.ndarray, losses: np.ndarray, allowed: np.ndarray) -> int:
    """Return the index of the cheapest that is allowed; of equals the one that loses least."""
    members = np.flatnonzero(allowed)  # the baseline is one of them
    return int(members[np.lexsort((losses[members], costs[members]))[0]])


def _shares(names: list[str], costs: np.ndarray, allowed: np.ndarray, cost: Objective) -> dict[str, float]:
    """Return how often each is the cheapest that is allowed; relative costs are always to be low."""
    signed = -costs if cost.maximise else costs
    chosen, _ = recommend.choices(signed, allowed, cost)
    shares = chosen.mean(axis=1)
    return {
        names[index]: float(shares[index]) for index in np.argsort(-shares, kind="stable") if shares[index]
    }


def _differ(a: Mapping[str, float], b: Mapping[str, float]) -> float:
    return 1 - sum(share * b.get(name, 0.0) for name, share in a.items())

"""The cheapest technique that loses little on each of several tasks, or at each of several lengths of the
inputs, and whether the answer depends on them.

    measured   the cheapest whose measured loss is at most the limit: what the data suggest
    proven     the cheapest whose loss is proven to be at most the limit (:mod:`effx.analysis.certification`):
               what may be deployed. It also depends on how many rows a task has: with few, nothing is proven
               but the baseline, which says nothing about the task

The baseline is always a candidate, with no loss and its own cost. Each choice is repeated in resamplings:
of rows jointly, and of costs with errors of rounds. The share in which a technique is chosen says how
certain the choice is. For each task, the smallest set of techniques that together have a share of
1 - alpha / 2 is taken to hold the truly cheapest; alpha is 5 %, divided by the number of pairs of tasks. Two
tasks are shown to choose differently where their sets have no technique in common: each set may be wrong in
alpha / 2 of cases. Many techniques that are about equal make large sets, and show no difference. Lengths
are compared likewise.

Errors of costs: few rounds have few resamplings, so that of many equal techniques only few would ever be
drawn. Each cost is drawn from Student's t instead, with the standard error of its resampled rounds, and on
its own: errors that engines share by rounds do not decide a choice, and without them sets are larger. Where
costs are single readings, or of too few rounds (:mod:`effx.analysis.relative_costs`), nobody knows how far
others would be from them, and no difference is shown.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from effx.analysis import certification, recommend
from effx.analysis.constraints import ROUNDING, of_constraints
from effx.analysis.objectives import Objective
from effx.analysis.relative_costs import RelativeCosts
from effx.analysis.technique_runs import TaskRuns
from effx.specs.constraints import Constraints, TechniqueComparisonSettings
from effx.stats import CONFIDENCE

BASELINE = "not reduced"
"""The technique of the baseline."""


@dataclass(frozen=True)
class Choice:
    """The cheapest technique within the limit, on one task or at one length."""

    where: str
    """The task, or the shape of the inputs."""
    measured: str
    """A technique, or :data:`BASELINE`."""
    measured_cost: float
    """Relative to the baseline."""
    measured_loss: float
    shares: Mapping[str, float]
    """Technique -> share of resamplings in which it is the measured choice; only those above 0."""
    proven: str
    proven_cost: float
    proven_shares: Mapping[str, float]
    costs: Mapping[str, float]
    """Of all candidates, relative to the baseline."""
    losses: Mapping[str, float]
    single_readings: bool
    """Whether costs are single readings, or of too few rounds to know their errors; exact ones are not."""


@dataclass(frozen=True)
class ChoicePair:
    """The choices on two tasks, or at two lengths."""

    where: tuple[str, str]
    measured: tuple[str, str]
    measured_among: tuple[tuple[str, ...], tuple[str, ...]]
    """For each the fewest techniques that resamplings choose in a share of ``coverage``."""
    measured_differ: bool
    """Whether the choices are shown to differ: these sets have nothing in common."""
    proven: tuple[str, str]
    proven_among: tuple[tuple[str, ...], tuple[str, ...]]
    proven_differ: bool
    coverage: float
    """1 - alpha / 2, with alpha adjusted for the number of pairs."""
    exchanged_losses: tuple[float, float]
    """What the second measured choice loses on the first task, and the first on the second."""
    exchanged_costs: tuple[float, float]
    """Cost of the other task's choice, relative to that of its own: at least 1 where its loss is within the
    limit, and anything where it is not."""


def choose(
    where: str,
    one: TaskRuns,
    cost: Objective,
    losses: np.ndarray,
    costs: RelativeCosts,
    settings: TechniqueComparisonSettings,
) -> Choice:
    """Return the cheapest technique of a task, as measured and as proven.

    Args:
        where: the task, or the shape of the inputs.
        one: the task's engines.
        cost: what is to be low.
        losses: in joint resamplings [techniques, resamples].
        costs: of the engines, in their order.
        settings: the largest accepted loss, and the confidence of its proof.
    """
    names = [BASELINE, *one.engines]
    runs = [one.baseline, *one.engines.values()]
    measured_losses = np.array([one.baseline.quality.value - run.quality.value for run in runs])
    relative = np.array([1.0, *costs.values])
    drawn_costs = np.concatenate([np.ones((1, costs.draws.shape[1])), costs.draws])
    if costs.rounds is not None:  # else the resamplings have all that is known of their errors
        drawn_costs = _drawn(where, relative, drawn_costs, costs.rounds)
    drawn_losses = np.concatenate([np.zeros((1, losses.shape[1])), losses])
    limit = settings.max_drop + ROUNDING
    limits = of_constraints(Constraints(max_drop=settings.max_drop), one.baseline)
    certified = certification.certify(runs, limits, cost, settings.confidence)
    draws = cost.draws(runs)
    proven_drawn = certification.proven_in_resamplings(runs, limits, cost, certified, draws)
    first = _cheapest(relative, measured_losses, measured_losses <= limit)
    proven = _cheapest(relative, measured_losses, certified.proven)
    return Choice(
        where=where,
        measured=names[first],
        measured_cost=float(relative[first]),
        measured_loss=float(measured_losses[first]),
        shares=_shares(names, drawn_costs, drawn_losses <= limit, cost),
        proven=names[proven],
        proven_cost=float(relative[proven]),
        proven_shares=_shares(names, drawn_costs, proven_drawn, cost),
        costs=dict(zip(names, relative.tolist(), strict=True)),
        losses=dict(zip(names, measured_losses.tolist(), strict=True)),
        single_readings=costs.single_readings,
    )


def pair(a: Choice, b: Choice, *, pairs: int) -> ChoicePair:
    """Return whether two tasks, or lengths, choose differently.

    Args:
        a: the choice on one task.
        b: that on the other, among the same techniques.
        pairs: of tasks that are compared.
    """
    coverage = 1 - (1 - CONFIDENCE) / pairs / 2
    measured = _among(a.shares, coverage), _among(b.shares, coverage)
    proven = _among(a.proven_shares, coverage), _among(b.proven_shares, coverage)
    known = not (a.single_readings or b.single_readings)
    return ChoicePair(
        where=(a.where, b.where),
        measured=(a.measured, b.measured),
        measured_among=measured,
        measured_differ=known and a.measured != b.measured and set(measured[0]).isdisjoint(measured[1]),
        proven=(a.proven, b.proven),
        proven_among=proven,
        proven_differ=known and a.proven != b.proven and set(proven[0]).isdisjoint(proven[1]),
        coverage=coverage,
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


def _drawn(where: str, relative: np.ndarray, costs: np.ndarray, rounds: int) -> np.ndarray:
    """Return relative costs as they vary by their errors, each on its own [techniques, resamples].

    Args:
        where: by whose name they are drawn.
        relative: as measured [techniques]; the first is the baseline's, which does not vary.
        costs: in joint resamplings of rounds [techniques, resamples].
        rounds: at least two.
    """
    error = np.log(costs).std(axis=1) * np.sqrt(rounds / (rounds - 1))
    deviations = np.random.default_rng(list(where.encode())).standard_t(rounds - 1, costs.shape)
    return np.asarray(relative[:, None] * np.exp(error[:, None] * deviations))


def _among(shares: Mapping[str, float], coverage: float) -> tuple[str, ...]:
    """Return the fewest techniques whose shares are together at least the coverage, the most chosen first."""
    found, total = [], 0.0
    for name, share in sorted(shares.items(), key=lambda item: -item[1]):
        found.append(name)
        total += share
        if total >= coverage - ROUNDING:
            break
    return tuple(found)

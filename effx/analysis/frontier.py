"""Which engines are worth deploying: non-dominated sets, with how sure that is.

Pure functions over results: nothing here touches disk, device or console. An engine dominates
another if it is at least as good in every objective and better in one. Tasks, hosts, evaluation sets
and energy sources are never mixed on one frontier (:mod:`effx.analysis.cohorts`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from effx.analysis import batches, cohorts, frontier_proof, objectives, pareto
from effx.analysis.frontier_proof import Evidence, Proof
from effx.analysis.objectives import OBJECTIVES, Objective
from effx.errors import UsageError
from effx.results import Run
from effx.stats import bootstrap

_TIE_SHARE = 0.05  # P(non-dominated) above which a dominated point counts as tied
_REFERENCE_MARGIN = 1.1  # the reference point is 10 % beyond the largest cost
_STRONG = 32  # number of winners that are tested first for dominating an engine in every resampling


@dataclass(frozen=True)
class FrontierPoint:
    """One engine on a frontier."""

    run: Run
    values: dict[str, float]
    intervals: dict[str, tuple[float, float] | None]
    non_dominated: bool
    p_non_dominated: float
    """Share of joint resamplings of examples and rounds in which nothing dominates it."""
    tied_with: list[str]
    """Engines on the frontier that dominate it as measured and fail to in more than 5 % of resamplings."""
    proven: Proof | None
    """Whether it is truly on the frontier, or truly dominated; None: open. With 95 %, no engine of a
    frontier has a wrong proof; see :mod:`effx.analysis.frontier_proof`."""

    def to_json(self) -> dict[str, Any]:
        return {
            "engine": self.run.name,
            "result": self.run.id,
            "values": self.values,
            "intervals": self.intervals,
            "non_dominated": self.non_dominated,
            "p_non_dominated": self.p_non_dominated,
            "tied_with": self.tied_with,
            "proven": self.proven,
        }


@dataclass(frozen=True)
class DiminishingReturns:
    """A part of the frontier on which a unit of the second objective buys little of the first."""

    start: str
    """The engine at its cheap end."""
    end: str
    share: float
    """Gain per unit of cost on it, divided by the average over the frontier."""


@dataclass(frozen=True)
class Frontier:
    """The engines of one task on one host, by two or three objectives, the cheapest first."""

    task: str
    host: str
    objectives: tuple[str, ...]
    metric: str
    energy_source: str
    points: list[FrontierPoint]
    hypervolume: float | None
    """Share of the box that the engines dominate, 0 to 1. Its worst corner has the lowest of each gain
    and 1.1 times the highest of each cost, its best the highest gain and no cost; it depends on which
    engines there are. None with fewer than two engines or a box without extent."""
    hypervolume_interval: tuple[float, float] | None
    """95 %, from the joint resamplings within the same box; it may reach beyond 1, as the best engine may
    be better than it was measured."""
    knee: str | None
    """The engine furthest from the line between the frontier's ends; of two objectives only."""
    p_knee: float | None
    """Share of joint resamplings in which that engine is the knee; None: there is no knee. The rows also
    chose it: another measurement has the same knee less often."""
    diminishing: list[DiminishingReturns]
    """Of two objectives only; see :func:`effx.analysis.pareto.diminishing`."""

    def to_json(self) -> dict[str, Any]:
        chosen = [OBJECTIVES[name] for name in self.objectives]
        return {
            "task": self.task,
            "host": self.host,
            "objectives": list(self.objectives),
            "labels": {axis.name: self.metric if axis.name == "quality" else axis.label for axis in chosen},
            "units": {axis.name: axis.unit for axis in chosen},
            "maximise": {axis.name: axis.maximise for axis in chosen},
            "metric": self.metric,
            "energy_source": self.energy_source,
            "points": [point.to_json() for point in self.points],
            "hypervolume": self.hypervolume,
            "hypervolume_interval": self.hypervolume_interval,
            "knee": self.knee,
            "p_knee": self.p_knee,
            "diminishing": [
                {"from": part.start, "to": part.end, "share": part.share} for part in self.diminishing
            ],
        }


def frontier(runs: Sequence[Run], objectives: Sequence[str] = ("quality", "latency")) -> Frontier:
    """Return the frontier of runs by two or three objectives.

    Args:
        runs: of one task on one host; of each engine the latest is used. Runs without a value for an
            objective are left out.
        objectives: names in ``OBJECTIVES``, gains and costs in any order.

    P(non-dominated) is computed from joint resamplings of examples and rounds
    (:mod:`effx.analysis.resampling`). It is a share of resamplings of the same rows that chose the
    frontier: of engines that are truly equal, it is too high for the lucky ones, which is why proofs are
    given too. Engines that one winner dominates in every resampling are left out of the count for the others;
    that changes nothing, since what they dominate the winner does.

    Raises:
        UsageError: no runs, an unknown or repeated objective, or runs of different tasks, hosts,
            metrics, evaluation sets or energy sources.
    """
    axes = _axes(objectives)
    runs = batches.scored_for(runs, objectives)
    able = cohorts.latest([run for run in runs if all(axis.value(run) is not None for axis in axes)])
    if not able:
        raise UsageError(_no_frontier(runs, axes))
    cohorts.check(able, energy=_uses_energy(axes))
    values = np.array([[axis.value(run) for axis in axes] for run in able], dtype=float)
    signs = np.array([-1.0 if axis.maximise else 1.0 for axis in axes])
    costs = values * signs  # everything to be minimised
    order = np.lexsort((costs[:, 0], *costs[:, :0:-1].T))  # the cheapest first, the best of equals
    able, values, costs = [able[index] for index in order], values[order], costs[order]
    best = pareto.non_dominated(costs)
    winners = np.flatnonzero(best)
    draws = np.stack([axis.draws(able) * sign for axis, sign in zip(axes, signs, strict=True)], axis=-1)
    left = _not_surely_dominated(draws, winners)
    best_in_draws = np.array([pareto.non_dominated(draw) for draw in draws[left].swapaxes(0, 1)])
    probability = np.zeros(len(able))
    probability[left] = best_in_draws.mean(axis=0)
    proofs = frontier_proof.prove(draws, best, left, Evidence.of(able, axes))
    points = [
        FrontierPoint(
            run=run,
            values={axis.name: float(value) for axis, value in zip(axes, values[index], strict=True)},
            intervals={axis.name: axis.interval(run) for axis in axes},
            non_dominated=bool(best[index]),
            p_non_dominated=float(probability[index]),
            tied_with=[]
            if best[index] or probability[index] <= _TIE_SHARE
            else [
                able[winner].name
                for winner in winners
                if pareto.dominates(costs[winner], costs[index]) and _indistinct(draws[winner], draws[index])
            ],
            proven=proofs[index],
        )
        for index, run in enumerate(able)
    ]
    volume, spread = _hypervolume(costs, signs, draws[left], best_in_draws)
    two = len(axes) == 2
    knee = pareto.knee(costs[winners]) if two else None
    p_knee = None if knee is None else _share_of_knees(draws[left], best_in_draws, left, winners[knee])
    regions = pareto.diminishing(-costs[winners, 0], costs[winners, 1]) if two else []
    names = [able[winner].name for winner in winners]
    return Frontier(
        task=able[0].task,
        host=able[0].host_id,
        objectives=tuple(axis.name for axis in axes),
        metric=able[0].quality.described,
        energy_source=_source(able),
        points=points,
        hypervolume=volume,
        hypervolume_interval=spread,
        knee=None if knee is None else names[knee],
        p_knee=p_knee,
        diminishing=[DiminishingReturns(names[part.start], names[part.end], part.share) for part in regions],
    )


def comparable(runs: Sequence[Run], objectives: Sequence[str]) -> list[list[Run]]:
    """Return results in groups that share a frontier; those without a value for an objective are left out.

    Each engine has its latest result. The largest evaluation set of a task and host is the first.
    """
    axes = _axes(objectives)
    able = [run for run in cohorts.latest(runs) if all(axis.value(run) is not None for axis in axes)]
    return list(cohorts.split(able, energy=_uses_energy(axes), labels=True).values())


def _axes(names: Sequence[str]) -> list[Objective]:
    if len(names) not in (2, 3) or len(set(names)) < len(names):
        raise UsageError(f"a frontier needs two or three different objectives, not {', '.join(names)}.")
    return [objectives.get(name) for name in names]


def _uses_energy(axes: Sequence[Objective]) -> bool:
    return any(axis.uses_energy for axis in axes)


def _no_frontier(runs: Sequence[Run], axes: Sequence[Objective]) -> str:
    if not runs:
        return "a frontier needs at least one run."
    for axis in axes:
        without = [run for run in runs if axis.value(run) is None]
        if len(without) == len(runs):
            return f"no run has {axis.label}: {axis.missing(without[0])}."
    return f"no run has all of {', '.join(axis.label for axis in axes)}."


def _source(runs: Sequence[Run]) -> str:
    sources = {cohorts.energy_meter(run).source for run in runs}
    return next(iter(sources)) if len(sources) == 1 else "mixed"


def _not_surely_dominated(draws: np.ndarray, winners: np.ndarray) -> np.ndarray:
    """Return the indices of engines that no winner dominates in every resampling.

    Args:
        draws: [engines, resamples, objectives], to be minimised.
        winners: indices of the engines on the frontier.
    """
    left = np.arange(len(draws))
    for winner in winners[np.linspace(0, len(winners) - 1, min(_STRONG, len(winners))).astype(int)]:
        of_winner = draws[winner]
        always = np.zeros(len(left), dtype=bool)
        for start in range(0, len(left), 1000):  # a thousand engines' comparisons in memory at a time
            others = draws[left[start : start + 1000]]
            always[start : start + 1000] = np.all(pareto.dominates(of_winner, others), axis=1)
        left = left[~always]
    return left


def _share_of_knees(draws: np.ndarray, best_in_draws: np.ndarray, left: np.ndarray, engine: int) -> float:
    """Return the share of resamplings in which an engine is the knee.

    Args:
        draws: [those left, resamples, 2], to be minimised.
        best_in_draws: which of them nothing dominates, [resamples, those left].
        left: indices of the engines that are left.
        engine: index of the engine.
    """
    knees = []
    for row, best in enumerate(best_in_draws):
        chosen = np.flatnonzero(best)
        knee = pareto.knee(draws[chosen, row])
        knees.append(knee is not None and left[chosen[knee]] == engine)
    return float(np.mean(knees))


def _indistinct(winner: np.ndarray, point: np.ndarray) -> bool:
    """Whether a winner fails to dominate a point in more than 5 % of resamplings [., objectives]."""
    return bool(np.mean(pareto.dominates(winner, point)) < 1 - _TIE_SHARE)


def _hypervolume(
    costs: np.ndarray, signs: np.ndarray, draws: np.ndarray, best_in_draws: np.ndarray
) -> tuple[float | None, tuple[float, float] | None]:
    """Return the share of the box that engines dominate, and its interval.

    Args:
        costs: [engines, objectives], to be minimised.
        signs: 1 for a cost, -1 for a gain, [objectives].
        draws: [those left, resamples, objectives], to be minimised.
        best_in_draws: which of them nothing dominates, [resamples, those left].
    """
    worst = np.where(signs > 0, costs.max(axis=0) * _REFERENCE_MARGIN, costs.max(axis=0))
    box = float(np.prod(worst - np.where(signs > 0, 0.0, costs.min(axis=0))))
    if len(costs) < 2 or not box > 0:
        return None, None
    volume = pareto.hypervolume(costs, worst) / box
    drawn = [pareto.hypervolume(draws[chosen, row], worst) for row, chosen in enumerate(best_in_draws)]
    low, high = (end / box for end in bootstrap.percentile_interval(np.array(drawn)))
    # Noise raises the best of many, once in what was measured and once more in each resampling, so
    # the resamplings are reflected about the estimate: the basic bootstrap (Davison and Hinkley 1997,
    # Bootstrap Methods and their Application, section 5.2.1).
    return volume, (max(0.0, float(2 * volume - high)), float(2 * volume - low))

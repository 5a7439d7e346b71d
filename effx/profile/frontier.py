"""Which engines are worth deploying: non-dominated sets, with how sure that is.

Pure functions over results: nothing here touches disk, device or console. An engine dominates
another if it is at least as good in every objective and better in one. Tasks, hosts and energy
sources are never mixed on one frontier.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from effx.errors import UsageError, unknown
from effx.profile import statistics
from effx.results import Run, Workload

_RESAMPLES = 1000
_TIE_SHARE = 0.05  # P(non-dominated) above which a dominated point counts as tied
_HYPERVOLUME_MARGIN = 1.1  # the reference point lies a tenth beyond the worst point


@dataclass(frozen=True)
class Objective:
    """One axis."""

    name: str
    label: str
    unit: str
    maximise: bool
    value: Callable[[Run], float | None]
    interval: Callable[[Run], tuple[float, float] | None]


def single_stream(run: Run) -> Workload:
    """Return the workload that frontiers and tables read, or say that it was not measured."""
    workload = run.workload("single-stream")
    if workload is None:
        raise UsageError(f"{run.id}: no single-stream workload; profile the engine again.")
    return workload


def _latency(name: str) -> Callable[[Run], float | None]:
    return lambda run: single_stream(run).latency_s[name]


def _joules(run: Run) -> float:
    """Return the joules per example of a metered run."""
    joules = single_stream(run).energy.joules_per_example
    assert joules is not None
    return joules


def _latency_interval(share: float) -> Callable[[Run], tuple[float, float] | None]:
    return lambda run: statistics.block_interval(
        single_stream(run).blocks_s, lambda samples: float(np.quantile(samples, share))
    )


OBJECTIVES: dict[str, Objective] = {
    objective.name: objective
    for objective in (
        Objective("accuracy", "accuracy", "", True,
                  lambda run: run.accuracy.value, lambda run: run.accuracy.interval),
        Objective("latency", "median latency, one query at real lengths", "s", False,
                  _latency("p50"), _latency_interval(0.5)),
        Objective("latency_p90", "p90 latency, one query at real lengths", "s", False,
                  _latency("p90"), _latency_interval(0.9)),
        Objective("energy", "energy", "J/example", False,
                  lambda run: single_stream(run).energy.joules_per_example,
                  lambda run: single_stream(run).energy.interval),
        Objective("memory", "peak memory of the process", "B", False,
                  lambda run: run.memory["host_peak_bytes"], lambda run: None),
        Objective("size", "size on disk", "B", False,
                  lambda run: run.engine["size_bytes"], lambda run: None),
    )
}  # fmt: skip


@dataclass(frozen=True)
class Point:
    """One engine on a frontier."""

    run: Run
    values: dict[str, float]
    intervals: dict[str, tuple[float, float] | None]
    non_dominated: bool
    p_non_dominated: float
    """Share of joint resamplings of examples and blocks in which nothing dominates it."""
    tied_with: list[str]
    """Engines on the frontier that it cannot be told from, if it is not on it itself."""


@dataclass(frozen=True)
class Frontier:
    """The engines of one task on one host, by two objectives, the cheapest first."""

    task: str
    host: str
    objectives: tuple[str, str]
    metric: str
    energy_source: str
    points: list[Point]
    hypervolume: float | None
    """Share of the box up to a point 10 % costlier than the costliest engine and as accurate
    as the least accurate one; None with fewer than two engines."""
    knee: str | None
    """The engine furthest from the line between the frontier's ends."""

    def to_json(self) -> dict[str, Any]:
        return {
            "task": self.task,
            "host": self.host,
            "objectives": list(self.objectives),
            "metric": self.metric,
            "energy_source": self.energy_source,
            "points": [
                {
                    "engine": point.run.name,
                    "result": point.run.id,
                    "values": point.values,
                    "intervals": point.intervals,
                    "non_dominated": point.non_dominated,
                    "p_non_dominated": point.p_non_dominated,
                    "tied_with": point.tied_with,
                }
                for point in self.points
            ],
            "hypervolume": self.hypervolume,
            "knee": self.knee,
        }


def frontier(runs: Sequence[Run], objectives: tuple[str, str] = ("accuracy", "latency")) -> Frontier:
    """Return the frontier of runs by accuracy (first) and a cost (second).

    Args:
        runs: of one task on one host; an engine's latest run stands for it.
        objectives: ``accuracy`` and a cost among ``OBJECTIVES``.

    Raises:
        UsageError: no runs, an unknown objective, or runs of different tasks, hosts or energy
            sources.
    """
    gain, cost = _objective(objectives[0]), _objective(objectives[1])
    if not gain.maximise or cost.maximise:
        raise UsageError(f"a frontier needs accuracy and a cost, not {' and '.join(objectives)}.")
    runs = latest([run for run in runs if cost.value(run) is not None])
    if not runs:
        raise UsageError(f"no run has {cost.label}.")
    for what, values in (
        ("tasks", {run.task for run in runs}),
        ("hosts", {run.host_id for run in runs}),
        ("metrics", {run.accuracy.metric for run in runs}),
        ("evaluation sets", {(run.accuracy.source, run.accuracy.n) for run in runs}),
    ):
        if len(values) > 1:
            listed = ", ".join(sorted(map(str, values)))
            raise UsageError(f"different {what} cannot share a frontier: {listed}.")
    sources = {single_stream(run).energy.source for run in runs}
    if cost.name == "energy" and len(sources) > 1:
        raise UsageError(
            f"energies of different source cannot share a frontier: {', '.join(sorted(sources))}."
        )
    gains = np.array([gain.value(run) for run in runs], dtype=float)
    costs = np.array([cost.value(run) for run in runs], dtype=float)
    best = non_dominated(gains, costs)
    probability, resampled = _resample(runs, cost)
    order = np.lexsort((-gains, costs))
    winners = [int(i) for i in order if best[i]]
    points = []
    for index in order:
        run = runs[index]
        tied = []
        if not best[index] and probability[index] > _TIE_SHARE:
            tied = [runs[w].name for w in winners if _indistinct(resampled, int(index), w)]
        points.append(
            Point(
                run=run,
                values={gain.name: float(gains[index]), cost.name: float(costs[index])},
                intervals={gain.name: gain.interval(run), cost.name: cost.interval(run)},
                non_dominated=bool(best[index]),
                p_non_dominated=float(probability[index]),
                tied_with=tied,
            )
        )
    knee = knee_of(gains[winners], costs[winners])
    return Frontier(
        task=runs[0].task,
        host=runs[0].host_id,
        objectives=(gain.name, cost.name),
        metric=runs[0].accuracy.metric,
        energy_source=next(iter(sources)) if len(sources) == 1 else "mixed",
        points=points,
        hypervolume=hypervolume_of(gains, costs),
        knee=None if knee is None else runs[winners[knee]].name,
    )


def latest(runs: Sequence[Run]) -> list[Run]:
    """Return each engine's latest run, in order of first appearance."""
    newest: dict[tuple[str, str, str], Run] = {}
    for run in sorted(runs, key=lambda run: (run.started, run.id)):
        newest[(run.task, run.host_id, run.name)] = run
    return list(newest.values())


def groups(runs: Sequence[Run]) -> dict[tuple[str, str], list[Run]]:
    """Return runs by (task, host)."""
    found: dict[tuple[str, str], list[Run]] = {}
    for run in runs:
        found.setdefault((run.task, run.host_id), []).append(run)
    return dict(sorted(found.items()))


def non_dominated(gains: np.ndarray, costs: np.ndarray) -> np.ndarray:
    """Return which points [n] no other dominates: higher gain, lower cost. O(n log n).

    Equal points do not dominate each other.
    """
    order = np.lexsort((-gains, costs))
    sorted_gains, sorted_costs = gains[order], costs[order]
    best_before = np.maximum.accumulate(sorted_gains)
    # Within one cost only its highest gain can stay, and it must beat every cheaper point.
    first = np.searchsorted(sorted_costs, sorted_costs, side="left")
    cheaper_best = np.where(first > 0, best_before[np.maximum(first - 1, 0)], -np.inf)
    keep = (sorted_gains > cheaper_best) & (sorted_gains == sorted_gains[first])
    result = np.zeros(len(gains), dtype=bool)
    result[order] = keep
    return result


def knee_of(gains: np.ndarray, costs: np.ndarray) -> int | None:
    """Return the index of the point furthest above the line between the frontier's ends.

    Args:
        gains: of frontier points in rising order of cost.
        costs: likewise.

    None with fewer than three points, or if none lies above the line.
    """
    if len(gains) < 3:
        return None
    span_gain, span_cost = gains[-1] - gains[0], costs[-1] - costs[0]
    if span_gain <= 0 or span_cost <= 0:
        return None
    above = (gains - gains[0]) / span_gain - (costs - costs[0]) / span_cost
    return int(np.argmax(above)) if above.max() > 0 else None


def hypervolume_of(gains: np.ndarray, costs: np.ndarray) -> float | None:
    """Return the share of the box from the worst corner that the points dominate, 0 to 1.

    The corner is the lowest gain and 1.1 times the highest cost; the box ends at the highest
    gain and zero cost. None with fewer than two points or a box without height.
    """
    if len(gains) < 2 or gains.max() <= gains.min() or costs.max() <= 0:
        return None
    corner = costs.max() * _HYPERVOLUME_MARGIN
    best = non_dominated(gains, costs)
    order = np.argsort(costs[best], kind="stable")
    heights = np.diff(np.concatenate([[gains.min()], gains[best][order]]))
    area = float(np.sum(heights * (corner - costs[best][order])))
    return area / float(corner * (gains.max() - gains.min()))


def summary(runs: Sequence[Run]) -> dict[str, dict[str, Any]]:
    """Return, per task and host, energy per correct prediction and the cheapest accurate enough.

    The baseline is the most accurate fp32 engine.
    """
    found: dict[str, dict[str, Any]] = {}
    for (task, host), group in groups(runs).items():
        group = latest(group)
        plain = [run for run in group if run.engine["precision"] == "fp32"] or group
        baseline = max(plain, key=lambda run: run.accuracy.value)
        metered = [run for run in group if single_stream(run).energy.joules_per_example is not None]
        found[f"{task} on {host}"] = {
            "baseline": baseline.name,
            "energy_source": sorted({single_stream(run).energy.source for run in group}),
            "energy_per_correct": {
                run.name: _joules(run) / run.accuracy.value
                for run in metered
                if run.accuracy.metric == "accuracy" and run.accuracy.value > 0
            },
            "min_energy_within_1pct": _cheapest(metered, baseline, 0.01),
            "min_energy_within_2pct": _cheapest(metered, baseline, 0.02),
        }
    return found


def _cheapest(runs: Sequence[Run], baseline: Run, drop: float) -> Mapping[str, Any] | None:
    """Return the least energy among engines at most ``drop`` below the baseline's accuracy."""
    able = [run for run in runs if run.accuracy.value >= baseline.accuracy.value - drop]
    if not able or len({single_stream(run).energy.source for run in able}) > 1:
        return None
    best = min(able, key=_joules)
    return {"engine": best.name, "joules_per_example": _joules(best)}


def _objective(name: str) -> Objective:
    if name not in OBJECTIVES:
        raise unknown("objective", name, OBJECTIVES)
    return OBJECTIVES[name]


def _resample(runs: Sequence[Run], cost: Objective) -> tuple[np.ndarray, np.ndarray]:
    """Resample examples (jointly, the same rows for every engine) and blocks (by round).

    Returns:
        P(non-dominated) [n], and the resampled values [resamples, 2, n] (gain, cost).
    """
    rng = np.random.default_rng(0)
    gains = _resampled_gains(runs, rng)
    costs = _resampled_costs(runs, cost, rng)
    values = np.stack([gains, costs], axis=1)
    kept = np.array([non_dominated(row[0], row[1]) for row in values])
    return kept.mean(axis=0), values


def _resampled_gains(runs: Sequence[Run], rng: np.random.Generator) -> np.ndarray:
    labels = np.array(runs[0].accuracy.labels)
    predictions = np.array([run.accuracy.predictions for run in runs])
    n = len(labels)
    if runs[0].accuracy.metric == "accuracy":
        correct = predictions == labels
        counts = rng.multinomial(n, np.full(n, 1 / n), size=_RESAMPLES)
        return np.asarray(counts @ correct.T.astype(float) / n)
    from effx.metrics import METRICS

    metric = METRICS[runs[0].accuracy.metric]
    values = np.empty((_RESAMPLES, len(runs)))
    for row in range(_RESAMPLES):
        chosen = rng.integers(0, n, n)
        values[row] = [metric(labels[chosen], own[chosen]) for own in predictions]
    return values


def _resampled_costs(runs: Sequence[Run], cost: Objective, rng: np.random.Generator) -> np.ndarray:
    columns = []
    rounds = max(len(single_stream(run).blocks_s) for run in runs)
    draws = rng.integers(0, rounds, (_RESAMPLES, rounds))
    for run in runs:
        workload = single_stream(run)
        value = float(cost.value(run) or 0.0)
        if cost.name.startswith("latency") and len(workload.blocks_s) == rounds >= 3:
            share = 0.9 if cost.name == "latency_p90" else 0.5
            blocks = np.array([np.quantile(block, share) for block in workload.blocks_s])
            # the same rounds for every engine: a slow minute of the host fell on all of them
            column = value * np.median(blocks[draws], axis=1) / np.median(blocks)
        elif cost.name == "energy" and workload.energy.windows:
            joules = np.array([w["joules"] / w["examples"] for w in workload.energy.windows])
            column = joules[rng.integers(0, len(joules), (_RESAMPLES, len(joules)))].mean(axis=1)
        else:
            column = np.full(_RESAMPLES, value)
        columns.append(column)
    return np.stack(columns, axis=1)


def _indistinct(values: np.ndarray, point: int, winner: int) -> bool:
    """Whether the winner fails to dominate the point in more than 5 % of resamplings."""
    gain, cost = values[:, 0], values[:, 1]
    dominates = (
        (gain[:, winner] >= gain[:, point])
        & (cost[:, winner] <= cost[:, point])
        & ((gain[:, winner] > gain[:, point]) | (cost[:, winner] < cost[:, point]))
    )
    return float(1 - dominates.mean()) > _TIE_SHARE

"""Means over seeds: engines that differ in nothing but the seed of their training, as one technique.

    quality          mean over seeds
    over rows        95 % interval of that mean: other rows, the same trained models
    over seeds       standard deviation: other models, the same rows; with few seeds it is known badly
    cost             mean over seeds, with its interval over rounds

Both spreads are shown, as they say different things: more rows narrow the first and not the second. Seeds
are read from the results (:class:`effx.manifests.CheckpointOrigin`), not from names. Results of earlier
versions have none and are not grouped.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from effx.analysis import cohorts, objectives, pareto
from effx.analysis.objectives import OBJECTIVES, Objective
from effx.results import Run
from effx.stats import bootstrap
from effx.stats.runs import Spread

Interval = tuple[float, float] | None


@dataclass(frozen=True)
class SeedMean:
    """Engines that differ in their seed alone."""

    technique: str
    """Their name without the seed."""
    engines: tuple[str, ...]
    """By seed."""
    results: tuple[str, ...]
    seeds: tuple[int, ...]
    """Empty: a single engine whose seed is not known."""
    quality: Spread
    quality_interval: Interval
    """95 % of the mean over rows, for these trained models."""
    cost: Spread
    cost_interval: Interval
    """95 % of the mean over rounds, or windows of energy, of these engines."""
    non_dominated: bool
    p_non_dominated: float
    """Share of joint resamplings of rows and rounds in which nothing dominates it; other seeds may differ."""


@dataclass(frozen=True)
class SeedFrontier:
    """Techniques of one task on one host by quality and one cost, the cheapest first."""

    task: str
    host: str
    metric: str
    n: int
    """Number of rows."""
    cost: str
    """A key of :data:`effx.analysis.objectives.OBJECTIVES`."""
    points: tuple[SeedMean, ...]

    def to_json(self) -> dict[str, Any]:
        """Return it as frontier.json has it."""
        return asdict(self)


def groups(runs: Sequence[Run]) -> list[list[Run]]:
    """Return results in groups that differ in the seed alone, by seed; a group of one stands for itself.

    Engines of which two have the same seed differ in something that results do not say: they stay alone.

    Args:
        runs: of one task and host, each engine once.
    """
    found: dict[tuple[object, ...], list[Run]] = {}
    for run in runs:
        found.setdefault(_method(run), []).append(run)
    result: list[list[Run]] = []
    for members in found.values():
        seeds = {_seed(run) for run in members}
        if len(seeds) < len(members):
            result += [[run] for run in members]
        else:
            result.append(sorted(members, key=lambda run: (_seed(run) or 0, run.name)))
    return result


def frontiers(runs: Sequence[Run], costs: Sequence[str] = ("latency", "energy")) -> list[SeedFrontier]:
    """Return the frontiers of means over seeds; none where no technique has two seeds.

    Args:
        runs: of one task on one host and the same rows, each engine once.
        costs: names of objectives; one without a value for any engine is left out.
    """
    able = [run for run in runs if cohorts.has_predictions(run) and not run.withdrawn("quality")]
    result = []
    for name in costs:
        cost = objectives.get(name)
        measured = [run for run in able if cost.value(run) is not None]
        parts = cohorts.split(measured, energy=cost.uses_energy, labels=True) if measured else {}
        for part in parts.values():
            grouped = groups(part)
            if any(len(members) > 1 for members in grouped):
                result.append(_frontier(grouped, cost))
    return result


def _frontier(grouped: Sequence[Sequence[Run]], cost: Objective) -> SeedFrontier:
    quality = OBJECTIVES["quality"]
    flat = [run for members in grouped for run in members]
    scores, costs = _means(grouped, quality.draws(flat)), _means(grouped, cost.draws(flat))
    sign = -1.0 if cost.maximise else 1.0
    values = np.array(
        [
            [-np.mean([run.quality.value for run in members]), sign * np.mean(_values(members, cost))]
            for members in grouped
        ]
    )
    names = [_name(members) for members in grouped]
    threads = [cohorts.session_threads(members[0]) for members in grouped]
    if len(set(threads) - {None}) > 1:  # a cost may be lower for this alone; an own number is in the name
        names = [
            name if count is None else f"{name}, threads: {count}"
            for name, count in zip(names, threads, strict=True)
        ]
    best = pareto.non_dominated(values)
    drawn = np.stack([-scores, sign * costs], axis=-1).swapaxes(0, 1)
    share = np.mean([pareto.non_dominated(draw) for draw in drawn], axis=0)
    first = flat[0]
    return SeedFrontier(
        task=first.task,
        host=first.host_id,
        metric=first.quality.described,
        n=first.quality.n,
        cost=cost.name,
        points=tuple(
            SeedMean(
                technique=names[index],
                engines=tuple(run.name for run in grouped[index]),
                results=tuple(run.id for run in grouped[index]),
                seeds=tuple(seed for run in grouped[index] if (seed := _seed(run)) is not None),
                quality=Spread.of([run.quality.value for run in grouped[index]]),
                quality_interval=_over_rows(grouped[index], scores[index]),
                cost=Spread.of(_values(grouped[index], cost)),
                cost_interval=objectives.drawn_interval(
                    cost, grouped[index], costs[index], float(np.mean(_values(grouped[index], cost)))
                ),
                non_dominated=bool(best[index]),
                p_non_dominated=float(share[index]),
            )
            for index in np.lexsort((values[:, 0], values[:, 1])).tolist()
        ),
    )


def _over_rows(members: Sequence[Run], drawn: np.ndarray) -> Interval:
    if len(members) == 1:
        return OBJECTIVES["quality"].interval(members[0])
    return bootstrap.percentile_interval(drawn)


def _means(grouped: Sequence[Sequence[Run]], draws: np.ndarray) -> np.ndarray:
    """Return the mean over each group of values [runs, resamples], [groups, resamples]."""
    edges = np.cumsum([0, *map(len, grouped)])
    return np.array([draws[low:high].mean(axis=0) for low, high in zip(edges, edges[1:], strict=False)])


def _values(members: Sequence[Run], cost: Objective) -> list[float]:
    return [value for run in members if (value := cost.value(run)) is not None]


def _seed(run: Run) -> int | None:
    return None if run.engine.origin is None else run.engine.origin.seed


def _method(run: Run) -> tuple[object, ...]:
    """Return what has to be equal for engines to differ in their seed alone."""
    engine, origin = run.engine, run.engine.origin
    if origin is None:
        return (run.name,)
    # of the checkpoint that it was made from or taught by, nothing is known but its name
    name = _without_seed(run) if origin.trained_further or origin.unrecorded or origin.distilled else None
    return (engine.task, engine.model, engine.variant, engine.backend, engine.device, engine.max_length,
            cohorts.session_threads(run), origin.settings, name)  # fmt: skip


def _without_seed(run: Run) -> str:
    seed = _seed(run)
    return run.name if seed is None else re.sub(rf"-s{seed}(?=[-.]|$)", "", run.name)


def _name(members: Sequence[Run]) -> str:
    names = {_without_seed(run) for run in members}
    if len(members) == 1:
        return members[0].name
    return names.pop() if len(names) == 1 else f"{members[0].name} and {len(members) - 1} more seeds"

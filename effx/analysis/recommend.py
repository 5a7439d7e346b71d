"""Which engine to deploy: the best by one objective among those that meet the constraints.

Pure functions over results. Constraints hold for the figures as measured; the joint resamplings of
examples and rounds (:mod:`effx.analysis.resampling`) say how certain the answer is.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np

from effx import formatting
from effx.analysis import cohorts, comparison, objectives
from effx.analysis.cohorts import Cohort
from effx.analysis.comparison import Comparison
from effx.analysis.constraints import Bar, Limits, bars_of, leave_out, met
from effx.analysis.frontier import baseline_of
from effx.analysis.objectives import OBJECTIVES, Objective
from effx.errors import UsageError, nearest
from effx.formatting import times
from effx.results import Run

__all__ = ["Constraint", "Figure", "Limits", "Recommendation", "RunnerUp", "Unmet", "recommend"]


@dataclass(frozen=True)
class Figure:
    """One number of an engine."""

    value: float
    unit: str
    interval: tuple[float, float] | None
    """95 %; None where there is none."""


@dataclass(frozen=True)
class Constraint:
    """One limit, how the choice stands to it, and what it keeps out."""

    option: str
    """The command line's name for it, as ``--max-p90``."""
    objective: str
    limit: float
    """As given; of ``--max-drop`` the drop."""
    bar: float
    """What an engine's value must reach (accuracy) or not exceed."""
    value: float
    """The choice's."""
    p_met: float
    """Share of resamplings in which the choice meets it."""
    admits: str | None
    """The engine that is better by the objective and lacks least of this limit alone; None: the limit
    does not bind."""
    needed: float | None
    """The limit, in the terms of ``limit``, that admits it."""
    gain: float | None
    """Its objective over the choice's; None for a score, or where the choice's is 0."""
    difference: float | None
    """Of a score: its objective less the choice's, 0.01 is a point."""


@dataclass(frozen=True)
class RunnerUp:
    """The engine that is the choice without the choice."""

    engine: str
    result: str
    ratio: float | None
    """Its objective over the choice's; None for a score, or where the choice's is 0."""
    difference: float | None
    """Of a score: its objective less the choice's, 0.01 is a point."""
    interval: tuple[float, float] | None
    """95 % of the one that there is, from joint resamplings; None where nothing varies in them."""
    baseline: str
    """What it was held beside: another baseline if the choice is the baseline."""
    beside: Comparison
    """From the choice to it."""


@dataclass(frozen=True)
class Recommendation:
    """The answer for one task on one host."""

    task: str
    host: str
    objective: str
    metric: str
    n: int
    energy_source: str
    engine: str
    result: str
    figures: dict[str, Figure]
    """By the names of ``OBJECTIVES``; what was not measured is not there."""
    baseline: str
    constraints: list[Constraint]
    runner_up: RunnerUp | None
    beside_baseline: Comparison | None
    """From the baseline to the choice: losses beside gains; None if it is the baseline."""
    p_choice: float
    """Share of joint resamplings in which it is the choice."""
    p_others: dict[str, float]
    """Share of those in which another engine is, the likeliest first; not those below 0.01."""
    p_none: float
    """Share of those in which no engine meets the constraints."""
    candidates: int
    remarks: list[str] = field(default_factory=list)

    @property
    def binding(self) -> list[Constraint]:
        """The constraints that keep a better engine out, the one that lacks least first."""
        found = [one for one in self.constraints if one.admits is not None]
        return sorted(found, key=lambda one: abs((one.needed or 0.0) - one.limit) / abs(one.bar or 1.0))

    def to_json(self) -> dict[str, Any]:
        value = asdict(self)
        value["binding"] = [one.option for one in self.binding]
        if self.runner_up is not None:
            value["runner_up"]["beside"] = self.runner_up.beside.to_json()
        if self.beside_baseline is not None:
            value["beside_baseline"] = self.beside_baseline.to_json()
        return value


@dataclass(frozen=True)
class Unmet:
    """No engine of a task on a host meets the constraints."""

    task: str
    host: str
    engine: str
    """The one that lacks least."""
    option: str
    """The constraint that it lacks most of."""
    value: float | None
    bar: float
    message: str
    """One line."""

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


def recommend(
    runs: Sequence[Run],
    objective: str | None = None,
    limits: Limits | None = None,
    *,
    baseline: str | None = None,
    task: str | None = None,
    host: str | None = None,
) -> list[Recommendation | Unmet]:
    """Return an answer per task and host.

    Args:
        runs: an engine's latest run stands for it.
        objective: a name in ``OBJECTIVES``; None: energy where one meter measured it of every engine,
            which a model does not, else the median latency.
        limits: what the engine must meet.
        baseline: an engine's name; None: the most accurate unreduced fp32 engine.
        task: only this one.
        host: only this one.

    Engines scored on other rows than the most thorough ones are left out, with a remark.

    Raises:
        UsageError: no runs, an unknown name, or an objective or limit that no engine was measured by.
    """
    if not runs:
        raise UsageError("there are no results to choose from.")
    for what, wanted, known in (
        ("task", task, {run.task for run in runs}),
        ("host", host, {run.host_id for run in runs}),
    ):
        if wanted is not None and wanted not in known:
            listed = ", ".join(sorted(known))
            raise UsageError(f"no result of {what} '{wanted}'.{nearest(wanted, known)} There are: {listed}.")
    chosen = {
        key: group
        for key, group in cohorts.by_task_and_host(runs).items()
        if (task is None or key[0] == task) and (host is None or key[1] == host)
    }
    if not chosen:
        raise UsageError(f"no result of task '{task}' on host '{host}'.")
    if baseline is not None:
        names = {run.name for group in chosen.values() for run in group}
        if baseline not in names:
            raise UsageError(f"no result of baseline '{baseline}'.{nearest(baseline, names)}")
        chosen = {key: group for key, group in chosen.items() if baseline in {run.name for run in group}}
    return [_answer(group, objective, limits or Limits(), baseline) for group in chosen.values()]


def _answer(
    runs: Sequence[Run], name: str | None, limits: Limits, baseline: str | None
) -> Recommendation | Unmet:
    remarks: list[str] = []
    beside = _same_rows(cohorts.latest(runs), baseline, remarks)
    objective = _default(beside, remarks) if name is None else objectives.get(name)
    base = _baseline(beside, baseline)
    candidates = _measured(beside, objective, remarks)
    bars = bars_of(limits, base, candidates, remarks)
    order = _ranked(candidates, objective, bars)
    if not order:
        return _unmet(candidates, bars)
    run = order[0]
    draws = objective.draws(candidates)
    passed = met(candidates, bars)
    place = candidates.index(run)
    shares, p_none = _shares(draws, np.all(passed, axis=0), objective)
    next_base = base
    if base is run and baseline is None and len(beside) > 1:
        next_base = baseline_of([other for other in beside if other is not run])
    runner_up = _runner_up(candidates, run, next_base, objective, limits, draws)
    return Recommendation(
        task=run.task,
        host=run.host_id,
        objective=objective.name,
        metric=run.accuracy.metric,
        n=run.accuracy.n,
        energy_source=cohorts.energy_meter(run).source,
        engine=run.name,
        result=run.id,
        figures=_figures(run),
        baseline=base.name,
        constraints=[
            _constraint(bar, bars, run, candidates, objective, float(passed[index, place].mean()))
            for index, bar in enumerate(bars)
        ],
        runner_up=runner_up,
        beside_baseline=None if base is run else comparison.compare(base, run),
        p_choice=float(shares[place]),
        p_others={
            candidates[index].name: float(shares[index])
            for index in np.argsort(-shares, kind="stable")
            if index != place and shares[index] >= 0.01
        },
        p_none=p_none,
        candidates=len(candidates),
        remarks=[
            *remarks,
            *_unsteady(runner_up, objective),
            *(f"{run.name}: gate failed: {gate.label}" for gate in run.failed_gates),
        ],
    )


def _same_rows(runs: list[Run], baseline: str | None, remarks: list[str]) -> list[Run]:
    """Return the runs scored on the rows of the baseline, or else on the most rows."""
    named = [run for run in runs if run.name == baseline]
    first = named[0] if named else max(runs, key=lambda run: run.accuracy.n)

    rows = Cohort.of(first)
    leave_out([run for run in runs if Cohort.of(run) != rows], "scored on other rows", remarks)
    return [run for run in runs if Cohort.of(run) == rows]


def _default(runs: Sequence[Run], remarks: list[str]) -> Objective:
    measured = [run for run in runs if OBJECTIVES["energy"].value(run) is not None]
    meters = cohorts.energy_meters(measured)
    if len(measured) == len(runs) and len(meters) == 1:
        if meters[0].source != "model":
            return OBJECTIVES["energy"]
        remarks.append("by latency: energy is of a model, not measured; --objective energy chooses by it")
    elif measured:
        remarks.append("by latency: not every engine's energy was measured by one meter")
    else:
        remarks.append(f"by latency: energy unavailable ({cohorts.single_stream(runs[0]).energy.reason})")
    return OBJECTIVES["latency"]


def _baseline(runs: Sequence[Run], name: str | None) -> Run:
    return baseline_of(runs) if name is None else next(run for run in runs if run.name == name)


def _measured(runs: list[Run], objective: Objective, remarks: list[str]) -> list[Run]:
    able = [run for run in runs if objective.value(run) is not None]
    if not able:
        other = " Use --objective latency." if objective.energetic else ""
        raise UsageError(f"--objective {objective.name}: {objective.missing(runs[0])}.{other}")
    cohorts.check(able, energy=objective.energetic)
    without = [run for run in runs if objective.value(run) is None]
    leave_out(without, f"without {objective.label}", remarks)
    return able


def _ranked(runs: Sequence[Run], objective: Objective, bars: Sequence[Bar]) -> list[Run]:
    """Return the engines that meet every bar, the best first; of equals the more accurate one."""
    able = [run for run in runs if all(bar.meets(run) for bar in bars)]
    return sorted(able, key=lambda run: (_cost(run, objective), -run.accuracy.value, run.name))


def _cost(run: Run, objective: Objective) -> float:
    value = objective.value(run)
    assert value is not None
    return -value if objective.maximise else value


def _ratio(run: Run, other: Run, objective: Objective) -> float | None:
    """Return a run's objective over another's; of scores, which may be 0 or below, there is none."""
    divisor = abs(_cost(other, objective))
    return None if objective.scored or not divisor else abs(_cost(run, objective)) / divisor


def _difference(run: Run, other: Run, objective: Objective) -> float | None:
    """Return a run's score less another's; None if the objective is no score."""
    return _cost(other, objective) - _cost(run, objective) if objective.scored else None


def _spread(own: np.ndarray, other: np.ndarray, objective: Objective) -> tuple[float, float] | None:
    """Return the interval of a ratio or difference from values [resamples]; None where it does not vary."""
    with np.errstate(all="ignore"):  # a ratio to nothing says nothing
        values = own - other if objective.scored else own / other
    if not np.all(np.isfinite(values)) or np.ptp(values) == 0:
        return None
    low, high = np.quantile(values, [0.025, 0.975])
    return float(low), float(high)


def _shares(draws: np.ndarray, met: np.ndarray, objective: Objective) -> tuple[np.ndarray, float]:
    """Return the share of resamplings in which each engine is the choice, and in which none is."""
    costs = np.where(met, -draws if objective.maximise else draws, np.inf)
    # of equals the share is split: they are the same choice
    best = (costs == costs.min(axis=0)) & met
    count = best.sum(axis=0)
    return (best / np.maximum(count, 1)).mean(axis=1), float(np.mean(count == 0))


def _constraint(
    bar: Bar, bars: Sequence[Bar], run: Run, runs: Sequence[Run], objective: Objective, p_met: float
) -> Constraint:
    """Return how the choice stands to a bar, and the better engine that only this bar keeps out."""
    better = [
        other
        for other in runs
        if _cost(other, objective) < _cost(run, objective)
        and bar.objective.value(other) is not None
        and not bar.meets(other)
        and all(one.meets(other) for one in bars if one is not bar)
    ]
    value = bar.objective.value(run)
    assert value is not None
    near = min(better, key=lambda other: bar.lacks(bar.objective.value(other) or 0.0), default=None)
    return Constraint(
        option=bar.option,
        objective=bar.objective.name,
        limit=bar.limit,
        bar=bar.bar,
        value=value,
        p_met=p_met,
        admits=None if near is None else near.name,
        needed=None if near is None else bar.needed(bar.objective.value(near) or 0.0),
        gain=None if near is None else _ratio(near, run, objective),
        difference=None if near is None else _difference(near, run, objective),
    )


def _runner_up(
    candidates: Sequence[Run], run: Run, base: Run, objective: Objective, limits: Limits, draws: np.ndarray
) -> RunnerUp | None:  # fmt: skip
    """Return what would be the choice if the choice were not there."""
    rest = [other for other in candidates if other is not run]
    if not rest:
        return None
    order = _ranked(rest, objective, bars_of(limits, base, candidates, []))
    if not order:
        return None
    other = order[0]
    return RunnerUp(
        engine=other.name,
        result=other.id,
        ratio=_ratio(other, run, objective),
        difference=_difference(other, run, objective),
        interval=_spread(draws[candidates.index(other)], draws[candidates.index(run)], objective),
        baseline=base.name,
        beside=comparison.compare(run, other),
    )


def _unsteady(other: RunnerUp | None, objective: Objective) -> list[str]:
    """Remark where rounds side by side order the two the other way than all samples together.

    The medians of all samples are what was measured; on a host that slows and recovers they also say
    in which rounds an engine had more samples near the middle.
    """
    statistic = {"latency": "p50", "latency_mean": "mean"}.get(objective.name)
    if other is None or other.ratio is None:
        return []
    for ratio in other.beside.latency:
        same = (ratio.scenario, ratio.statistic) == ("single-stream", statistic) and ratio.paired
        if same and (ratio.value - 1) * (other.ratio - 1) < 0:
            return [
                f"round by round {other.engine} takes {times(ratio.value)}x the time, "
                f"over all rounds {times(other.ratio)}x: the host was not steady, "
                "so profile both again on an idle one"
            ]
    return []


def _figures(run: Run) -> dict[str, Figure]:
    found = {}
    for name in ("accuracy", "latency", "latency_p90", "latency_p99", "throughput", "energy",
                 "energy_per_correct", "memory", "size"):  # fmt: skip
        objective = OBJECTIVES[name]
        value = objective.value(run)
        if value is not None:
            found[name] = Figure(float(value), objective.unit, objective.interval(run))
    return found


def _unmet(runs: Sequence[Run], bars: Sequence[Bar]) -> Unmet:
    """Return the engine whose largest lack is the least, and that lack."""

    def largest(run: Run) -> tuple[float, Bar]:
        lacks = [
            (np.inf if (value := bar.objective.value(run)) is None else bar.lacks(value), bar) for bar in bars
        ]
        return max(lacks, key=lambda pair: pair[0])

    near = min(runs, key=lambda run: largest(run)[0])
    _, bar = largest(near)
    value = bar.objective.value(near)
    side = "below" if bar.objective.maximise else "above"
    unit = bar.objective.unit
    if value is None:
        has = "was not measured, against"
    else:
        has = f"of {formatting.rounded_outwards(value, unit, up=not bar.objective.maximise)} is {side}"
    limit = formatting.limit(bar.bar, unit)
    if bar.beside is not None:
        limit += f" ({bar.option} {bar.limit:g} beside {bar.beside.name})"
    else:
        limit += f" ({bar.option})"
    label = near.accuracy.metric if bar.objective.name == "accuracy" else bar.objective.short
    return Unmet(
        task=near.task,
        host=near.host_id,
        engine=near.name,
        option=bar.option,
        value=value,
        bar=bar.bar,
        message=(
            f"{near.task} on {near.host_id}: none of {len(runs)} engines meets the constraints; nearest is "
            f"{near.name}, whose {label} {has} {limit}."
        ),
    )

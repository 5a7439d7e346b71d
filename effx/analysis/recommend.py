"""Which engine to deploy: the best by one objective among those that meet the constraints.

Pure functions over results. Constraints apply to the values as measured; joint resamplings of
examples and rounds (:mod:`effx.analysis.resampling`) give the certainty of the answer.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from effx.analysis import cohorts, comparison, majority, objectives
from effx.analysis.baseline import baseline_of
from effx.analysis.cohorts import Cohort
from effx.analysis.constraints import Threshold, leave_out, met, thresholds
from effx.analysis.objectives import OBJECTIVES, Objective
from effx.analysis.recommendation import ConstraintOutcome, Estimate, Recommendation, RunnerUp, Unmet
from effx.errors import UsageError, nearest
from effx.formatting import times
from effx.results import Run
from effx.specs.constraints import MAX_DROP, Constraints
from effx.stats import bootstrap


def recommend(
    runs: Sequence[Run],
    objective: str | None = None,
    constraints: Constraints | None = None,
    *,
    baseline: str | None = None,
    task: str | None = None,
    host: str | None = None,
) -> list[Recommendation | Unmet]:
    """Return an answer per task and host.

    Args:
        runs: of each engine the latest is used.
        objective: a name in ``OBJECTIVES``; None: energy where one meter measured it of every engine,
            which a model does not, else the median latency.
        constraints: what the engine must meet; None: a loss of at most :data:`MAX_DROP`.
        baseline: an engine's name; None: the most accurate unreduced fp32 engine. Where a single engine was
            measured there is none: no loss can be limited, and a remark says so.
        task: only this one.
        host: only this one.

    Engines that were not scored on the largest set of rows (the baseline's, if it is named) are left out,
    with a remark.

    Raises:
        UsageError: no runs, an unknown name, or an objective or constraint without a value for any engine.
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
    limits = Constraints(max_drop=MAX_DROP) if constraints is None else constraints
    return [_answer(group, objective, limits, baseline) for group in chosen.values()]


def _answer(
    runs: Sequence[Run], name: str | None, constraints: Constraints, baseline: str | None
) -> Recommendation | Unmet:
    remarks: list[str] = []
    same_rows = _same_rows(cohorts.latest(runs), baseline, remarks)
    objective = _default(same_rows, remarks) if name is None else objectives.get(name)
    base = _baseline(same_rows, baseline)
    if base is None and constraints.max_drop is not None:
        remarks.append("max_drop was not checked: there is no other engine to compare with")
    candidates = _measured(same_rows, objective, remarks)
    limits = thresholds(constraints, base, candidates, remarks)
    order = _ranked(candidates, objective, limits)
    if not order:
        return _unmet(candidates, limits)
    run = order[0]
    draws = objective.draws(candidates)
    passed = met(candidates, limits)
    position = candidates.index(run)
    shares, p_none = _shares(draws, np.all(passed, axis=0), objective)
    next_base = base
    if baseline is None:
        next_base = _baseline([other for other in same_rows if other is not run], None)
    runner_up = _runner_up(candidates, run, next_base, objective, constraints, draws)
    return Recommendation(
        task=run.task,
        host=run.host_id,
        objective=objective.name,
        metric=run.quality.metric,
        n=run.quality.n,
        energy_source=cohorts.energy_meter(run).source,
        engine=run.name,
        made_elsewhere=run.made_elsewhere,
        result=run.id,
        estimates=_estimates(run),
        baseline=None if base is None else base.name,
        constraints=[
            _outcome(threshold, limits, run, candidates, objective, float(passed[index, position].mean()))
            for index, threshold in enumerate(limits)
        ],
        runner_up=runner_up,
        versus_baseline=None if base is None or base is run else comparison.compare(base, run),
        p_choice=float(shares[position]),
        p_others={
            candidates[index].name: float(shares[index])
            for index in np.argsort(-shares, kind="stable")
            if index != position and shares[index] >= 0.01
        },
        p_none=p_none,
        candidates=len(candidates),
        remarks=[
            *remarks,
            *made_elsewhere(run),
            *_unsteady_host(runner_up, objective),
            *filter(None, [majority.remark(run)]),
            *(f"{run.name}: gate failed: {gate.label}" for gate in run.failed_gates),
        ],
    )


def _same_rows(runs: list[Run], baseline: str | None, remarks: list[str]) -> list[Run]:
    """Return the runs scored on the rows of the baseline, or else on the most rows."""
    named = [run for run in runs if run.name == baseline]
    first = named[0] if named else max(runs, key=lambda run: run.quality.n)

    rows = Cohort.of(first)
    leave_out([run for run in runs if Cohort.of(run) != rows], "scored on other rows", remarks)
    return [run for run in runs if Cohort.of(run) == rows]


def _default(runs: Sequence[Run], remarks: list[str]) -> Objective:
    measured = [run for run in runs if OBJECTIVES["energy"].value(run) is not None]
    meters = cohorts.energy_meters(measured)
    if len(measured) == len(runs) and len(meters) == 1:
        if meters[0].source != "model":
            return OBJECTIVES["energy"]
        remarks.append("by latency: energy is of a model, not measured; the objective energy would use it")
    elif measured:
        remarks.append("by latency: energy was not measured of every engine by one meter")
    else:
        remarks.append(f"by latency: energy unavailable ({cohorts.single_stream(runs[0]).energy.reason})")
    return OBJECTIVES["latency"]


def _baseline(runs: Sequence[Run], name: str | None) -> Run | None:
    """Return the engine that losses are relative to; None: all runs are of one engine."""
    if len({run.engine.digest for run in runs}) < 2:
        return None
    return baseline_of(runs) if name is None else next(run for run in runs if run.name == name)


def _measured(runs: list[Run], objective: Objective, remarks: list[str]) -> list[Run]:
    able = [run for run in runs if objective.value(run) is not None]
    if not able:
        advice = " Choose the objective latency." if objective.uses_energy else ""
        raise UsageError(
            f"objective {objective.name}: {objective.missing(runs[0])}.{advice}", settings="objective"
        )
    cohorts.check(able, energy=objective.uses_energy)
    without = [run for run in runs if objective.value(run) is None]
    leave_out(without, f"without {objective.label}", remarks)
    return able


def _ranked(runs: Sequence[Run], objective: Objective, limits: Sequence[Threshold]) -> list[Run]:
    """Return the engines that meet every threshold, the best first; of equals the more accurate one."""
    able = [run for run in runs if all(threshold.meets(run) for threshold in limits)]
    return sorted(able, key=lambda run: (_cost(run, objective), -run.quality.value, run.name))


def _cost(run: Run, objective: Objective) -> float:
    value = objective.value(run)
    assert value is not None
    return -value if objective.maximise else value


def _ratio(run: Run, other: Run, objective: Objective) -> float | None:
    """Return a run's objective divided by another's; None for scores, which may be 0 or below."""
    divisor = abs(_cost(other, objective))
    return None if objective.is_score or not divisor else abs(_cost(run, objective)) / divisor


def _difference(run: Run, other: Run, objective: Objective) -> float | None:
    """Return a run's score less another's; None if the objective is not a score."""
    return _cost(other, objective) - _cost(run, objective) if objective.is_score else None


def _spread(draws: np.ndarray, other: np.ndarray, objective: Objective) -> tuple[float, float] | None:
    """Return the interval of a ratio or difference from values [resamples]; None where it does not vary."""
    with np.errstate(all="ignore"):  # division by 0 gives no interval
        values = draws - other if objective.is_score else draws / other
    if not np.all(np.isfinite(values)) or np.ptp(values) == 0:
        return None
    return bootstrap.percentile_interval(values)


def _shares(draws: np.ndarray, met: np.ndarray, objective: Objective) -> tuple[np.ndarray, float]:
    """Return the share of resamplings in which each engine is the choice, and in which none is."""
    costs = np.where(met, -draws if objective.maximise else draws, np.inf)
    # of equals the share is split: they are the same choice
    best = (costs == costs.min(axis=0)) & met
    count = best.sum(axis=0)
    return (best / np.maximum(count, 1)).mean(axis=1), float(np.mean(count == 0))


def _outcome(
    threshold: Threshold,
    limits: Sequence[Threshold],
    run: Run,
    runs: Sequence[Run],
    objective: Objective,
    p_met: float,
) -> ConstraintOutcome:
    """Return whether the choice meets a threshold, and the better engine that only this one excludes."""
    better = [
        other
        for other in runs
        if _cost(other, objective) < _cost(run, objective)
        and threshold.objective.value(other) is not None
        and not threshold.meets(other)
        and all(each.meets(other) for each in limits if each is not threshold)
    ]
    value = threshold.objective.value(run)
    assert value is not None

    def shortfall(other: Run) -> float:
        return threshold.shortfall(threshold.objective.value(other) or 0.0)

    near = min(better, key=shortfall, default=None)
    return ConstraintOutcome(
        setting=threshold.setting,
        objective=threshold.objective.name,
        limit=threshold.limit,
        threshold=threshold.value,
        value=value,
        p_met=p_met,
        admits=None if near is None else near.name,
        needed=None if near is None else threshold.limit_admitting(threshold.objective.value(near) or 0.0),
        gain=None if near is None else _ratio(near, run, objective),
        difference=None if near is None else _difference(near, run, objective),
    )


def _runner_up(
    candidates: Sequence[Run],
    run: Run,
    base: Run | None,
    objective: Objective,
    constraints: Constraints,
    draws: np.ndarray,
) -> RunnerUp | None:
    """Return the engine that would be chosen if the choice were left out."""
    rest = [other for other in candidates if other is not run]
    if not rest:
        return None
    order = _ranked(rest, objective, thresholds(constraints, base, candidates, []))
    if not order:
        return None
    other = order[0]
    return RunnerUp(
        engine=other.name,
        result=other.id,
        ratio=_ratio(other, run, objective),
        difference=_difference(other, run, objective),
        interval=_spread(draws[candidates.index(other)], draws[candidates.index(run)], objective),
        baseline=None if base is None else base.name,
        comparison=comparison.compare(run, other),
    )


def made_elsewhere(run: Run) -> list[str]:
    """Return a remark if effx did not build the engine, else nothing."""
    if run.made_elsewhere is None:
        return []
    parity = run.engine.parity
    compared = "" if parity else "; its answers were not compared with a checkpoint"
    return [f"{run.name} was made elsewhere, by {run.made_elsewhere}{compared}"]


def _unsteady_host(other: RunnerUp | None, objective: Objective) -> list[str]:
    """Return a remark if interleaved rounds order the two engines differently than all samples together.

    The medians of all samples are what was measured; on a host that slows and recovers they also say
    in which rounds an engine had more samples near the middle.
    """
    statistic = {"latency": "p50", "latency_mean": "mean"}.get(objective.name)
    if other is None or other.ratio is None:
        return []
    for ratio in other.comparison.latency:
        same = (ratio.scenario, ratio.statistic) == ("single-stream", statistic) and ratio.paired
        if same and (ratio.value - 1) * (other.ratio - 1) < 0:
            return [
                f"round by round {other.engine} takes {times(ratio.value)}x the time, "
                f"over all rounds {times(other.ratio)}x: the host was not steady, "
                "so profile both again on an idle one"
            ]
    return []


def _estimates(run: Run) -> dict[str, Estimate]:
    estimates = {}
    for name in ("quality", "latency", "latency_p90", "latency_p99", "throughput", "energy",
                 "energy_per_correct", "memory", "size"):  # fmt: skip
        objective = OBJECTIVES[name]
        value = objective.value(run)
        if value is not None:
            estimates[name] = Estimate(float(value), objective.unit, objective.interval(run))
    return estimates


def _unmet(runs: Sequence[Run], limits: Sequence[Threshold]) -> Unmet:
    """Return the engine whose largest shortfall is the least, and that shortfall."""

    def largest(run: Run) -> tuple[float, Threshold]:
        shortfalls = [
            (np.inf if (value := each.objective.value(run)) is None else each.shortfall(value), each)
            for each in limits
        ]
        return max(shortfalls, key=lambda pair: pair[0])

    near = min(runs, key=lambda run: largest(run)[0])
    _, threshold = largest(near)
    return Unmet(
        task=near.task,
        host=near.host_id,
        metric=near.quality.metric,
        candidates=len(runs),
        engine=near.name,
        setting=threshold.setting,
        objective=threshold.objective.name,
        limit=threshold.limit,
        threshold=threshold.value,
        value=threshold.objective.value(near),
        baseline=None if threshold.baseline is None else threshold.baseline.name,
    )

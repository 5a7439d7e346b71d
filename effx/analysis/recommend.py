"""Which engine to deploy: the best by one objective among those that meet the constraints.

Pure functions over results. An engine is chosen only if it is proven to meet the constraints, with a
confidence that is adjusted for the number of engines (:mod:`effx.analysis.certification`). Joint resamplings
of examples and rounds (:mod:`effx.analysis.resampling`), in which tests and choice are repeated, give the
certainty of the answer.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from effx import progress
from effx.analysis import batches, certification, cohorts, comparison, majority, objectives, slices
from effx.analysis.baseline import baseline_of, first_choice, is_plain, may_replace
from effx.analysis.certification import Certification
from effx.analysis.cohorts import Cohort
from effx.analysis.constraints import Threshold, leave_out, thresholds
from effx.analysis.limits import LimitOutcome, Verdict
from effx.analysis.objectives import OBJECTIVES, Objective
from effx.analysis.recommendation import (
    ConstraintOutcome,
    Estimate,
    NotProven,
    Recommendation,
    RunnerUp,
    Unmet,
)
from effx.errors import UsageError, nearest
from effx.formatting import times
from effx.results import Failure, Run
from effx.specs.constraints import RecommendSettings
from effx.stats import bootstrap


class _NoBaselineError(UsageError):
    """For a task on a host, losses would be relative to a worse engine than they should be."""


def recommend(
    runs: Sequence[Run],
    objective: str | None = None,
    settings: RecommendSettings | None = None,
    *,
    baseline: str | None = None,
    task: str | None = None,
    host: str | None = None,
    failures: Sequence[Failure] = (),
    unanswered: list[str] | None = None,
) -> list[Recommendation | Unmet]:
    """Return an answer per task and host.

    Args:
        runs: of each engine the latest is used.
        objective: a name in ``OBJECTIVES``; None: energy where one meter measured it of every engine,
            which a model does not, else the median latency.
        settings: what the engine must meet, and with which confidence; None: a loss of at most
            :data:`effx.specs.constraints.MAX_DROP`, with 95 %.
        baseline: an engine's name; None: the most accurate unreduced fp32 engine. Where a single engine was
            measured there is none: no loss can be limited, and a remark says so. If losses are limited, and
            that engine has to be left out, only an unreduced fp32 engine of the same checkpoint replaces it,
            or, if it was merely scored on other rows, one of any checkpoint.
        task: only this one.
        host: only this one.
        failures: engines that could not be measured. If that is the latest that is known of an engine, its
            older results are left out, with a remark. If losses are limited, and one was never measured, an
            unreduced fp32 engine is needed, or a named baseline: it may be the baseline itself.
        unanswered: to which is added why a task on a host has no answer, where others have one.

    Engines that were not scored on the largest set of rows (the baseline's, if it is named) are left out,
    with a remark.

    Raises:
        UsageError: no runs, an unknown name, an objective or constraint without a value for any engine, or,
            for every task and host, no engine that can be measured, or a baseline that is named, or that
            losses are limited against, and cannot be compared with.
    """
    if not runs:
        raise UsageError("there are no results to choose from.")
    for what, wanted, known in (
        ("task", task, {run.task for run in runs}),
        ("host", host, {run.host_id for run in runs}),
    ):
        if wanted is not None and wanted not in known:
            listed = ", ".join(sorted(known))
            raise UsageError(f"no result of {what} '{wanted}'.{nearest(wanted, known)} Known: {listed}.")
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
    settings, current = settings or RecommendSettings(), cohorts.current_failures(failures, runs)
    answers, reasons = [], []
    concerned: tuple[str, ...] = ()
    for group in chosen.values():
        of_group = {
            each.name: each.failure for each in current if any(cohorts.failed(each, run) for run in group)
        }
        if {run.name for run in group} <= set(of_group):  # the other tasks and hosts are answered
            name, why = next(iter(of_group.items()))
            reasons.append(f"{group[0].task} on {group[0].host_id}: {name} could not be measured: {why}")
            continue
        others = {
            each.name: each.failure
            for each in current
            if (each.engine.task, each.host.id) == (group[0].task, group[0].host_id)
        }
        try:
            answers.append(_answer(group, objective, settings, baseline, {**others, **of_group}))
        except _NoBaselineError as error:  # likewise
            reasons.append(str(error))
            concerned = error.settings
    if not answers:
        raise UsageError("; ".join(reasons).removesuffix(".") + ".", settings=concerned)
    progress.say(*reasons)
    if unanswered is not None:
        unanswered += reasons
    return answers


def _answer(
    runs: Sequence[Run],
    name: str | None,
    settings: RecommendSettings,
    baseline: str | None,
    failed: Mapping[str, str],
) -> Recommendation | Unmet:
    """Return the answer for one task and host; ``failed``: engines that cannot be measured now, and why."""
    remarks = [f"{name} is left out: it could not be measured: {why}" for name, why in failed.items()]
    constraints = settings.constraints
    everyone = cohorts.latest(runs)
    runs = [run for run in runs if run.name not in failed]
    same_rows = _same_rows(_with_quality(cohorts.latest(runs), remarks), baseline, remarks)
    objective = _default(same_rows, remarks) if name is None else objectives.get(name)
    same_rows = batches.scored_for(same_rows, [objective.name])
    if constraints.max_drop is not None:
        same_rows = _with_predictions(same_rows, remarks)
    if baseline is not None or constraints.max_drop is not None:
        _check_baseline(baseline, everyone, same_rows, failed)
    left_out = len({run.name for run in everyone} | set(failed)) - len({run.name for run in same_rows})
    base = _baseline(same_rows, baseline)
    if base is None and constraints.max_drop is not None:
        remarks.append("max_drop was not checked: there is no other engine to compare with")
    candidates = _measured(same_rows, objective, remarks)
    limits = thresholds(constraints, base, candidates, remarks)
    certified = certification.certify(candidates, limits, objective, settings.confidence)
    order = _ranked(candidates, objective, certified)
    if not order:
        return _unmet(candidates, limits, objective, certified)
    run = order[0]
    position = candidates.index(run)
    better = _Better(run, candidates, objective, limits, certified)
    draws = objective.draws(candidates)
    proven = certification.proven_in_resamplings(candidates, limits, objective, certified, draws)
    chosen, p_none = choices(draws, proven, objective)
    shares = chosen.mean(axis=1)
    kept = certification.kept_in_resamplings(candidates, limits)
    next_base = base
    if baseline is None:
        next_base = _baseline([other for other in same_rows if other is not run], None)
    runner_up = _runner_up(candidates, run, next_base, objective, settings, draws)
    return Recommendation(
        task=run.task,
        host=run.host_id,
        objective=objective.name,
        metric=run.quality.described,
        n=run.quality.n,
        energy_source=cohorts.energy_meter(run).source,
        engine=run.name,
        made_elsewhere=run.made_elsewhere,
        result=run.id,
        estimates=_estimates(run),
        baseline=None if base is None else base.name,
        constraints=[better.constraint(index) for index in range(len(limits))],
        confidence=settings.confidence,
        tested=certified.count,
        not_proven=better.not_proven(),
        runner_up=runner_up,
        versus_baseline=None if base is None or base is run else comparison.compare(base, run),
        p_choice=float(shares[position]),
        p_others={
            candidates[index].name: float(shares[index])
            for index in np.argsort(-shares, kind="stable")
            if index != position and shares[index] >= 0.01
        },
        p_none=p_none,
        p_kept=1 - float(shares @ (1 - kept)),
        candidates=len(candidates),
        left_out=left_out,
        optimism=_optimism(candidates, base, chosen) if _by_score(limits, objective) else None,
        remarks=[
            *remarks,
            *cohorts.without_labels(run),
            *made_elsewhere(run),
            *_sessions(candidates),
            *_unsteady_host(runner_up, objective),
            *_by_mean(run, order, objective),
            *filter(None, [majority.remark(run), batches.remark(run)]),
            *_lost(run, base, len(candidates)),
            *(f"{run.name}: gate failed: {gate.label}" for gate in run.failed_gates),
        ],
    )


def _lost(run: Run, base: Run | None, candidates: int) -> list[str]:
    """Return on which parts of the rows the choice loses more than on the others."""
    if base is None or base is run:
        return []
    return slices.remarks(slices.of_results([run], base, chosen_from=candidates), run.name)


def _with_quality(runs: list[Run], remarks: list[str]) -> list[Run]:
    """Return the runs whose quality no failed gate made unavailable.

    Raises:
        UsageError: there are none.
    """
    able = [run for run in runs if not run.withdrawn("quality")]
    if not able:
        raise UsageError(f"{runs[0].name}: its quality is unavailable: {runs[0].withdrawn('quality')}.")
    leave_out([run for run in runs if run.withdrawn("quality")], "its quality is unavailable", remarks)
    return able


def _with_predictions(runs: list[Run], remarks: list[str]) -> list[Run]:
    """Return the runs whose losses can be tested: a result may be shared without its rows.

    Raises:
        UsageError: there are none.
    """
    able = [run for run in runs if cohorts.has_predictions(run)]
    if not able:
        raise UsageError(
            f"{runs[0].name}: its result was shared without predictions, so no loss can be tested; profile "
            "the engines again."
        )
    leave_out([run for run in runs if run not in able], "its result was shared without predictions", remarks)
    return able


def _same_rows(runs: list[Run], baseline: str | None, remarks: list[str]) -> list[Run]:
    """Return the runs scored on the rows of the baseline, or else on the most labelled rows."""
    named = [run for run in runs if run.name == baseline]
    first = named[0] if named else max(runs, key=lambda run: (run.quality.reference is None, run.quality.n))

    rows = Cohort.of(first)
    leave_out([run for run in runs if not Cohort.of(run).has_rows_of(rows)], "scored on other rows", remarks)
    return [run for run in runs if Cohort.of(run).has_rows_of(rows)]


def _default(runs: Sequence[Run], remarks: list[str]) -> Objective:
    measured = [run for run in runs if OBJECTIVES["energy"].value(run) is not None]
    meters = cohorts.energy_meters(measured)
    if len(measured) == len(runs) and len(meters) == 1:
        if meters[0].source != "model":
            return OBJECTIVES["energy"]
        remarks.append(
            "by latency, as energy was estimated by a model, not measured; choose the objective energy to "
            "use the estimate"
        )
    elif measured:
        remarks.append("by latency, as energy was not measured for all engines with the same meter")
    else:
        remarks.append(f"by latency, as energy is unavailable ({cohorts.energy_of(runs[0]).reason})")
    return OBJECTIVES["latency"]


def _baseline(runs: Sequence[Run], name: str | None) -> Run | None:
    """Return the engine that losses are relative to, of runs that have it; None: all are of one engine."""
    if len({run.engine.digest for run in runs}) < 2:
        return None
    return baseline_of(runs) if name is None else next(run for run in runs if run.name == name)


def _check_baseline(
    name: str | None, everyone: Sequence[Run], kept: Sequence[Run], failed: Mapping[str, str]
) -> None:
    """Check that losses are relative to the engine they should be relative to, not to a worse one.

    Args:
        name: of the baseline; None: the one that is the baseline if no engine is left out, which another
            unreduced engine of its checkpoint may replace.
        everyone: the latest results.
        kept: those that are not left out.
        failed: engines that cannot be measured now, and why.

    Raises:
        _NoBaselineError: it was left out, or an engine that was never measured may be the baseline.
    """
    if any(run.name == name for run in kept):
        return
    rows, reference = Cohort.of(kept[0]), next((run for run in everyone if run.name == name), None)
    if reference is None:
        found, reference = baseline_of(kept), first_choice(everyone)
        if is_plain(found) or not is_plain(reference):
            # accuracies on other rows do not say which of two engines is the more accurate
            reference = first_choice(
                [
                    run
                    for run in everyone
                    if Cohort.of(run).has_rows_of(rows)
                    or (is_plain(run) and (run.name in failed or run.withdrawn("quality")))
                ]
            )
        if may_replace(found, reference) or any(run.name == reference.name for run in kept):
            unknown = sorted(set(failed) - {run.name for run in everyone})
            if is_plain(found) or not unknown:
                return
            raise _NoBaselineError(
                f"{found.task} on {found.host_id}: {unknown[0]} could not be measured, and may be the "
                f"baseline: {failed[unknown[0]].removesuffix('.')}. Profile it again, or name another "
                "baseline.", settings="baseline",
            )  # fmt: skip
    if reference.name in failed:
        why = f"could not be measured: {failed[reference.name]}"
    elif reason := reference.withdrawn("quality"):
        why = f"cannot be compared with, as its quality is unavailable: {reason}"
    elif Cohort.of(reference).has_rows_of(rows):
        why = "cannot be compared with, as its result was shared without predictions"
    else:
        why = f"cannot be compared with, as {kept[0].name} was scored on other rows"
    raise _NoBaselineError(
        f"{reference.task} on {reference.host_id}: the baseline {reference.name} {why.removesuffix('.')}. "
        "Profile it again, or name another baseline.", settings="baseline",
    )  # fmt: skip


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


def _ranked(runs: Sequence[Run], objective: Objective, certified: Certification) -> list[Run]:
    """Return the engines that are proven to meet the limits, best first; of equals the more accurate."""
    able = [run for run, proven in zip(runs, certified.proven, strict=True) if proven]
    return sorted(able, key=lambda run: _rank(run, objective))


def _rank(run: Run, objective: Objective) -> tuple[float, float, str]:
    return _cost(run, objective), -run.quality.value, run.name


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


def choices(draws: np.ndarray, proven: np.ndarray, objective: Objective) -> tuple[np.ndarray, float]:
    """Return which engine is the choice in each resampling, and the share in which none is.

    Args:
        draws: values of the objective [engines, resamples].
        proven: which engine may be chosen, bool [engines, resamples].
        objective: by which it is chosen.

    Returns:
        [engines, resamples], 1 for the choice and 0 for the others; equals share it.
    """
    costs = np.where(proven, -draws if objective.maximise else draws, np.inf)
    best = (costs == costs.min(axis=0)) & proven
    count = best.sum(axis=0)
    return best / np.maximum(count, 1), float(np.mean(count == 0))


def _by_score(limits: Sequence[Threshold], objective: Objective) -> bool:
    """Return whether the choice depends on scores of the rows."""
    return objective.is_score or any(
        limit.baseline is not None or limit.objective.is_score for limit in limits
    )


def _optimism(runs: Sequence[Run], base: Run | None, chosen: np.ndarray) -> float | None:
    """Return how much higher the score of each resampling's choice is in it than on all rows, on average.

    Args:
        runs: the candidates.
        base: their scores are compared with its; None: they are taken as they are.
        chosen: shares of the choice [engines, resamples].
    """
    weight = float(chosen.sum())
    if not weight:
        return None
    quality = OBJECTIVES["quality"]
    excess = quality.draws(runs) - np.array([[run.quality.value] for run in runs])
    if base is not None:
        excess = excess - (quality.draws([base]) - base.quality.value)
    return float((chosen * excess).sum() / weight)


class _Better:
    """What is proven of the choice, and of each engine that is better by the objective."""

    def __init__(
        self,
        run: Run | None,
        runs: Sequence[Run],
        objective: Objective,
        limits: Sequence[Threshold],
        certified: Certification,
    ) -> None:
        self.run, self.objective, self.limits = run, objective, limits
        levels = dict(zip((each.id for each in runs), certified.levels.tolist(), strict=True))
        # engines without a value that a limit needs were left out, with a remark
        self.others = sorted(
            (
                each
                for each in runs
                if (run is None or _cost(each, objective) < _cost(run, objective))
                and all(threshold.objective.value(each) is not None for threshold in limits)
            ),
            key=lambda each: _rank(each, objective),
        )
        chosen = [] if run is None else [run]
        self.outcomes = {
            each.id: certification.outcomes(each, limits, levels[each.id]) for each in [*self.others, *chosen]
        }

    def constraint(self, index: int) -> ConstraintOutcome:
        """Return whether the choice meets a limit, and the better engine that only this one excludes."""
        assert self.run is not None
        run, threshold = self.run, self.limits[index]
        outcome = self.outcomes[run.id][index]
        assert outcome.value is not None
        excluded = [
            other for other in self.others
            if [each.verdict is not Verdict.HOLDS for each in self.outcomes[other.id]]
            == [position == index for position in range(len(self.limits))]
        ]  # fmt: skip
        needed = {other.id: self._needed(other, index) for other in excluded}
        sign = -1 if threshold.objective.maximise and threshold.baseline is None else 1
        near = min(excluded, key=lambda other: sign * needed[other.id], default=None)
        return ConstraintOutcome(
            setting=threshold.setting,
            objective=threshold.objective.name,
            limit=threshold.limit,
            threshold=threshold.value,
            value=outcome.value,
            bound=_bound(outcome, threshold),
            admits=None if near is None else near.name,
            needed=None if near is None else needed[near.id],
            gain=None if near is None else _ratio(near, run, self.objective),
            difference=None if near is None else _difference(near, run, self.objective),
        )

    def _needed(self, other: Run, index: int) -> float:
        """Return the limit that an engine is proven to meet."""
        outcome, threshold = self.outcomes[other.id][index], self.limits[index]
        bound = _bound(outcome, threshold)
        if bound is not None:
            return bound
        assert outcome.value is not None
        return threshold.limit_admitting(outcome.value)

    def not_proven(self) -> list[NotProven]:
        """Return the better engines that meet every limit as measured, best first."""
        return [
            self._not_proven(other)
            for other in self.others
            if all(threshold.meets(other) for threshold in self.limits)
            and any(outcome.verdict is not Verdict.HOLDS for outcome in self.outcomes[other.id])
        ]

    def _not_proven(self, other: Run) -> NotProven:
        threshold, outcome = max(
            (
                (threshold, outcome)
                for threshold, outcome in zip(self.limits, self.outcomes[other.id], strict=True)
                if outcome.verdict is not Verdict.HOLDS
            ),
            key=lambda pair: np.inf if (more := _more(other, pair[1])) is None else more,
        )
        assert outcome.value is not None
        return NotProven(
            engine=other.name,
            result=other.id,
            setting=threshold.setting,
            limit=threshold.limit,
            value=outcome.value if outcome.difference is None else -outcome.difference,
            bound=_bound(outcome, threshold),
            more=_more(other, outcome),
            unit=None if outcome.needed is None else outcome.needed.unit,
            ratio=None if self.run is None else _ratio(other, self.run, self.objective),
            difference=None if self.run is None else _difference(other, self.run, self.objective),
        )


def _bound(outcome: LimitOutcome, threshold: Threshold) -> float | None:
    """Return the end of an interval that the limit is held against; of a loss the largest loss."""
    if outcome.interval is None:
        return None
    if threshold.baseline is not None:
        return max(0.0, -outcome.interval[0])
    return outcome.interval[0 if threshold.objective.maximise else 1]


def _more(run: Run, outcome: LimitOutcome) -> int | None:
    """Return how many units more than were measured decide a limit; None: not known."""
    if outcome.needed is None:
        return None
    single = cohorts.single_stream(run)
    measured = {
        "rows": run.quality.n, "rounds": len(set(single.rounds)),
        "windows": len(run.energy_of(single).windows),
    }  # fmt: skip
    return max(1, outcome.needed.count - measured[outcome.needed.unit])


def _runner_up(
    candidates: Sequence[Run],
    run: Run,
    base: Run | None,
    objective: Objective,
    settings: RecommendSettings,
    draws: np.ndarray,
) -> RunnerUp | None:
    """Return the engine that would be chosen if the choice were left out."""
    rest = [other for other in candidates if other is not run]
    if not rest:
        return None
    limits = thresholds(settings.constraints, base, candidates, [])
    certified = certification.certify(rest, limits, objective, settings.confidence)
    order = _ranked(rest, objective, certified)
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
    compared = "" if parity else "; its predictions were not compared with a checkpoint"
    return [f"{run.name} was made elsewhere, by {run.made_elsewhere}{compared}"]


def _sessions(candidates: Sequence[Run]) -> list[str]:
    return [f"the engines are not interleaved: {remark}" for remark in cohorts.sessions(candidates)]


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
                f"compared round by round, {other.engine} takes {times(ratio.value)}x the time of this "
                f"engine, but {times(other.ratio)}x over all rounds: the speed of the host changed; profile "
                "both again on an idle host"
            ]
    return []


def _by_mean(run: Run, proven: Sequence[Run], objective: Objective) -> list[str]:
    """Return a remark if another engine is proven too and its mean latency is below that of the choice.

    The median of an engine with early exits is that of the rows that leave early, if these are the majority;
    it says nothing of the others.

    Args:
        run: the choice.
        proven: the engines that meet the limits.
        objective: by which the choice is made.
    """
    if objective.name != "latency":
        return []
    value = OBJECTIVES["latency_mean"].value
    labels = run.quality.labels
    able = [each for each in proven if cohorts.has_predictions(each) and each.quality.labels == labels]
    if run not in able:
        return []
    other = min(able, key=lambda each: value(each) or np.inf)
    if other is run:
        return []
    for ratio in comparison.compare(run, other).latency:
        same = (ratio.scenario, ratio.statistic) == ("single-stream", "mean")
        if same and (ratio.value if ratio.interval is None else ratio.interval[1]) < 1:
            return [
                f"by the mean latency {other.name} is faster: it takes {times(ratio.value)}x the time of "
                "this engine, whose median says nothing of its slower queries; to choose by all of them, use "
                "the objective latency_mean"
            ]
    return []


def _estimates(run: Run) -> dict[str, Estimate]:
    estimates = {}
    for name in ("quality", "latency", "latency_p90", "latency_p99", "cpu_time", "throughput", "energy",
                 "energy_per_correct", "memory", "size"):  # fmt: skip
        objective = OBJECTIVES[name]
        value = objective.value(run)
        if value is not None:
            estimates[name] = Estimate(float(value), objective.unit, objective.interval(run))
    return estimates


def _unmet(
    runs: Sequence[Run], limits: Sequence[Threshold], objective: Objective, certified: Certification
) -> Unmet:
    """Return the best engine that meets the limits as measured, or else that whose largest shortfall is
    least.
    """

    def largest(run: Run) -> tuple[float, Threshold]:
        shortfalls = [
            (np.inf if (value := each.objective.value(run)) is None else each.shortfall(value), each)
            for each in limits
        ]
        return max(shortfalls, key=lambda pair: pair[0])

    not_proven = next(iter(_Better(None, runs, objective, limits, certified).not_proven()), None)
    if not_proven is None:
        near = min(runs, key=lambda run: largest(run)[0])
        _, threshold = largest(near)
    else:
        near = next(run for run in runs if run.id == not_proven.result)
        threshold = next(each for each in limits if each.setting == not_proven.setting)
    return Unmet(
        task=near.task,
        host=near.host_id,
        metric=near.quality.described,
        candidates=len(runs),
        confidence=certified.confidence,
        engine=near.name,
        setting=threshold.setting,
        objective=threshold.objective.name,
        limit=threshold.limit,
        threshold=threshold.value,
        value=threshold.objective.value(near),
        baseline=None if threshold.baseline is None else threshold.baseline.name,
        not_proven=not_proven,
    )

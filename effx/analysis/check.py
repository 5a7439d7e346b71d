"""Whether one engine meets every limit, with a requested confidence: the gate of a CI pipeline.

Each limit is tested one-sided, against the interval of what was measured:

    value and interval          limit           verdict
    |---x---|                     |             holds: the whole interval meets the limit
                  |---x---|       ... limit inside the interval: inconclusive, with what would decide it
                                |       |---x---|   violated: the whole interval misses it

The check passes if every limit holds and no gate of the measurement failed. All limits must hold, so no
adjustment for their number is needed: the chance that an engine that misses a limit passes is at most
1 - confidence (intersection-union test, Berger 1982, Technometrics 24:295-300).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from enum import StrEnum
from functools import partial
from typing import Any

import numpy as np

from effx.analysis import cohorts, resampling
from effx.analysis.constraints import Threshold, of_constraints
from effx.analysis.recommend import made_elsewhere
from effx.errors import GateError, UsageError, nearest
from effx.results import MIN_SAMPLES, Failure, Run
from effx.specs.constraints import CheckSettings
from effx.specs.gates import GATES
from effx.stats import bootstrap, intervals
from effx.stats.bootstrap import LEAST_BLOCKS
from effx.stats.metrics import METRICS

_ROUNDING = 1e-9  # 0.91 meets a threshold of 0.92 - 0.01
_MOST_UNITS = 10**9
"""Rows or rounds above which a limit counts as undecidable."""
_PERCENTILES = {"latency_p90": "p90", "latency_p99": "p99"}

Interval = tuple[float, float]


class Verdict(StrEnum):
    """What was measured says of a limit."""

    HOLDS = "holds"
    VIOLATED = "violated"
    INCONCLUSIVE = "inconclusive"


@dataclass(frozen=True)
class Needed:
    """How much must be measured to decide a limit, if the measured value stays what it is."""

    count: int
    unit: str
    """``rows``, ``rounds`` or ``windows``."""


@dataclass(frozen=True)
class LimitOutcome:
    """One limit."""

    setting: str
    """A field of :class:`effx.specs.constraints.Constraints`."""
    objective: str
    """A key of :data:`effx.analysis.objectives.OBJECTIVES`."""
    limit: float
    """The setting's value."""
    threshold: float
    """What the objective must reach (accuracy) or not exceed."""
    value: float | None
    """The engine's; None: not measured."""
    interval: Interval | None
    """One-sided bounds of the value at the check's confidence, below and above; of ``max_drop`` those of the
    difference from the baseline, below 0: a loss. None: the value is a single reading, or has no interval."""
    difference: float | None
    """Of ``max_drop``: the engine's metric minus the baseline's."""
    verdict: Verdict
    needed: Needed | None = None
    """What would decide an inconclusive limit; None: nothing would, or it is unknown."""
    reason: str | None = None
    """Why a limit without an interval is inconclusive."""


@dataclass(frozen=True)
class FailedGate:
    """A gate of the measurement, or of the export (``parity``), that failed."""

    name: str
    label: str
    detail: str


@dataclass(frozen=True)
class CheckResult:
    """The outcome of a check."""

    engine: str
    result: str
    task: str
    host: str
    metric: str
    n: int
    baseline: str | None
    baseline_result: str | None
    confidence: float
    limits: list[LimitOutcome]
    failed_gates: list[FailedGate]
    """Those that fail the check."""
    remarks: list[str] = field(default_factory=list)

    @property
    def passed(self) -> bool:
        """Whether every limit holds, and no gate failed."""
        return not self.failed_gates and all(limit.verdict is Verdict.HOLDS for limit in self.limits)

    def to_json(self) -> dict[str, Any]:
        return {"passed": self.passed, **asdict(self)}


@dataclass(frozen=True)
class Subject:
    """Which engine or result is meant."""

    text: str
    """The name of an engine, or the id of a result."""
    digest: str | None = None
    """Digest of the engine, where its folder was given: results of another build do not count."""

    def matches(self, name: str, result: str, digest: str) -> bool:
        """Return whether a result is meant."""
        return digest == self.digest if self.digest is not None else self.text in (name, result)


def select(
    runs: Sequence[Run],
    failures: Sequence[Failure],
    subject: Subject,
    baseline: Subject | None,
    host: str | None = None,
) -> tuple[Run, Run | None]:
    """Return the latest result of an engine, and of its baseline.

    Args:
        runs: results to choose from.
        failures: measurements that failed.
        subject: the engine to check.
        baseline: the engine to compare it with; a result of the same session is preferred, then the latest
            of the same cohort. None: none.
        host: only results of this host.

    Raises:
        UsageError: there is no such result, it is of several hosts, or the baseline is the engine itself.
        GateError: the latest measurement of the engine failed.
    """
    failed = [
        failure for failure in failures
        if subject.matches(failure.name, failure.id, str(failure.engine.digest))
        and host in (None, failure.host.id)
    ]  # fmt: skip
    latest_failure = max(failed, key=lambda failure: failure.started, default=None)
    if latest_failure is not None and not any(
        subject.matches(run.name, run.id, _digest(run))
        and run.host_id == latest_failure.host.id
        and run.started > latest_failure.started
        for run in runs
    ):
        raise GateError(f"{subject.text} could not be profiled: {latest_failure.failure}")
    run = _latest(runs, subject, host)
    if baseline is None:
        return run, None
    others = _matching(runs, baseline, host)
    different = [other for other in others if other.id != run.id and _digest(other) != _digest(run)]
    if not different:
        raise UsageError(
            f"baseline '{baseline.text}' is the engine itself: name another engine, or a result of another "
            "build.",
            settings="baseline",
        )
    return run, max(different, key=lambda other: _preference(run, other))


def check(run: Run, baseline: Run | None, settings: CheckSettings) -> CheckResult:
    """Return whether an engine meets every limit.

    Args:
        run: the engine's result.
        baseline: the result that ``max_drop`` is relative to; None: none.
        settings: limits, confidence, and gates to ignore.

    Raises:
        UsageError: there is no limit, ``max_drop`` without a baseline or the other way round, the baseline is
            the engine itself, or the two were measured on different hosts, tasks or rows.
    """
    constraints = settings.constraints
    if not constraints.given() or all(value is None for value in constraints.flat().values()):
        raise UsageError(
            "there is nothing to check: set a limit such as max_drop or max_p90_s.",
            settings=tuple(type(constraints).model_fields),
        )
    if (baseline is None) != (constraints.max_drop is None):
        raise UsageError(
            "max_drop and baseline belong together: a loss is relative to a baseline.",
            settings=("max_drop", "baseline"),
        )
    remarks = made_elsewhere(run)
    if baseline is not None:
        if baseline.id == run.id or _digest(baseline) == _digest(run):
            raise UsageError(
                f"the baseline is the checked engine {run.name}: name another engine.", settings="baseline"
            )
        cohorts.check([baseline, run])
        cohorts.shared_labels([baseline, run])
        remarks += [f"the baseline's gate failed: {gate.label}" for gate in baseline.failed_gates]
    failed, ignored = _failed_gates(run), settings.ignore_gates or ()
    remarks += [f"gate ignored: {gate.label}: {gate.detail}" for gate in failed
                if gate.name in ignored]  # fmt: skip
    return CheckResult(
        engine=run.name,
        result=run.id,
        task=run.task,
        host=run.host_id,
        metric=run.quality.metric,
        n=run.quality.n,
        baseline=None if baseline is None else baseline.name,
        baseline_result=None if baseline is None else baseline.id,
        confidence=settings.confidence,
        limits=[
            _outcome(run, threshold, settings.confidence)
            for threshold in of_constraints(constraints, baseline)
        ],
        failed_gates=[gate for gate in failed if gate.name not in ignored],
        remarks=remarks,
    )


def _matching(runs: Sequence[Run], subject: Subject, host: str | None) -> list[Run]:
    """Return the results that are meant, newest first."""
    matching = [run for run in runs if subject.matches(run.name, run.id, _digest(run))]
    if not matching:
        names = sorted({run.name for run in runs})
        if subject.digest is not None:
            raise UsageError(
                f"no result of {subject.text} as it is built now: profile it, or name the folder with its "
                "results.",
                settings="results",
            )
        near = nearest(subject.text, [*names, *(run.id for run in runs)])
        more = f" and {len(names) - 10} more" if len(names) > 10 else ""
        raise UsageError(f"no result of '{subject.text}'.{near} There are: {', '.join(names[:10])}{more}.")
    on_host = [run for run in matching if host is None or run.host_id == host]
    if not on_host:
        hosts = ", ".join(sorted({run.host_id for run in matching}))
        raise UsageError(f"no result of '{subject.text}' on host '{host}'. Hosts: {hosts}.", settings="host")
    return sorted(on_host, key=lambda run: (run.started, run.id), reverse=True)


def _latest(runs: Sequence[Run], subject: Subject, host: str | None) -> Run:
    matching = _matching(runs, subject, host)
    hosts = sorted({run.host_id for run in matching})
    if len(hosts) > 1:
        raise UsageError(
            f"'{subject.text}' was measured on {len(hosts)} hosts: {', '.join(hosts)}. Choose one.",
            settings="host",
        )
    return matching[0]


def _digest(run: Run) -> str:
    return run.engine.digest


def _preference(run: Run, other: Run) -> tuple[bool, bool, str, str]:
    same_cohort = cohorts.Cohort.of(run) == cohorts.Cohort.of(other)
    return same_cohort and run.session == other.session, same_cohort, other.started, other.id


def _failed_gates(run: Run) -> list[FailedGate]:
    failed = [FailedGate(gate.name, gate.label, gate.detail) for gate in run.failed_gates]
    listed = {gate.name for gate in failed}
    failed += [
        FailedGate(flag, GATES[flag].label, "failed") for flag in run.flags
        if flag in GATES and flag not in listed
    ]  # fmt: skip
    parity = run.engine.parity
    if parity is not None and not parity.passed:
        detail = f"labels agree on {parity.label_agreement:.1%}"
        failed.append(FailedGate("parity", "predictions match the checkpoint's", detail))
    return failed


def _outcome(run: Run, threshold: Threshold, confidence: float) -> LimitOutcome:
    if threshold.baseline is not None:
        return _drop(run, threshold.baseline, threshold, confidence)
    value = threshold.objective.value(run)
    if value is None:
        return _unmeasured(run, threshold)
    if threshold.setting == "min_accuracy":
        return _score(run, threshold, value, confidence)
    if threshold.objective.name in _PERCENTILES:
        return _latency(run, threshold, value, confidence)
    if threshold.objective.uses_energy:
        return _energy(run, threshold, value, confidence)
    return _of(threshold, value, None)


def _of(
    threshold: Threshold,
    value: float | None,
    interval: Interval | None,
    *,
    difference: float | None = None,
    needed: Callable[[], Needed | None] = lambda: None,
    reason: str | None = None,
) -> LimitOutcome:
    """Return the outcome of a limit; ``needed`` is called if it is inconclusive.

    Args:
        threshold: the limit.
        value: the engine's value of the objective.
        interval: one-sided bounds; None: the value itself decides, unless there is a ``reason``.
        difference: of ``max_drop``, which is what the interval bounds.
        needed: what would decide.
        reason: why there is no interval.
    """
    if reason is not None or value is None:
        verdict = Verdict.INCONCLUSIVE
    elif difference is not None:
        verdict = _verdict(interval or (difference, difference), -threshold.limit, at_least=True)
    else:
        verdict = _verdict(interval or (value, value), threshold.value, threshold.objective.maximise)
    return LimitOutcome(
        setting=threshold.setting,
        objective=threshold.objective.name,
        limit=threshold.limit,
        threshold=threshold.value,
        value=value,
        interval=interval,
        difference=difference,
        verdict=verdict,
        needed=needed() if verdict is Verdict.INCONCLUSIVE else None,
        reason=reason,
    )


def _verdict(interval: Interval, bound: float, at_least: bool) -> Verdict:
    low, high = interval if at_least else (-interval[1], -interval[0])
    bound = bound if at_least else -bound
    slack = _ROUNDING * max(abs(bound), abs(low))
    if low >= bound - slack:
        return Verdict.HOLDS
    return Verdict.VIOLATED if high < bound - slack else Verdict.INCONCLUSIVE


def _two_sided(confidence: float) -> float:
    """Return the confidence of the two-sided interval whose ends are one-sided bounds at ``confidence``."""
    return 2 * confidence - 1


def _unmeasured(run: Run, threshold: Threshold) -> LimitOutcome:
    needed = None
    if (statistic := _PERCENTILES.get(threshold.objective.name)) is not None:
        blocks = cohorts.single_stream(run).blocks_s
        per_round = sum(map(len, blocks)) / len(blocks)
        needed = Needed(math.ceil(MIN_SAMPLES[statistic] / per_round), "rounds")
    reason = threshold.objective.missing(run)
    return _of(threshold, None, None, needed=lambda: needed, reason=reason)


def _drop(run: Run, baseline: Run, threshold: Threshold, confidence: float) -> LimitOutcome:
    """Test the loss of the metric on the same rows; the interval is that of :mod:`effx.stats`, one-sided."""
    metric = METRICS[run.quality.metric]
    labels = np.array(run.quality.labels)
    before, after = np.array(baseline.quality.predictions), np.array(run.quality.predictions)
    level, n, limit = _two_sided(confidence), len(labels), threshold.limit
    difference = metric(labels, after) - metric(labels, before)
    interval = intervals.paired_interval(metric, labels, before, after, confidence=level)
    reason = None
    if interval is None and metric.of_classes:
        interval = intervals.few_differing_interval(metric, labels, before, after, confidence)
    if interval is None:
        reason = f"{int(np.sum(before != after))} differing predictions are too few for an interval"

    def needed() -> Needed | None:
        if interval is None:
            return None
        at = _narrowed(difference, interval, n)
        if metric.name == "accuracy":
            at = _paired_accuracy(before == labels, after == labels, level)
        return _least(lambda count: _verdict(at(count), -limit, at_least=True), n, "rows")

    return _of(threshold, run.quality.value, interval, difference=difference, needed=needed, reason=reason)


def _score(run: Run, threshold: Threshold, value: float, confidence: float) -> LimitOutcome:
    """Test the metric itself: Wilson's interval for accuracy, a bootstrap of examples otherwise."""
    n, level = run.quality.n, _two_sided(confidence)
    interval = _score_interval(run, confidence)
    at = _narrowed(value, interval, n)
    if run.quality.metric == "accuracy":
        at = partial(_accuracy, value, level)
    return _of(
        threshold, value, interval,
        needed=lambda: _least(lambda count: _verdict(at(count), threshold.value, at_least=True), n, "rows"),
    )  # fmt: skip


def _score_interval(run: Run, confidence: float) -> Interval:
    """Return one-sided bounds of the primary metric."""
    scored, level = run.quality, _two_sided(confidence)
    metric = METRICS[scored.metric]
    if metric.name == "accuracy":
        return _accuracy(scored.value, level, scored.n)
    labels, predictions = np.array(cohorts.shared_labels([run])), np.array(scored.predictions)
    if metric.of_classes and int(np.sum(labels != predictions)) < intervals.LEAST_DIFFERING:
        low, high = intervals.few_differing_interval(metric, labels, labels, predictions, confidence)
        perfect = metric(labels, labels)
        return perfect + low, perfect + high
    return bootstrap.percentile_interval(resampling.scores(metric.name, [run])[0], level)


def _accuracy(value: float, confidence: float, n: int) -> Interval:
    return intervals.wilson(round(value * n), n, confidence)


def _paired_accuracy(before: np.ndarray, after: np.ndarray, confidence: float) -> Callable[[int], Interval]:
    """Return the interval of a difference of accuracies at another number of rows, at the same shares.

    Args:
        before: booleans [n], whether the baseline is right.
        after: likewise for the engine.
        confidence: two-sided.
    """
    only_before, only_after = float(np.mean(before & ~after)), float(np.mean(~before & after))

    def at(count: int) -> Interval:
        return intervals.tango(only_before * count, only_after * count, count, confidence=confidence)

    return at


def _latency(run: Run, threshold: Threshold, value: float, confidence: float) -> LimitOutcome:
    """Test a percentile of single queries; rounds are the units."""
    workload = cohorts.single_stream(run)
    rounds = len(set(workload.rounds))
    share = float(_PERCENTILES[threshold.objective.name][1:]) / 100
    level = _two_sided(confidence)
    interval = resampling.latency_interval(run, workload, share, level)
    if interval is None:
        reason = f"{rounds} rounds are too few for an interval"
        return _of(threshold, value, None, needed=lambda: Needed(LEAST_BLOCKS, "rounds"), reason=reason)
    error = math.log(interval[1] / value) / intervals.student(rounds - 1, level)

    def at(count: int) -> Interval:
        half = error * math.sqrt(rounds / count) * intervals.student(count - 1, level)
        return value * math.exp(-half), value * math.exp(half)

    return _of(
        threshold, value, interval,
        needed=lambda: _least(lambda count: _verdict(at(count), threshold.value, False), rounds, "rounds"),
    )  # fmt: skip


def _energy(run: Run, threshold: Threshold, value: float, confidence: float) -> LimitOutcome:
    """Test joules per example; windows are the units, and the meter's own uncertainty remains."""
    energy = cohorts.single_stream(run).energy
    if energy.source == "model":
        return _of(threshold, value, None, reason="energy is an estimate, not measured; use a meter")
    per_window = [window.joules_per_example for window in energy.windows]
    within = [window.interval for window in energy.windows if window.interval]
    level, count = _two_sided(confidence), len(per_window)
    interval = intervals.widest(intervals.mean_interval(per_window, level), within)
    if not per_window and level <= 0.95:
        interval = energy.interval  # 95 %: wider than requested
    if interval is None:
        reason = f"{count} energy windows are too few for an interval"
        return _of(threshold, value, None, needed=lambda: Needed(2, "windows"), reason=reason)

    def at(windows: int) -> Interval:
        half = intervals.standard_error(per_window) * math.sqrt(count / windows)
        half *= intervals.student(windows - 1, level)
        widened = intervals.widest((value - half, value + half), within)
        assert widened is not None
        return widened

    def needed() -> Needed | None:
        if count < 2:
            return Needed(2, "windows") if not within else None
        return _least(lambda windows: _verdict(at(windows), threshold.value, False), count, "windows")

    return _of(threshold, value, interval, needed=needed)


def _narrowed(value: float, interval: Interval, n: int) -> Callable[[int], Interval]:
    """Return the interval at another number of rows: its half-widths shrink with the root of the rows."""

    def at(count: int) -> Interval:
        scale = math.sqrt(n / count)
        return value - (value - interval[0]) * scale, value + (interval[1] - value) * scale

    return at


def _least(verdict: Callable[[int], Verdict], measured: int, unit: str) -> Needed | None:
    """Return the least number of units at which a limit is decided; None: more than :data:`_MOST_UNITS`."""
    low, high = measured, 2 * measured
    while verdict(high) is Verdict.INCONCLUSIVE:
        low, high = high, 2 * high
        if high > _MOST_UNITS:
            return None
    while high - low > max(1, low // 1000):
        middle = (low + high) // 2
        if verdict(middle) is Verdict.INCONCLUSIVE:
            low = middle
        else:
            high = middle
    return Needed(high, unit)

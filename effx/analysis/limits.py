"""One limit on one engine, tested one-sided against the interval of what was measured.

value and interval          limit           verdict
|---x---|                     |             holds: the whole interval meets the limit
              |---x---|       ... limit inside the interval: inconclusive, with what would decide it
                            |       |---x---|   violated: the whole interval misses it
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from functools import partial

import numpy as np

from effx.analysis import cohorts, resampling
from effx.analysis.constraints import ROUNDING, Threshold
from effx.results import MIN_SAMPLES, Run
from effx.stats import bootstrap, intervals, noninferiority
from effx.stats.metrics import METRICS, Metric, same_rows

_MOST_UNITS = 10**9
"""Rows or rounds above which a limit counts as undecidable."""
_LEAST_P_VALUE = 1e-5
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


def outcome(run: Run, threshold: Threshold, confidence: float) -> LimitOutcome:
    if threshold.baseline is not None:
        return _drop(run, threshold.baseline, threshold, confidence)
    value = threshold.objective.value(run)
    if value is None:
        return _unmeasured(run, threshold)
    if threshold.setting in ("min_accuracy", "min_agreement"):
        return _score(run, threshold, value, confidence)
    if threshold.objective.name in _PERCENTILES:
        return _latency(run, threshold, value, confidence)
    if threshold.objective.uses_energy:
        return _energy(run, threshold, value, confidence)
    return _of(threshold, value, None)


def by_chance(threshold: Threshold) -> bool:
    """Return whether a limit is a matter of chance; a single reading, such as the size, decides itself."""
    objective = threshold.objective
    return threshold.baseline is not None or objective.is_score or objective.name in (*_PERCENTILES, "energy")


def is_tested(run: Run, threshold: Threshold) -> bool:
    """Return whether a limit is a matter of chance for an engine: the baseline has no loss against itself."""
    return by_chance(threshold) and run is not threshold.baseline


def p_value(run: Run, threshold: Threshold) -> float:
    """Return the p-value of the hypothesis that an engine misses a limit; 0 or 1 for a single reading.

    The limit holds with confidence 1 - p.
    """
    if not is_tested(run, threshold):
        return 0.0 if threshold.meets(run) else 1.0
    if threshold.baseline is not None:
        labels, before, after = _paired(run, threshold.baseline)
        return noninferiority.p_value(METRICS[run.quality.metric], labels, before, after, threshold.limit)
    low, high = _LEAST_P_VALUE, 0.5  # bisection: the least level at which the limit holds
    if outcome(run, threshold, 1 - high * (1 - 1e-9)).verdict is not Verdict.HOLDS:
        return 1.0
    while high / low > 1.001:
        middle = math.sqrt(low * high)
        holds = outcome(run, threshold, 1 - middle).verdict is Verdict.HOLDS
        low, high = (low, middle) if holds else (middle, high)
    return high


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
    if not math.isfinite(low):  # nothing is known on that side
        return Verdict.VIOLATED if high < bound else Verdict.INCONCLUSIVE
    slack = ROUNDING * max(abs(bound), abs(low))
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
    """Test the loss of the metric on the same rows, see :mod:`effx.stats.noninferiority`."""
    if run is baseline:
        return _of(threshold, run.quality.value, None, difference=0.0)
    metric = METRICS[run.quality.metric]
    labels, before, after = _paired(run, baseline)
    limit = threshold.limit
    difference = metric(labels, after) - metric(labels, before)
    interval = noninferiority.bounds(metric, labels, before, after, confidence)
    reason = None
    if interval is None:
        reason = f"{int(np.sum(~same_rows(before, after)))} differing predictions are too few for an interval"

    def needed() -> Needed | None:
        rows = rows_to_prove(metric, labels, before, after, interval, limit, confidence, shown=True)
        return None if rows is None else Needed(rows, "rows")

    return _of(threshold, run.quality.value, interval, difference=difference, needed=needed, reason=reason)


def rows_to_prove(
    metric: Metric,
    labels: np.ndarray,
    before: np.ndarray,
    after: np.ndarray,
    bounds: Interval | None,
    max_drop: float,
    confidence: float,
    *,
    shown: bool = False,
) -> int | None:
    """Return how many rows would prove a loss of at most ``max_drop``, if shares of rows stayed the same.

    Args:
        metric: of labels and predictions.
        labels: [n], or as the metric takes them.
        before: the baseline's predictions.
        after: the engine's.
        bounds: of the difference, by :func:`effx.stats.noninferiority.bounds` with this confidence.
        max_drop: accepted loss.
        confidence: one-sided.
        shown: count the rows that would show a larger loss, too.

    Returns:
        None: no number of rows would, or it is unknown, as where few predictions differ and how a worst case
        narrows is not known.
    """
    if bounds is None or (not metric.is_share and _few_differing(before, after)):
        return None
    difference = metric(labels, after) - metric(labels, before)
    if not shown and difference <= -max_drop:
        return None
    at = _narrowed(difference, bounds, len(labels))
    if metric.is_share:
        level = _two_sided(confidence)
        at = _paired_accuracy(same_rows(before, labels), same_rows(after, labels), level)
    needed = _least(lambda count: _verdict(at(count), -max_drop, at_least=True), len(labels), "rows")
    return None if needed is None else needed.count


def _paired(run: Run, baseline: Run) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return labels, the baseline's predictions and the engine's; the first axis is n.

    Raises:
        UsageError: a result lacks predictions, or their labels differ.
    """
    return (
        cohorts.shared_labels([baseline, run]),
        baseline.quality.prediction_array,
        run.quality.prediction_array,
    )


def _score(run: Run, threshold: Threshold, value: float, confidence: float) -> LimitOutcome:
    """Test the metric itself: Wilson's interval for accuracy, a bootstrap of examples otherwise."""
    n, level = run.quality.n, _two_sided(confidence)
    interval = _score_interval(run, confidence)
    at = _narrowed(value, interval, n)
    if METRICS[run.quality.metric].is_share:
        at = partial(_accuracy, value, level)
    worst_case = _is_worst_case(run)

    def needed() -> Needed | None:
        if worst_case:
            return None
        return _least(lambda count: _verdict(at(count), threshold.value, at_least=True), n, "rows")

    return _of(threshold, value, interval, needed=needed)


def _few_differing(before: np.ndarray, after: np.ndarray) -> bool:
    return int(np.sum(~same_rows(before, after))) < intervals.LEAST_DIFFERING


def _is_worst_case(run: Run) -> bool:
    """Whether the bounds of the primary metric are the worst case of few wrong predictions."""
    metric = METRICS[run.quality.metric]
    if metric.is_share or not metric.has_worst_case:
        return False
    return _few_differing(cohorts.shared_labels([run]), run.quality.prediction_array)


def _score_interval(run: Run, confidence: float) -> Interval:
    """Return one-sided bounds of the primary metric."""
    scored, level = run.quality, _two_sided(confidence)
    metric = METRICS[scored.metric]
    if metric.is_share:
        return _accuracy(scored.value, level, scored.n)
    labels, predictions = cohorts.shared_labels([run]), scored.prediction_array
    if _is_worst_case(run):
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
        least = resampling.least_rounds(share)
        needed = Needed(least if rounds < least else 2 * rounds, "rounds")
        reason = f"{rounds} rounds are too few for an interval"
        return _of(threshold, value, None, needed=lambda: needed, reason=reason)
    error = math.log(interval[1] / value) / intervals.student(rounds - 1, level)

    def at(count: int) -> Interval:
        half = error * math.sqrt(rounds / count) * intervals.student(count - 1, level)
        return value * math.exp(-half), value * math.exp(half)

    return _of(
        threshold, value, interval,
        needed=lambda: _least(lambda count: _verdict(at(count), threshold.value, False), rounds, "rounds"),
    )  # fmt: skip


def _energy(run: Run, threshold: Threshold, value: float, confidence: float) -> LimitOutcome:
    """Test joules per example; windows are the units; more of them do not reduce the meter's uncertainty."""
    energy = cohorts.energy_of(run)
    if energy.source == "model":
        return _of(threshold, value, None, reason="energy is an estimate, not measured; use a meter")
    per_window = [window.joules_per_example for window in energy.windows]
    within = [(window.interval, window.interval_without_gain) for window in energy.windows if window.interval]
    level, count = _two_sided(confidence), len(per_window)
    spread = intervals.mean_interval(per_window, level)
    # a meter's bounds alone are none
    interval = None if spread is None else intervals.of_readings(spread, within)
    if not per_window and level <= 0.95:
        interval = energy.interval  # 95 %: wider than requested
    if interval is None:
        reason = f"{count} energy windows are too few for an interval"
        return _of(threshold, value, None, needed=lambda: Needed(2, "windows"), reason=reason)

    def at(windows: int) -> Interval:
        half = intervals.standard_error(per_window) * math.sqrt(count / windows)
        half *= intervals.student(windows - 1, level)
        widened = intervals.of_readings((value - half, value + half), within)
        assert widened is not None
        return widened

    def needed() -> Needed | None:
        if count < 2:
            return Needed(2, "windows")
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

"""From samples of a counter and of power to joules with bounds. Pure functions: no device, no clock.

    start                                                         stop
      |...a============= the interval that is measured ==============b..|
          first tick seen after start            last tick seen before stop

A tick is a change of the counter. It happened between two reads; its time is assumed to be the middle between
them, with an error of at most half their distance. Both ends are delayed by the counter's lag. The
misalignment is therefore at most one tick plus the larger distance, times the power.

A power sensor shows the mean of its last ``window_s`` once every ``period_s``. That of A100 and H100
(``INSTANT``) covers only 25 ms of every 100 ms: a load that is synchronous with it is measured with an error
of tens of percent (Yang, Adamek, Armour, SC'24, arXiv 2312.02741). Their remedies: at least 32 repetitions
that are not synchronous with the sensor, several windows, and no power from before the window. The load must
be asynchronous (queries of different lengths, or random gaps); the rest is done here, and the bounds are
widened by the scatter of the sensor's updates. Power samples cannot reveal a synchronous load; a counter can.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from effx.host.sensors import Sensor
from effx.meters.protocol import Period, Reading

GAIN = 0.05
"""Relative error of NVIDIA's sensors. The manual states 5 % of the current draw (nvmlDeviceGetPowerUsage,
Fermi and Kepler; nothing for newer GPUs); arXiv 2312.02741 measured a proportional error of that size."""
SHORT_S, SHORT_SAMPLES = 10.0, 32
SHORT_WINDOW = "short window"
"""Flag of windows below 10 s or 32 samples."""
THROTTLED = "throttled"
"""Begin of the flags of windows in which the device was throttled."""
PART_TIME = "the power sensor measures"
"""Begin of the flag of sensors that do not measure all the time."""
SUSPECT = 0.10
"""Relative difference of counter and integrated power above which a reading is suspect."""
_STUCK_S = 0.5  # counters tick every 10 to 100 ms
_FROZEN_S, _FROZEN_UPDATES = 2.0, 20
"""A sensor that shows the same value, to the milliwatt, for so long and so many updates is stuck."""
_BURST = 2.0  # limits hold on average; bursts of milliseconds exceed them
_LEAST_W = 1.0  # no GPU with an energy counter draws less
_CONTRADICTION = 5.0
"""A counter and sampled power that differ by this factor contradict each other: units, or a broken sensor."""
_SLOW_S = 0.2  # of sensors that average over more than this, only non-overlapping averages are used
_SIGMAS = 2.0  # about 95 %


@dataclass(frozen=True)
class Sample:
    """One read; ``before_s`` and ``after_s`` are the clock before and after it."""

    before_s: float
    after_s: float
    counter_j: float | None
    power_w: float | None


@dataclass(frozen=True)
class Tick:
    """A change of the counter, at ``time_s`` plus or minus half of ``gap_s``."""

    time_s: float
    gap_s: float
    counter_j: float


@dataclass(frozen=True)
class Integral:
    """Joules from sampled power; ``error_j`` is two standard errors of the sampling."""

    joules: float
    error_j: float


def ticks(samples: Sequence[Sample]) -> list[Tick]:
    """Return the counter's changes in order."""
    result = []
    for last, this in pairwise(samples):
        if this.counter_j is not None and this.counter_j != last.counter_j:
            gap_s = this.after_s - last.before_s
            result.append(Tick(last.before_s + gap_s / 2, gap_s, this.counter_j))
    return result


def inside(times_s: Sequence[Period], during: Period | None) -> tuple[int, int]:
    """Return the indices of the first and the last read that lie completely in a period.

    Args:
        times_s: the clock before and after every read.
        during: the period; None: everything.
    """
    if during is None:
        return 0, len(times_s) - 1
    numbers = [i for i, (before, after) in enumerate(times_s) if during[0] <= before and after <= during[1]]
    return (numbers[0], numbers[-1]) if numbers else (0, 0)


def counter_fault(samples: Sequence[Sample], limit_w: float | None, tick_s: float | None) -> str | None:
    """Return why the counter cannot be trusted, or None.

    ``limit_w`` is the device's maximum power. A counter that fell to a value that it can have counted since
    the previous read was reset; a counter that fell otherwise ran backwards. A counter that rose by more than
    the device can draw since the tick before jumped.
    """
    for last, this in pairwise(samples):
        assert last.counter_j is not None
        assert this.counter_j is not None
        if this.counter_j < last.counter_j:
            possible_j = (this.after_s - last.before_s) * (limit_w or math.inf)
            if this.counter_j <= min(possible_j, last.counter_j / 2):
                return "the energy counter was reset in the window (driver reloaded?)"
            fell_j = last.counter_j - this.counter_j
            return f"the energy counter ran backwards by {fell_j:.3g} J"
    if limit_w is None:
        return None
    for before, tick in pairwise(ticks(samples)):
        # a tick may be up to one tick late, so that two arrive as one
        seconds = tick.time_s - before.time_s + (tick.gap_s + before.gap_s) / 2 + (tick_s or 0.0)
        rose_j = tick.counter_j - before.counter_j
        if rose_j > _BURST * limit_w * seconds:
            return (
                f"the energy counter jumped by {rose_j:.3g} J in {seconds:.2g} s, "
                f"more than the limit of {limit_w:.0f} W permits"
            )
    return None


def power_fault(samples: Sequence[Sample], limit_w: float | None) -> str | None:
    """Return why sampled power is impossible, or None: a powered device draws more than 0 W."""
    for sample in samples:
        if sample.power_w is None:
            continue
        if not sample.power_w > 0:
            return f"the power sensor shows {sample.power_w:g} W"
        if limit_w is not None and sample.power_w > _BURST * limit_w:
            return f"the power sensor shows {sample.power_w:.0f} W; the device's limit is {limit_w:.0f} W"
    return None


def frozen_power(samples: Sequence[Sample], sensor: Sensor) -> str | None:
    """Return that the sensor stopped, if it did: it showed one value, to the milliwatt, for too long."""
    longest_s, since, watts = 0.0, math.nan, math.nan
    for sample in samples:
        if sample.power_w is None or sample.power_w != watts:
            since, watts = sample.before_s, sample.power_w if sample.power_w is not None else math.nan
        longest_s = max(longest_s, sample.before_s - since)
    if longest_s > max(_FROZEN_S, _FROZEN_UPDATES * (sensor.period_s or 0.0), 2 * sensor.window_s):
        return f"the power sensor was stuck: the same value for {longest_s:.2g} s"
    return None


def counter_reading(
    samples: Sequence[Sample],
    sensor: Sensor | None,
    *,
    tick_s: float | None,
    gain: float,
    limit_w: float | None = None,
    during: Period | None = None,
) -> Reading:
    """Return the counter's joules between the first and the last tick seen.

    The interval includes the misalignment, the sensor's relative error ``gain``, and the integral of
    ``sensor``'s power. Only ticks ``during`` the engine's work are used.

    Counter and power are compared from the first tick on at which the sensor cannot show power from before
    the work any more; the joules are those of all ticks. Of short windows too little remains to compare.
    """
    fault = counter_fault(samples, limit_w, tick_s) or _silence(samples, tick_s)
    if fault:
        return Reading(None, fault)
    begin, end = during or (samples[0].before_s, samples[-1].after_s)
    window_s = end - begin
    first_read, last_read = inside([(s.before_s, s.after_s) for s in samples], during)
    flags = _short(window_s, len(samples))
    impossible = power_fault(samples, limit_w)
    if impossible is not None:
        flags += (f"suspect: {impossible}",)
    working = samples[first_read : last_read + 1]
    seen = ticks(working)
    if len(seen) < 2:
        return Reading(
            None, f"{len(seen)} changes of the energy counter in {window_s:.2g} s; use a longer window"
        )
    first, last = seen[0], seen[-1]
    seconds = last.time_s - first.time_s
    joules = last.counter_j - first.counter_j
    other_j = None
    if sensor is not None and impossible is None and _remains(sensor, window_s):
        since = begin + sensor.lag_s
        other_j = _by_power(joules, working, [tick for tick in seen if tick.time_s >= since], sensor)
    if joules < _LEAST_W * seconds or (
        other_j is not None and not 1 / _CONTRADICTION < other_j / joules < _CONTRADICTION
    ):
        sampled = "" if other_j is None else f", sampled power gives {other_j / seconds:.3g} W"
        return Reading(None, f"the energy counter is wrong: it gives {joules / seconds:.3g} W{sampled}")
    seen_tick_s = float(np.median(np.diff([tick.time_s for tick in seen])))
    # ticks of the idle device may be longer than those under load: use the larger
    late_s = max(tick_s or 0.0, seen_tick_s) + max(first.gap_s, last.gap_s)
    slack_j = late_s * max(_peak_w(working, seen), joules / seconds)
    low_ratio, high_ratio = bounds(joules, slack_j, 0.0)
    if other_j is not None:
        low_ratio, high_ratio = min(low_ratio, other_j), max(high_ratio, other_j)
        difference = abs(other_j - joules) / joules
        if difference > SUSPECT:
            text = f"suspect: counter and integrated power differ by {difference:.0%}"
            flags += (text.replace("%", " %"),)
    return Reading(
        joules,
        seconds=seconds,
        # all windows of a GPU share the error, so it widens the end that power set as it does the others
        interval=(low_ratio / (1 + gain), high_ratio / (1 - gain)),
        interval_without_gain=(low_ratio, high_ratio),
        integrated_joules=other_j,
        flags=flags,
        conditions={"mean_w": joules / seconds, "offset_s": first.time_s - samples[0].before_s},
    )


def power_reading(
    samples: Sequence[Sample],
    sensor: Sensor,
    *,
    gain: float,
    limit_w: float | None = None,
    during: Period | None = None,
) -> Reading:
    """Return the integral of sampled power, for devices without a counter.

    Power is used from ``sensor.lag_s`` and ``sensor.window_s`` after the start: earlier values include time
    before the window. Of windows shorter than five times the lag, a fifth is left out. The reading covers the
    rest.
    """
    begin, end = during or (samples[0].before_s, samples[-1].after_s)
    window_s = end - begin
    fault = power_fault(samples, limit_w) or frozen_power(samples, sensor)
    if fault:
        return Reading(None, fault)
    late_s = _not_shown_s(sensor, window_s)
    integral = integrate(samples, begin + late_s, end, sensor)
    if integral is None:
        return Reading(
            None,
            f"no energy from {len(samples)} reads in {window_s:.2g} s: {sensor.name} averages over "
            f"{sensor.window_s:g} s; use a longer window",
        )
    flags = _short(window_s, len(samples))
    if sensor.part_time:
        assert sensor.period_s is not None
        flags += (
            f"{PART_TIME} {1e3 * sensor.window_s:g} of every {1e3 * sensor.period_s:g} ms: "
            "a load that is synchronous with it is measured wrongly",
        )
    seconds = window_s - late_s
    return Reading(
        integral.joules,
        seconds=seconds,
        interval=bounds(integral.joules, integral.error_j, gain),
        interval_without_gain=bounds(integral.joules, integral.error_j, 0.0),
        integrated_joules=integral.joules,
        flags=flags,
        conditions={
            "mean_w": integral.joules / seconds,
            "offset_s": begin + late_s - samples[0].before_s,
        },
    )


def integrate(samples: Sequence[Sample], begin_s: float, end_s: float, sensor: Sensor) -> Integral | None:
    """Return the energy between two times from sampled power; None: too few samples.

    Only averages completely between the two times are used. If the sensor averages over a long time, these
    are consecutive averages without overlap, once counted from the begin and once from the end.
    """
    pairs = [(s.after_s, s.power_w) for s in samples if s.power_w is not None]
    if len(pairs) < 2:
        return None
    times, watts = (np.array(column, dtype=float) for column in zip(*pairs, strict=True))
    span_s = end_s - begin_s
    if span_s < 2 * max(sensor.window_s, float(np.median(np.diff(times)))):
        return None
    if sensor.window_s > _SLOW_S:
        ends = sensor.window_s * np.arange(1, math.floor(span_s / sensor.window_s + 1e-9) + 1)
        front_w = _shown(times, watts, begin_s + ends)
        back_w = _shown(times, watts, end_s + ends[0] - ends)
        mean_w = float(front_w.mean() + back_w.mean()) / 2
        error_w = abs(float(front_w.mean() - back_w.mean()))  # they differ in the remainder not covered
    else:
        between = (times >= begin_s + sensor.window_s) & (times <= end_s)
        if between.sum() < 2:
            return None
        times, watts = times[between], watts[between]
        mean_w = float(np.average((watts[1:] + watts[:-1]) / 2, weights=np.diff(times)))
        error_w = _sampling_error_w(times, watts, sensor)
    return Integral(mean_w * span_s, error_w * span_s + _lag_error_j(times, watts, sensor))


def bounds(joules: float, slack_j: float, gain: float) -> tuple[float, float]:
    """Return bounds of the true energy for a relative error ``gain`` and an absolute error ``slack_j``."""
    return max(joules - slack_j, 0.0) / (1 + gain), (joules + slack_j) / (1 - gain)


def _not_shown_s(sensor: Sensor, window_s: float) -> float:
    """Return the seconds at the begin of a window in which the sensor may show power from before it.

    Of windows shorter than five times its delay these are a fifth: the rest must be enough to measure.
    """
    return min(sensor.lag_s, window_s / 5)


def _remains(sensor: Sensor, window_s: float) -> bool:
    """Return whether enough of a window remains after the sensor's delay to compare it with a counter.

    That is two of its averages; a sensor without any needs several updates, whose period may be unknown.
    """
    return window_s >= sensor.lag_s + max(2 * sensor.window_s, sensor.lag_s / 2)


def _by_power(
    joules: float, samples: Sequence[Sample], compared: Sequence[Tick], sensor: Sensor
) -> float | None:
    """Return what sampled power gives for a window's joules; None: there is too little to compare.

    Args:
        joules: those of the counter, in the whole window.
        samples: the window's.
        compared: the ticks of the part that is compared. The load may be another there than in the rest: the
            integral's ratio to the counter is taken, not its mean power.
        sensor: the power sensor.
    """
    counted = compared[-1].counter_j - compared[0].counter_j if compared else 0.0
    if not counted > 0:
        return None
    integral = integrate(samples, compared[0].time_s, compared[-1].time_s, sensor)
    return None if integral is None else joules * integral.joules / counted


def _sampling_error_w(times: np.ndarray, watts: np.ndarray, sensor: Sensor) -> float:
    """Return two standard errors of the mean, from differences of successive updates.

    Differences, not the standard deviation: slow changes of the load are measured correctly, only changes
    between updates are missed.
    """
    changes = times[1:][np.diff(watts) != 0]
    period_s = sensor.period_s or (float(np.median(np.diff(changes))) if len(changes) > 2 else 0.0)
    grid = np.arange(times[0], times[-1], max(period_s, float(np.median(np.diff(times)))))
    if len(grid) < 2:
        return float(np.ptp(watts))
    updates = _shown(times, watts, grid)
    return _SIGMAS * math.sqrt(float(np.mean(np.diff(updates) ** 2)) / 2 / len(updates))


def _shown(times: np.ndarray, watts: np.ndarray, at_s: np.ndarray) -> np.ndarray:
    """Return the sensor's values at these times: the last read before each."""
    return watts[np.clip(np.searchsorted(times, at_s + 1e-9, side="right") - 1, 0, len(watts) - 1)]


def _peak_w(samples: Sequence[Sample], seen: Sequence[Tick]) -> float:
    """Return the highest power, by the sensor or by the counter over at least 0.1 s."""
    peak_w = max((s.power_w for s in samples if s.power_w is not None), default=0.0)
    since = seen[0]
    for tick in seen[1:]:
        if tick.time_s - since.time_s >= 0.1:
            peak_w = max(peak_w, (tick.counter_j - since.counter_j) / (tick.time_s - since.time_s))
            since = tick
    return peak_w


def _silence(samples: Sequence[Sample], tick_s: float | None) -> str | None:
    """Return that the counter was stuck, or None.

    Time counts between reads that saw the same value: a thread that could not read for a while says nothing
    about the counter.
    """
    silence_s, since_s = 0.0, samples[0].after_s
    for last, this in pairwise(samples):
        if this.counter_j != last.counter_j:
            since_s = this.after_s
        silence_s = max(silence_s, this.before_s - since_s)
    watts = [sample.power_w for sample in samples if sample.power_w is not None]
    if silence_s > max(_STUCK_S, 5 * (tick_s or 0.0)) and (not watts or max(watts) > 0):
        power = f" at {np.mean(watts):.0f} W" if watts else ""
        return f"the energy counter was stuck: no change in {silence_s:.2g} s{power}"
    return None


def _lag_error_j(times: np.ndarray, watts: np.ndarray, sensor: Sensor) -> float:
    """Return the error of power that is shown late: energy before the span instead of its end.

    The delay is unknown, at most ``sensor.lag_s``; the two energies differ by at most the range of the power
    over such a time.
    """
    if not sensor.lag_s:
        return 0.0
    edges = np.arange(times[0], times[-1], sensor.lag_s)
    parts = np.split(watts, np.searchsorted(times, edges[1:]))
    return sensor.lag_s * float(np.ptp([part.mean() for part in parts if len(part)]))


def _short(window_s: float, samples: int) -> tuple[str, ...]:
    """Return the flag of a window below 10 s or 32 samples."""
    return (SHORT_WINDOW,) if window_s < SHORT_S or samples < SHORT_SAMPLES else ()

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

import numpy as np

from effx.host.sensors import Sensor
from effx.profile.meters.protocol import Reading

GAIN = 0.05
"""Relative error of NVIDIA's sensors. The manual states 5 % of the current draw (nvmlDeviceGetPowerUsage,
Fermi and Kepler; nothing for newer GPUs); arXiv 2312.02741 measured a proportional error of that size."""
SHORT_S, SHORT_SAMPLES = 10.0, 32
SUSPECT = 0.10
"""Relative difference of counter and integrated power above which a reading is suspect."""
_STUCK_S = 0.5  # counters tick every 10 to 100 ms
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
    for last, this in zip(samples, samples[1:], strict=False):
        if this.counter_j is not None and this.counter_j != last.counter_j:
            gap_s = this.after_s - last.before_s
            result.append(Tick(last.before_s + gap_s / 2, gap_s, this.counter_j))
    return result


def counter_fault(samples: Sequence[Sample], limit_w: float | None) -> str | None:
    """Return why the counter cannot be trusted, or None.

    ``limit_w`` is the device's maximum power. A counter that fell to a value that it can have counted since
    the previous read was reset; a counter that fell otherwise ran backwards.
    """
    for last, this in zip(samples, samples[1:], strict=False):
        assert last.counter_j is not None
        assert this.counter_j is not None
        if this.counter_j < last.counter_j:
            possible_j = (this.after_s - last.before_s) * (limit_w or math.inf)
            if this.counter_j <= min(possible_j, last.counter_j / 2):
                return "the energy counter was reset in the window (driver reloaded?)"
            fell_j = last.counter_j - this.counter_j
            return f"the energy counter ran backwards by {fell_j:.3g} J"
    return None


def counter_reading(
    samples: Sequence[Sample],
    sensor: Sensor | None,
    *,
    tick_s: float | None,
    gain: float,
    limit_w: float | None = None,
) -> Reading:
    """Return the counter's joules between the first and the last tick seen.

    The interval includes the misalignment, the sensor's relative error ``gain``, and the integral of
    ``sensor``'s power.
    """
    fault = counter_fault(samples, limit_w)
    if fault:
        return Reading(None, fault)
    window_s = samples[-1].after_s - samples[0].before_s
    seen = ticks(samples)
    fault = _silence(samples, seen, tick_s)
    if fault:
        return Reading(None, fault)
    first, last = seen[0], seen[-1]
    seconds = last.time_s - first.time_s
    joules = last.counter_j - first.counter_j
    seen_tick_s = float(np.median(np.diff([tick.time_s for tick in seen])))
    # ticks of the idle device may be longer than those under load: use the larger
    late_s = max(tick_s or 0.0, seen_tick_s) + max(first.gap_s, last.gap_s)
    slack_j = late_s * max(_peak_w(samples, seen), joules / seconds)
    low, high = bounds(joules, slack_j, gain)
    flags = _short(window_s, len(samples))
    other = integrate(samples, first.time_s, last.time_s, sensor) if sensor else None
    if other is not None:
        low, high = min(low, other.joules), max(high, other.joules)
        difference = abs(other.joules - joules) / joules if joules > 0 else math.inf
        if difference > SUSPECT:
            text = f"suspect: counter and integrated power differ by {difference:.0%}"
            flags += (text.replace("%", " %"),)
    return Reading(
        joules,
        seconds=seconds,
        interval=(low, high),
        integrated_joules=None if other is None else other.joules,
        flags=flags,
        conditions={"mean_w": joules / seconds, "offset_s": first.time_s - samples[0].before_s},
    )


def power_reading(samples: Sequence[Sample], sensor: Sensor, *, gain: float) -> Reading:
    """Return the integral of sampled power, for devices without a counter.

    Power is used from ``sensor.window_s`` after the start: earlier values are averages that include time
    before the window.
    """
    begin, end = samples[0].before_s, samples[-1].after_s
    window_s = end - begin
    integral = integrate(samples, begin, end, sensor)
    if integral is None:
        return Reading(
            None,
            f"no energy from {len(samples)} reads in {window_s:.2g} s: {sensor.name} averages over "
            f"{sensor.window_s:g} s; use a longer window",
        )
    low, high = bounds(integral.joules, integral.error_j, gain)
    flags = _short(window_s, len(samples))
    if sensor.part_time:
        assert sensor.period_s is not None
        flags += (
            f"the power sensor measures {1e3 * sensor.window_s:g} of every {1e3 * sensor.period_s:g} ms: "
            "a load that is synchronous with it is measured wrongly",
        )
    return Reading(
        integral.joules,
        seconds=window_s,
        interval=(low, high),
        integrated_joules=integral.joules,
        flags=flags,
        conditions={"mean_w": integral.joules / window_s, "offset_s": 0.0},
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
        front_w = float(_shown(times, watts, begin_s + ends).mean())
        back_w = float(_shown(times, watts, end_s + ends[0] - ends).mean())
        mean_w = (front_w + back_w) / 2
        error_w = abs(front_w - back_w)  # they differ in the remainder that they do not cover
    else:
        inside = (times >= begin_s + sensor.window_s) & (times <= end_s)
        if inside.sum() < 2:
            return None
        times, watts = times[inside], watts[inside]
        between_w = (watts[1:] + watts[:-1]) / 2
        mean_w = float(np.average(between_w, weights=np.diff(times)))
        error_w = _sampling_error_w(times, watts, sensor)
    return Integral(mean_w * span_s, error_w * span_s)


def bounds(joules: float, slack_j: float, gain: float) -> tuple[float, float]:
    """Return bounds of the true energy for a relative error ``gain`` and an absolute error ``slack_j``."""
    return max(joules - slack_j, 0.0) / (1 + gain), (joules + slack_j) / (1 - gain)


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


def _silence(samples: Sequence[Sample], seen: Sequence[Tick], tick_s: float | None) -> str | None:
    """Return why too few changes of the counter were seen, or None."""
    # from each change (or the start) to the earliest possible time of the next
    froms = [samples[0].after_s, *(tick.time_s for tick in seen)]
    untils = [*(tick.time_s - tick.gap_s / 2 for tick in seen), samples[-1].before_s]
    silence_s = max(until - since for since, until in zip(froms, untils, strict=True))
    watts = [sample.power_w for sample in samples if sample.power_w is not None]
    if silence_s > max(_STUCK_S, 5 * (tick_s or 0.0)) and (not watts or max(watts) > 0):
        power = f" at {np.mean(watts):.0f} W" if watts else ""
        return f"the energy counter was stuck: no change in {silence_s:.2g} s{power}"
    if len(seen) < 2:
        window_s = samples[-1].after_s - samples[0].before_s
        return f"{len(seen)} changes of the energy counter in {window_s:.2g} s; use a longer window"
    return None


def _short(window_s: float, samples: int) -> tuple[str, ...]:
    """Return the flag of a window below 10 s or 32 samples."""
    return ("short window",) if window_s < SHORT_S or samples < SHORT_SAMPLES else ()

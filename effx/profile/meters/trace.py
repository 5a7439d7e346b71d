"""From samples of a counter and of power to joules with bounds. Pure: no device, no clock.

    start                                                         stop
      |...a================ the stretch of the reading ==============b..|
          first tick seen after start            last tick seen before stop

A tick is a change of the counter. It happened between the read before and the read that saw it; its
time is the middle of the two, wrong by half their gap at most. Both ends are late by the counter's own
lag, so the misalignment of the stretch is at most one tick plus the larger gap, times the power.

A power sensor shows the mean of its last ``window_s`` once every ``period_s``. The one of A100 and H100
(``INSTANT``) looks 25 ms of every 100 ms: a load in step with it is read tens of percent wrong (Yang,
Adamek, Armour, SC'24, arXiv 2312.02741). What helps is theirs: repetitions out of step with the
sensor, 32 or more, over several windows, and no power from before the window. The first lies with the
load: of lengths that differ or with random gaps. The rest is done here, and the bounds widen by what
the sensor's updates scatter. No bound can show a load that stays in step; only a counter does.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from effx.host.sensors import Sensor
from effx.profile.meters.protocol import Reading

GAIN = 0.05
"""Relative error of NVIDIA's sensors: their manual says 5 % of the current draw (nvmlDeviceGetPowerUsage,
Fermi and Kepler; nothing for newer ones), and arXiv 2312.02741 finds a proportional error of that size."""
SHORT_S, SHORT_SAMPLES = 10.0, 32
SUSPECT = 0.10
"""Disagreement of counter and integrated power from which a reading is suspect."""
_STUCK_S = 0.5  # counters tick every 10 to 100 ms
_SLOW_S = 0.2  # sensors that average longer than this are read in whole averages
_SIGMAS = 2.0  # about 95 %


@dataclass(frozen=True)
class Sample:
    """One read; ``before_s`` and ``after_s`` are the clock around it."""

    before_s: float
    after_s: float
    counter_j: float | None
    power_w: float | None


@dataclass(frozen=True)
class Tick:
    """A change of the counter, at ``time_s`` give or take half of ``gap_s``."""

    time_s: float
    gap_s: float
    counter_j: float


@dataclass(frozen=True)
class Integral:
    """Joules by sampled power; ``error_j`` is two standard errors of the sampling."""

    joules: float
    error_j: float


def ticks(samples: Sequence[Sample]) -> list[Tick]:
    """Return the counter's changes in order."""
    found = []
    for last, this in zip(samples, samples[1:], strict=False):
        if this.counter_j is not None and this.counter_j != last.counter_j:
            gap_s = this.after_s - last.before_s
            found.append(Tick(last.before_s + gap_s / 2, gap_s, this.counter_j))
    return found


def counter_fault(samples: Sequence[Sample], limit_w: float | None) -> str | None:
    """Return why the counter cannot be believed, or None.

    ``limit_w`` is the most that the device can draw: a counter that fell to what it could have
    counted since the read before was reset, one that fell otherwise ran backwards.
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

    The interval holds the misalignment, the ``gain`` of the sensor (relative) and, where the integral
    of ``sensor``'s power lies outside, that too.
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
    own_tick_s = float(np.median(np.diff([tick.time_s for tick in seen])))
    # a tick of the idle device may be longer than one under load: the larger of the two
    late_s = max(tick_s or 0.0, own_tick_s) + max(first.gap_s, last.gap_s)
    slack_j = late_s * max(_peak_w(samples, seen), joules / seconds)
    low, high = bounds(joules, slack_j, gain)
    flags = _short(window_s, len(samples))
    other = integrate(samples, first.time_s, last.time_s, sensor) if sensor else None
    if other is not None:
        low, high = min(low, other.joules), max(high, other.joules)
        apart = abs(other.joules - joules) / joules if joules > 0 else math.inf
        if apart > SUSPECT:
            flags += (f"suspect: counter and integrated power differ by {apart:.0%}".replace("%", " %"),)
    return Reading(
        joules,
        seconds=seconds,
        interval=(low, high),
        integrated_joules=None if other is None else other.joules,
        flags=flags,
        conditions={"mean_w": joules / seconds, "offset_s": first.time_s - samples[0].before_s},
    )


def power_reading(samples: Sequence[Sample], sensor: Sensor, *, gain: float) -> Reading:
    """Return the integral of sampled power; for devices without a counter.

    The stretch begins one of the sensor's averages after the start: what it shows earlier is partly
    from before the window.
    """
    begin, end = samples[0].before_s, samples[-1].after_s
    window_s = end - begin
    whole = integrate(samples, begin, end, sensor)
    if whole is None:
        return Reading(
            None,
            f"no energy from {len(samples)} reads in {window_s:.2g} s: {sensor.name} averages over "
            f"{sensor.window_s:g} s; use a longer window",
        )
    low, high = bounds(whole.joules, whole.error_j, gain)
    flags = _short(window_s, len(samples))
    if sensor.part_time:
        assert sensor.period_s is not None
        flags += (
            f"the power sensor sees {1e3 * sensor.window_s:g} of every {1e3 * sensor.period_s:g} ms: "
            "a load in step with it is read wrong",
        )
    return Reading(
        whole.joules,
        seconds=window_s,
        interval=(low, high),
        integrated_joules=whole.joules,
        flags=flags,
        conditions={"mean_w": whole.joules / window_s, "offset_s": 0.0},
    )


def integrate(samples: Sequence[Sample], begin_s: float, end_s: float, sensor: Sensor) -> Integral | None:
    """Return the energy between two times from sampled power; None: too few samples.

    A sensor that averages is read where its average lies inside the stretch: one of long average
    in whole averages laid end to end, once from the front and once from the back.
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
        error_w = abs(front_w - back_w)  # it sees all of the time; what is left over differs
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
    """Return the energies that a device with an error of ``gain`` and ``slack_j`` could have had."""
    return max(joules - slack_j, 0.0) / (1 + gain), (joules + slack_j) / (1 - gain)


def _sampling_error_w(times: np.ndarray, watts: np.ndarray, sensor: Sensor) -> float:
    """Return two standard errors of the mean, by differences of successive updates.

    Differences, not the spread: a slow change of the load is seen, what lies between updates is not.
    """
    changes = times[1:][np.diff(watts) != 0]
    period_s = sensor.period_s or (float(np.median(np.diff(changes))) if len(changes) > 2 else 0.0)
    grid = np.arange(times[0], times[-1], max(period_s, float(np.median(np.diff(times)))))
    if len(grid) < 2:
        return float(np.ptp(watts))
    updates = _shown(times, watts, grid)
    return _SIGMAS * math.sqrt(float(np.mean(np.diff(updates) ** 2)) / 2 / len(updates))


def _shown(times: np.ndarray, watts: np.ndarray, at_s: np.ndarray) -> np.ndarray:
    """Return what the sensor showed at these times: the last read before each."""
    return watts[np.clip(np.searchsorted(times, at_s + 1e-9, side="right") - 1, 0, len(watts) - 1)]


def _peak_w(samples: Sequence[Sample], seen: Sequence[Tick]) -> float:
    """Return the highest power seen, by the sensor or by the counter over 0.1 s or more."""
    peak_w = max((s.power_w for s in samples if s.power_w is not None), default=0.0)
    since = seen[0]
    for tick in seen[1:]:
        if tick.time_s - since.time_s >= 0.1:
            peak_w = max(peak_w, (tick.counter_j - since.counter_j) / (tick.time_s - since.time_s))
            since = tick
    return peak_w


def _silence(samples: Sequence[Sample], seen: Sequence[Tick], tick_s: float | None) -> str | None:
    """Return why too few changes of the counter were seen, or None."""
    # from each change (or the start) to the first moment at which the next may have happened
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
    """Return the mark of a window below 10 s or 32 samples."""
    return ("short window",) if window_s < SHORT_S or samples < SHORT_SAMPLES else ()

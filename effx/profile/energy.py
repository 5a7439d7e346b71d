"""From a meter's windows to joules per example: gross, and net of the device's idle power.

idle    | all engines loaded, none running |   three times, to estimate the spread
window  | queries back to back             |   gross = joules / examples
                                               net   = gross - idle watts x seconds / examples
"""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from effx.host import cpu
from effx.meters import Meter, whole_machine
from effx.meters.trace import SHORT_WINDOW
from effx.results import Energy, EnergyWindow, Idle, Interval
from effx.stats import intervals

_IDLE_STRETCHES = 3


@dataclass(frozen=True)
class NoIdle:
    """The idle power could not be measured."""

    reason: str


def idle(meter: Meter, length_s: float) -> Idle | NoIdle:
    """Measure the power while the loaded engines are idle.

    Args:
        meter: the meter; if it reads the whole machine, other processes must be idle too.
        length_s: seconds of each of three measurements.
    """
    watts: list[float] = []
    bounds: list[tuple[Interval, Interval | None]] = []
    total_s = 0.0
    time.sleep(meter.lag_s)  # until no sensor shows the work before any more
    for _ in range(_IDLE_STRETCHES):
        meter.start()
        start, busy_s = time.perf_counter(), cpu.busy_s()
        time.sleep(length_s)
        elapsed, busy_after_s = time.perf_counter() - start, cpu.busy_s()
        reading = meter.stop(0.0)
        disturbed = [flag for flag in reading.flags if flag != SHORT_WINDOW]
        if busy_s is not None and busy_after_s is not None:
            busy = whole_machine.disturbance(meter.name, (busy_after_s - busy_s) / elapsed)
            disturbed += [busy] if busy else []
        if reading.joules is None:
            return NoIdle(f"the idle power was not measured: {reading.reason}")
        if disturbed:
            return NoIdle(f"the idle power was disturbed: {'; '.join(disturbed)}")
        seconds = reading.seconds or elapsed
        total_s += seconds
        watts.append(reading.joules / seconds)
        if reading.interval:
            alone = reading.interval_without_gain
            bounds.append((_per(seconds, reading.interval), alone and _per(seconds, alone)))
    interval = intervals.of_readings(intervals.mean_interval(watts), bounds)
    return Idle(
        float(np.mean(watts)), None if interval is None else (max(0.0, interval[0]), interval[1]), total_s
    )


def _per(seconds: float, joules: Interval) -> Interval:
    return joules[0] / seconds, joules[1] / seconds


def of_parts(measured: Sequence[Idle | NoIdle]) -> Idle | NoIdle | None:
    """Return the idle power of a session from that of each of its processes, whose windows are averaged.

    The interval covers those of all: nobody knows which of them a window was measured at.
    """
    known = [idling for idling in measured if isinstance(idling, Idle)]
    if len(known) < len(measured):
        return next(idling for idling in measured if isinstance(idling, NoIdle))
    if len(known) < 2:
        return known[0] if known else None
    bounds = [idling.interval for idling in known if idling.interval]
    interval = (min(low for low, _ in bounds), max(high for _, high in bounds)) if bounds else None
    return Idle(
        float(np.mean([idling.watts for idling in known])),
        interval if len(bounds) == len(known) else None,
        sum(idling.seconds for idling in known),
    )


def of_windows(windows: list[EnergyWindow], meter: Meter, idling: Idle | NoIdle | None) -> Energy:
    """Return the energy of a workload's windows; a single one has no interval, as its spread is unknown.

    The interval is that of the mean over windows, widened by the tolerance that all windows of one meter
    share (:func:`effx.stats.intervals.of_readings`).

    Args:
        windows: at least one, of one workload.
        meter: what read them.
        idling: the idle power, or why there is none; None: it was not measured.
    """
    per_example = [window.joules_per_example for window in windows]
    gross = float(np.mean(per_example))
    if not (math.isfinite(gross) and gross > 0):
        return Energy("none", meter.name, f"the meter gave {gross} J per example")
    by_meter = [(window.interval, window.interval_without_gain) for window in windows if window.interval]
    interval = in_ratios = None
    if spread := intervals.mean_interval(per_example):
        interval = intervals.of_readings(spread, by_meter)
        in_ratios = intervals.widest(
            spread, [window.interval_without_gain for window in windows if window.interval_without_gain]
        )
    net, net_interval, net_reason = None, None, None
    if isinstance(idling, NoIdle):
        net_reason = idling.reason
    elif idling is not None:
        seconds = float(np.mean([window.duration_s / window.examples for window in windows]))
        net = gross - idling.watts * seconds
        if net < 0:
            net_reason = f"net energy would be {net:.3g} J per example: not shown"
            net = None
        elif interval and idling.interval:
            net_interval = _difference(gross, interval, idling, seconds)
    return Energy(
        source=meter.source,
        meter=meter.name,
        reason=None,
        joules_per_example=gross,
        interval=interval,
        interval_without_gain=in_ratios,
        gross=gross,
        net=net,
        net_interval=net_interval,
        net_reason=net_reason,
        windows=windows,
        idle=idling if isinstance(idling, Idle) else None,
    )


def _difference(
    gross: float, interval: tuple[float, float], idling: Idle, seconds: float
) -> tuple[float, float]:
    """Return the interval of gross minus idle energy, which are independent (MOVER, Zou and Donner 2008)."""
    assert idling.interval is not None
    idle_low, idle_high = (bound * seconds for bound in idling.interval)
    baseline = idling.watts * seconds
    low = math.hypot(gross - interval[0], idle_high - baseline)
    high = math.hypot(interval[1] - gross, baseline - idle_low)
    return gross - baseline - low, gross - baseline + high

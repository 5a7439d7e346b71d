"""From a meter's windows to joules per example: gross, and net of the device's idle power.

idle    | all engines loaded, none running |   three times, to estimate the spread
window  | queries back to back             |   gross = joules / examples
                                               net   = gross - idle watts x seconds / examples
"""

from __future__ import annotations

import math
import time

import numpy as np

from effx.profile.meters import Meter
from effx.results import Energy, EnergyWindow, Idle
from effx.stats import intervals

_IDLE_STRETCHES = 3


def idle(meter: Meter, length_s: float) -> Idle | None:
    """Measure the power while the loaded engines are idle; None if it cannot be read.

    Args:
        meter: the meter.
        length_s: seconds of each of three measurements.
    """
    watts: list[float] = []
    bounds: list[tuple[float, float]] = []
    total_s = 0.0
    for _ in range(_IDLE_STRETCHES):
        meter.start()
        start = time.perf_counter()
        time.sleep(length_s)
        elapsed = time.perf_counter() - start
        reading = meter.stop(0.0)
        if reading.joules is None:
            return None
        seconds = reading.seconds or elapsed
        total_s += seconds
        watts.append(reading.joules / seconds)
        if reading.interval:
            bounds.append((reading.interval[0] / seconds, reading.interval[1] / seconds))
    interval = intervals.widest(intervals.mean_interval(watts), bounds)
    return Idle(
        float(np.mean(watts)), None if interval is None else (max(0.0, interval[0]), interval[1]), total_s
    )


def of_windows(windows: list[EnergyWindow], meter: Meter, idling: Idle | None) -> tuple[Energy, str | None]:
    """Return the energy of a workload's windows, and what is wrong with its net, if anything is.

    Args:
        windows: at least one, of one workload.
        meter: what read them.
        idling: the idle power; None: there is no net energy.
    """
    per_example = [window.joules_per_example for window in windows]
    gross = float(np.mean(per_example))
    if not (math.isfinite(gross) and gross > 0):
        return Energy("none", meter.name, f"the meter gave {gross} J per example"), None
    by_meter = [window.interval for window in windows if window.interval]
    interval = intervals.widest(intervals.mean_interval(per_example), by_meter)
    net, net_interval, fault = None, None, None
    if idling is not None:
        seconds = float(np.mean([window.duration_s / window.examples for window in windows]))
        net = gross - idling.watts * seconds
        if net < 0:
            fault = f"net energy would be {net:.3g} J per example: not shown"
            net = None
        elif interval and idling.interval:
            net_interval = _difference(gross, interval, idling, seconds)
    return Energy(
        source=meter.source,
        meter=meter.name,
        reason=None,
        joules_per_example=gross,
        interval=interval,
        gross=gross,
        net=net,
        net_interval=net_interval,
        windows=windows,
        idle=idling,
    ), fault


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

"""Joules per example from windows, and what the idle device draws."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from scipy import stats

from effx.profile import energy, meters
from effx.results import EnergyWindow, Idle


class Steady(meters.Unavailable):
    """Watts that the test gives, whatever happens."""

    source, name = "counter", "steady"

    def __init__(self, watts: list[float | None], spread: float | None = None) -> None:
        super().__init__("")
        self._watts, self._spread = iter(watts), spread

    def stop(self, cpu_s: float) -> meters.Reading:
        watts = next(self._watts)
        if watts is None:
            return meters.Reading(None, "lost")
        joules = watts * 0.2
        bounds = None if self._spread is None else (joules - self._spread, joules + self._spread)
        return meters.Reading(joules=joules, seconds=0.2, interval=bounds)


def window(joules: float, duration_s: float, examples: int, interval: Any = None) -> EnergyWindow:
    return EnergyWindow(duration_s, examples, joules, duration_s, joules / examples, interval)


def test_the_idle_power_has_an_interval() -> None:
    found = energy.idle(Steady([12.0, 13.0, 14.0]), 0.01)
    assert found is not None and found.interval is not None
    low, high = stats.t.interval(0.95, 2, 13.0, stats.sem([12.0, 13.0, 14.0]))
    assert found.watts == pytest.approx(13.0) and found.interval == pytest.approx((low, high))
    assert found.seconds == pytest.approx(0.6)


def test_what_the_meter_cannot_tell_widens_the_idle_interval() -> None:
    found = energy.idle(Steady([12.0, 12.0, 12.0], spread=0.2), 0.01)
    assert found is not None and found.interval == pytest.approx((11.0, 13.0))


def test_no_idle_power_from_a_stretch_that_failed() -> None:
    assert energy.idle(Steady([12.0, None, 12.0]), 0.01) is None


def test_net_energy_is_gross_less_idle() -> None:
    windows = [window(1000.0, 10.0, 100, (9.5, 10.5)), window(2000.0, 20.0, 200, (9.5, 10.5))]
    found, fault = energy.of_windows(windows, Steady([]), Idle(30.0, (28.0, 32.0), 15.0))
    assert fault is None and found.gross == found.joules_per_example == pytest.approx(10.0)
    assert found.net == pytest.approx(10.0 - 30.0 * 0.1)
    assert found.interval == pytest.approx((9.5, 10.5))
    half = float(np.hypot(0.5, 2.0 * 0.1))
    assert found.net_interval == pytest.approx((7.0 - half, 7.0 + half))


def test_without_an_idle_power_there_is_no_net() -> None:
    found, fault = energy.of_windows([window(1000.0, 10.0, 100)], Steady([]), None)
    assert (found.net, found.net_interval, found.interval, fault) == (None, None, None, None)


def test_a_negative_net_is_a_fault_and_no_number() -> None:
    found, fault = energy.of_windows([window(100.0, 10.0, 100)], Steady([]), Idle(30.0, None, 15.0))
    assert found.gross == pytest.approx(1.0) and found.net is None
    assert fault is not None and "not shown" in fault


def test_a_meter_that_gives_nothing_gives_no_energy() -> None:
    found, _ = energy.of_windows([window(0.0, 10.0, 100)], Steady([]), None)
    assert found.source == "none" and found.reason == "the meter gave 0.0 J per example"

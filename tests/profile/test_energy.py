"""Joules per example from windows, gross and net of idle power."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from scipy import stats

from effx import meters
from effx.host import cpu
from effx.host.sensors import Sensor
from effx.meters import trace
from effx.meters.trace import GAIN, Sample, bounds
from effx.profile import energy
from effx.results import EnergyWindow, Idle


class Steady(meters.Unavailable):
    """Watts that the test gives, whatever happens."""

    source, name = "counter", "steady"

    def __init__(self, watts: list[float | None], spread: float | None = None) -> None:
        super().__init__("")
        self._watts, self._spread = iter(watts), spread

    def stop(self, cpu_s: float, during: meters.Period | None = None) -> meters.Reading:
        watts = next(self._watts)
        if watts is None:
            return meters.Reading(None, "lost")
        joules = watts * 0.2
        bounds = None if self._spread is None else (joules - self._spread, joules + self._spread)
        return meters.Reading(joules=joules, seconds=0.2, interval=bounds)


def window(joules: float, duration_s: float, examples: int, interval: Any = None) -> EnergyWindow:
    return EnergyWindow(duration_s, examples, joules, duration_s, joules / examples, interval)


def test_the_idle_power_has_an_interval() -> None:
    result = energy.idle(Steady([12.0, 13.0, 14.0]), 0.01)
    assert isinstance(result, Idle) and result.interval is not None
    low, high = stats.t.interval(0.95, 2, 13.0, stats.sem([12.0, 13.0, 14.0]))
    assert result.watts == pytest.approx(13.0) and result.interval == pytest.approx((low, high))
    assert result.seconds == pytest.approx(0.6)


def test_the_tolerance_of_the_meter_widens_the_idle_interval() -> None:
    result = energy.idle(Steady([12.0, 12.0, 12.0], spread=0.2), 0.01)
    assert isinstance(result, Idle) and result.interval == pytest.approx((11.0, 13.0))


def test_idle_power_is_missing_if_a_measurement_failed() -> None:
    assert energy.idle(Steady([12.0, None, 12.0]), 0.01) == energy.NoIdle(
        "the idle power was not measured: lost"
    )


class Flagged(Steady):
    def stop(self, cpu_s: float, during: meters.Period | None = None) -> meters.Reading:
        return replace(super().stop(cpu_s), flags=("short window", "foreign process 4242"))


def test_a_disturbed_idle_measurement_gives_no_idle_power() -> None:
    assert energy.idle(Flagged([12.0, 12.0, 12.0]), 0.01) == energy.NoIdle(
        "the idle power was disturbed: foreign process 4242"
    )


def test_other_work_on_the_processors_gives_no_idle_power(monkeypatch: pytest.MonkeyPatch) -> None:
    """A meter of the board of a Jetson reads them too, on a GPU too; that of a GPU does not."""
    monkeypatch.setattr(cpu, "busy_s", iter(float(call % 2) for call in range(20)).__next__)
    for name in ("rapl", "hwmon"):
        meter = Steady([12.0, 12.0, 12.0])
        meter.name = name
        result = energy.idle(meter, 0.01)
        assert isinstance(result, energy.NoIdle) and "other processes used" in result.reason
    assert isinstance(energy.idle(Steady([12.0, 12.0, 12.0]), 0.01), Idle)


class AfterWork(meters.Unavailable):
    """A GPU that drew 400 W until 0 s and 80 W since; its power sensor averages over 1 s, and is late."""

    name, lag_s, now_s = "nvml", 3.0, 0.0
    sensor = Sensor("average", 1.0, 0.1, 2.0)

    def __init__(self, late_s: float, *, counts: bool) -> None:
        super().__init__("")
        self._late_s, self._counts = late_s, counts

    def sleep(self, seconds: float) -> None:
        self.now_s += seconds

    def start(self) -> None:
        self._begun_s = self.now_s

    def stop(self, cpu_s: float, during: meters.Period | None = None) -> meters.Reading:
        times = np.arange(self._begun_s, self.now_s, 0.02)
        updates = np.floor(times / 0.1) * 0.1
        shown_w = self._drawn_j(updates - self._late_s) - self._drawn_j(updates - self._late_s - 1.0)
        shown_w += np.random.default_rng(0).normal(0, 0.1, 1000)[np.round(updates / 0.1).astype(int)]
        counted_j = 5000.0 + self._drawn_j(updates)
        if not self._counts:
            samples = [Sample(t, t, None, watts) for t, watts in zip(times, shown_w, strict=True)]
            return trace.power_reading(samples, self.sensor, gain=GAIN, limit_w=700.0)
        samples = [Sample(*each) for each in zip(times, times, counted_j, shown_w, strict=True)]
        return trace.counter_reading(samples, self.sensor, tick_s=0.1, gain=GAIN, limit_w=700.0)

    def _drawn_j(self, times: np.ndarray) -> np.ndarray:
        return np.where(times < 0, 400.0, 80.0) * times


@pytest.mark.parametrize("counts", [True, False])
@pytest.mark.parametrize("length_s", [3.0, 5.0])
def test_the_idle_power_is_not_that_of_the_work_before(
    length_s: float, counts: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    meter = AfterWork(1.5, counts=counts)
    monkeypatch.setattr(
        energy, "time", SimpleNamespace(sleep=meter.sleep, perf_counter=lambda: meter.now_s)
    )  # fmt: skip
    result = energy.idle(meter, length_s)
    assert isinstance(result, Idle), result
    assert result.watts == pytest.approx(80.0, rel=0.005)


def test_why_there_is_no_net_energy_is_recorded() -> None:
    result = energy.of_windows([window(1000.0, 10.0, 100)], Steady([]), energy.NoIdle("a process ran"))
    assert (result.net, result.net_reason, result.gross) == (None, "a process ran", pytest.approx(10.0))


def test_the_idle_power_of_an_interrupted_session_covers_that_of_each_process() -> None:
    before, after = Idle(30.0, (28.0, 32.0), 15.0), Idle(50.0, (49.0, 52.0), 15.0)
    assert energy.of_parts([]) is None and energy.of_parts([before]) == before
    assert energy.of_parts([before, after]) == Idle(40.0, (28.0, 52.0), 30.0)
    assert energy.of_parts([before, Idle(50.0, None, 15.0)]) == Idle(40.0, None, 30.0)
    assert energy.of_parts([before, energy.NoIdle("lost")]) == energy.NoIdle("lost")


def test_net_energy_is_gross_minus_idle() -> None:
    windows = [window(1000.0, 10.0, 100, (9.5, 10.5)), window(2000.0, 20.0, 200, (9.5, 10.5))]
    result = energy.of_windows(windows, Steady([]), Idle(30.0, (28.0, 32.0), 15.0))
    assert result.net_reason is None and result.gross == result.joules_per_example == pytest.approx(10.0)
    assert result.net == pytest.approx(10.0 - 30.0 * 0.1)
    assert result.interval == pytest.approx((9.5, 10.5))
    half = float(np.hypot(0.5, 2.0 * 0.1))
    assert result.net_interval == pytest.approx((7.0 - half, 7.0 + half))


def test_one_window_has_no_interval_whatever_the_meter_states() -> None:
    """Its bounds say how far the meter may be off, not how far another window would be."""
    one = replace(window(1000.0, 10.0, 100, (9.9, 10.1)), interval_without_gain=(9.99, 10.01))
    result = energy.of_windows([one], Steady([]), Idle(30.0, (28.0, 32.0), 15.0))
    assert (result.joules_per_example, result.net) == (pytest.approx(10.0), pytest.approx(7.0))
    assert (result.interval, result.interval_without_gain, result.net_interval) == (None, None, None)


def test_the_interval_holds_the_truth_at_the_edge_of_the_meters_tolerance() -> None:
    """The tolerance multiplies what every window shows; the windows vary as well."""
    rng, trials = np.random.default_rng(0), 2000
    held = np.zeros((2, 2))
    for _ in range(trials):
        gain = rng.choice([-GAIN, GAIN])
        shown = 10.0 * (1 + gain) * (1 + rng.normal(0, 0.01, 3))
        windows = [
            replace(
                window(100 * each, 10.0, 100, bounds(each, 0.002 * each, GAIN)),
                interval_without_gain=bounds(each, 0.002 * each, 0.0),
            )
            for each in shown
        ]
        result = energy.of_windows(windows, Steady([]), None)
        for number, (interval, truth) in enumerate(
            [(result.interval, 10.0), (result.interval_without_gain, 10.0 * (1 + gain))]
        ):
            assert interval is not None
            held[number] += interval[0] <= truth, truth <= interval[1]
    assert (held.sum(1) - trials >= 0.93 * trials).all()
    assert (held < trials).any()  # they are not so wide that they cannot miss


@pytest.mark.parametrize("gain", [-GAIN, GAIN])
def test_the_interval_holds_the_truth_beside_power_that_shows_it(gain: float) -> None:
    """A counter at the edge of its tolerance, and power that gives the true work of every window."""
    times = np.arange(0.0, 12.0, 0.01)
    counted = 100.0 + (1 + gain) * 10.0 * np.floor(times / 0.02) * 0.02
    samples = [Sample(t, t, joules, 10.0) for t, joules in zip(times, counted, strict=True)]
    read = trace.counter_reading(samples, Sensor("power", 0.0, 0.1, 2.0), tick_s=0.02, gain=GAIN)
    assert read.joules and read.interval and read.interval_without_gain and read.integrated_joules
    assert read.integrated_joules in read.interval_without_gain
    joules, low, high, low_ratio, high_ratio = (
        np.array([read.joules, *read.interval, *read.interval_without_gain]) / read.integrated_joules
    )  # of a window whose true work is 1 J; those of another are proportional to its work
    rng, trials = np.random.default_rng(0), 1000
    held = np.zeros(2)
    for _ in range(trials):
        windows = [
            replace(
                window(joules * work, 1.0, 1, (low * work, high * work)),
                interval_without_gain=(low_ratio * work, high_ratio * work),
            )
            for work in 10.0 * (1 + rng.normal(0, 0.01, 3))
        ]
        interval = energy.of_windows(windows, Steady([]), None).interval
        assert interval is not None
        held += interval[0] <= 10.0, interval[1] >= 10.0
    assert held.sum() - trials >= 0.95 * trials


def test_the_bounds_of_a_meter_without_tolerance_are_as_they_were() -> None:
    """Those of RAPL are the same with and without."""
    windows = [
        replace(window(100 * each, 10.0, 100, (each - 0.1, each + 0.3)),
                interval_without_gain=(each - 0.1, each + 0.3))
        for each in (9.9, 10.0, 10.1)
    ]  # fmt: skip
    result = energy.of_windows(windows, Steady([]), None)
    half = stats.sem([9.9, 10.0, 10.1]) * stats.t.ppf(0.975, 2)
    assert half > 0.1
    assert result.interval == result.interval_without_gain == pytest.approx((10.0 - half, 10.3))


def test_the_tolerance_of_a_meter_widens_the_spread_of_idle_readings() -> None:
    class Tolerant(Steady):
        def stop(self, cpu_s: float, during: meters.Period | None = None) -> meters.Reading:
            reading = super().stop(cpu_s)
            assert reading.joules is not None
            return replace(
                reading, interval=bounds(reading.joules, 0.0, GAIN),
                interval_without_gain=bounds(reading.joules, 0.0, 0.0),
            )  # fmt: skip

    result = energy.idle(Tolerant([12.0, 13.0, 14.0]), 0.01)
    assert isinstance(result, Idle)
    low, high = stats.t.interval(0.95, 2, 13.0, stats.sem([12.0, 13.0, 14.0]))
    assert result.interval == pytest.approx((low / (1 + GAIN), high / (1 - GAIN)))


def test_net_energy_is_missing_without_idle_power() -> None:
    result = energy.of_windows([window(1000.0, 10.0, 100)], Steady([]), None)
    assert (result.net, result.net_interval, result.interval, result.net_reason) == (None, None, None, None)


def test_negative_net_energy_is_reported_and_not_shown() -> None:
    result = energy.of_windows([window(100.0, 10.0, 100)], Steady([]), Idle(30.0, None, 15.0))
    assert result.gross == pytest.approx(1.0) and result.net is None
    assert result.net_reason is not None and "not shown" in result.net_reason


def test_a_meter_without_joules_gives_no_energy() -> None:
    result = energy.of_windows([window(0.0, 10.0, 100)], Steady([]), None)
    assert result.source == "none" and result.reason == "the meter gave 0.0 J per example"

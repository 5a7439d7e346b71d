"""Faults of sensors in simulated windows: no joules, and the reason."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from effx.host.sensors import Sensor
from effx.meters import trace
from effx.meters.protocol import Reading
from effx.meters.trace import GAIN, Sample

LIMIT_W = 700.0
TIMES = np.arange(0.0, 12.0, 0.01)
SENSOR = Sensor("simulated", 0.0, 0.1, 2.0)


def counter(watts: float = 300.0) -> np.ndarray:
    """A counter that ticks every 50 ms."""
    return 1000.0 + watts * np.floor(TIMES / 0.05) * 0.05


def power(watts: float = 300.0) -> np.ndarray:
    """A sensor that changes every 100 ms, with noise."""
    noise = np.random.default_rng(0).normal(0, 1, len(TIMES)).round(3)
    return watts + noise[np.floor(TIMES / 0.1).astype(int)]


def of_counter(values: np.ndarray, watts: np.ndarray | None = None, **settings: object) -> Reading:
    shown = power() if watts is None else watts
    samples = [Sample(t, t, c, w) for t, c, w in zip(TIMES, values, shown, strict=True)]
    return trace.counter_reading(samples, SENSOR, tick_s=0.05, gain=GAIN, limit_w=LIMIT_W, **settings)  # type: ignore[arg-type]


def of_power(watts: np.ndarray, **settings: object) -> Reading:
    samples = [Sample(t, t, None, w) for t, w in zip(TIMES, watts, strict=True)]
    return trace.power_reading(samples, SENSOR, gain=GAIN, limit_w=LIMIT_W, **settings)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "values, reason",
    [
        (counter() + 600.0 * (TIMES > 6), "jumped by 600 J"),
        (1000 * counter(), "jumped"),
        (counter(0.3), "is wrong: it gives 0.3 W, sampled power gives 300 W"),
        (np.minimum(counter(), counter()[600]), "was stuck"),
    ],
)
def test_a_counter_that_shows_the_impossible_gives_no_energy(values: np.ndarray, reason: str) -> None:
    reading = of_counter(values)
    assert reading.joules is None
    assert reason in str(reading.reason)


def test_a_counter_is_not_stuck_while_nobody_reads() -> None:
    read = (TIMES < 4) | (TIMES > 7)
    samples = [Sample(t, t, c, w) for t, c, w in zip(TIMES, counter(), power(), strict=True)]
    stalled = [sample for sample, kept in zip(samples, read, strict=True) if kept]
    reading = trace.counter_reading(stalled, SENSOR, tick_s=0.05, gain=GAIN, limit_w=LIMIT_W)
    assert reading.reason is None and reading.seconds is not None
    assert reading.joules == pytest.approx(300 * reading.seconds, rel=0.01)


def test_impossible_power_makes_a_counter_suspect_and_is_not_integrated() -> None:
    watts = power()
    watts[500] = 0.0
    reading = of_counter(counter(), watts)
    assert reading.flags == ("suspect: the power sensor shows 0 W",)
    assert reading.joules is not None and reading.integrated_joules is None


@pytest.mark.parametrize(
    "change, reason",
    [
        (lambda w: np.where(TIMES > 6, w[600], w), "was stuck: the same value for 6 s"),
        (lambda w: np.full_like(w, 66.0), "was stuck"),
        (lambda w: np.where(TIMES > 6, 0.0, w), "shows 0 W"),
        (
            lambda w: np.where(np.arange(len(w)) == 700, 12_000.0, w),
            "shows 12000 W; the device's limit is 700 W",
        ),
    ],
)
def test_a_power_sensor_that_shows_the_impossible_gives_no_energy(
    change: Callable[[np.ndarray], np.ndarray], reason: str
) -> None:
    reading = of_power(change(power()))
    assert reading.joules is None
    assert reason in str(reading.reason)


def test_power_shown_late_is_left_out_at_the_beginning() -> None:
    late = np.where(TIMES < 1.8, power(80.0), power(300.0))  # still that of the engine before
    reading = of_power(late)
    assert reading.seconds is not None and reading.joules is not None
    assert reading.joules / reading.seconds == pytest.approx(300.0, rel=0.01)
    assert reading.seconds == pytest.approx(TIMES[-1] - SENSOR.lag_s)


def after_another_load(
    before_w: float, watts: float, late_s: float, gain: float = 1.0, length_s: float = 12.0
) -> Reading:
    """A counter beside a sensor that averages over a second and shows it late; the load begins at 0 s."""

    def drawn_j(times: np.ndarray) -> np.ndarray:
        return np.where(times < 0, before_w * times, watts * times)

    shown = np.floor(TIMES / 0.1) * 0.1 - late_s
    sampled = drawn_j(shown) - drawn_j(shown - 1.0) + power(0.0)
    counted = 5000.0 + gain * drawn_j(np.floor(TIMES / 0.05) * 0.05)
    rows = zip(TIMES, counted, sampled, strict=True)
    samples = [Sample(t, t, c, w) for t, c, w in rows if t <= length_s]
    sensor = Sensor("average", 1.0, 0.1, 2.0)
    return trace.counter_reading(samples, sensor, tick_s=0.05, gain=GAIN, limit_w=LIMIT_W)


@pytest.mark.parametrize(("before_w", "watts"), [(600.0, 200.0), (90.0, 600.0)])
def test_power_shown_late_does_not_make_a_counter_suspect(before_w: float, watts: float) -> None:
    reading = after_another_load(before_w, watts, 1.9)
    assert reading.flags == ()
    assert reading.joules is not None and reading.seconds == pytest.approx(TIMES[-1], abs=0.15)
    assert reading.joules == pytest.approx(watts * reading.seconds, rel=0.01)
    assert reading.integrated_joules == pytest.approx(reading.joules, rel=0.01)


@pytest.mark.parametrize(("length_s", "compared"), [(3.9, False), (4.5, True)])
def test_a_counter_is_compared_where_enough_remains_after_the_delay(length_s: float, compared: bool) -> None:
    reading = after_another_load(600.0, 200.0, 1.9, length_s=length_s)
    assert reading.flags == ("short window",)
    assert (reading.integrated_joules is not None) is compared


def test_the_tolerance_widens_bounds_that_power_sets() -> None:
    for gain in (1 - GAIN, 1 + GAIN):
        reading = after_another_load(200.0, 200.0, 0.0, gain=gain)
        assert reading.interval is not None and reading.interval_without_gain is not None
        low, high = reading.interval_without_gain
        assert reading.integrated_joules in (low, high)
        assert reading.interval == pytest.approx((low / (1 + GAIN), high / (1 - GAIN)))


def test_a_wrong_gain_of_a_counter_is_seen_beside_late_power() -> None:
    reading = after_another_load(600.0, 200.0, 1.9, gain=1.2)
    assert reading.flags == ("suspect: counter and integrated power differ by 17 %",)
    assert reading.joules is not None and reading.seconds is not None
    assert reading.integrated_joules == pytest.approx(200.0 * reading.seconds, rel=0.01)


@pytest.mark.parametrize(
    "measure", [lambda d: of_counter(counter(), during=d), lambda d: of_power(power(), during=d)]
)
def test_a_reading_covers_the_work_only(measure: Callable[[tuple[float, float]], Reading]) -> None:
    reading = measure((0.5, 11.5))
    assert reading.seconds is not None
    assert reading.seconds <= 11.0
    assert reading.joules == pytest.approx(300 * reading.seconds, rel=0.01)
    assert reading.flags == ()


def test_the_tolerance_is_not_in_the_interval_for_ratios() -> None:
    reading = of_counter(counter())
    assert reading.interval is not None and reading.interval_without_gain is not None
    low, high = reading.interval_without_gain
    assert reading.interval[0] == pytest.approx(low / (1 + GAIN))
    assert reading.interval[1] == pytest.approx(high / (1 - GAIN))

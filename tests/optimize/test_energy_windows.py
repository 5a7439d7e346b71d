"""Energy of graphs in turns, on a clock of its own: graphs of known times, a meter of known power."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from types import TracebackType
from typing import Any, Self

import numpy as np
import pytest

from effx.host import cpu
from effx.meters import Period, Reading
from effx.optimize import energy_windows
from effx.optimize.energy_windows import NoEnergyError, Windows, joules

WATTS = 50.0
QUERIES = [{"input_ids": np.zeros((1, length), dtype=np.int64)} for length in (3, 5, 9)]


class Clock:
    """Stands still unless an engine answers."""

    def __init__(self) -> None:
        self.now_s, self.others = 0.0, 0.0

    def monotonic(self) -> float:
        return self.now_s

    def process_time(self) -> float:
        return self.now_s

    def busy_s(self) -> float:
        return (1 + self.others) * self.now_s


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    made = Clock()
    monkeypatch.setattr(energy_windows, "time", made)
    monkeypatch.setattr(cpu, "busy_s", made.busy_s)
    monkeypatch.setattr(cpu, "installed_processors", lambda: 4)
    return made


class Timed:
    """An engine that takes some milliseconds for each token."""

    def __init__(self, clock: Clock, ms: float) -> None:
        self._clock, self._ms = clock, ms
        self.lengths: list[int] = []

    def infer(self, inputs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        self.lengths.append(inputs["input_ids"].shape[1])
        self._clock.now_s += self._ms / 1e3 * self.lengths[-1]
        return {"logits": np.zeros((1, 2), dtype=np.float32)}

    def describe(self) -> dict[str, Any]:
        return {}

    def close(self) -> None: ...

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...


class ConstantMeter:
    """A constant power, read over half of the work, as between ticks; some windows give what is said."""

    source, reason, chosen_because, floor_w, limit_w = "counter", None, "test", None, None
    lag_s = 0.0

    def __init__(self, name: str = "test", readings: tuple[Reading, ...] = ()) -> None:
        self.name, self._readings, self.windows = name, list(readings), 0

    def describe(self) -> dict[str, Any]:
        return {"reads": "a test"}

    def start(self) -> None:
        self.windows += 1

    def stop(self, cpu_s: float, during: Period | None = None) -> Reading:
        assert during is not None
        read_s = (during[1] - during[0]) / 2
        return self._readings.pop(0) if self._readings else Reading(WATTS * read_s, seconds=read_s)

    def close(self) -> None: ...


def test_joules_are_power_times_the_mean_time_of_a_query(clock: Clock) -> None:
    sessions, meter = {"short": Timed(clock, 1), "long": Timed(clock, 3)}, ConstantMeter()
    found = joules(sessions, QUERIES, Windows(meter, count=2, length_s=1.0), seed=0)
    mean_tokens = (3 + 5 + 9) / 3
    assert found["short"].tolist() == pytest.approx([WATTS * 1e-3 * mean_tokens] * 2)
    assert found["long"].tolist() == pytest.approx([WATTS * 3e-3 * mean_tokens] * 2)
    assert meter.windows == 4
    for session in sessions.values():  # all lengths equally often, however long a query takes
        assert len(set(Counter(session.lengths).values())) == 1
    assert len(sessions["short"].lengths) >= 2 * 1.0 / (1e-3 * mean_tokens)
    assert len(sessions["long"].lengths) >= 2 * 32


@pytest.mark.parametrize(
    ("reading", "told"),
    [
        (Reading(None, "the driver is gone"), "long: the driver is gone"),
        (Reading(1.0, flags=("throttled: heat",)), "long: throttled: heat"),
        (Reading(0.0), "long: the meter gave 0 J per query"),
        (Reading(float("nan")), "long: the meter gave nan J per query"),
    ],
)
def test_a_failed_window_is_repeated_and_then_nothing_has_energy(
    clock: Clock, reading: Reading, told: str
) -> None:
    meter = ConstantMeter(readings=(reading, reading))
    assert joules({"long": Timed(clock, 1)}, QUERIES, Windows(meter, 1, 0.01), 0)["long"][0] > 0
    assert meter.windows == 3
    with pytest.raises(NoEnergyError, match=told):
        meter = ConstantMeter(readings=(reading,) * 3)
        joules({"long": Timed(clock, 1)}, QUERIES, Windows(meter, 1, 0.01), 0)


def test_threads_of_the_graph_before_come_to_rest_before_each_window(clock: Clock) -> None:
    """Also before one that is repeated."""
    meter, begun = ConstantMeter(readings=(Reading(None, "lost"),)), []
    sessions = {"short": Timed(clock, 1), "long": Timed(clock, 3)}
    joules(sessions, QUERIES, Windows(meter, 2, 0.01), 0, lambda: begun.append(meter.windows))
    assert begun == [0, 1, 2, 3, 4] and meter.windows == 5


def test_short_windows_and_sensors_that_measure_a_part_of_the_time_are_taken(clock: Clock) -> None:
    flags = ("short window", "the power sensor measures 25 % of the time")
    meter = ConstantMeter(readings=(Reading(1.0, flags=flags),))
    joules({"one": Timed(clock, 1)}, QUERIES, Windows(meter, 1, 0.01), 0)
    assert meter.windows == 1


def test_a_meter_of_the_whole_machine_wants_it_alone(clock: Clock) -> None:
    """Another process keeps a processor busy: RAPL counts its joules, a GPU's counter does not."""
    clock.others = 1.0
    with pytest.raises(NoEnergyError, match="other processes used 1 processors, which the meter reads too"):
        joules({"one": Timed(clock, 1)}, QUERIES, Windows(ConstantMeter("rapl"), 1, 0.05), 0)
    joules({"one": Timed(clock, 1)}, QUERIES, Windows(ConstantMeter("nvml:0"), 1, 0.05), 0)
    clock.others = 0.05
    joules({"one": Timed(clock, 1)}, QUERIES, Windows(ConstantMeter("rapl"), 1, 0.05), 0)

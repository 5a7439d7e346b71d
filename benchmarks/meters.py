"""How far energy readings can be trusted: simulated sensors with known true energy, healthy and faulty.

    python benchmarks/meters.py > meters.json                # minutes on one core
    python benchmarks/meters.py --trials 1000 --only power   # cases whose name contains a word

Each trial simulates a load, a sensor (a GPU's energy counter, a GPU's power sensor, or RAPL counters in a
powercap tree), and one window of effx's own meters. The load before the window differs from that in it.
Shares of trials in percent:

    covered       the true energy of the reading's duration is in its interval
    refused       no joules, with a reason
    flagged       joules with a flag, which fails the gate of undisturbed windows
    silent_wrong  joules without a flag whose interval does not contain the true energy

Healthy sensors should be covered in at least 95 % of the trials, and be refused or flagged rarely. A faulty
sensor should not be silently wrong more often than a healthy one.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

import numpy as np

from effx.artifacts import now
from effx.host import identity
from effx.host.sensors import Sensor
from effx.meters import rapl, trace
from effx.meters.protocol import Reading
from effx.meters.sampler import Clock
from effx.meters.trace import GAIN, Sample

WINDOW_S = 10.0
BEFORE_S = 6.0
"""Time with another load before the window."""
LIMIT_W = 700.0
GRID_S = 0.001
"""Resolution of the simulated load."""
COUNTER_J = 5000.0
"""The counter's value at the beginning."""

Rng = np.random.Generator


@dataclass(frozen=True)
class Load:
    """Power on a grid of a millisecond; the window begins at ``BEFORE_S``."""

    sums_j: np.ndarray
    """Joules since the beginning, at each point of the grid."""

    @classmethod
    def of(cls, watts: np.ndarray) -> Load:
        """Return a load of these watts, one per millisecond."""
        return cls(np.concatenate([[0.0], np.cumsum(watts) * GRID_S]))

    def joules(self, begin_s: np.ndarray | float, end_s: np.ndarray | float) -> np.ndarray:
        """Return the true energy between two times."""
        times = GRID_S * np.arange(len(self.sums_j))
        return np.interp(end_s, times, self.sums_j) - np.interp(begin_s, times, self.sums_j)


def load(rng: Rng) -> Load:
    """Return a random load: idle or another engine, then the engine's steps, waves, pulses or duty cycles."""
    grid = np.arange(0.0, BEFORE_S + WINDOW_S + 6.0, GRID_S)
    base, height = rng.uniform(60, 200), rng.uniform(50, 400)
    shape = rng.integers(4)
    if shape == 0:
        at = np.sort(rng.uniform(0, grid[-1], rng.integers(2, 8)))
        wave = rng.uniform(0, 1, len(at) + 1)[np.searchsorted(at, grid)]
    elif shape == 1:
        wave = (1 + np.sin(2 * np.pi * grid / rng.uniform(0.02, 8.0) + rng.uniform(0, 6))) / 2
    elif shape == 2:
        wave = np.zeros_like(grid)
        for start in rng.uniform(0, grid[-1], rng.integers(10, 120)):
            wave[(grid >= start) & (grid < start + rng.uniform(0.005, 0.3))] = 1
    else:
        wave = ((grid / rng.uniform(0.01, 2.0)) % 1 < rng.uniform(0.1, 0.9)).astype(float)
    watts = base + height * wave + rng.normal(0, 2, len(grid))
    watts[grid < BEFORE_S] *= rng.uniform(0.3, 1.5)
    return Load.of(np.maximum(watts, 20.0))


def reads(rng: Rng, every_s: float = 0.01, stall_s: float = 0.0) -> np.ndarray:
    """Return the times of the reads in a window: about every 10 ms, some late, one after a stall."""
    gaps = (
        every_s
        + rng.exponential(0.003, int(WINDOW_S / every_s))
        + (rng.random(int(WINDOW_S / every_s)) < 0.01) * 0.05
    )
    times = BEFORE_S + np.cumsum(gaps)
    if stall_s:
        at = rng.uniform(BEFORE_S + 1, BEFORE_S + WINDOW_S - stall_s - 1)
        times = times[(times < at) | (times > at + stall_s)]
    return times[times < BEFORE_S + WINDOW_S]


@dataclass(frozen=True)
class GpuSensors:
    """What NVML would show of a load."""

    load: Load
    gain: float
    tick_s: float
    power: Sensor
    lag_s: float = 0.0
    """How much later than ``power`` says the power sensor shows a change."""

    def counter_j(self, times: np.ndarray) -> np.ndarray:
        """Return the counter's values at these times."""
        return COUNTER_J + self.gain * self.load.joules(0.0, np.floor(times / self.tick_s) * self.tick_s)

    def power_w(self, times: np.ndarray) -> np.ndarray:
        """Return the power sensor's values at these times, to the milliwatt."""
        period_s, window_s = self.power.period_s or 0.1, self.power.window_s or 0.02
        shown = np.floor(times / period_s) * period_s - self.lag_s
        return np.round(self.gain * self.load.joules(shown - window_s, shown) / window_s, 3)


def gpu(rng: Rng, *, lag_s: float = 0.0) -> GpuSensors:
    """Return random sensors: gains within the tolerance, ticks of 10 to 100 ms, all kinds of averaging."""
    # half of the trials at the edge of the tolerance, where it cannot compensate other errors
    gain = float(rng.choice([1 - GAIN, 1 + GAIN]) if rng.random() < 0.5 else rng.uniform(1 - GAIN, 1 + GAIN))
    power = [Sensor("average", 1.0, 0.1, 2.0), Sensor("instant", 0.0, 0.1, 2.0)][int(rng.integers(2))]
    return GpuSensors(load(rng), gain, float(rng.uniform(0.01, 0.1)), power, lag_s)


Change = Callable[[Rng, np.ndarray, np.ndarray], np.ndarray]
"""A fault: random numbers, times and healthy values -> what the sensor shows."""


def at_random(rng: Rng, times: np.ndarray) -> np.ndarray:
    """Return which reads are after a random time in the window."""
    return times > rng.uniform(BEFORE_S + 1, BEFORE_S + WINDOW_S - 2)


def outcome(reading: Reading, truth_of: Callable[[float, float], float]) -> dict[str, bool]:
    """Return how a reading is classified; ``truth_of`` returns the true joules between two times."""
    if reading.joules is None:
        return {"covered": False, "refused": True, "flagged": False, "silent_wrong": False}
    assert reading.interval is not None
    assert reading.seconds is not None
    begin_s = float(reading.conditions.get("begin_s", BEFORE_S))  # type: ignore[arg-type]
    truth = truth_of(begin_s, begin_s + reading.seconds)
    covered = reading.interval[0] <= truth <= reading.interval[1]
    flagged = any(flag != trace.SHORT_WINDOW and "of every" not in flag for flag in reading.flags)
    return {
        "covered": covered,
        "refused": False,
        "flagged": flagged,
        "silent_wrong": not covered and not flagged,
    }


def counter_trial(
    rng: Rng, fault: Change | None = None, *, stall_s: float = 0.0, lag_s: float = 0.0
) -> dict[str, bool]:
    """Simulate a window of a GPU with an energy counter and a power sensor."""
    sensors, times = gpu(rng, lag_s=lag_s and lag_s * rng.uniform(0.5, 1.0)), reads(rng, stall_s=stall_s)
    counter, power = sensors.counter_j(times), sensors.power_w(times)
    if fault is not None:
        counter = fault(rng, times, counter)
    samples = [Sample(t - 2e-4, t, c, w) for t, c, w in zip(times, counter, power, strict=True)]
    reading = trace.counter_reading(samples, sensors.power, tick_s=sensors.tick_s, gain=GAIN, limit_w=LIMIT_W)
    return outcome(_begun(reading, samples), lambda begin, end: float(sensors.load.joules(begin, end)))


def power_trial(rng: Rng, fault: Change | None = None, *, lag_s: float = 0.0) -> dict[str, bool]:
    """Simulate a window of a GPU that shows power only."""
    sensors, times = gpu(rng, lag_s=lag_s * rng.uniform(0.5, 1.0)), reads(rng)
    power = sensors.power_w(times)
    if fault is not None:
        power = fault(rng, times, power)
    samples = [Sample(t - 2e-4, t, None, w) for t, w in zip(times, power, strict=True)]
    reading = trace.power_reading(samples, sensors.power, gain=GAIN, limit_w=LIMIT_W)
    return outcome(_begun(reading, samples), lambda begin, end: float(sensors.load.joules(begin, end)))


def _begun(reading: Reading, samples: list[Sample]) -> Reading:
    offset_s = reading.conditions.get("offset_s")
    if isinstance(offset_s, float):
        reading.conditions["begin_s"] = samples[0].before_s + offset_s  # type: ignore[index]
    return reading


RANGE_UJ = 65_532_610_987
Step = Callable[[Rng, int, list[int]], list[int]]
"""A fault of RAPL: random numbers, number of the read, healthy values -> what the counters show."""


def rapl_trial(rng: Rng, fault: Step | None = None, *, mirrored: bool = False) -> dict[str, bool]:
    """Simulate a window of two packages, or of two dies of one, in a powercap tree."""
    with tempfile.TemporaryDirectory() as folder:
        root, clock_s = Path(folder), [BEFORE_S]
        names = ["package-0-die-0", "package-0-die-1"] if mirrored else ["package-0", "package-1"]
        loads = [load(rng)] * 2 if mirrored else [load(rng), load(rng)]
        start_uj = [int(rng.uniform(0.05, 0.9) * RANGE_UJ)] * 2
        if not mirrored:
            start_uj = [int(rng.uniform(0.05, 1.0) * RANGE_UJ) for _ in names]
        for number, name in enumerate(names):
            (root / f"intel-rapl:{number}").mkdir()
            (root / f"intel-rapl:{number}" / "name").write_text(name)
            (root / f"intel-rapl:{number}" / "max_energy_range_uj").write_text(str(RANGE_UJ))
            (root / f"intel-rapl:{number}" / "constraint_0_power_limit_uw").write_text("400000000")

        def show(number: int) -> None:
            values = [
                int(start + 1e6 * float(of.joules(BEFORE_S, clock_s[0]))) % RANGE_UJ
                for start, of in zip(start_uj, loads, strict=True)
            ]
            for index, value in enumerate(values if fault is None else fault(rng, number, values)):
                (root / f"intel-rapl:{index}" / "energy_uj").write_text(str(value))

        def sleep(seconds: float) -> None:
            clock_s[0] += seconds
            show(0)

        show(0)
        meter = rapl.open(root=root, clock=Clock(lambda: clock_s[0], sleep), threaded=False)
        begin_s = clock_s[0]
        meter.start()
        number = 0
        while clock_s[0] < begin_s + WINDOW_S:
            number += 1
            clock_s[0] += 0.1 + float(rng.exponential(0.003))
            show(number)
            meter.sampler.sample()
        reading = meter.stop(0.0)
    counted = loads[:1] if mirrored else loads
    reading.conditions["begin_s"] = begin_s  # type: ignore[index]
    return outcome(reading, lambda begin, end: sum(float(of.joules(begin, end)) for of in counted))


def from_read(
    change: Callable[[Rng, int], int], read: int = 50, *, once: bool = False, still: bool = False
) -> Step:
    """Return a fault of the first counter that begins with a read of the window."""
    memory: list[int] = []

    def fault(rng: Rng, number: int, values: list[int]) -> list[int]:
        if number < read or (once and number > read):
            return values
        if still:
            memory.extend(values[:1] if not memory else [])
            return [memory[0], *values[1:]]
        return [change(rng, values[0]) % RANGE_UJ, *values[1:]]

    return fault


def jump(values: np.ndarray, after: np.ndarray, by: float) -> np.ndarray:
    """Return values that are higher from some read on."""
    return np.where(after, values + by, values)


CASES: dict[str, Callable[[Rng], dict[str, bool]]] = {
    "counter, healthy": counter_trial,
    "counter, reader stalls for 1 to 3 s": lambda rng: counter_trial(rng, stall_s=float(rng.uniform(1, 3))),
    "counter, stuck": lambda rng: counter_trial(
        rng, lambda r, t, v: np.minimum(v, v[np.argmax(at_random(r, t))])
    ),
    "counter, reset": lambda rng: counter_trial(
        rng, lambda r, t, v: np.where(after := at_random(r, t), v - v[np.argmax(after)], v)
    ),
    "counter, backwards": lambda rng: counter_trial(
        rng, lambda r, t, v: jump(v, at_random(r, t), -float(r.uniform(30, 1000)))
    ),
    "counter, jump": lambda rng: counter_trial(
        rng, lambda r, t, v: jump(v, at_random(r, t), float(r.uniform(300, 5000)))
    ),
    "counter, 1000 times too much": lambda rng: counter_trial(rng, lambda r, t, v: 1000 * v),
    "counter, 1000 times too little": lambda rng: counter_trial(rng, lambda r, t, v: v / 1000),
    "power, healthy": power_trial,
    "power, late by 0.5 to 1 s": lambda rng: power_trial(rng, lag_s=1.0),
    "power, late by 1 to 2 s": lambda rng: power_trial(rng, lag_s=2.0),
    "power, frozen throughout": lambda rng: power_trial(rng, lambda r, t, v: np.full_like(v, v[0])),
    "power, frozen from a time on": lambda rng: power_trial(
        rng, lambda r, t, v: np.where(after := at_random(r, t), v[np.argmax(after)], v)
    ),
    "power, zeros": lambda rng: power_trial(rng, lambda r, t, v: np.where(r.random(len(v)) < 0.2, 0.0, v)),
    "power, above the limit": lambda rng: power_trial(
        rng, lambda r, t, v: np.where(r.random(len(v)) < 0.2, 5 * LIMIT_W, v)
    ),
    "RAPL, healthy": rapl_trial,
    "RAPL, dies mirror one counter": lambda rng: rapl_trial(rng, mirrored=True),
    "RAPL, reset": lambda rng: rapl_trial(rng, _reset(int(rng.integers(20, 80)))),
    "RAPL, jump": lambda rng: rapl_trial(
        rng, from_read(lambda r, v: v + int(rng.uniform(2e8, 5e9)), int(rng.integers(20, 80)))
    ),
    "RAPL, backwards": lambda rng: rapl_trial(
        rng, from_read(lambda r, v: v - int(rng.uniform(5e7, 5e9)), int(rng.integers(20, 80)), once=True)
    ),
    "RAPL, a package is stuck": lambda rng: rapl_trial(
        rng, from_read(lambda r, v: v, int(rng.integers(1, 80)), still=True)
    ),
    "counter, power late by 1 to 2 s": lambda rng: counter_trial(rng, lag_s=2.0),
}


def _reset(read: int) -> Step:
    base: list[int] = []

    def fault(rng: Rng, number: int, values: list[int]) -> list[int]:
        if number < read:
            return values
        base.extend(values[:1] if not base else [])
        return [(values[0] - base[0]) % RANGE_UJ, *values[1:]]

    return fault


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--trials", type=int, default=240, help="per case; RAPL: a quarter")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", default="", help="cases whose name contains this")
    arguments = parser.parse_args()
    result = {}
    for number, (name, trial) in enumerate(CASES.items()):
        if arguments.only not in name:
            continue
        trials = arguments.trials if not name.startswith("RAPL") else max(1, arguments.trials // 4)
        rng = np.random.default_rng([arguments.seed, number])
        seen = [trial(rng) for _ in range(trials)]
        shares = {key: round(100 * float(np.mean([one[key] for one in seen])), 1) for key in seen[0]}
        result[name] = {"trials": trials, **shares}
        print(f"{name}: {result[name]}", file=sys.stderr)
    header = {
        "command": " ".join(["python", "benchmarks/meters.py", *sys.argv[1:]]),
        "date": now(),
        "host": identity.host().to_json(),
        "versions": {"effx": version("effx"), "numpy": version("numpy")},
    }
    print(json.dumps({**header, "percent": result}, indent=1))


if __name__ == "__main__":
    main()

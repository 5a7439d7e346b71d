"""Measure windows with the NVML meter on the fake library, in a separate process; print them as JSON."""

from __future__ import annotations

import json
import os
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import asdict
from typing import Any

import numpy as np

from effx import meters
from effx.host.sensors import UnavailableError
from effx.meters import nvml
from effx.meters.protocol import Reading
from effx.meters.sampler import Clock
from effx.meters.trace import GAIN
from tests.meters.fake import Fake

UUIDS = ("GPU-aaaaaaaa-0000-1111-2222-333333333333", "GPU-bbbbbbbb-0000-1111-2222-333333333333")
WINDOW_S = 10.0


def refusal(action: Callable[[], Any]) -> str:
    try:
        action()
    except UnavailableError as error:
        return str(error)
    return "none"


def plain(fake: Fake) -> dict[str, Any]:
    meter = fake.open()
    reading, truth = fake.window(meter, WINDOW_S)
    return {
        "describe": meter.describe(),
        "reading": asdict(reading),
        "truth": truth,
        "source": meter.source,
        "floor_w": meter.floor_w,
        "limit_w": meter.limit_w,
        "lag_s": meter.lag_s,
        "short": asdict(fake.window(meter, 2.0)[0]),
    }


def threaded(fake: Fake) -> dict[str, Any]:
    """The meter's thread, on a clock that follows the real one."""
    fake.call("set_latency", 0.0)
    fake.call("set_counter", 0.02, 0.0, 1.0)
    began = time.monotonic()

    def pass_time(seconds: float) -> None:
        until = time.monotonic() + seconds
        while time.monotonic() < until:
            fake.call("set_time", time.monotonic() - began)
            time.sleep(0.001)

    meter = nvml.open(environ={}, clock=Clock(fake.now, pass_time))
    readings = []
    for _ in range(2):
        meter.start()
        pass_time(0.8)
        readings.append(asdict(meter.stop(0.0)))
    meter.start()  # left open: closing ends the thread
    meter.close()
    left = [thread.name for thread in threading.enumerate() if thread.name == "effx-meter"]
    return {"readings": readings, "left": left}


def faults(fake: Fake) -> dict[str, Any]:
    result: dict[str, Any] = {}
    for mode in ("lost", "unsupported", "forbidden", "stuck", "reset", "backwards"):
        fake.reset()
        meter = fake.open()
        fake.window(meter, 1.0)
        fake.mode(mode, fake.now() + 5.0)
        result[mode] = asdict(fake.window(meter, WINDOW_S)[0])
        result[mode]["uuid"] = meter.describe()["uuid"]
    fake.reset()
    meter = fake.open()
    fake.mode("stuck", fake.now())
    result["stuck throughout"] = asdict(fake.window(meter, WINDOW_S)[0])
    fake.mode("ok")
    result["after"] = asdict(fake.window(meter, WINDOW_S)[0])  # a failed window does not affect the next
    return result


def marks(fake: Fake) -> dict[str, Any]:
    result: dict[str, Any] = {}
    worker_pid, stranger, hidden = 1111111, os.getppid(), 2222222
    meter = fake.open(workers=[worker_pid])
    fake.processes(worker_pid)
    result["workers"] = fake.window(meter, WINDOW_S)[0].flags
    seen = fake.window(meter, WINDOW_S)[0]
    fake.processes()
    unseen = fake.window(meter, WINDOW_S)[0]
    result["unchecked"] = [seen.unchecked, unseen.unchecked, unseen.flags]
    fake.processes(worker_pid, 4242)
    result["foreign"] = fake.window(meter, WINDOW_S)[0].flags
    fake.processes(stranger)
    result["visible"] = fake.window(meter, WINDOW_S)[0].flags
    result["stranger"] = stranger
    fake.processes(hidden)
    result["hidden"] = fake.window(meter, WINDOW_S)[0].flags
    fake.processes(worker_pid)
    fake.call("set_graphics", 4343)
    result["graphics"] = fake.window(meter, WINDOW_S)[0].flags
    fake.call("set_graphics", 0)
    fake.processes()
    fake.mode("throttled", fake.now() + 4.0)
    result["throttled"] = fake.window(meter, WINDOW_S)[0].flags
    fake.reset()
    fake.call("set_capability", 8, 0)
    fake.call("set_power", 0.025, 0.1, 0.0, 2)
    pulses(fake, 0.1, 0.25, 0.07, 30.0)  # in step with the sensor
    result["suspect"] = asdict(fake.window(fake.open(), WINDOW_S)[0])
    fake.reset()
    fake.processes(4242)
    result["busy floor"] = fake.open().floor_w
    return result


def devices(fake: Fake) -> dict[str, Any]:
    def uuid(argument: str = "", **environ: str) -> str:
        return str(fake.open(argument, environ).describe()["uuid"])

    result: dict[str, Any] = {
        "default": uuid(),
        "index": uuid("1"),
        "uuid": uuid(UUIDS[1]),
        "beginning": uuid("GPU-bbbb"),
        "bus": uuid("0000:41:00.0"),
        "long bus": uuid("00000000:41:00.0"),
        "cuda index": uuid(CUDA_VISIBLE_DEVICES="1,0"),
        "cuda uuid": uuid(CUDA_VISIBLE_DEVICES=UUIDS[1]),
        "cuda beginning": uuid(CUDA_VISIBLE_DEVICES="GPU-bb"),
    }
    for key, argument, environ in (
        ("cuda none", "", {"CUDA_VISIBLE_DEVICES": "-1"}),
        ("cuda empty", "", {"CUDA_VISIBLE_DEVICES": ""}),
        ("cuda MIG", "", {"CUDA_VISIBLE_DEVICES": "MIG-cccccccc-0000-1111-2222-333333333333"}),
        ("MIG", "MIG-cccccccc-0000-1111-2222-333333333333", {}),
        ("unknown", "GPU-cccc", {}),
        ("ambiguous", "GPU-", {}),
        ("index 7", "7", {}),
        ("cuda index 7", "", {"CUDA_VISIBLE_DEVICES": "7"}),
    ):
        result[key] = refusal(lambda argument=argument, environ=environ: fake.open(argument, environ))
    fake.name(1, "Fake L4")
    result["two kinds"] = refusal(lambda: fake.open("", {"CUDA_VISIBLE_DEVICES": "1"}))
    result["two kinds, ordered"] = uuid(CUDA_VISIBLE_DEVICES="1", CUDA_DEVICE_ORDER="PCI_BUS_ID")
    fake.name(1, "Fake H200")
    for mode in ("mig", "vgpu"):
        fake.mode(mode)
        result[mode] = refusal(fake.open)
    auto = meters.open("auto", "cuda")
    result["auto in vGPU"] = [auto.source, auto.reason]
    fake.mode("ok")
    auto = meters.open("auto", "cuda")
    result["auto"] = [auto.name, auto.source, auto.describe()["chosen_because"]]
    auto.close()
    return result


def pulses(fake: Fake, every_s: float, duty: float, phase_s: float, length_s: float) -> None:
    """300 W for ``duty`` of every period, else 100 W."""
    starts = phase_s + every_s * np.arange(int(length_s / every_s))
    times = np.stack([starts, starts + duty * every_s], axis=1).ravel()
    fake.trace([0.0, *times], [100.0, *([300.0, 100.0] * len(starts))])


def wandering(fake: Fake, rng: np.random.Generator, length_s: float) -> None:
    """The same repetitions, asynchronous: a random gap after each."""
    times, watts = [0.0], [100.0]
    at = 0.0
    while at < length_s:
        times += [at + 1e-6, at + 0.025]
        watts += [300.0, 100.0]
        at += 0.1 + rng.uniform(0.0, 0.1)
    fake.trace(times, watts)


def windows_of_power(fake: Fake) -> dict[str, Any]:
    """Pulses measured by a sensor that covers 25 of every 100 ms, without a counter."""
    rng = np.random.default_rng(0)
    naive = []
    for phase_s in (0.0, 0.03, 0.075):
        fake.reset()
        part_time(fake)
        pulses(fake, 0.1, 0.25, phase_s, 20.0)
        fake.advance(2.0)
        begin = fake.now()
        shown = []
        for _ in range(300):
            shown.append(fake_power(fake))
            fake.advance(0.01)
        naive.append(float(np.mean(shown)) * (fake.now() - begin) / fake.joules(begin, fake.now()) - 1)
    trials = []
    for _ in range(20):  # each: eight windows of at least 50 repetitions
        fake.reset()
        part_time(fake)
        wandering(fake, rng, 110.0)
        meter = fake.open()
        windows = [fake.window(meter, WINDOW_S, rng) for _ in range(8)]
        trials.append(
            {
                "error": sum(r.joules or 0.0 for r, _ in windows) / sum(truth for _, truth in windows) - 1,
                "covered": [inside(reading, truth) for reading, truth in windows],
                "flags": windows[0][0].flags,
                "source": meter.source,
            }
        )
    return {"naive": naive, "trials": trials, "average": slow_average(fake)}


def slow_average(fake: Fake) -> dict[str, float]:
    """A sensor that averages over 1 s, on a load that begins with the window and falls in its last second."""
    result = {}
    for name, watts, falls_s in (("steady", 400.0, WINDOW_S), ("falling", 100.0, WINDOW_S - 0.5)):
        fake.reset()
        fake.mode("no-counter")
        meter = fake.open()
        begin = fake.now()
        noise = [0.5, -0.3, 0.1] * 40  # a sensor that never changes is stuck
        times = [begin + 0.1 * number for number in range(120)]
        loads = [400.0 if time < begin + falls_s else watts for time in times]
        fake.trace([0.0, *times], [60.0, *(load + off for load, off in zip(loads, noise, strict=True))])
        reading, truth = fake.window(meter, WINDOW_S)
        assert reading.joules is not None
        result[name] = reading.joules / truth - 1
    fake.reset()
    fake.trace([0.0, 5.0], [60.0, 400.0])
    fake.advance(5.0)
    shown = []
    for _ in range(300):
        shown.append(fake_power(fake, average=True))
        fake.advance(0.0098)
    result["naive"] = float(np.mean(shown)) * (fake.now() - 5.0) / fake.joules(5.0, fake.now()) - 1
    return result


def part_time(fake: Fake) -> None:
    fake.call("set_capability", 8, 0)
    fake.call("set_power", 0.025, 0.1, 0.0, 2)
    fake.mode("no-counter")


def fake_power(fake: Fake, average: bool = False) -> float:
    import pynvml

    pynvml.nvmlInit()
    handle = pynvml.nvmlDeviceGetHandleByIndex(0)
    if average:
        (value,) = pynvml.nvmlDeviceGetFieldValues(handle, [pynvml.NVML_FI_DEV_POWER_AVERAGE])
        return float(value.value.uiVal) * 1e-3
    return float(pynvml.nvmlDeviceGetPowerUsage(handle)) * 1e-3


def coverage(fake: Fake) -> dict[str, Any]:
    """Random loads, counters and pollings at the default window."""
    rng = np.random.default_rng(1)
    result = []
    for number in range(240):
        fake.reset()
        # every second trial at the edge of the tolerance, where it cannot compensate other errors
        gain = float(rng.choice([0.95, 1.05]) if number % 8 < 4 else rng.uniform(0.95, 1.05))
        tick_s = rng.uniform(0.010, 0.100)
        fake.call("set_counter", float(tick_s), float(rng.uniform(0, tick_s)), gain)
        fake.call("set_power", 0.025, 0.1, float(rng.uniform(0, 0.1)), int(rng.integers(1, 4)))
        fake.call("set_latency", float(rng.uniform(0.0001, 0.002)))
        fake.call("set_lag", float(rng.choice([0.0, 1.0])))
        shape = ("step", "sine", "pulse", "duty")[number % 4]
        random_load(fake, shape, rng)
        fake.advance(rng.uniform(0, 1))
        meter = fake.open()
        reading, truth = fake.window(meter, WINDOW_S, rng)
        assert reading.joules is not None, reading.reason
        assert reading.interval is not None
        assert reading.integrated_joules is not None
        low, high = reading.interval
        tick_measured = meter.describe()["tick_s"]
        result.append(
            {
                "shape": shape,
                "covered": low <= truth <= high,
                # the part of the interval that is not the sensor's tolerance must do without it;
                # the integral widens one side at most
                "aligned": abs(reading.joules - gain * truth)
                <= min(high * (1 - GAIN) - reading.joules, reading.joules - low * (1 + GAIN)),
                "half_width": (high - low) / 2 / truth,
                "error": reading.joules / gain / truth - 1,
                "integral": reading.integrated_joules / gain / truth - 1,
                "suspect": any("suspect" in flag for flag in reading.flags),
                "tick": tick_measured / tick_s - 1,
            }
        )
        meter.close()
    return {"windows": result}


def random_load(fake: Fake, shape: str, rng: np.random.Generator) -> None:
    base, height = rng.uniform(60, 200), rng.uniform(50, 450)
    grid = np.arange(0.0, 16.0, 0.002)
    if shape == "step":
        times = np.concatenate([[0.0], np.sort(rng.uniform(0, 14, rng.integers(1, 8)))])
        return fake.trace(times.tolist(), (base + rng.uniform(0, height, len(times))).tolist())
    if shape == "sine":
        wave = (1 + np.sin(2 * np.pi * grid / rng.uniform(0.02, 8.0) + rng.uniform(0, 6))) / 2
    elif shape == "pulse":  # short and rare, at random
        wave = np.zeros_like(grid)
        for at in rng.uniform(0, 16, rng.integers(5, 80)):
            wave[(grid >= at) & (grid < at + rng.uniform(0.005, 0.3))] = 1
    else:
        wave = ((grid / rng.uniform(0.01, 2.0)) % 1 < rng.uniform(0.1, 0.9)).astype(float)
    return fake.trace(grid.tolist(), (base + height * wave).tolist())


def inside(reading: Reading, truth: float) -> bool:
    assert reading.interval is not None
    return reading.interval[0] <= truth <= reading.interval[1]


SCENES = (plain, threaded, faults, marks, devices, windows_of_power, coverage)


def main() -> None:
    fake = Fake()
    result = {}
    for scene in SCENES:
        fake.reset()
        result[scene.__name__] = scene(fake)
    json.dump(result, sys.stdout)


if __name__ == "__main__":
    main()

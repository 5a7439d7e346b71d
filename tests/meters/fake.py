"""Builds the fake NVML and drives it; to be used in a process that was started with ``environment``."""

from __future__ import annotations

import ctypes
import os
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from effx.meters import nvml
from effx.meters.nvml import NvmlMeter
from effx.meters.protocol import Reading
from effx.meters.sampler import Clock

SOURCE = Path(__file__).with_name("fake_nvml.c")
MODES = ("ok", "lost", "unsupported", "forbidden", "stuck", "reset", "backwards", "throttled", "mig", "vgpu",
         "no-counter")  # fmt: skip


def build(folder: Path) -> Path | None:
    """Compile libnvidia-ml.so.1 into the folder; None: there is no compiler."""
    compiler = shutil.which("cc")
    if compiler is None:
        return None
    library = folder / "libnvidia-ml.so.1"
    flags = ["-shared", "-fPIC", "-O2", "-Wall", "-Werror"]
    subprocess.run([compiler, *flags, str(SOURCE), "-o", str(library), "-lm"], check=True)
    return library


def environment(library: Path) -> dict[str, str]:
    remaining = {key: value for key, value in os.environ.items() if not key.startswith("CUDA_")}
    return {**remaining, "LD_LIBRARY_PATH": str(library.parent)}


class Fake:
    """The fake library, which pynvml loads too, and its virtual clock."""

    def __init__(self) -> None:
        self.library = ctypes.CDLL("libnvidia-ml.so.1")
        self.library.fake_time.restype = ctypes.c_double
        self.library.fake_joules.restype = ctypes.c_double
        self.clock = Clock(self.library.fake_time, self.advance)
        self.reset()

    def reset(self) -> None:
        """Set the clock to 0 and everything to a healthy H200 at 300 W."""
        self.call("set_time", 0.0)
        self.call("set_latency", 0.0002)
        self.call("set_counter", 0.1, 0.0, 1.0)
        self.call("set_lag", 0.0)
        self.call("set_power", 0.025, 0.1, 0.0, 3)
        self.call("set_capability", 9, 0)
        self.mode("ok")
        self.processes()
        self.call("set_graphics", 0)
        self.trace([0.0], [300.0])

    def call(self, name: str, *values: float) -> None:
        kinds = {int: ctypes.c_int, float: ctypes.c_double}
        getattr(self.library, f"fake_{name}")(*(kinds[type(value)](value) for value in values))

    def trace(self, times_s: Sequence[float], watts: Sequence[float]) -> None:
        """Set the power from each time until the next."""
        count = len(times_s)
        array = ctypes.c_double * count
        self.library.fake_set_trace(count, array(*times_s), array(*watts))

    def mode(self, name: str, at_s: float = 0.0) -> None:
        self.call("set_mode", MODES.index(name), at_s)

    def processes(self, *pids: int) -> None:
        self.library.fake_set_processes(len(pids), (ctypes.c_uint * 8)(*pids))

    def name(self, index: int, name: str) -> None:
        self.library.fake_set_name(index, name.encode())

    def advance(self, seconds: float) -> None:
        self.call("advance", float(seconds))

    def now(self) -> float:
        return float(self.library.fake_time())

    def joules(self, begin_s: float, end_s: float) -> float:
        """Return the true energy between two times."""
        return float(self.library.fake_joules(ctypes.c_double(begin_s), ctypes.c_double(end_s)))

    def open(
        self, argument: str = "", environ: dict[str, str] | None = None, workers: Sequence[int] = ()
    ) -> NvmlMeter:
        return nvml.open(
            argument,
            environ=environ or {},
            worker_pids=lambda: set(workers),
            clock=self.clock,
            threaded=False,
        )

    def window(
        self, meter: NvmlMeter, seconds: float, rng: np.random.Generator | None = None
    ) -> tuple[Reading, float]:
        """Run a window, read about every 10 ms; return its reading and the true joules of its duration."""
        begin = self.now()
        meter.start()
        while self.now() < begin + seconds:
            late = 0.0 if rng is None else rng.exponential(0.003) + (rng.random() < 0.01) * 0.05
            self.advance(0.01 + late)
            meter.sampler.sample()
        reading = meter.stop(0.0)
        if reading.seconds is None:
            return reading, self.joules(begin, self.now())
        offset = begin + reading.conditions["offset_s"]
        return reading, self.joules(offset, offset + reading.seconds)

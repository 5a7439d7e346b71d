"""GPU energy by NVML: the energy counter, and the integral of sampled power.

nvmlDeviceGetTotalEnergyConsumption counts millijoules since the driver was loaded (Volta and newer)
and ticks every 10 to 100 ms. While a window is open, a thread reads counter and power about every
10 ms, and the state of the device every half second; :mod:`effx.meters.trace` computes the
reading. For a GPU without the counter, only power is read, and the source is ``integrated``.

The reads take a few percent of one core. No setting of the device is changed.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

from effx.host import gpus
from effx.host.sensors import Sensor, UnavailableError
from effx.meters import trace
from effx.meters.protocol import Period, Reading
from effx.meters.sampler import Clock, Sampler, measure_tick
from effx.meters.trace import Sample
from effx.results import Facts
from effx.specs.meters import EnergySource

_PERIOD_S = 0.010
_CONDITION_PERIOD_S = 0.5
_TICK_LIMIT_S = 1.0


class NvmlMeter:
    """Counter and power of one GPU."""

    name = "nvml"
    reason: str | None = None
    chosen_because = "opened directly"

    def __init__(
        self,
        nvml: Any,
        handle: Any,
        *,
        worker_pids: Callable[[], set[int]] | None = None,
        clock: Clock | None = None,
        period_s: float = _PERIOD_S,
        threaded: bool = True,
    ) -> None:
        self._nvml, self._handle = nvml, handle
        self._worker_pids = worker_pids
        self._clock = clock or Clock()
        self._identity = gpus.describe(nvml, handle)  # now, because a lost GPU cannot be read
        power = gpus.power_reader(nvml, handle)
        self._sensor: Sensor | None = None if power is None else power[0]
        self._read_w = None if power is None else power[1]
        self.source: EnergySource = "counter" if self._has_counter() else "integrated"
        if self.source == "integrated" and self._sensor is None:
            raise UnavailableError("this GPU reports neither energy nor power")
        self._power_limit_w = gpus.limit_w(nvml, handle)
        self._tick_s: float | None = None
        if self.source == "counter":
            self._tick_s = measure_tick(self._counter_j, self._clock, every_s=0.002, limit_s=_TICK_LIMIT_S)
        self._idle_w = self._idle()
        self.sampler = Sampler(self._sample, period_s, threaded=threaded)
        self._conditions: list[gpus.Condition] = []
        self._condition_due_s = 0.0
        self._closed = False

    @property
    def floor_w(self) -> float | None:
        """The idle power at opening, minus the sensor's tolerance; None if a process was on the device."""
        return None if self._idle_w is None else self._idle_w * (1 - 2 * trace.GAIN)

    @property
    def limit_w(self) -> float | None:
        """The enforced power limit, plus the sensor's tolerance."""
        return None if self._power_limit_w is None else self._power_limit_w * (1 + trace.GAIN)

    @property
    def lag_s(self) -> float:
        """The delay of the power sensor, and the time over which it averages."""
        return 0.0 if self._sensor is None else self._sensor.lag_s + self._sensor.window_s

    def describe(self) -> Facts:
        sensor = self._sensor
        return {
            **self._identity,
            "domains": ["GPU board"],
            "energy_by": "nvmlDeviceGetTotalEnergyConsumption" if self.source == "counter" else None,
            "power_by": None if sensor is None else sensor.name,
            "power_window_s": None if sensor is None else sensor.window_s,
            "power_period_s": None if sensor is None else sensor.period_s,
            "tick_s": self._tick_s,
            "period_s": self.sampler.period_s,
            "power_limit_w": self._power_limit_w,
            "idle_w": self._idle_w,
            "gain_tolerance": trace.GAIN,
            "chosen_because": self.chosen_because,
        }

    def start(self) -> None:
        self.sampler.halt()
        self._conditions, self._condition_due_s = [], self._clock.now()
        self.sampler.start()

    def stop(self, cpu_s: float, during: Period | None = None) -> Reading:
        self.sampler.halt()
        self._condition_due_s = self._clock.now()  # so that the last read includes the conditions
        samples, error = self.sampler.stop()
        if isinstance(error, self._nvml.NVMLError):
            return Reading(None, self._fault(error))
        if error is not None:
            raise error
        if self.source == "counter":
            reading = trace.counter_reading(
                samples,
                self._sensor,
                tick_s=self._tick_s,
                gain=trace.GAIN,
                limit_w=self._power_limit_w,
                during=during,
            )
        else:
            assert self._sensor is not None
            reading = trace.power_reading(
                samples, self._sensor, gain=trace.GAIN, limit_w=self._power_limit_w, during=during
            )
        flags = tuple(f"{trace.THROTTLED}: {name}" for name in gpus.throttles(self._conditions))
        unchecked: tuple[str, ...] = ()
        if self._worker_pids is not None:
            workers = self._worker_pids()
            flags += gpus.foreign_processes(self._conditions, workers)
            unchecked = gpus.unseen_processes(self._conditions, workers)
        conditions = {**reading.conditions, **gpus.summary(self._conditions)}
        return replace(reading, flags=reading.flags + flags, unchecked=unchecked, conditions=conditions)

    def close(self) -> None:
        self.sampler.halt()
        if not self._closed:
            self._closed = True
            self._nvml.nvmlShutdown()

    def _sample(self) -> Sample:
        before_s = self._clock.now()
        counter_j = self._counter_j() if self.source == "counter" else None
        after_s = self._clock.now()
        power_w = None if self._read_w is None else self._read_w()
        if after_s >= self._condition_due_s:
            self._conditions.append(gpus.condition(self._nvml, self._handle))
            self._condition_due_s = after_s + _CONDITION_PERIOD_S
        return Sample(before_s, after_s, counter_j, power_w)

    def _counter_j(self) -> float:
        return float(self._nvml.nvmlDeviceGetTotalEnergyConsumption(self._handle)) * 1e-3

    def _has_counter(self) -> bool:
        try:
            self._counter_j()
        except self._nvml.NVMLError_NotSupported:
            return False
        return True

    def _idle(self) -> float | None:
        """Return the minimum power over 0.2 s, in watts; None if a process is on the device."""
        if self._read_w is None or gpus.condition(self._nvml, self._handle).pids:
            return None
        watts = [self._read_w()]
        for _ in range(10):
            self._clock.sleep(0.02)
            watts.append(self._read_w())
        return min(watts)

    def _fault(self, error: Exception) -> str:
        if isinstance(error, self._nvml.NVMLError_GpuIsLost):
            return "the GPU was lost in the window (fell off the bus); see dmesg, then restart the host"
        if isinstance(error, self._nvml.NVMLError_NoPermission):
            return "no permission to read the GPU in the window (NVML: no permission)"
        if isinstance(error, self._nvml.NVMLError_NotSupported):
            return "the GPU stopped reporting energy in the window (NVML: not supported)"
        return f"the GPU could not be read in the window: {error}"


def open(
    argument: str = "",
    *,
    worker_pids: Callable[[], set[int]] | None = None,
    environ: Mapping[str, str] | None = None,
    clock: Clock | None = None,
    threaded: bool = True,
) -> NvmlMeter:
    """Open a GPU's meter.

    Args:
        argument: index in PCI bus order (as nvidia-smi counts), ``GPU-`` UUID or its beginning, PCI
            bus id; empty: the first entry of CUDA_VISIBLE_DEVICES, or the first GPU.
        worker_pids: process ids of the workers, called at the end of a window; a window with other
            processes on the device is flagged. None: windows are not flagged.
        environ: environment with CUDA_VISIBLE_DEVICES; default: that of this process.
        clock: the clock; virtual in tests.
        threaded: False: the caller calls ``sampler.sample``.

    Raises:
        UnavailableError: no driver, no GPU, a slice of a GPU, or a GPU that reports no energy.
    """
    try:
        import pynvml
    except ImportError as error:
        raise UnavailableError("nvidia-ml-py is not installed. Run: pip install 'effx[nvml]'") from error
    try:
        pynvml.nvmlInit()
    except pynvml.NVMLError as error:
        raise UnavailableError(f"no NVIDIA driver ({error})") from error
    try:
        handle = gpus.find(pynvml, argument, os.environ if environ is None else environ)
        gpus.refuse_slices(pynvml, handle)
        return NvmlMeter(pynvml, handle, worker_pids=worker_pids, clock=clock, threaded=threaded)
    except (pynvml.NVMLError, UnavailableError) as error:
        pynvml.nvmlShutdown()
        if isinstance(error, UnavailableError):
            raise
        raise UnavailableError(
            f"no readable NVIDIA GPU{' ' if argument else ''}{argument} ({error})"
        ) from error

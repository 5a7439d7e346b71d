"""GPU energy by NVML's counter (millijoules since the driver was loaded; Volta and newer)."""

from __future__ import annotations

from typing import Any

from effx.profile.meters.protocol import Reading, UnavailableError
from effx.results import EnergySource


class NvmlMeter:
    """The total-energy counter of one GPU."""

    name = "nvml"
    source: EnergySource = "counter"
    reason: str | None = None

    def __init__(self, nvml: Any, handle: Any) -> None:
        self._nvml, self._handle = nvml, handle
        self._first_mj = 0

    def start(self) -> None:
        self._first_mj = self._read()

    def stop(self, cpu_s: float) -> Reading:
        try:
            spent_mj = self._read() - self._first_mj
        except self._nvml.NVMLError as error:
            return Reading(None, f"the counter could not be read: {error}")
        if spent_mj < 0:
            return Reading(None, "the counter ran backwards (driver reloaded?)")
        return Reading(spent_mj * 1e-3)

    def _read(self) -> int:
        return int(self._nvml.nvmlDeviceGetTotalEnergyConsumption(self._handle))


def open(argument: str = "") -> NvmlMeter:
    """Open the counter of a GPU: ``nvml`` is the first, ``nvml:UUID`` the one of that UUID.

    Raises:
        UnavailableError: no driver, no GPU, or a GPU without the counter.
    """
    try:
        import pynvml
    except ImportError as error:
        raise UnavailableError("nvidia-ml-py is not installed. Run: pip install 'effx[nvml]'") from error
    try:
        pynvml.nvmlInit()
        handle = (
            pynvml.nvmlDeviceGetHandleByUUID(argument) if argument else pynvml.nvmlDeviceGetHandleByIndex(0)
        )
        meter = NvmlMeter(pynvml, handle)
        meter.start()
    except pynvml.NVMLError as error:
        raise UnavailableError(f"no readable NVIDIA GPU ({error})") from error
    return meter

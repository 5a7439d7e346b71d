"""The most GPU memory that this process has held.

NVML tells it per process. Where it does not (containers see other process numbers, some drivers
tell nothing), it is how much the whole device's use grew while this process was at work: workers
take turns, so what grows meanwhile is this one's, unless a stranger is on the device.
"""

from __future__ import annotations

import os
from typing import Any


class DeviceMemory:
    """Watches one process on the GPU that the energy meter would take."""

    def __init__(self, device: str) -> None:
        """Open NVML; ``device`` is what the engine runs on."""
        self.peak_bytes: int | None = None
        self.by: str | None = None
        self.reason: str | None = None
        self._grown = 0
        self._before = 0
        self._nvml: Any = None
        if device == "cpu":
            self.reason = "the engine runs on the CPU"
            return
        try:
            import pynvml

            from effx.host import gpus

            pynvml.nvmlInit()
            self._handle = gpus.find(pynvml, "", os.environ)
            self._nvml = pynvml
        except Exception as error:  # no package, no driver, no device, or one that is hidden
            self.reason = f"NVML cannot be read ({type(error).__name__}: {error})"

    def begin(self) -> None:
        """Note what is in use before this process works."""
        if self._nvml is not None:
            self._before = self._used()

    def end(self) -> None:
        """Note what is in use after it has worked: what was freed in between is not seen."""
        if self._nvml is None:
            return
        own = self._own()
        if own is None:
            self._grown += self._used() - self._before
            own, self.by = self._grown, "growth of the device's use"
        else:
            self.by = "NVML, this process"
        self.peak_bytes = max(self.peak_bytes or 0, own)

    def _used(self) -> int:
        return int(self._nvml.nvmlDeviceGetMemoryInfo(self._handle).used)

    def _own(self) -> int | None:
        try:
            processes = self._nvml.nvmlDeviceGetComputeRunningProcesses(self._handle)
        except self._nvml.NVMLError:
            return None
        for process in processes:
            if process.pid == os.getpid():
                return None if process.usedGpuMemory is None else int(process.usedGpuMemory)
        return None

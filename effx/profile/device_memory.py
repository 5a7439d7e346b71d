"""Peak GPU memory of this process.

NVML reports memory per process. If it does not (containers have other process ids, some drivers report
nothing), the growth of the device's used memory while this process works is used instead. Workers take turns,
so the growth is caused by this process, unless a foreign process uses the device.
"""

from __future__ import annotations

import os
from typing import Any


class DeviceMemory:
    """Tracks the memory of this process on the GPU that the energy meter would use by default."""

    def __init__(self, device: str) -> None:
        """Open NVML; ``device`` is the engine's device."""
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
        """Record the used memory before this process works."""
        if self._nvml is not None:
            self._before = self._used()

    def end(self) -> None:
        """Update the peak after this process has worked; memory that was freed in between is not counted."""
        if self._nvml is None:
            return
        used = self._used_by_this_process()
        if used is None:
            self._grown += self._used() - self._before
            used, self.by = self._grown, "growth of the device's use"
        else:
            self.by = "NVML, this process"
        self.peak_bytes = max(self.peak_bytes or 0, used)

    def _used(self) -> int:
        return int(self._nvml.nvmlDeviceGetMemoryInfo(self._handle).used)

    def _used_by_this_process(self) -> int | None:
        try:
            processes = self._nvml.nvmlDeviceGetComputeRunningProcesses(self._handle)
        except self._nvml.NVMLError:
            return None
        for process in processes:
            if process.pid == os.getpid():
                return None if process.usedGpuMemory is None else int(process.usedGpuMemory)
        return None

"""Select a GPU as CUDA would, read its power sensors, and its state in a window.

CUDA_VISIBLE_DEVICES lists the GPUs that CUDA programs see: indices in CUDA's order, UUIDs (or their first
characters) and MIG ids. NVML counts in PCI bus order; CUDA does so only with CUDA_DEVICE_ORDER=PCI_BUS_ID.
With GPUs of different models the orders may differ, so an index is refused then. No setting of the device is
changed.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from effx.host.sensors import Sensor, UnavailableError

_BUS_ID = re.compile(r"[0-9a-f]{4,8}:[0-9a-f]{2}:[0-9a-f]{2}\.[0-9a-f]", re.IGNORECASE)
_SHARED_POWER = "only the power of the complete GPU can be read; use a GPU without {}"
_LAG_S = 2.0
"""Assumed delay of power sensors; NVIDIA does not state it."""
_THROTTLES = {
    0x04: "SW power cap",
    0x08: "HW slowdown",
    0x10: "sync boost",
    0x20: "SW thermal slowdown",
    0x40: "HW thermal slowdown",
    0x80: "HW power brake",
}
"""Clock-event reasons (nvml.h) of throttling; clocks set by the user are not included."""


@dataclass(frozen=True)
class Gpu:
    """A GPU as NVML lists it."""

    name: str
    uuid: str


@dataclass(frozen=True)
class Condition:
    """State of the device at one time; None: the device does not report this."""

    sm_clock_mhz: int | None
    memory_clock_mhz: int | None
    power_limit_w: float | None
    temperature_c: int | None
    pstate: int | None
    reasons: int | None
    pids: frozenset[int] | None


def list_gpus() -> tuple[tuple[Gpu, ...] | None, str | None]:
    """Return the GPUs that NVML lists, and the driver's version; None: NVML cannot be used."""
    try:
        import pynvml

        pynvml.nvmlInit()
    except Exception:  # no package, no driver, no device
        return None, None
    try:
        handles = [pynvml.nvmlDeviceGetHandleByIndex(i) for i in range(pynvml.nvmlDeviceGetCount())]
        listed = tuple(
            Gpu(text(pynvml.nvmlDeviceGetName(handle)), text(pynvml.nvmlDeviceGetUUID(handle)))
            for handle in handles
        )
        return listed, text(pynvml.nvmlSystemGetDriverVersion())
    except pynvml.NVMLError:
        return None, None
    finally:
        pynvml.nvmlShutdown()


def visible_uuid(environ: Mapping[str, str]) -> str | None:
    """Return the UUID of the first GPU that CUDA programs see; None: NVML cannot tell."""
    try:
        import pynvml

        pynvml.nvmlInit()
    except Exception:  # no package, no driver, no device
        return None
    try:
        return text(pynvml.nvmlDeviceGetUUID(find(pynvml, "", environ)))
    except (pynvml.NVMLError, UnavailableError):
        return None
    finally:
        pynvml.nvmlShutdown()


def find(nvml: Any, argument: str, environ: Mapping[str, str]) -> Any:
    """Return the handle of the GPU named by ``argument``; empty: the first that CUDA programs see.

    Raises:
        UnavailableError: it is a slice of a GPU, hidden, or ambiguous.
        nvml.NVMLError: unknown GPU.
    """
    if argument:
        return _named(nvml, argument)
    visible = environ.get("CUDA_VISIBLE_DEVICES")
    if visible is None:
        return _cuda_index(nvml, 0, environ)
    first = visible.split(",")[0].strip()
    if first.isdecimal():
        return _cuda_index(nvml, int(first), environ)
    if not first.startswith(("GPU-", "MIG-")):
        raise UnavailableError(f"CUDA_VISIBLE_DEVICES={visible!r} shows no GPU; unset it or name one")
    return _named(nvml, first)


def refuse_slices(nvml: Any, handle: Any) -> None:
    """Raise :class:`UnavailableError` for a GPU in MIG mode and for a virtual one."""
    current, _ = _query(nvml, nvml.nvmlDeviceGetMigMode, handle) or (0, 0)
    if current:
        raise UnavailableError("the GPU is in MIG mode: " + _SHARED_POWER.format("MIG"))
    mode = _query(nvml, nvml.nvmlDeviceGetVirtualizationMode, handle)
    if mode == nvml.NVML_GPU_VIRTUALIZATION_MODE_VGPU:
        raise UnavailableError("the GPU is a vGPU: " + _SHARED_POWER.format("vGPU"))


def describe(nvml: Any, handle: Any) -> dict[str, Any]:
    """Return the names of the device and its driver."""
    pci = _query(nvml, nvml.nvmlDeviceGetPciInfo, handle)
    capability = _query(nvml, nvml.nvmlDeviceGetCudaComputeCapability, handle)
    return {
        "uuid": _query(nvml, nvml.nvmlDeviceGetUUID, handle),
        "device": _query(nvml, nvml.nvmlDeviceGetName, handle),
        "pci_bus_id": None if pci is None else text(pci.busId),
        "driver": _query(nvml, nvml.nvmlSystemGetDriverVersion),
        "compute_capability": None if capability is None else list(capability),
    }


def power_reader(nvml: Any, handle: Any) -> tuple[Sensor, Callable[[], float]] | None:
    """Return the power sensor that covers most of the time, and a function that reads watts; None: no sensor.

    nvml.h: AVERAGE is the mean over 1 s (Ampere and newer, except GA100); INSTANT is the current power;
    nvmlDeviceGetPowerUsage is one of the two, depending on the architecture. INSTANT of GA100 and GH100
    covers 25 of every 100 ms (arXiv 2312.02741), so AVERAGE is preferred. Sensors show a change late.
    """
    capability = _query(nvml, nvml.nvmlDeviceGetCudaComputeCapability, handle)
    part_time = capability in ((8, 0), (9, 0))
    instant = (0.025, 0.1, _LAG_S) if part_time else (0.0, None, _LAG_S)
    usage = (1.0, None, _LAG_S) if capability and capability >= (8, 6) else instant
    sensors = [
        (
            Sensor("NVML_FI_DEV_POWER_AVERAGE", 1.0, lag_s=_LAG_S),
            _field(nvml, handle, nvml.NVML_FI_DEV_POWER_AVERAGE),
        ),
        (
            Sensor("NVML_FI_DEV_POWER_INSTANT", *instant),
            _field(nvml, handle, nvml.NVML_FI_DEV_POWER_INSTANT),
        ),
        (
            Sensor("nvmlDeviceGetPowerUsage", *usage),
            lambda: nvml.nvmlDeviceGetPowerUsage(handle) * 1e-3,
        ),
    ]
    for sensor, read in sensors:
        with contextlib.suppress(nvml.NVMLError):
            read()
            return sensor, read
    return None


def limit_w(nvml: Any, handle: Any) -> float | None:
    """Return the enforced power limit in watts."""
    limit_mw = _query(nvml, nvml.nvmlDeviceGetEnforcedPowerLimit, handle)
    return None if limit_mw is None else limit_mw * 1e-3


def condition(nvml: Any, handle: Any) -> Condition:
    """Return the current state of the device."""
    listed = [
        _query(nvml, list_processes, handle)
        for list_processes in (
            nvml.nvmlDeviceGetComputeRunningProcesses,
            nvml.nvmlDeviceGetGraphicsRunningProcesses,
        )
    ]
    known = [processes for processes in listed if processes is not None]
    return Condition(
        sm_clock_mhz=_query(nvml, nvml.nvmlDeviceGetClockInfo, handle, nvml.NVML_CLOCK_SM),
        memory_clock_mhz=_query(nvml, nvml.nvmlDeviceGetClockInfo, handle, nvml.NVML_CLOCK_MEM),
        power_limit_w=limit_w(nvml, handle),
        temperature_c=_query(nvml, nvml.nvmlDeviceGetTemperature, handle, nvml.NVML_TEMPERATURE_GPU),
        pstate=_query(nvml, nvml.nvmlDeviceGetPerformanceState, handle),
        # drivers before 535 do not have the newer name of this function
        reasons=_query(nvml, nvml.nvmlDeviceGetCurrentClocksThrottleReasons, handle),
        pids=frozenset(int(process.pid) for processes in known for process in processes) if known else None,
    )


def summary(seen: list[Condition]) -> dict[str, Any]:
    """Return the summary of a window's conditions: medians, ranges, and all throttle reasons."""

    def values(name: str) -> list[Any]:
        return [value for value in (getattr(moment, name) for moment in seen) if value is not None]

    def middle(name: str) -> Any:
        return sorted(values(name))[len(values(name)) // 2] if values(name) else None

    clocks = values("sm_clock_mhz")
    temperatures = values("temperature_c")
    pids = values("pids")
    return {
        "sm_clock_mhz": middle("sm_clock_mhz"),
        "sm_clock_range_mhz": [min(clocks), max(clocks)] if clocks else None,
        "memory_clock_mhz": middle("memory_clock_mhz"),
        "power_limit_w": middle("power_limit_w"),
        "temperature_before_c": temperatures[0] if temperatures else None,
        "temperature_after_c": temperatures[-1] if temperatures else None,
        "pstate": middle("pstate"),
        "throttle_reasons": throttles(seen) if values("reasons") else None,
        "processes": sorted(frozenset().union(*pids)) if pids else None,
    }


def throttles(seen: list[Condition]) -> list[str]:
    """Return the names of the throttle reasons that were active at any time."""
    active = 0
    for moment in seen:
        active |= moment.reasons or 0
    return [name for bit, name in _THROTTLES.items() if active & bit]


AMBIGUOUS = ", unless it is a worker under another pid (container)"
"""End of the flag of a process that may be a worker itself."""


def unseen_processes(seen: list[Condition], worker_pids: set[int]) -> tuple[str, ...]:
    """Return why foreign processes on the device may have gone unseen; nothing if the workers were seen.

    In WSL and in some containers the driver lists no processes, or only some.
    """
    listed = [moment.pids for moment in seen if moment.pids is not None]
    if not listed:
        return ("the driver does not list the processes on the GPU",)
    if not frozenset().union(*listed) & worker_pids:
        return ("the driver lists no worker among the processes on the GPU: others may be hidden, too",)
    return ()


def foreign_processes(seen: list[Condition], worker_pids: set[int]) -> tuple[str, ...]:
    """Return one flag per process on the device that is not a worker.

    NVML reports process ids of the host. In a container, workers have other ids there. An id that does not
    exist here is therefore certainly foreign only if a worker's id is reported too.
    """
    present = frozenset().union(*(moment.pids or () for moment in seen))
    same_namespace = bool(present & worker_pids)
    return tuple(
        f"foreign process {pid}"
        if same_namespace or Path(f"/proc/{pid}").exists()
        else f"foreign process {pid}{AMBIGUOUS}"
        for pid in sorted(present - worker_pids)
    )


def _named(nvml: Any, name: str) -> Any:
    if name.startswith("MIG-"):
        raise UnavailableError(f"{name} is a MIG slice: " + _SHARED_POWER.format("MIG"))
    if name.isdecimal():
        return nvml.nvmlDeviceGetHandleByIndex(int(name))
    if _BUS_ID.fullmatch(name):
        return nvml.nvmlDeviceGetHandleByPciBusId(name)
    handles = [nvml.nvmlDeviceGetHandleByIndex(index) for index in range(nvml.nvmlDeviceGetCount())]
    uuids = [text(nvml.nvmlDeviceGetUUID(handle)) for handle in handles]
    matching = [handle for handle, uuid in zip(handles, uuids, strict=True) if uuid.startswith(name)]
    if len(matching) != 1 or not name.startswith("GPU-"):
        raise UnavailableError(f"{len(matching)} GPUs match '{name}'. Known: {', '.join(uuids)}.")
    return matching[0]


def _cuda_index(nvml: Any, index: int, environ: Mapping[str, str]) -> Any:
    count = nvml.nvmlDeviceGetCount()
    if index >= count:
        raise UnavailableError(f"there is no GPU {index}: NVML lists {count}")
    handles = [nvml.nvmlDeviceGetHandleByIndex(number) for number in range(count)]
    kinds = {text(nvml.nvmlDeviceGetName(handle)) for handle in handles}
    if len(kinds) > 1 and environ.get("CUDA_DEVICE_ORDER") != "PCI_BUS_ID":
        raise UnavailableError(
            f"CUDA numbers these GPUs by speed ({', '.join(sorted(kinds))}), NVML by PCI bus: "
            "set CUDA_DEVICE_ORDER=PCI_BUS_ID, or name the GPU with the meter nvml:GPU-UUID"
        )
    return handles[index]


def _field(nvml: Any, handle: Any, field_id: int) -> Callable[[], float]:
    def read() -> float:
        (value,) = nvml.nvmlDeviceGetFieldValues(handle, [field_id])
        if value.nvmlReturn != nvml.NVML_SUCCESS:
            raise nvml.NVMLError(value.nvmlReturn)
        return float(value.value.uiVal) * 1e-3

    return read


def _query(nvml: Any, function: Callable[..., Any], *arguments: Any) -> Any:
    """Call an NVML function; return None if this device or driver does not support it.

    pynvml raises another error for functions that an older driver has under another version.
    """
    try:
        return function(*arguments)
    except (
        nvml.NVMLError_NotSupported,
        nvml.NVMLError_NoPermission,
        nvml.NVMLError_FunctionNotFound,
        nvml.NVMLError_InvalidArgument,
        getattr(nvml, "NVMLLibraryMismatchError", nvml.NVMLError_FunctionNotFound),
    ):
        return None


def text(value: Any) -> str:
    """Return text; older bindings return bytes."""
    return value.decode() if isinstance(value, bytes) else str(value)

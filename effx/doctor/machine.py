"""The machine: processor, GPU, energy counters, what a container or virtual machine allows, disk."""

from __future__ import annotations

import os
import platform
import shutil
from collections.abc import Iterator
from pathlib import Path

from effx.doctor.line import Line
from effx.host import gpus
from effx.host.sensors import UnavailableError
from effx.profile.meters import hwmon, rapl

_FLAGS = {
    "AVX2": ("avx2",),
    "AVX-512": ("avx512f",),
    "VNNI (int8)": ("avx512_vnni", "avx_vnni"),
    "BF16": ("avx512_bf16", "amx_bf16"),
    "AMX": ("amx_tile",),
}
_ARM = {"VNNI (int8)": ("asimddp", "i8mm"), "BF16": ("bf16",)}
"""Feature -> the flags of /proc/cpuinfo, any of which is it. On Arm, dot products stand for VNNI."""
_BOARD = Path("/sys/bus/i2c/drivers/ina3221")
"""Where a Jetson board's power monitors are."""
_LEAST_DISK_BYTES = 10_000_000_000
_LEAST_MEMORY_BYTES = 4_000_000_000
_UNLIMITED = 1 << 60  # cgroup v1 writes a huge number for none


def processor(cpuinfo: Path = Path("/proc/cpuinfo")) -> Iterator[Line]:
    """Tell the processor and the instructions that low precisions need."""
    text = _text(cpuinfo) or ""
    values = [line.partition(":") for line in text.splitlines()]
    fields = {name.strip().lower(): value.strip() for name, _, value in values}
    model = fields.get("model name") or platform.processor() or platform.machine()
    yield Line("processor", "model", "ok", model)
    flags = set((fields.get("flags") or fields.get("features") or "").split())
    if not flags:
        yield Line("processor", "instructions", "missing", f"{cpuinfo} does not tell them")
        return
    for name, any_of in (_ARM if "asimd" in flags else _FLAGS).items():
        have = [flag for flag in any_of if flag in flags]
        slow = {"VNNI (int8)": "int8 is emulated, and may be no faster than fp32", "BF16": "bf16 is emulated"}
        if have:
            yield Line("processor", name, "ok", ", ".join(have))
        else:
            yield Line("processor", name, "missing", slow.get(name, "not in this processor"))


def gpu(driver: Path = Path("/proc/driver/nvidia/version")) -> Iterator[Line]:
    """Ask NVML for driver, GPUs and whether power and energy may be read."""
    try:
        import pynvml
    except ImportError:
        yield Line("gpu", "NVML", "missing", "no package to ask it with", "pip install 'effx[nvml]'")
        return
    try:
        pynvml.nvmlInit()
    except pynvml.NVMLError as error:
        loaded = driver.exists()
        told = "the driver is loaded, " if loaded else "no NVIDIA driver: "
        fix = None
        if loaded:
            fix = "docker run --gpus all -e NVIDIA_DRIVER_CAPABILITIES=compute,utility ..."
        yield Line("gpu", "NVML", "broken" if loaded else "missing", f"{told}{error}", fix)
        return
    except AttributeError as error:  # a wrapper of that name without the functions
        fix = "pip uninstall -y pynvml nvidia-ml-py3 && pip install --force-reinstall nvidia-ml-py"
        yield Line("gpu", "NVML", "broken", f"the module pynvml is not nvidia-ml-py's ({error})", fix)
        return
    try:
        version = gpus.text(pynvml.nvmlSystemGetDriverVersion())
        cuda = _cuda(pynvml)
        yield Line("gpu", "driver", "ok", f"{version}, for CUDA up to {cuda}" if cuda else version)
        for index in range(pynvml.nvmlDeviceGetCount()):
            yield from _device(pynvml, index)
    except pynvml.NVMLError as error:
        yield Line("gpu", "NVML", "broken", str(error))
    finally:
        pynvml.nvmlShutdown()


def _cuda(pynvml: object) -> str | None:
    try:
        found = int(pynvml.nvmlSystemGetCudaDriverVersion_v2())  # type: ignore[attr-defined]
    except Exception:  # older drivers do not have the function
        return None
    return f"{found // 1000}.{found % 1000 // 10}"


def _device(pynvml: object, index: int) -> Iterator[Line]:
    nvml: object = pynvml
    handle = nvml.nvmlDeviceGetHandleByIndex(index)  # type: ignore[attr-defined]
    name = f"GPU {index}"
    yield Line("gpu", name, "ok", gpus.text(nvml.nvmlDeviceGetName(handle)))  # type: ignore[attr-defined]
    for what, ask in (
        ("energy", "nvmlDeviceGetTotalEnergyConsumption"),
        ("power", "nvmlDeviceGetPowerUsage"),
    ):
        try:
            value = getattr(nvml, ask)(handle)
        except nvml.NVMLError as error:  # type: ignore[attr-defined]
            told = str(error)
            if isinstance(error, getattr(nvml, "NVMLError_NoPermission", ())):
                fix = "sudo nvidia-smi -acp UNRESTRICTED"
                yield Line("gpu", f"{name} {what}", "broken", f"may not be read: {told}", fix)
            else:
                yield Line("gpu", f"{name} {what}", "missing", told)
        else:
            unit = "kJ since the driver was loaded" if what == "energy" else "W now"
            shown = value * 1e-6 if what == "energy" else value * 1e-3
            yield Line("gpu", f"{name} {what}", "ok", f"{shown:.1f} {unit}")


def powercap(root: Path = Path("/sys/class/powercap"), board: Path = _BOARD) -> Iterator[Line]:
    """Open the processor's energy counters; where there are none, name what a board has instead."""
    try:
        meter = rapl.open(root=root, threaded=False)
    except UnavailableError as error:
        told = str(error)
        if "may not be read" in told:
            fix = f"sudo chmod a+r {root}/intel-rapl:*/energy_uj {root}/intel-rapl:*/*/energy_uj"
            yield Line("energy", "powercap", "broken", "the counters may not be read by this user", fix)
        elif any(root.glob("intel-rapl*:*")):
            yield Line("energy", "powercap", "broken", told)
        elif _monitors(board):
            detail = f"no CPU energy counters under {root}; this board's power rails stand in for them"
            yield Line("energy", "powercap", "missing", detail, "effx profile --meter hwmon")
        else:
            detail = f"no CPU energy counters under {root}; virtual machines and most clouds hide them"
            fix = "run on bare metal, or estimate: effx profile --meter model:WATTS"
            yield Line("energy", "powercap", "missing", detail, fix)
        return
    domains = ", ".join(meter.describe()["domains"])
    meter.close()
    yield Line("energy", "powercap", "ok", domains)


def rails(board: Path = _BOARD) -> Iterator[Line]:
    """Open the power monitors of a Jetson board; nothing is told where there are none."""
    if not _monitors(board):
        return
    try:
        meter = hwmon.open(root=board, threaded=False)
    except UnavailableError as error:
        told = str(error)
        if isinstance(error.__cause__, PermissionError):
            fix = f"sudo chmod a+r {board}/*/hwmon/hwmon*/*_input"
            yield Line("energy", "power rails", "broken", told, fix)
        elif error.__cause__ is not None:
            yield Line("energy", "power rails", "broken", told)
        else:  # a board whose sum of rails effx does not know
            yield Line("energy", "power rails", "missing", told, "effx profile --meter hwmon:RAIL")
        return
    names = " + ".join(meter.describe()["domains"])
    meter.close()
    yield Line("energy", "power rails", "ok", f"{names}, read by effx profile --meter hwmon")


def _monitors(board: Path) -> bool:
    return any(board.glob("*/hwmon/hwmon*/in*_label"))


def limits(
    cgroup: Path = Path("/sys/fs/cgroup"),
    own: Path = Path("/proc/self/cgroup"),
    meminfo: Path = Path("/proc/meminfo"),
    cpuinfo: Path = Path("/proc/cpuinfo"),
) -> Iterator[Line]:
    """Tell what this process may use of processors and memory, and what hides the rest."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    quota = _quota(cgroup, own)
    if quota is not None and quota < cores:
        detail = f"{cores} processors, but the container may use the time of {quota:g}: threads will stall"
        yield Line("limits", "processors", "broken", detail, f"effx profile --threads {max(1, int(quota))}")
    else:
        yield Line("limits", "processors", "ok", f"{cores} of {os.cpu_count()} may be used")
    total = _total_memory(meminfo)
    cap = _memory_cap(cgroup, own)
    most = min(value for value in (total, cap, _UNLIMITED) if value is not None)
    told = f"{most / 1e9:.1f} GB" + (" by the container's limit" if cap is not None and cap == most else "")
    if most < _LEAST_MEMORY_BYTES:
        detail = f"{told}: exporting a small encoder takes {_LEAST_MEMORY_BYTES / 1e9:g} GB"
        yield Line("limits", "memory", "broken", detail, "docker run --memory 8g ...")
    else:
        yield Line("limits", "memory", "ok", told)
    if "hypervisor" in (_text(cpuinfo) or ""):
        detail = "yes: other guests share the processor, so compare within one session and mind the gates"
        yield Line("limits", "virtual machine", "ok", detail)


def disk(folder: Path = Path(".")) -> Iterator[Line]:
    """Check that there is room, and that the folder can be written to."""
    place = folder.resolve()
    if not os.access(place, os.W_OK):
        yield Line("disk", str(place), "broken", "cannot be written to", f"sudo chown $USER {place}")
        return
    free = shutil.disk_usage(place).free
    told = f"{free / 1e9:.0f} GB free"
    if free < _LEAST_DISK_BYTES:
        detail = f"{told}: a sweep of small encoders takes {_LEAST_DISK_BYTES / 1e9:g} GB"
        yield Line("disk", str(place), "broken", detail, "effx run RECIPE.yaml -o /another/disk")
    else:
        yield Line("disk", str(place), "ok", told)


def _quota(cgroup: Path, own: Path) -> float | None:
    """Return how many processors' time the control groups allow; None: no limit."""
    found = []
    for folder in _groups(cgroup, own):
        parts = (_text(folder / "cpu.max") or "").split()
        if len(parts) == 2 and parts[0] != "max":
            found.append(int(parts[0]) / int(parts[1]))
        quota, period = _text(folder / "cpu.cfs_quota_us"), _text(folder / "cpu.cfs_period_us")
        if quota and period and int(quota) > 0:
            found.append(int(quota) / int(period))
    return min(found, default=None)


def _memory_cap(cgroup: Path, own: Path) -> int | None:
    found = []
    for folder in _groups(cgroup, own):
        for name in ("memory.max", "memory.limit_in_bytes"):
            text = _text(folder / name)
            if text and text.isdigit() and int(text) < _UNLIMITED:
                found.append(int(text))
    return min(found, default=None)


def _groups(cgroup: Path, own: Path) -> Iterator[Path]:
    """Yield the folders of this process's control groups, up to the root: the tightest one counts."""
    yield cgroup
    for name in ("cpu", "memory", "cpu,cpuacct"):  # version 1
        if (cgroup / name).is_dir():
            yield cgroup / name
    for line in (_text(own) or "").splitlines():
        path = line.split(":", 2)[-1].strip("/")
        parts = path.split("/") if path else []
        for count in range(1, len(parts) + 1):
            yield cgroup.joinpath(*parts[:count])


def _total_memory(meminfo: Path) -> int | None:
    for line in (_text(meminfo) or "").splitlines():
        if line.startswith("MemTotal:"):
            return int(line.split()[1]) * 1024
    return None


def _text(path: Path) -> str | None:
    try:
        return path.read_text().strip()
    except OSError:
        return None

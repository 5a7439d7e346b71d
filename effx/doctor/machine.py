"""The machine: processor, GPU, energy counters, what a container or virtual machine allows, disk."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from effx.doctor.finding import Finding
from effx.host import cpu, gpus, memory
from effx.host.cgroups import Cgroups
from effx.host.cpu import Cpu
from effx.host.sensors import NoSensorError, SensorPermissionError, UnavailableError
from effx.meters import hwmon, rapl

_X86_FEATURES = {
    "AVX2": ("avx2",),
    "AVX-512": ("avx512f",),
    "VNNI (int8)": ("avx512_vnni", "avx_vnni"),
    "BF16": ("avx512_bf16", "amx_bf16"),
    "AMX": ("amx_tile",),
}
_ARM_FEATURES = {"VNNI (int8)": ("asimddp", "i8mm"), "BF16": ("bf16",)}
"""Feature -> flags, any of which provides it. On Arm, dot products correspond to VNNI."""
_WITHOUT = {
    "VNNI (int8)": "int8 is emulated, and may not be faster than fp32",
    "BF16": "bf16 is emulated",
}
_BOARD = Path("/sys/bus/i2c/drivers/ina3221")
"""Power monitors of a Jetson board."""
_LEAST_DISK_BYTES = 10_000_000_000
_LEAST_MEMORY_BYTES = 4_000_000_000


def processor(this: Cpu | None = None) -> Iterator[Finding]:
    """Report the processor, and whether it has the instructions that low precisions need."""
    this = this or cpu.this_cpu()
    yield Finding("processor", "model", "ok", this.model)
    if not this.flags:
        yield Finding("processor", "instructions", "missing", "this system does not list them")
        return
    for name, any_of in (_ARM_FEATURES if "asimd" in this.flags else _X86_FEATURES).items():
        flags = [flag for flag in any_of if flag in this.flags]
        if flags:
            yield Finding("processor", name, "ok", ", ".join(flags))
        else:
            yield Finding("processor", name, "missing", _WITHOUT.get(name, "not in this processor"))


def gpu(driver: Path = Path("/proc/driver/nvidia/version")) -> Iterator[Finding]:
    """Read driver and GPUs by NVML, and check that power and energy may be read."""
    try:
        import pynvml
    except ImportError:
        yield Finding("gpu", "NVML", "missing", "nvidia-ml-py is not installed", "pip install 'effx[nvml]'")
        return
    try:
        pynvml.nvmlInit()
    except pynvml.NVMLError as error:
        if driver.exists():
            fix = "docker run --gpus all -e NVIDIA_DRIVER_CAPABILITIES=compute,utility ..."
            yield Finding("gpu", "NVML", "broken", f"the driver is loaded, {error}", fix)
        else:
            yield Finding("gpu", "NVML", "missing", f"no NVIDIA driver: {error}")
        return
    except AttributeError as error:  # another package with a module of that name
        fix = "pip uninstall -y pynvml nvidia-ml-py3 && pip install --force-reinstall nvidia-ml-py"
        yield Finding("gpu", "NVML", "broken", f"the module pynvml is not nvidia-ml-py's ({error})", fix)
        return
    try:
        version, cuda = gpus.text(pynvml.nvmlSystemGetDriverVersion()), _cuda_version(pynvml)
        yield Finding("gpu", "driver", "ok", f"{version}, for CUDA up to {cuda}" if cuda else version)
        for index in range(pynvml.nvmlDeviceGetCount()):
            yield from _device(pynvml, index)
    except pynvml.NVMLError as error:
        yield Finding("gpu", "NVML", "broken", str(error))
    finally:
        pynvml.nvmlShutdown()


def _cuda_version(nvml: Any) -> str | None:
    try:
        version = int(nvml.nvmlSystemGetCudaDriverVersion_v2())
    except (AttributeError, nvml.NVMLError):  # older bindings and drivers do not have the function
        return None
    return f"{version // 1000}.{version % 1000 // 10}"


def _device(nvml: Any, index: int) -> Iterator[Finding]:
    handle = nvml.nvmlDeviceGetHandleByIndex(index)
    name = f"GPU {index}"
    yield Finding("gpu", name, "ok", gpus.text(nvml.nvmlDeviceGetName(handle)))
    for what, function, factor, unit in (
        ("energy", "nvmlDeviceGetTotalEnergyConsumption", 1e-6, "kJ since the driver was loaded"),
        ("power", "nvmlDeviceGetPowerUsage", 1e-3, "W now"),
    ):
        try:
            value = getattr(nvml, function)(handle)
        except nvml.NVMLError_NoPermission as error:
            fix = "sudo nvidia-smi -acp UNRESTRICTED"
            yield Finding("gpu", f"{name} {what}", "broken", f"no permission to read it: {error}", fix)
        except nvml.NVMLError as error:
            yield Finding("gpu", f"{name} {what}", "missing", str(error))
        else:
            yield Finding("gpu", f"{name} {what}", "ok", f"{value * factor:.1f} {unit}")


def powercap(root: Path = Path("/sys/class/powercap"), board: Path = _BOARD) -> Iterator[Finding]:
    """Open the processor's energy counters; without counters, report whether a board has power rails."""
    try:
        meter = rapl.open(root=root, threaded=False)
    except SensorPermissionError:
        fix = f"sudo chmod a+r {root}/intel-rapl:*/energy_uj {root}/intel-rapl:*/*/energy_uj"
        yield Finding("energy", "powercap", "broken", "this user has no permission to read the counters", fix)
    except NoSensorError:
        yield _without_counters(root, board)
    except UnavailableError as error:
        yield Finding("energy", "powercap", "broken", str(error))
    else:
        domains = ", ".join(meter.domains)
        meter.close()
        yield Finding("energy", "powercap", "ok", domains)


def _without_counters(root: Path, board: Path) -> Finding:
    if any(root.glob("intel-rapl*:*")):
        return Finding("energy", "powercap", "broken", f"no counter under {root} is that of a CPU package")
    if _has_monitors(board):
        detail = f"no CPU energy counters under {root}; this board's power rails are used instead"
        return Finding("energy", "powercap", "missing", detail, "effx profile --meter hwmon")
    detail = f"no CPU energy counters under {root}; virtual machines and most clouds hide them"
    fix = "run on bare metal, or estimate: effx profile --meter model:WATTS"
    return Finding("energy", "powercap", "missing", detail, fix)


def power_rails(board: Path = _BOARD) -> Iterator[Finding]:
    """Open the power monitors of a Jetson board; no finding on other machines."""
    if not _has_monitors(board):
        return
    try:
        meter = hwmon.open(root=board, threaded=False)
    except SensorPermissionError as error:
        fix = f"sudo chmod a+r {board}/*/hwmon/hwmon*/*_input"
        yield Finding("energy", "power rails", "broken", str(error), fix)
    except hwmon.UnknownBoardError as error:
        yield Finding("energy", "power rails", "missing", str(error), "effx profile --meter hwmon:RAIL")
    except UnavailableError as error:
        yield Finding("energy", "power rails", "broken", str(error))
    else:
        names = " + ".join(meter.domains)
        meter.close()
        yield Finding("energy", "power rails", "ok", f"{names}, read by effx profile --meter hwmon")


def _has_monitors(board: Path) -> bool:
    return any(board.glob("*/hwmon/hwmon*/in*_label"))


def limits(
    cgroups: Cgroups | None = None, total_bytes: int | None = None, this: Cpu | None = None
) -> Iterator[Finding]:
    """Report the processors and the memory that this process may use, and what limits them.

    Args:
        cgroups: the limits of its control groups; default: those of this process.
        total_bytes: the machine's memory; default: this one's.
        this: the processor; default: this one.
    """
    cgroups, this = cgroups or Cgroups(), this or cpu.this_cpu()
    allowed, quota = cpu.allowed_processors(), cgroups.cpu_quota()
    if quota is not None and quota < allowed:
        detail = f"{allowed} processors, but the container may use the time of {quota:g}"
        fix = f"effx profile --threads {cpu.usable_processors(cgroups)}"
        yield Finding(
            "limits", "processors", "broken", f"{detail}: with more threads, they are throttled", fix
        )
    else:
        yield Finding("limits", "processors", "ok", f"{allowed} of {cpu.installed_processors()} may be used")
    total, cap = total_bytes or memory.total_memory_bytes(), cgroups.memory_limit_bytes()
    usable = total if cap is None else min(total, cap)
    text = f"{usable / 1e9:.1f} GB" + (" by the container's limit" if cap == usable else "")
    if usable < _LEAST_MEMORY_BYTES:
        detail = f"{text}: exporting a small encoder takes {_LEAST_MEMORY_BYTES / 1e9:g} GB"
        yield Finding("limits", "memory", "broken", detail, "docker run --memory 8g ...")
    else:
        yield Finding("limits", "memory", "ok", text)
    if this.is_virtual:
        detail = "yes: other guests share the processor, so compare within one session and check the gates"
        yield Finding("limits", "virtual machine", "ok", detail)


def disk(folder: Path = Path(".")) -> Iterator[Finding]:
    """Check that there is free space, and that the folder can be written to."""
    folder = folder.resolve()
    if not os.access(folder, os.W_OK):
        yield Finding("disk", str(folder), "broken", "cannot be written to", f"sudo chown $USER {folder}")
        return
    free = shutil.disk_usage(folder).free
    text = f"{free / 1e9:.0f} GB free"
    if free < _LEAST_DISK_BYTES:
        detail = f"{text}: a sweep of small encoders takes {_LEAST_DISK_BYTES / 1e9:g} GB"
        yield Finding("disk", str(folder), "broken", detail, "effx run RECIPE.yaml -o /another/disk")
    else:
        yield Finding("disk", str(folder), "ok", text)

"""What a result was measured on."""

from __future__ import annotations

import functools
import hashlib
import os
import platform
import socket
import subprocess
from pathlib import Path
from typing import Any

import effx
from effx.host.gpus import text


@functools.cache
def host(name: str | None = None) -> dict[str, Any]:
    """Return the host's description.

    ``id`` names a machine, not a moment: results of one id may stand on one frontier. It is the
    name with a digest of the hardware. A container's host name is drawn afresh each time, so there
    the hardware alone tells; ``name`` tells machines of one kind apart.
    """
    gpus, driver = _nvml()
    description: dict[str, Any] = {
        "name": name or ("container" if _container() else socket.gethostname()),
        "hostname": socket.gethostname(),
        "container": _container(),
        "product": _text("/sys/class/dmi/id/product_name"),
        "machine": platform.machine(),
        "system": f"{platform.system()} {platform.release()}",
        "python": platform.python_version(),
        "cpu": _cpu_model(),
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "memory_bytes": _memory_bytes(),
        "governor": _text("/sys/devices/system/cpu/cpu0/cpufreq/scaling_governor"),
        "virtual": "hypervisor" in _cpu_flags(),
        "gpu": gpus,
        "driver": driver or _text("/sys/module/nvidia/version"),
        "effx": effx.__version__,
        "effx_commit": _commit(),
    }
    known = ("name", "machine", "product", "cpu", "cores", "memory_bytes", "gpu")
    fixed = [description[key] for key in known]
    digest = hashlib.sha256("\n".join(map(str, fixed)).encode()).hexdigest()
    description["id"] = f"{description['name']}-{digest[:8]}"
    return description


def load_average() -> float | None:
    """Return how many processes wanted a processor over the last minute."""
    return os.getloadavg()[0] if hasattr(os, "getloadavg") else None


def processors() -> int:
    """Return the processors of the machine, those that this process may not use included."""
    return os.cpu_count() or 1


def busy_s() -> float | None:
    """Return the seconds that all processors have worked since the machine started; None: not told."""
    line = (_text("/proc/stat") or "").partition("\n")[0].split()
    if not line or line[0] != "cpu":
        return None
    ticks = [int(value) for value in line[1:]]
    idle = sum(ticks[3:5])  # idle and waiting for input
    return (sum(ticks[:8]) - idle) / os.sysconf("SC_CLK_TCK")


def _container() -> bool:
    marks = (Path("/.dockerenv"), Path("/run/.containerenv"))
    groups = _text("/proc/1/cgroup") or ""
    return any(mark.exists() for mark in marks) or any(
        name in groups for name in ("docker", "kubepods", "lxc", "containerd")
    )


def _nvml() -> tuple[list[dict[str, str]] | None, str | None]:
    """Return name and UUID of each GPU that NVML shows, and the driver; None where there is no NVML."""
    try:
        import pynvml

        pynvml.nvmlInit()
    except Exception:  # no package, no driver, no device: no GPU to tell of
        return None, None
    try:
        handles = [pynvml.nvmlDeviceGetHandleByIndex(i) for i in range(pynvml.nvmlDeviceGetCount())]
        gpus = [
            {
                "name": text(pynvml.nvmlDeviceGetName(handle)),
                "uuid": text(pynvml.nvmlDeviceGetUUID(handle)),
            }
            for handle in handles
        ]
        return gpus, text(pynvml.nvmlSystemGetDriverVersion())
    except pynvml.NVMLError:
        return None, None
    finally:
        pynvml.nvmlShutdown()


def _cpu_model() -> str:
    for line in (_text("/proc/cpuinfo") or "").splitlines():
        if line.startswith(("model name", "Model")):
            return line.split(":", 1)[1].strip()
    return platform.processor() or platform.machine()


def _cpu_flags() -> set[str]:
    for line in (_text("/proc/cpuinfo") or "").splitlines():
        if line.startswith("flags"):
            return set(line.split(":", 1)[1].split())
    return set()


def _memory_bytes() -> int | None:
    for line in (_text("/proc/meminfo") or "").splitlines():
        if line.startswith("MemTotal:"):
            return int(line.split()[1]) * 1024
    return None


def _text(path: str) -> str | None:
    try:
        return Path(path).read_text().strip()
    except OSError:
        return None


def _commit() -> str | None:
    """Return the commit of the effx that runs, where it runs from a checkout."""
    root = Path(effx.__file__).parents[1]
    if not (root / ".git").exists():
        return None
    try:
        answer = subprocess.run(
            ["git", "-C", str(root), "describe", "--always", "--dirty", "--abbrev=12"],
            capture_output=True, text=True, timeout=10, check=True,
        )  # fmt: skip
    except (OSError, subprocess.SubprocessError):
        return None
    return answer.stdout.strip()

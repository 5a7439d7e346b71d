"""Identity and description of the machine that results were measured on."""

from __future__ import annotations

import functools
import hashlib
import platform
import socket
import subprocess
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import effx
from effx.host import cpu, memory
from effx.host.gpus import Gpu, list_gpus

_CONTAINER_MARKS = (Path("/.dockerenv"), Path("/run/.containerenv"))
_CONTAINER_GROUPS = ("docker", "kubepods", "lxc", "containerd")


@dataclass(frozen=True)
class Host:
    """A machine, and the software that measured on it.

    ``id`` is the name with a digest of the hardware; results with the same id may share a frontier. The host
    name of a container is different in each run, so only the hardware identifies it there; ``name``
    distinguishes machines with the same hardware.
    """

    id: str
    name: str | None = None
    hostname: str | None = None
    container: bool | None = None
    product: str | None = None
    machine: str | None = None
    system: str | None = None
    python: str | None = None
    cpu: str | None = None
    cores: int | None = None
    """Processors that could be used: CPU affinity and the container's quota."""
    memory_bytes: int | None = None
    governor: str | None = None
    """Frequency governor of the processor on Linux, such as ``performance``."""
    virtual: bool | None = None
    gpu: tuple[Gpu, ...] | None = None
    """None: NVML is not available."""
    driver: str | None = None
    effx: str | None = None
    effx_commit: str | None = None

    def to_json(self) -> dict[str, Any]:
        """Return its fields as JSON."""
        return asdict(self)


@functools.cache
def host(name: str | None = None) -> Host:
    """Return this machine's description; ``name`` replaces the host name."""
    gpus, driver = list_gpus()
    container = _in_container()
    shown = name or ("container" if container else socket.gethostname())
    product = _text("/sys/class/dmi/id/product_name")
    processor, cores, memory_bytes = cpu.this_cpu(), cpu.usable_processors(), memory.total_memory_bytes()
    listed = None if gpus is None else [asdict(gpu) for gpu in gpus]
    hardware = (shown, platform.machine(), product, processor.model, cores, memory_bytes, listed)
    digest = hashlib.sha256("\n".join(map(str, hardware)).encode()).hexdigest()
    return Host(
        id=f"{shown}-{digest[:8]}",
        name=shown,
        hostname=socket.gethostname(),
        container=container,
        product=product,
        machine=platform.machine(),
        system=f"{platform.system()} {platform.release()}",
        python=platform.python_version(),
        cpu=processor.model,
        cores=cores,
        memory_bytes=memory_bytes,
        governor=_text("/sys/devices/system/cpu/cpu0/cpufreq/scaling_governor"),
        virtual=processor.is_virtual,
        gpu=gpus,
        driver=driver or _text("/sys/module/nvidia/version"),
        effx=effx.__version__,
        effx_commit=_commit(),
    )


def _in_container() -> bool:
    groups = _text("/proc/1/cgroup") or ""
    marked = any(mark.exists() for mark in _CONTAINER_MARKS)
    return marked or any(name in groups for name in _CONTAINER_GROUPS)


def _text(path: str) -> str | None:
    try:
        return Path(path).read_text().strip()
    except OSError:
        return None


def _commit() -> str | None:
    """Return the commit of the running effx; None: it does not run from a checkout."""
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

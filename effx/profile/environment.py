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


@functools.cache
def host() -> dict[str, Any]:
    """Return the host's description.

    ``id`` names hardware and kernel, not a moment: results of one id may stand on one frontier.
    """
    description: dict[str, Any] = {
        "name": socket.gethostname(),
        "machine": platform.machine(),
        "system": f"{platform.system()} {platform.release()}",
        "python": platform.python_version(),
        "cpu": _cpu_model(),
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "memory_bytes": _memory_bytes(),
        "governor": _text("/sys/devices/system/cpu/cpu0/cpufreq/scaling_governor"),
        "virtual": "hypervisor" in _cpu_flags(),
        "gpu": None,
        "driver": _text("/sys/module/nvidia/version"),
        "effx": effx.__version__,
        "effx_commit": _commit(),
    }
    fixed = [description[key] for key in ("name", "machine", "cpu", "cores", "memory_bytes")]
    digest = hashlib.sha256("\n".join(map(str, fixed)).encode()).hexdigest()
    description["id"] = f"{description['name']}-{digest[:8]}"
    return description


def load_average() -> float | None:
    """Return how many processes wanted a processor over the last minute."""
    return os.getloadavg()[0] if hasattr(os, "getloadavg") else None


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

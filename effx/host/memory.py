"""Memory: total, available, peak of this process; and the garbage collector."""

from __future__ import annotations

import contextlib
import gc
import sys
from collections.abc import Iterator
from pathlib import Path

import psutil

from effx.host.cgroups import Cgroups


def total_memory_bytes() -> int:
    """Return the machine's memory."""
    return int(psutil.virtual_memory().total)


def available_memory_bytes(cgroups: Cgroups | None = None) -> int:
    """Return the memory that this process can get without swapping, within its control groups' limits."""
    available = int(psutil.virtual_memory().available)
    left = (cgroups or Cgroups()).available_memory_bytes()
    return available if left is None else min(available, left)


def resident_bytes(pid: int) -> int:
    """Return the resident size of a process now; 0: it has ended."""
    try:
        return int(psutil.Process(pid).memory_info().rss)
    except psutil.Error:
        return 0


def peak_resident_bytes(status: Path = Path("/proc/self/status")) -> int | None:
    """Return the peak resident size of this process since it began to run Python; None: unknown.

    VmHWM, not ru_maxrss: the latter is inherited across fork and exec, so a worker of a large
    parent would report the parent's memory.
    """
    if status.is_file():
        for line in status.read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
    try:
        import resource
    except ImportError:  # Windows
        return None
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def reset_peak(clear_refs: Path = Path("/proc/self/clear_refs")) -> bool:
    """Let :func:`peak_resident_bytes` count from now on; return whether that is possible here (Linux)."""
    try:
        clear_refs.write_text("5")  # the value that resets VmHWM, see proc(5)
    except OSError:
        return False
    return True


@contextlib.contextmanager
def collector_paused() -> Iterator[None]:
    """Pause the garbage collector in a ``with`` block that creates millions of objects which all remain.

    The collector would traverse them repeatedly and free nothing.
    """
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()

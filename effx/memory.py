"""How much memory there is to work with, and the collector that walks it."""

from __future__ import annotations

import contextlib
import gc
from collections.abc import Iterator
from pathlib import Path


def free_bytes() -> int:
    """Return memory that can be had without swapping; 0 where the system does not tell."""
    free = 0
    facts = Path("/proc/meminfo")
    if facts.is_file():
        for line in facts.read_text().splitlines():
            if line.startswith("MemAvailable:"):
                free = int(line.split()[1]) * 1024
    limit, used = (Path("/sys/fs/cgroup") / name for name in ("memory.max", "memory.current"))
    if limit.is_file() and used.is_file() and limit.read_text().strip() != "max":
        free = min(free, int(limit.read_text()) - int(used.read_text()))
    return free


@contextlib.contextmanager
def collector_paused() -> Iterator[None]:
    """Collect no cycles in a ``with`` block that makes millions of objects which all stay.

    The collector would walk them again and again, and find nothing.
    """
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()

"""How much memory there is to work with, and the collector that walks it."""

from __future__ import annotations

import contextlib
import gc
from collections.abc import Iterator
from pathlib import Path

_GROUP = Path("/sys/fs/cgroup")


def free_bytes(root: Path = _GROUP) -> int:
    """Return memory that can be had without swapping; 0 where the system does not tell.

    Args:
        root: the process's control group, whose limit counts too.
    """
    free = 0
    facts = Path("/proc/meminfo")
    if facts.is_file():
        for line in facts.read_text().splitlines():
            if line.startswith("MemAvailable:"):
                free = int(line.split()[1]) * 1024
    limit, used = (root / name for name in ("memory.max", "memory.current"))
    if limit.is_file() and used.is_file() and limit.read_text().strip() != "max":
        taken = int(used.read_text()) - _reclaimable_bytes(root)
        free = min(free, max(0, int(limit.read_text()) - taken))
    return free


def _reclaimable_bytes(root: Path) -> int:
    """Return what a control group counts as used that are files' pages, dropped when memory is asked for."""
    facts = root / "memory.stat"
    if not facts.is_file():
        return 0
    found = dict(line.split() for line in facts.read_text().splitlines())
    return int(found.get("inactive_file", 0))


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

"""Limits of this process's Linux control groups (cgroups v1 and v2): containers and schedulers set them.

The limits of all groups from the root down to that of the process apply; the tightest one counts.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

_UNLIMITED = 1 << 60  # version 1 writes a huge number where there is no limit
_CONTROLLERS = ("cpu", "memory", "cpu,cpuacct")
"""Folders of version 1 below the root that hold the limits read here."""


@dataclass(frozen=True)
class Throttling:
    """Scheduling periods of a group with a CPU quota, since the group exists or in a time."""

    periods: int
    throttled: int
    """Those in which the quota was used up, so that the group's processes were stopped."""

    @property
    def share(self) -> float:
        """Share of the periods in which the group was stopped."""
        return self.throttled / self.periods if self.periods else 0.0


def throttled_between(before: Mapping[Path, Throttling], after: Mapping[Path, Throttling]) -> Throttling:
    """Return the periods between two readings of :meth:`Cgroups.throttling`, of the group stopped most.

    Each group is compared with itself: the one that was stopped most since it exists may be another one.
    """
    passed = [
        Throttling(after[group].periods - was.periods, after[group].throttled - was.throttled)
        for group, was in before.items()
        if group in after and after[group].periods >= was.periods  # else it is a new one of this name
    ]
    return max(passed, key=lambda group: (group.share, group.periods), default=Throttling(0, 0))


@dataclass(frozen=True)
class Cgroups:
    """Folders from which control groups are read; tests use other folders."""

    root: Path = Path("/sys/fs/cgroup")
    membership: Path = Path("/proc/self/cgroup")
    """The groups that this process belongs to."""

    def cpu_quota(self) -> float | None:
        """Return the CPU quota in processors; None: no limit."""
        quotas = []
        for folder in self._folders():
            parts = (_text(folder / "cpu.max") or "").split()
            if len(parts) == 2 and parts[0] != "max":
                quotas.append(int(parts[0]) / int(parts[1]))
            quota, period = _text(folder / "cpu.cfs_quota_us"), _text(folder / "cpu.cfs_period_us")
            if quota and period and int(quota) > 0:
                quotas.append(int(quota) / int(period))
        return min(quotas, default=None)

    def throttling(self) -> dict[Path, Throttling]:
        """Return folder -> how often a CPU quota stopped each of this process's groups so far."""
        counted = {}
        for folder in self._folders():
            lines = [line.split() for line in (_text(folder / "cpu.stat") or "").splitlines()]
            stat = {line[0]: int(line[1]) for line in lines if len(line) == 2 and line[1].isdigit()}
            if "nr_periods" in stat:
                counted[folder] = Throttling(stat["nr_periods"], stat.get("nr_throttled", 0))
        return counted

    def memory_limit_bytes(self) -> int | None:
        """Return the memory limit; None: no limit."""
        limits = [limit for folder in self._folders() if (limit := _limit_bytes(folder)) is not None]
        return min(limits, default=None)

    def available_memory_bytes(self) -> int | None:
        """Return the memory that is left; None: no limit.

        Cached pages of files count as used in a group, but are dropped when memory is needed.
        """
        left = []
        for folder in self._folders():
            limit, used = _limit_bytes(folder), _used_bytes(folder)
            if limit is not None and used is not None:
                left.append(max(0, limit - (used - _reclaimable_bytes(folder))))
        return min(left, default=None)

    def _folders(self) -> Iterator[Path]:
        """Yield the folders of the process's groups, from the root down."""
        roots = [self.root, *(self.root / name for name in _CONTROLLERS if (self.root / name).is_dir())]
        paths = {line.split(":", 2)[-1].strip("/") for line in (_text(self.membership) or "").splitlines()}
        for root in roots:
            yield root
            for path in sorted(paths):
                parts = Path(path).parts
                for count in range(1, len(parts) + 1):
                    yield root.joinpath(*parts[:count])


def _limit_bytes(folder: Path) -> int | None:
    for name in ("memory.max", "memory.limit_in_bytes"):
        text = _text(folder / name)
        if text and text.isdigit() and int(text) < _UNLIMITED:
            return int(text)
    return None


def _used_bytes(folder: Path) -> int | None:
    for name in ("memory.current", "memory.usage_in_bytes"):
        text = _text(folder / name)
        if text and text.isdigit():
            return int(text)
    return None


def _reclaimable_bytes(folder: Path) -> int:
    stat = dict(line.split() for line in (_text(folder / "memory.stat") or "").splitlines())
    return int(stat.get("total_inactive_file", stat.get("inactive_file", 0)))


def _text(path: Path) -> str | None:
    try:
        return path.read_text().strip()
    except OSError:
        return None

"""Limits of control groups, in both versions, of the process's group and of those above it."""

from __future__ import annotations

from pathlib import Path

import pytest

from effx.host import cpu
from effx.host.cgroups import Cgroups, Throttling, throttled_between

MIB = 1024**2


def groups(root: Path, membership: str, **files: str) -> Cgroups:
    """Write files whose names have ``__`` for a slash."""
    for name, value in files.items():
        path = root / "fs" / name.replace("__", "/").replace("_max", ".max")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(value)
    (root / "cgroup").write_text(membership)
    return Cgroups(root / "fs", root / "cgroup")


def test_the_tightest_quota_of_all_groups_counts(tmp_path: Path) -> None:
    cgroups = groups(tmp_path, "0::/pod/box\n", pod__cpu_max="150000 100000", pod__box__cpu_max="max 100000")
    assert cgroups.cpu_quota() == 1.5
    assert groups(tmp_path / "free", "0::/\n", cpu_max="max 100000").cpu_quota() is None


def test_each_group_is_compared_with_itself_and_the_one_stopped_most_counts(tmp_path: Path) -> None:
    """The outer group was stopped more often before; in the time that is looked at only the inner one is."""
    cgroups = groups(tmp_path, "0::/pod/box\n", pod__cpu_max="150000 100000", pod__box__cpu_max="1 2")
    assert throttled_between(cgroups.throttling(), cgroups.throttling()) == Throttling(0, 0)

    def passed(pod: tuple[int, int], box: tuple[int, int]) -> None:
        for folder, (periods, throttled) in {"pod": pod, "pod/box": box}.items():
            text = f"usage_usec 5\nnr_periods {periods}\nnr_throttled {throttled}\nthrottled_usec 0\n"
            (tmp_path / "fs" / folder / "cpu.stat").write_text(text)

    passed(pod=(900_000, 500), box=(1_000, 490))
    before = cgroups.throttling()
    passed(pod=(900_020, 500), box=(1_020, 505))  # 505 > 500: now the inner group was stopped most in all
    assert throttled_between(before, cgroups.throttling()) == Throttling(20, 15)
    (tmp_path / "fs/pod/box/cpu.stat").write_text("usage_usec 5\n")  # its quota was removed
    assert throttled_between(before, cgroups.throttling()) == Throttling(20, 0)


def test_version_1_has_a_folder_per_controller(tmp_path: Path) -> None:
    cpu_folder, memory_folder = tmp_path / "fs/cpu/box", tmp_path / "fs/memory/box"
    cpu_folder.mkdir(parents=True)
    memory_folder.mkdir(parents=True)
    (cpu_folder / "cpu.cfs_quota_us").write_text("50000")
    (cpu_folder / "cpu.cfs_period_us").write_text("100000")
    (memory_folder / "memory.limit_in_bytes").write_text(str(100 * MIB))
    (memory_folder / "memory.usage_in_bytes").write_text(str(80 * MIB))
    (memory_folder / "memory.stat").write_text(f"inactive_file 5\ntotal_inactive_file {30 * MIB}\n")
    (tmp_path / "cgroup").write_text("4:memory:/box\n1:cpu:/box\n")
    cgroups = Cgroups(tmp_path / "fs", tmp_path / "cgroup")
    assert cgroups.cpu_quota() == 0.5
    assert cgroups.memory_limit_bytes() == 100 * MIB
    assert cgroups.available_memory_bytes() == 50 * MIB
    (cpu_folder / "cpu.cfs_quota_us").write_text("-1")
    (memory_folder / "memory.limit_in_bytes").write_text(str(2**63 - 4096))
    assert (cgroups.cpu_quota(), cgroups.memory_limit_bytes()) == (None, None)


def test_pages_of_files_count_as_available(tmp_path: Path) -> None:
    (tmp_path / "memory.max").write_text(f"{300 * MIB}\n")
    (tmp_path / "memory.current").write_text(f"{290 * MIB}\n")
    cgroups = Cgroups(tmp_path, tmp_path / "none")
    assert cgroups.available_memory_bytes() == 10 * MIB
    (tmp_path / "memory.stat").write_text(f"anon {10 * MIB}\ninactive_file {200 * MIB}\nactive_file 5\n")
    assert cgroups.available_memory_bytes() == 210 * MIB
    (tmp_path / "memory.current").write_text(f"{600 * MIB}\n")  # the limit was lowered
    assert cgroups.available_memory_bytes() == 0
    (tmp_path / "memory.max").write_text("max\n")
    assert cgroups.available_memory_bytes() is None


@pytest.mark.parametrize(("quota", "usable"), [("250000", 2), ("50000", 1), ("900000", 4), ("max", 4)])
def test_threads_follow_the_quota(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, quota: str, usable: int
) -> None:
    monkeypatch.setattr(cpu, "allowed_processors", lambda: 4)
    assert cpu.usable_processors(groups(tmp_path, "0::/\n", cpu_max=f"{quota} 100000")) == usable

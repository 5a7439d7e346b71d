"""Engines are unloaded where memory is short, however many the estimate allows."""

from __future__ import annotations

import os
from pathlib import Path
from types import SimpleNamespace

import pytest

from effx.host import memory
from effx.profile import profile
from effx.profile.pool import WorkerPool
from tests.conftest import QUICK


@pytest.mark.parametrize(("left_bytes", "most"), [(10**9, 1), (10**12, 2)])
def test_memory_that_engines_took_counts(
    left_bytes: int, most: int, engines_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With 1 GB left, there is room for the estimate, but not for another engine that takes 1.5 GB."""
    loaded = []
    acquire = WorkerPool.acquire

    def recorded(pool: WorkerPool, engine: object) -> None:
        acquire(pool, engine)  # type: ignore[arg-type]
        loaded.append(len(pool.pids))

    monkeypatch.setattr(WorkerPool, "acquire", recorded)
    monkeypatch.setattr(memory, "available_memory_bytes", lambda: left_bytes)
    monkeypatch.setattr(memory, "resident_bytes", lambda pid: 1_500_000_000)
    runs, failures = profile([engines_folder], out=tmp_path, plan=QUICK.replace(resident=2), meter="none")
    assert len(runs) == 2 and not failures
    assert max(loaded) == most


class Loaded:
    """An engine of some size, without a process; the test of the pool needs no answers."""

    def __init__(self, pid: int, taken_bytes: int) -> None:
        self.number, self.taken_bytes, self.loads = pid, taken_bytes, 0
        self.pid: int | None = None
        self.engine = SimpleNamespace(size_bytes=10_000_000)

    def load(self) -> None:
        self.pid, self.loads = self.number, self.loads + 1

    def unload(self) -> None:
        self.pid = None

    def read_memory(self) -> None:
        pass


def test_small_engines_stay_loaded_beside_a_large_one(monkeypatch: pytest.MonkeyPatch) -> None:
    """Once it is known how little they take, they are not unloaded for each other."""
    large, *small = [Loaded(1, 6_000_000_000), *(Loaded(pid, 100_000_000) for pid in (2, 3, 4))]
    taken = {each.number: each.taken_bytes for each in (large, *small)}
    pool = WorkerPool(4)
    monkeypatch.setattr(memory, "resident_bytes", lambda pid: taken[pid])
    left = 7_000_000_000
    monkeypatch.setattr(memory, "available_memory_bytes", lambda: left - sum(taken[pid] for pid in pool.pids))
    for _ in range(5):
        for each in (large, *small):
            pool.acquire(each)  # type: ignore[arg-type]
            assert sum(taken[pid] for pid in pool.pids) <= left
    assert large.loads == 2  # unloaded once, for engines that might have needed as much
    pool.discard(large)  # type: ignore[arg-type]
    before = [each.loads for each in small]
    for _ in range(5):
        for each in small:
            pool.acquire(each)  # type: ignore[arg-type]
    assert [each.loads for each in small] == before


def test_resident_size_of_a_process() -> None:
    assert 10_000_000 < memory.resident_bytes(os.getpid()) < 100 * 2**30
    assert memory.resident_bytes(2**22 + 1) == 0

"""Engines are unloaded where memory is short, however many the estimate allows."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from effx.host import memory
from effx.profile import profile
from effx.profile.engine_under_test import EngineUnderTest
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


def test_small_engines_stay_loaded_beside_a_large_one(
    engines_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The large engine fits alone; the small one is not loaded again in every block because of it."""
    loads: list[str] = []
    sizes = {"fp32": 6_000_000_000, "int8": 100_000_000}
    names: dict[int, str] = {}
    load = EngineUnderTest.load

    def recorded(engine: EngineUnderTest) -> None:
        load(engine)
        loads.append(engine.name)
        assert engine.pid is not None
        names[engine.pid] = engine.name

    def size(pid: int) -> int:
        return next(size for part, size in sizes.items() if part in names[pid])

    monkeypatch.setattr(EngineUnderTest, "load", recorded)
    monkeypatch.setattr(memory, "resident_bytes", size)
    monkeypatch.setattr(memory, "available_memory_bytes", lambda: 5_000_000_000)
    profile([engines_folder], out=tmp_path, plan=QUICK.replace(resident=2), meter="none")
    assert loads.count("tiny.int8.onnxruntime") < loads.count("tiny.fp32.onnxruntime")


def test_resident_size_of_a_process() -> None:
    assert 10_000_000 < memory.resident_bytes(os.getpid()) < 100 * 2**30
    assert memory.resident_bytes(2**22 + 1) == 0

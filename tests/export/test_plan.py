"""Building several engines at once, and the folders they are written to."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import tempfile
import threading
import time
from pathlib import Path

import pytest

from effx.artifacts import Checkpoint, Engine
from effx.cli import run
from effx.errors import UsageError
from effx.export import export_all, plan
from effx.export.build import Job
from effx.specs.variants import parse
from tests import cache


def test_several_processes_build_the_same_engines_as_one(
    checkpoint: Checkpoint, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(plan, "_in_process", cache.build_in_process)
    shutil.copytree(checkpoint.folder, tmp_path / "ck" / "a")
    shutil.copytree(checkpoint.folder, tmp_path / "ck" / "b")
    names = ["fp32", "int8-dynamic", "seq16", "exit", "fp16"]
    one, wrong = export_all([tmp_path / "ck"], names, out=tmp_path / "one")
    two, wrong_too = export_all([tmp_path / "ck"], names, out=tmp_path / "two", jobs=2)
    assert [engine.name for engine in one] == [engine.name for engine in two]
    assert [engine.name for engine in one] == [
        f"{name}.{variant}.onnxruntime" for name in "ab" for variant in ("fp32", "int8-dynamic", "seq16")
    ]
    for mine, theirs in zip(one, two, strict=True):
        assert mine.manifest.files == theirs.manifest.files
        for key in ("max_abs_diff", "label_agreement", "accuracy"):
            assert getattr(mine.manifest.parity, key) == pytest.approx(
                getattr(theirs.manifest.parity, key), abs=1e-6
            )
    assert sorted(map(str, wrong)) == sorted(map(str, wrong_too))
    assert sum("has no exits" in str(error) for error in wrong) == 2
    assert sum("does not build fp16" in str(error) for error in wrong) == 2


def test_checkpoints_of_one_name_are_refused_before_anything_is_built(
    checkpoint: Checkpoint, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Their engines would be written to the same folders, the second over the first."""
    monkeypatch.setattr(plan, "_one_by_one", lambda *_: pytest.fail("built"))
    for folder in ("a", "b"):
        shutil.copytree(checkpoint.folder, tmp_path / folder / "same")
    with pytest.raises(UsageError, match="two checkpoints of one name"):
        export_all([tmp_path / "a", tmp_path / "b"], ["fp32"], out=tmp_path / "engines")
    assert not (tmp_path / "engines").exists()


def test_a_checkpoint_that_is_given_twice_is_built_once(
    checkpoint: Checkpoint, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(checkpoint.folder, tmp_path / "a" / "same")
    (tmp_path / "b").mkdir()
    (tmp_path / "b" / "same").symlink_to(tmp_path / "a" / "same")
    jobs: list[Job] = []
    monkeypatch.setattr(
        plan, "_one_by_one", lambda groups, *_: [jobs.append(job) for group in groups for job in group] and []
    )
    export_all([tmp_path / "a", tmp_path / "b"], ["fp32"], out=tmp_path / "engines")
    assert len(jobs) == 1


def test_an_engine_that_two_variants_name_is_built_once(
    checkpoint: Checkpoint, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    jobs: list[Job] = []
    monkeypatch.setattr(
        plan, "_one_by_one", lambda groups, *_: [jobs.append(job) for group in groups for job in group] and []
    )
    names = ["seq16 + int8", "int8+seq16", "seq16+int8", "int8"]
    export_all([checkpoint.folder], names, out=tmp_path / "engines")
    assert sorted(job.target.name for job in jobs) == [
        "tiny.int8.onnxruntime", "tiny.seq16+int8.onnxruntime",
    ]  # fmt: skip


def children() -> set[int]:
    """Return the processes that this one has started and that are there."""
    pids = set()
    for directory in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            if int((directory / "stat").read_bytes().rpartition(b")")[2].split()[1]) == os.getpid():
                pids.add(int(directory.name))
    return pids


def kill_a_builder(others: set[int], killed: list[int]) -> None:
    """Kill the first new child that has begun to build, as the kernel does when memory runs out."""
    until = time.monotonic() + 60
    while time.monotonic() < until:
        for pid in children() - others:
            with contextlib.suppress(OSError):
                if b"libtorch" in Path(f"/proc/{pid}/maps").read_bytes():
                    os.kill(pid, signal.SIGKILL)
                    killed.append(pid)
                    return
        time.sleep(0.05)


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="processes are read from /proc")
def test_dead_process_loses_only_its_engines(checkpoint: Checkpoint, tmp_path: Path) -> None:
    jobs = [
        Job(checkpoint.folder, parse("fp32"), "onnxruntime", "cpu", tmp_path / f"{label}.fp32.onnxruntime")
        for label in "ab"
    ]
    killed: list[int] = []
    # Other children are other tests' business: torch.compile's workers stay and have libtorch mapped.
    killer = threading.Thread(target=kill_a_builder, args=(children(), killed))
    killer.start()
    outcomes = dict(plan._several([[job] for job in jobs], (None, 8), 2))
    killer.join()
    assert len(killed) == 1
    assert list(outcomes) == [job.target for job in jobs]
    lost = {target for target, error in outcomes.items() if error is not None}
    assert lost and all("build fewer engines at the same time" in str(outcomes[target]) for target in lost)
    # the pool ends the other one too, unless it sees the death only when that one is done
    assert sorted(tmp_path.iterdir()) == sorted(set(outcomes) - lost)


def test_free_memory_limits_the_number_of_processes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "model.safetensors").write_bytes(b"x" * 1000)
    groups = [[Job(tmp_path, parse("fp32"), "onnxruntime", "cpu", tmp_path)] for _ in range(4)]
    monkeypatch.setattr(plan.cpu, "usable_processors", lambda: 8)
    for free, expected in ((100e9, 4), (3.1e9, 2), (1e6, 1)):
        monkeypatch.setattr(plan.memory, "available_memory_bytes", lambda free=free: int(free))
        assert plan._affordable(groups) == expected
    assert plan._affordable(groups[:2]) == 1


def test_full_disk_leaves_no_files(
    checkpoint: Checkpoint,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """A file system of 128 kilobytes takes neither the engine nor the builder's scratch files."""
    small = tmp_path / "small"
    small.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=128k", "effx-test", str(small)], capture_output=True
    )
    if mounted.returncode:
        pytest.skip("mounting a small file system needs more rights than this user has")
    try:
        for scratch, out in ((tmp_path, small / "engines"), (small, tmp_path / "engines")):
            monkeypatch.setattr(tempfile, "tempdir", str(scratch))
            for backend in ("onnxruntime", "openvino", "torch"):
                command = ["export", str(checkpoint.folder), "--backend", backend, "--jobs", "1"]
                assert run([*command, "-o", str(out)]) == 2
                line = capsys.readouterr().err.splitlines()[-1]
                assert line.startswith("effx: cannot write ") and "Free disk space" in line
                assert Engine.find(out) == []
                assert not out.is_dir() or not list(out.iterdir())
            assert [path.name for path in small.iterdir()] in ([], ["engines"])
    finally:
        monkeypatch.setattr(tempfile, "tempdir", None)
        subprocess.run(["umount", str(small)], check=True)

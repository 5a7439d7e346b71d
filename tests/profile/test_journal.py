"""A session that is interrupted: what was measured is in its journal, and the rest is measured later."""

from __future__ import annotations

import errno
import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest

from effx import results
from effx.cli import run as command
from effx.engines.mock import MockBehavior
from effx.errors import ArtifactError, UsageError
from effx.host import identity
from effx.profile import journal, profile, resume
from effx.profile.client import WorkerClient
from effx.specs.measurement import MeasurementPlan
from tests.profile.test_failures import rows, write

__all__ = ["rows"]
ROOT = Path(__file__).parents[2]
PLAN = MeasurementPlan(
    grid=((1, 8),), rounds=4, block_queries=8, block_s=0.0, grid_rounds=3, grid_block_s=0.0, grid_queries=3,
    warmup_s=0.02, window_s=0.05,
)  # fmt: skip


@pytest.fixture
def engines(tmp_path: Path, rows: Path) -> Path:
    return write(tmp_path / "engines", rows, a=MockBehavior(), b=MockBehavior(seed=1))


def interrupt(monkeypatch: pytest.MonkeyPatch, action: str, at: int) -> None:
    """Raise KeyboardInterrupt at the given request of a kind."""
    real, seen = WorkerClient.request, []

    def request(self: WorkerClient, name: str, **arguments: object) -> object:
        seen.append(name)
        if seen.count(action) == at and name == action:
            raise KeyboardInterrupt
        return real(self, name, **arguments)

    monkeypatch.setattr(WorkerClient, "request", request)


def interrupted(folder: Path) -> str:
    """Return the id of the session that was interrupted."""
    (path,) = (folder / journal.FOLDER).glob("*.jsonl")
    return path.stem


@pytest.mark.parametrize("at", [2, 9, 16])  # 8 blocks of single queries, 6 of the grid, 6 windows
def test_complete_rounds_are_kept_and_the_rest_is_measured(
    engines: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, at: int
) -> None:
    with monkeypatch.context() as patch:
        interrupt(patch, "block", at)
        with pytest.raises(KeyboardInterrupt) as stopped:
            profile([engines], out=tmp_path / "r", plan=PLAN, meter="model:10")
    session = interrupted(tmp_path / "r")
    assert stopped.value.__notes__ == [f"what was measured is in session {session}, which can be resumed."]
    entries = journal.read(tmp_path / "r" / journal.FOLDER / f"{session}.jsonl").entries
    kept = {
        (entry.engine, entry.workload.name, entry.round): [round(s, 9) for s in entry.block.samples_s]
        for entry in entries
        if entry.block is not None and entry.workload is not None
    }
    complete = [
        (entry.workload.name, entry.round) for entry in entries if entry.step == "round" and entry.workload
    ]
    runs, errors = resume(session, out=tmp_path / "r")
    assert not errors and [run.name for run in runs] == ["a", "b"]
    assert not (tmp_path / "r" / journal.FOLDER).exists()
    assert {run.id for run in results.find([tmp_path / "r"])} == {run.id for run in runs}
    for number, run in enumerate(runs):
        assert [(found.workload.name, found.rounds) for found in run.workloads] == [
            ("single-stream 1xreal", [0, 1, 2, 3]), ("grid 1x8", [0, 1, 2])
        ]  # fmt: skip
        for found in run.workloads:
            for block, index in zip(found.blocks_s, found.rounds, strict=True):
                before = kept.get((number, found.workload.name, index))
                assert (block == before) is ((found.workload.name, index) in complete)
        assert len(run.workloads[0].energy.windows) == PLAN.windows
        (gap,) = run.settings.interruptions
        assert gap.stopped < gap.resumed
        assert gap.rounds == len(complete)
        assert run.session == session


@pytest.mark.parametrize("at", [(4, 4), (16, 3)])  # a block of single queries; an energy window
def test_a_round_that_was_interrupted_twice_counts_once(
    engines: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, at: tuple[int, int]
) -> None:
    """Its first engine was measured by two processes, of which the second completed the round."""
    out = tmp_path / "r"
    with monkeypatch.context() as patch:
        interrupt(patch, "block", at[0])
        with pytest.raises(KeyboardInterrupt):
            profile([engines], out=out, plan=PLAN, meter="model:10")
    session = interrupted(out)
    with monkeypatch.context() as patch:
        interrupt(patch, "block", at[1])
        with pytest.raises(KeyboardInterrupt):
            resume(session, out=out)
    entries = journal.read(out / journal.FOLDER / f"{session}.jsonl").entries
    measured = [
        (entry.engine, entry.step, entry.workload, entry.round)
        for entry in entries
        if entry.step in ("block", "window")
    ]
    assert len(set(measured)) < len(measured)
    kept = {
        (entry.engine, entry.workload.name, entry.round): [round(s, 9) for s in entry.block.samples_s]
        for entry in entries  # a later entry of a round replaces the earlier one
        if entry.block is not None and entry.workload is not None
    }
    runs, errors = resume(session, out=out)
    assert not errors and [run.name for run in runs] == ["a", "b"]
    for number, run in enumerate(runs):
        single, cell = run.workloads
        assert single.rounds == [0, 1, 2, 3] and cell.rounds == [0, 1, 2]
        assert single.blocks_s[0] == kept[number, single.workload.name, 0]
        assert single.blocks_s[1] == kept[number, single.workload.name, 1]
        assert len(single.energy.windows) == PLAN.windows


def test_a_session_without_interruption_leaves_no_journal(engines: Path, tmp_path: Path) -> None:
    runs, _ = profile([engines], out=tmp_path / "r", plan=PLAN, meter="none")
    assert [path.suffix for path in (tmp_path / "r").iterdir()] == [".json", ".json"]
    assert runs[0].settings.interruptions == []


def test_a_killed_session_is_resumed(engines: Path, tmp_path: Path) -> None:
    arguments = ["profile", str(engines), "-o", "r", "--meter", "none", "--grid", "none", "--rounds", "60"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    process = subprocess.Popen(
        [sys.executable, "-m", "effx", *arguments], cwd=tmp_path, env=environment, stderr=subprocess.DEVNULL
    )
    limit_s = time.monotonic() + 120
    while not any('"step":"round"' in path.read_text() for path in tmp_path.glob("r/*/*.jsonl")):
        assert process.poll() is None and time.monotonic() < limit_s
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    process.wait()
    (path,) = tmp_path.glob("r/*/*.jsonl")
    with path.open("ab") as file:
        file.write(b'{"step":"bl')  # as if it was killed while it wrote
    # fewer rounds, so that the test is short
    lines = path.read_text().split("\n")
    header = json.loads(lines[0])
    header["plan"] |= {"rounds": 3, "block_s": 0.0, "block_queries": 5}
    path.write_text("\n".join([json.dumps(header), *lines[1:]]))
    assert command(["profile", "--resume", path.stem, "-o", str(tmp_path / "r")]) == 0
    assert [run.name for run in results.find([tmp_path / "r"])] == ["a", "b"]


def test_a_session_is_not_resumed_if_something_has_changed(
    engines: Path, tmp_path: Path, rows: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        interrupt(patch, "block", 4)
        with pytest.raises(KeyboardInterrupt):
            profile([engines], out=tmp_path / "r", plan=PLAN, meter="none")
    session = interrupted(tmp_path / "r")
    real = identity.host(None)
    with monkeypatch.context() as patch:
        patch.setattr(identity, "host", lambda name: replace(real, cores=99))
        with pytest.raises(
            UsageError, match=r"cannot be resumed, because this has changed: cores \(.*, now 99\)"
        ):
            resume(session, out=tmp_path / "r")
    validation = rows / "validation.jsonl"
    before = validation.read_text()
    validation.write_text(before.replace("dull", "lively"))
    with pytest.raises(UsageError, match="has changed: rows. Measure the engines again"):
        resume(session, out=tmp_path / "r")
    validation.write_text(before)
    path = tmp_path / "r" / journal.FOLDER / f"{session}.jsonl"
    path.write_text("{}\n" + path.read_text())
    with pytest.raises(ArtifactError, match="is not the journal of a session"):
        resume(session, out=tmp_path / "r")
    with pytest.raises(UsageError, match=f"123 is not an interrupted session in .*: {session}"):
        resume("123", out=tmp_path / "r")


def test_settings_cannot_change_when_a_session_is_resumed(capsys: pytest.CaptureFixture[str]) -> None:
    assert command(["profile", "--resume", "abc", "--rounds", "5"]) == 2
    assert "leave these out (option --rounds)" in capsys.readouterr().err


def test_a_cell_of_a_recipe_resumes_its_session(
    engines: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its folder of results is removed with the cell, the journal is not."""
    path = tmp_path / "session.jsonl"
    with monkeypatch.context() as patch:
        interrupt(patch, "memory", 2 + 2 * 4 + 2 * 3 + 2)  # the first result is saved, the second is not
        with pytest.raises(KeyboardInterrupt):
            profile([engines], out=tmp_path / "first", plan=PLAN, meter="none", journal=path)
    runs, _ = profile([engines], out=tmp_path / "second", plan=PLAN, meter="none", journal=path)
    assert not path.exists()
    assert len(results.find([tmp_path / "second"])) == 2
    assert [len(run.settings.interruptions) for run in runs] == [1, 1]


def test_a_full_disk_costs_the_journal_and_not_the_session(
    engines: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(journal.Journal, "_append", full)
    runs, _ = profile([engines], out=tmp_path / "r", plan=PLAN, meter="none")
    assert len(runs) == 2
    assert "No space left on device. Measuring continues" in capsys.readouterr().err

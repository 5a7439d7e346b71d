"""Locks of cells: held, free, stale; measurements alone on their host."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import time
from dataclasses import asdict, replace
from pathlib import Path

import pytest

from effx.errors import UsageError
from effx.host import locks
from effx.host.locks import Lock


def test_a_lock_has_one_holder_and_can_be_released(tmp_path: Path) -> None:
    path = tmp_path / "locks" / "a"
    first, second = Lock(path), Lock(path)
    assert first.take() and first.held
    assert not second.take()
    held = locks.holder(path)
    assert held is not None and held.pid == os.getpid()
    second.release()  # it does not hold the lock: no effect
    assert first.held
    first.release()
    assert locks.holder(path) is None
    assert second.take()
    second.release()


def test_the_lock_of_a_killed_process_is_free(tmp_path: Path) -> None:
    path = tmp_path / "a"
    code = f"""
import time
from pathlib import Path
from effx.host.locks import Lock
print(Lock(Path({str(path)!r})).take(), flush=True)
time.sleep(60)
"""
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True) as child:
        assert child.stdout is not None
        assert child.stdout.readline() == "True\n"
        assert not Lock(path).take()
        child.kill()
        child.wait()
        lock = Lock(path)
        assert lock.take()
        lock.release()


@pytest.mark.parametrize(
    ("changes", "age_s", "free"),
    [
        ({"pid": 2**22 + 1}, 0, True),  # no process has that id
        ({"started": "1"}, 0, True),  # the id was reused by another process
        ({}, 1000, False),  # the process runs, although it did not touch the file for long
        ({"host": "elsewhere 1 2"}, 0, False),
        ({"host": "elsewhere 1 2"}, locks.STALE_S + 5, True),
    ],
)
def test_a_lock_is_stale_if_its_process_ended_or_did_not_touch_it(
    tmp_path: Path, changes: dict[str, object], age_s: float, free: bool
) -> None:
    path = tmp_path / "a"
    path.write_text(json.dumps(asdict(replace(locks.this_process(), **changes))))
    then = time.time() - age_s
    os.utime(path, (then, then))
    lock = Lock(path)
    assert lock.take() is free
    lock.release()
    assert path.exists() is not free


def test_a_lock_is_touched_while_held(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(locks, "BEAT_S", 0.02)
    path = tmp_path / "a"
    lock = Lock(path)
    assert lock.take()
    os.utime(path, (1, 1))
    until = time.monotonic() + 10
    while path.stat().st_mtime < 2 and time.monotonic() < until:
        time.sleep(0.01)
    lock.release()
    assert not path.exists()


def test_processes_that_race_for_a_stale_lock_get_it_one_at_a_time(tmp_path: Path) -> None:
    """Every process gets the lock, one after the other."""
    path, log = tmp_path / "a", tmp_path / "log"
    path.write_text(json.dumps(asdict(replace(locks.this_process(), pid=2**22 + 1))))
    code = f"""
import time
from pathlib import Path
from effx.host.locks import Lock
lock = Lock(Path({str(path)!r}))
while not lock.take():
    time.sleep(0.001)
with open({str(log)!r}, "a") as log:
    log.write("in\\n"); log.flush(); time.sleep(0.02); log.write("out\\n"); log.flush()
lock.release()
"""
    children = [subprocess.Popen([sys.executable, "-c", code]) for _ in range(6)]
    assert [child.wait(60) for child in children] == [0] * 6
    assert log.read_text() == "in\nout\n" * 6


def test_a_measurement_runs_alone_on_its_host(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(locks, "parent_folder", lambda: tmp_path)
    log = tmp_path / "log"
    code = f"""
import sys, tempfile, time
tempfile.tempdir = {str(tmp_path)!r}
from effx.host.locks import on_this_host
with on_this_host(alone=sys.argv[1] == "alone"):
    with open({str(log)!r}, "a") as log:
        log.write(sys.argv[1] + "\\n"); log.flush(); time.sleep(0.3); log.write("end " + sys.argv[1] + "\\n")
"""
    with locks.on_this_host(alone=False), locks.on_this_host(alone=False):  # the inner has no effect
        measuring = subprocess.Popen([sys.executable, "-c", code, "alone"])
        time.sleep(1.5)
        assert not log.exists()  # it waits for the two
        late = subprocess.Popen([sys.executable, "-c", code, "shared"])
        time.sleep(1.5)
        assert not log.exists()  # and no other cell may start before it
    assert [child.wait(30) for child in (measuring, late)] == [0, 0]
    assert log.read_text().splitlines() == ["alone", "end alone", "shared", "end shared"]


def test_a_measurement_that_does_not_wait_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(locks, "parent_folder", lambda: tmp_path)
    code = f"""
import tempfile, time
tempfile.tempdir = {str(tmp_path)!r}
from effx.host.locks import on_this_host
with on_this_host(alone=True):
    print("measuring", flush=True)
    time.sleep(60)
"""
    waited: list[str] = []
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True) as child:
        assert child.stdout is not None
        assert child.stdout.readline() == "measuring\n"
        expected = rf"another effx run measures on this host \(process {child.pid} since \d\d:\d\d:\d\d\)"
        with pytest.raises(UsageError, match=expected), locks.on_this_host(alone=True, wait=False):
            pass
        threading.Timer(0.3, child.kill).start()
        with locks.on_this_host(alone=True, waiting=waited.append):
            assert child.wait(30) != 0
    assert len(waited) == 1 and f"process {child.pid}" in waited[0]


def test_a_lock_that_cannot_be_written_does_not_prevent_measuring(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setattr(locks, "parent_folder", lambda: tmp_path / "file")
    with locks.on_this_host(alone=True):
        pass
    assert "Not a directory" in capsys.readouterr().err

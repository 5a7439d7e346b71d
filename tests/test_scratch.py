"""Temporary folders: removed at the end, and after SIGKILL by the next process; nothing else ever is."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from effx import scratch
from effx.errors import UsageError


@pytest.fixture
def tmpdir_here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "tmp"
    folder.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    return folder


def left_by(code: str, folder: Path) -> int:
    """Run code in a process with ``folder`` as TMPDIR; return its exit code."""
    environment = {**os.environ, "TMPDIR": str(folder), "PYTHONPATH": str(Path(__file__).parents[1])}
    return subprocess.run([sys.executable, "-c", code], env=environment, check=False).returncode


KILLED = """
import os, signal
from effx import scratch
with scratch.folder("export") as folder:
    (folder / "a").mkdir()
    (folder / "a" / "graph").write_text("x" * 1000)
    os.kill(os.getpid(), signal.SIGKILL)
"""


def test_a_folder_is_removed_at_the_end_and_after_an_error(tmpdir_here: Path) -> None:
    with scratch.folder("export") as folder:
        (folder / "graph").write_text("x")
        assert folder.parent == tmpdir_here
    with pytest.raises(RuntimeError), scratch.folder("export"):
        raise RuntimeError
    assert list(tmpdir_here.iterdir()) == []


def test_what_a_killed_process_left_is_removed_by_the_next(tmpdir_here: Path) -> None:
    assert left_by(KILLED, tmpdir_here) == -signal.SIGKILL
    assert len(list(tmpdir_here.iterdir())) == 1
    scratch.remove_leftovers()
    assert list(tmpdir_here.iterdir()) == []


def test_folders_in_use_and_folders_of_users_stay(tmpdir_here: Path) -> None:
    (tmpdir_here / "effx-demo").mkdir()
    results = tmpdir_here / "effx-results-abcd1234"  # rescued results
    results.mkdir()
    (results / "a.json").write_text("{}")
    (tmpdir_here / "effx-export-abcd1234").write_text("a file")
    (tmpdir_here / "effx-export-abcd1235").symlink_to(results)
    with scratch.folder("export") as used:
        before = sorted(tmpdir_here.iterdir())
        scratch.remove_leftovers()
        assert sorted(tmpdir_here.iterdir()) == before
        code = "from effx import scratch; scratch.remove_leftovers()"
        assert left_by(code, tmpdir_here) == 0
        assert used.is_dir() and sorted(tmpdir_here.iterdir()) == before
    assert (results / "a.json").exists()


def test_the_folder_of_the_process_is_removed_when_it_ends(tmpdir_here: Path) -> None:
    code = (
        "from effx import scratch; (scratch.of_process() / 'a').write_text('x'); assert scratch.environment()"
    )
    assert left_by(code, tmpdir_here) == 0
    assert list(tmpdir_here.iterdir()) == []


def test_libraries_write_into_the_folder_and_the_variables_are_restored(tmpdir_here: Path) -> None:
    before = os.environ.get("TMPDIR")
    with scratch.folder("verify") as folder, scratch.as_tmpdir(folder):
        assert tempfile.gettempdir() == os.environ["TMPDIR"] == str(folder)
    assert tempfile.gettempdir() == str(tmpdir_here) and os.environ.get("TMPDIR") == before


@pytest.mark.skipif(os.name == "nt", reason="folders")
def test_a_folder_for_temporary_files_that_cannot_be_written_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "missing"))
    with pytest.raises(UsageError, match=r"cannot write .*missing.*No such file"), scratch.folder("train"):
        pass


def test_a_full_folder_for_temporary_files_is_named(tmpdir_here: Path) -> None:
    with pytest.raises(UsageError, match=f"cannot write {tmpdir_here}.*set TMPDIR"), scratch.folder("train"):
        raise Exception("No space left on device (os error 28)")
    with pytest.raises(OSError, match="elsewhere"), scratch.folder("train"):
        raise OSError(errno.ENOSPC, "No space left on device", "/elsewhere/a")
    assert list(tmpdir_here.iterdir()) == []

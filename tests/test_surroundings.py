"""Commands in unusual surroundings: full and read-only disks, no HOME, C locale, a narrow terminal."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from effx import results
from effx.artifacts import Checkpoint, Engine

ROOT = Path(__file__).parents[1]
pytestmark = pytest.mark.slow
OUTPUT = {"train": "checkpoints", "export": "engines", "profile": "results", "report": "report"}
FULL_BYTES = 16 * 1024


@pytest.fixture
def lines(
    checkpoint: Checkpoint,
    engines_folder: Path,
    results_folder: Path,
    encoders: dict[str, Path],
    rows_folder: Path,
) -> dict[str, list[str]]:
    """The command lines, without the output folder."""
    return {
        "train": ["train", "finetune", "sst2", "--model", str(encoders["bert"]), "--data", str(rows_folder),
                  "--max-steps", "2", "--max-length", "32", "--name", "a"],
        "export": ["export", str(checkpoint.folder), "--variant", "fp32", "--jobs", "1"],
        "profile": ["profile", str(engines_folder), "--rounds", "3", "--grid", "none", "--meter", "none"],
        "report": ["report", str(results_folder)],
    }  # fmt: skip


def effx(arguments: list[str], folder: Path, **environment: str | None) -> subprocess.CompletedProcess[str]:
    """Run a command; a variable that is None is unset."""
    values = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", **environment}
    return subprocess.run(
        [sys.executable, "-m", "effx", *arguments],
        cwd=folder, text=True, capture_output=True, stdin=subprocess.DEVNULL, check=False, timeout=600,
        env={name: value for name, value in values.items() if value is not None},
    )  # fmt: skip


def opens(out: Path, command: str) -> None:
    """Check that what a command wrote opens."""
    if command == "train":
        Checkpoint.open(out / "a")
    elif command == "export":
        assert [Engine.open(path) for path in sorted(out.iterdir())]
    elif command == "profile":
        assert len(results.find([out])) == 2
    else:
        assert (out / "index.html").stat().st_size > 1000


@contextlib.contextmanager
def mounted(folder: Path, options: str) -> Iterator[Path]:
    """Mount a tmpfs on a new folder."""
    if os.geteuid() != 0 or shutil.which("mount") is None:
        pytest.skip("only root can mount a small file system")
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(folder)]
    if subprocess.run(mount, capture_output=True, check=False).returncode != 0:
        pytest.skip("mounting is not allowed here")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=True)


@pytest.mark.parametrize("command", OUTPUT)
@pytest.mark.parametrize(
    "environment",
    [{"HOME": None, "XDG_STATE_HOME": None, "XDG_CACHE_HOME": None},
     {"LANG": "C", "LC_ALL": "C", "COLUMNS": "40"},
     {"TERM": "dumb", "COLUMNS": "40"}, {"TMPDIR": "/missing"}],
    ids=["no home", "C locale", "40 columns", "TMPDIR is missing"],
)  # fmt: skip
def test_a_command_works_as_usual(
    lines: dict[str, list[str]], tmp_path: Path, command: str, environment: dict[str, str | None]
) -> None:
    out = tmp_path / OUTPUT[command]
    run = effx([*lines[command], "-o", str(out)], tmp_path, **environment)
    assert run.returncode == 0, run.stderr[-1000:]
    assert "Traceback" not in run.stderr
    opens(out, command)


@pytest.mark.parametrize("command", OUTPUT)
@pytest.mark.parametrize("options", [f"size={FULL_BYTES}", "ro"], ids=["full", "read-only"])
def test_a_folder_that_cannot_be_written_is_named_and_nothing_is_left(
    lines: dict[str, list[str]], tmp_path: Path, command: str, options: str
) -> None:
    with mounted(tmp_path / "small", options) as disk:
        out = disk / OUTPUT[command]
        run = effx([*lines[command], "-o", str(out)], tmp_path, TMPDIR=str(tmp_path), HOME=str(tmp_path))
        assert run.returncode == 2, run.stderr[-1000:]
        assert "Traceback" not in run.stderr
        last = run.stderr.splitlines()[-1]
        assert last.startswith("effx: cannot write") and str(disk) in last
        assert [path for path in disk.rglob("*") if path.is_file() and path.suffix != ".json"] == []
    if command == "profile" and options != "ro":  # what was measured is somewhere else
        (elsewhere,) = tmp_path.glob("effx-results-*")
        assert len(results.find([elsewhere])) + last.count("Not saved") >= 1


@pytest.mark.parametrize("command", ["train", "export"])
def test_a_full_folder_for_temporary_files_is_named(
    lines: dict[str, list[str]], tmp_path: Path, command: str
) -> None:
    with mounted(tmp_path / "small", f"size={FULL_BYTES}") as disk:
        run = effx([*lines[command], "-o", str(tmp_path / "out")], tmp_path, TMPDIR=str(disk))
        assert run.returncode in (0, 2), run.stderr[-1000:]  # training may need no space there
        assert "Traceback" not in run.stderr
        if run.returncode == 2:
            assert str(disk) in run.stderr.splitlines()[-1]
            assert "set TMPDIR" in run.stderr.splitlines()[-1]
        assert [path for path in disk.iterdir() if path.name.startswith("effx-export")] == []
    assert run.returncode == 0 or not list((tmp_path / "out").glob("*"))

from __future__ import annotations

import errno
import os
import shutil
import socket
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from effx import files
from effx.errors import ArtifactError, UsageError


def test_a_folder_is_written_completely_or_not_at_all(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError), files.new_folder(tmp_path / "a") as folder:
        (folder / "x").write_text("1")
        raise RuntimeError
    assert list(tmp_path.iterdir()) == []
    with files.new_folder(tmp_path / "a") as folder:
        (folder / "x").write_text("1")
        assert not (tmp_path / "a").exists()
    assert (tmp_path / "a" / "x").read_text() == "1"
    with pytest.raises(UsageError, match="exists already"), files.new_folder(tmp_path / "a"):
        pass
    with files.new_folder(tmp_path / "a", replace=True) as folder:
        (folder / "y").write_text("2")
    assert [path.name for path in (tmp_path / "a").iterdir()] == ["y"]
    assert [path.name for path in tmp_path.iterdir()] == ["a"]


@pytest.mark.parametrize("name", [".", "../a", "b/.."])
def test_the_current_folder_can_be_replaced(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    """The process is still in the folder afterwards and sees its new content."""
    (tmp_path / "a/b").mkdir(parents=True)
    (tmp_path / "a/old").write_text("1")
    monkeypatch.chdir(tmp_path / "a")
    for _ in range(2):
        with files.new_folder(Path(name), replace=True) as folder:
            (folder / "new").write_text("2")
            (folder / "b").mkdir()
        assert sorted(os.listdir(os.curdir)) == ["b", "new"]
    assert [path.name for path in tmp_path.iterdir()] == ["a"]


def test_replacing_the_current_folder_fails_like_any_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "old").write_text("1")
    with pytest.raises(UsageError, match="^. exists already"), files.new_folder(Path(".")):
        pass
    with pytest.raises(RuntimeError), files.new_folder(Path("."), replace=True) as folder:
        (folder / "new").write_text("2")
        raise RuntimeError
    assert os.listdir(os.curdir) == ["old"]


def test_leftovers_of_a_killed_writer_are_removed_by_the_next_writer(tmp_path: Path) -> None:
    code = (
        "import os, signal, sys; from pathlib import Path; from effx import files\n"
        "with files.new_folder(Path(sys.argv[1])) as folder:\n"
        "    (folder / 'x').write_text('half')\n"
        "    os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    subprocess.run([sys.executable, "-c", code, str(tmp_path / "a")], check=False)
    (left,) = tmp_path.iterdir()
    assert left.name.startswith(".a.")
    with files.new_folder(tmp_path / "a"):
        pass
    assert [path.name for path in tmp_path.iterdir()] == ["a"]


WRITE = (
    "import os, sys; from pathlib import Path; from effx import files\n"
    "with files.new_folder(Path(sys.argv[1]), replace=True) as folder:\n"
    "    (folder / 'x').write_text(str(os.getpid()))\n"
    "    if sys.argv[2] == 'killed': os._exit(137)\n"
    "    if sys.argv[2] == 'other': {other}\n"
)
UNSHARE = ("unshare", "-Urpf", "--mount-proc")


@pytest.mark.skipif(
    shutil.which("unshare") is None or subprocess.run([*UNSHARE, "true"], check=False).returncode != 0,
    reason="this system does not let users make process namespaces",
)
def test_processes_of_other_namespaces_are_neither_judged_nor_taken_for_this_one(tmp_path: Path) -> None:
    def contained(*arguments: str) -> None:
        subprocess.run([*UNSHARE, sys.executable, "-c", WRITE.format(other="pass"), *arguments], check=False)

    with files.new_folder(tmp_path / "a") as folder:  # this process has not that id in the other namespace
        (folder / "x").write_text("alive")
        contained(str(tmp_path / "b"), "whole")
        assert (folder / "x").read_text() == "alive"
    # the first process of a container is 1 each time that the container is started
    contained(str(tmp_path / "c"), "killed")
    contained(str(tmp_path / "c"), "whole")
    assert {path.name: (path / "x").read_text() for path in tmp_path.glob("[!.]*")} == {
        "a": "alive", "b": "1", "c": "1",
    }  # fmt: skip


def test_a_process_that_was_given_the_id_of_a_killed_one_is_not_that_one(tmp_path: Path) -> None:
    left = tmp_path / f".a.{files._owner()}.tmp"
    namespace_and_id, _, started = left.name.removesuffix(".tmp").rpartition("-")
    left.mkdir()
    files.remove_leftovers(tmp_path)
    assert left.is_dir()  # this process might still write it
    earlier = left.rename(tmp_path / f"{namespace_and_id}-{int(started) - 1}.tmp")
    files.remove_leftovers(tmp_path)
    assert not earlier.exists()
    of_earlier_version = tmp_path / f".a.{files.safe_name(socket.gethostname())}.{2**22 + 1}.tmp"
    of_earlier_version.mkdir()
    files.remove_leftovers(tmp_path)
    assert not of_earlier_version.exists()


@pytest.mark.parametrize("killed_after", [1, 2])
def test_a_folder_is_not_lost_if_its_replacement_is_killed(killed_after: int, tmp_path: Path) -> None:
    """Killed after the old folder was moved away, and after the new one is in its place."""
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "x").write_text("old")
    code = (
        "import os, signal, sys; from pathlib import Path; from effx import files\n"
        "rename, calls = Path.rename, []\n"
        "def killed(self, target):\n"
        "    rename(self, target); calls.append(target)\n"
        "    len(calls) == int(sys.argv[2]) and os.kill(os.getpid(), signal.SIGKILL)\n"
        "Path.rename = killed\n"
        "with files.new_folder(Path(sys.argv[1]), replace=True) as folder:\n"
        "    (folder / 'x').write_text('new')\n"
    )
    subprocess.run([sys.executable, "-c", code, str(tmp_path / "a"), str(killed_after)], check=False)
    assert (tmp_path / "a").exists() == (killed_after == 2)
    files.check_writable(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["a"]
    assert (tmp_path / "a" / "x").read_text() == "new"


def test_a_replaced_folder_does_not_come_back(tmp_path: Path) -> None:
    """Killed while it removed the old folder; then the user removed the new one."""
    (tmp_path / "a").mkdir()
    code = (
        "import os, shutil, signal, sys; from pathlib import Path; from effx import files\n"
        "shutil.rmtree = lambda *_, **__: os.kill(os.getpid(), signal.SIGKILL)\n"
        "with files.new_folder(Path(sys.argv[1]), replace=True):\n    pass\n"
    )
    subprocess.run([sys.executable, "-c", code, str(tmp_path / "a")], check=False)
    assert sorted(path.name == "a" for path in tmp_path.iterdir()) == [False, True]
    (tmp_path / "a").rmdir()
    files.check_writable(tmp_path)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("name", ["../x", "/etc/passwd", "a/../../x"])
def test_names_cannot_point_outside(tmp_path: Path, name: str) -> None:
    with pytest.raises(ArtifactError, match="outside"):
        files.inside(tmp_path, name)


def test_a_link_cannot_point_outside(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    (tmp_path / "secret").write_text("s")
    (tmp_path / "in" / "link").symlink_to(tmp_path / "secret")
    with pytest.raises(ArtifactError, match="outside"):
        files.inside(tmp_path / "in", "link")


def test_a_result_is_never_overwritten(tmp_path: Path) -> None:
    files.write_atomic(tmp_path / "a", b"1", replace=False)
    with pytest.raises(UsageError):
        files.write_atomic(tmp_path / "a", b"2", replace=False)
    assert (tmp_path / "a").read_bytes() == b"1"
    assert [path.name for path in tmp_path.iterdir()] == ["a"]


def test_an_unwritable_folder_is_a_usage_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(UsageError, match="cannot write"), files.new_folder(tmp_path / "file" / "a"):
        pass


def test_checking_a_folder_does_not_create_it(tmp_path: Path) -> None:
    files.check_writable(tmp_path / "a/b")
    assert list(tmp_path.iterdir()) == []
    (tmp_path / "file").write_text("")
    for folder in (tmp_path / "file", tmp_path / "file/b"):
        with pytest.raises(UsageError, match="cannot write"):
            files.check_writable(folder)


def full_disk(*_: object, **__: object) -> None:
    raise OSError(errno.ENOSPC, "No space left on device")


@pytest.mark.parametrize("full", ["temporary", "target"])
def test_the_folder_whose_disk_is_full_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, full: str
) -> None:
    """The error of a write names no file."""
    free = {"temporary": 1000, "target": 1000, full: 0}

    def usage(path: Path) -> SimpleNamespace:
        return SimpleNamespace(free=free["temporary" if "temporary" in str(path) else "target"])

    (tmp_path / "temporary").mkdir()
    monkeypatch.setattr(files.tempfile, "tempdir", str(tmp_path / "temporary"))
    monkeypatch.setattr(files.shutil, "disk_usage", usage)
    named = tmp_path / ("temporary" if full == "temporary" else "engines/a")
    with (
        pytest.raises(UsageError, match=f"cannot write {named}: No space left"),
        files.new_folder(tmp_path / "engines" / "a"),
    ):
        full_disk()


def test_a_file_that_a_block_cannot_read_is_not_reported_as_the_folder(tmp_path: Path) -> None:
    with pytest.raises(PermissionError, match="data.csv"), files.new_folder(tmp_path / "a"):
        raise PermissionError(errno.EACCES, "Permission denied", "/data/data.csv")


def test_the_target_of_a_copy_is_named_if_its_disk_is_full(tmp_path: Path) -> None:
    with (
        pytest.raises(UsageError, match=f"cannot write {tmp_path / 'a'}: No space left"),
        files.new_folder(tmp_path / "a") as folder,
    ):
        raise OSError(errno.ENOSPC, "No space left on device", "/tmp/from", None, str(folder / "model.onnx"))


@pytest.mark.parametrize(
    "message", ["No space left on device (os error 28)", "IoError(Os { code: 28, kind: StorageFull })"]
)
def test_errors_of_libraries_in_rust_are_those_of_the_system(tmp_path: Path, message: str) -> None:
    with (
        pytest.raises(UsageError, match=f"cannot write {tmp_path / 'a'}: No space left"),
        files.new_folder(tmp_path / "a") as folder,
        files.os_errors(folder / "tokenizer.json"),
    ):
        raise Exception(message)
    with pytest.raises(ValueError, match="another"), files.os_errors(tmp_path):
        raise ValueError("another")

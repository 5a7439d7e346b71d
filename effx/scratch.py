"""Temporary folders: removed at the end or, after SIGKILL, by the next process that needs one.

TMPDIR/effx-KIND-XXXXXXXX/        locked (flock) while its process lives; the kernel releases the lock
TMPDIR/effx-KIND-XXXXXXXX/.effx   marks it as temporary, so that no folder of a user is ever removed
"""

from __future__ import annotations

import atexit
import contextlib
import functools
import os
import re
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

from effx import files, signals
from effx.errors import UsageError

try:
    import fcntl
except ImportError:  # Windows: leftovers stay
    fcntl = None  # type: ignore[assignment]

_MARK = ".effx"
_TORCH = "TORCHINDUCTOR_CACHE_DIR"
_NAME = re.compile(r"effx-[a-z0-9]+-[a-z0-9_]{8}")
_open: set[Path] = set()
_swept: set[Path] = set()


@contextlib.contextmanager
def folder(kind: str) -> Iterator[Path]:
    """Yield a new temporary folder, which is removed at the end of the block.

    Args:
        kind: part of the folder's name, such as ``export``.

    Raises:
        UsageError: there is no folder for temporary files, nothing can be written into it, or the block fills
            its disk.
    """
    path, lock = _create(kind)
    try:
        with files.os_errors(path):
            yield path
    except OSError as error:
        if files.disk_is_full(error) and files.culprit(error, path).is_relative_to(path):
            raise files.cannot_write(path, error) from error
        raise
    finally:
        with signals.shielded():
            _remove(path)
            _open.discard(path)
            if lock is not None:
                os.close(lock)


@contextlib.contextmanager
def as_tmpdir(path: Path) -> Iterator[None]:
    """Let libraries write their temporary files into ``path``, while the block runs."""
    before, directory = os.environ.get("TMPDIR"), tempfile.tempdir
    os.environ["TMPDIR"] = tempfile.tempdir = str(path)
    try:
        yield
    finally:
        tempfile.tempdir = directory
        if before is None:
            del os.environ["TMPDIR"]
        else:
            os.environ["TMPDIR"] = before


@functools.cache
def of_process() -> Path:
    """Return a temporary folder that is removed when this process ends.

    Raises:
        UsageError: as :func:`folder`.
    """
    process = os.getpid()
    path, _ = _create("process")

    def remove() -> None:
        if os.getpid() == process:  # not in a forked child
            _remove(path)

    atexit.register(remove)
    return path


def environment() -> dict[str, str]:
    """Return the environment of a child process whose temporary files are removed when this process ends.

    Raises:
        UsageError: as :func:`folder`.
    """
    path = str(of_process())
    return {**os.environ, "TMPDIR": path, _TORCH: os.environ.get(_TORCH, f"{path}/torchinductor")}


def for_torch() -> None:
    """Let PyTorch keep the folder of its compiler among the temporary files of this process.

    It creates one for ever in TMPDIR, torchinductor_USER, when transformers is imported.
    """
    if _TORCH not in os.environ:  # else a child would create a folder too, which it does not need
        with contextlib.suppress(UsageError):
            os.environ[_TORCH] = str(of_process() / "torchinductor")


def remove_leftovers() -> None:
    """Remove temporary folders of this user whose process has ended."""
    parent = Path(tempfile.gettempdir())
    _swept.add(parent)
    if fcntl is None:
        return
    with contextlib.suppress(OSError), os.scandir(parent) as entries:
        for entry in entries:
            if _NAME.fullmatch(entry.name) and entry.is_dir(follow_symlinks=False):
                with contextlib.suppress(OSError):
                    _remove_if_left(Path(entry.path))


def _create(kind: str) -> tuple[Path, int | None]:
    try:
        parent = Path(tempfile.gettempdir())
    except FileNotFoundError as error:
        raise files.cannot_write(Path(os.environ.get("TMPDIR", "/tmp")), error) from error
    if parent not in _swept:
        remove_leftovers()
    try:
        while True:
            path = Path(tempfile.mkdtemp(prefix=f"effx-{kind}-", dir=parent))
            _open.add(path)
            lock = _locked(path)
            if path.is_dir():  # else another process took it for a leftover before it was locked
                (path / _MARK).touch()
                return path, lock
    except OSError as error:
        raise files.cannot_write(parent, error) from error


def _locked(path: Path) -> int | None:
    """Lock a folder; None: this file system has no locks, and the folder would stay after SIGKILL."""
    if fcntl is None:
        return None
    with contextlib.suppress(OSError):
        lock = os.open(path, os.O_RDONLY)
        try:
            fcntl.flock(lock, fcntl.LOCK_SH)
            return lock
        except OSError:
            os.close(lock)
    return None


def _remove_if_left(path: Path) -> None:
    """Remove a folder unless it is locked, of another user, or not temporary.

    Raises:
        OSError: it is locked, or it is gone.
    """
    lock = os.open(path, os.O_RDONLY | os.O_NOFOLLOW)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if os.fstat(lock).st_uid == os.getuid() and ((path / _MARK).is_file() or not any(path.iterdir())):
            _remove(path)
    finally:
        os.close(lock)


def _remove(path: Path) -> None:
    """Remove a folder, the mark last: if this is interrupted, the next process goes on."""
    with contextlib.suppress(OSError):
        for entry in path.iterdir():
            if entry.name != _MARK:
                if entry.is_dir() and not entry.is_symlink():
                    shutil.rmtree(entry, ignore_errors=True)
                else:
                    entry.unlink(missing_ok=True)
    shutil.rmtree(path, ignore_errors=True)


def _remove_open() -> None:
    for path in list(_open):
        _remove(path)


signals.at_forced_end(_remove_open)

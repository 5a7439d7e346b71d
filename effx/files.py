"""Files that are either whole or absent.

    .NAME.HOST.PID.tmp/   written here, file by file, and synced ...
    NAME/                 ... then renamed in one step

A process that is killed, or a machine that loses power, leaves at most a dot-folder that no
command opens; the next writer of the same name removes it once its process is gone.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import os
import re
import shutil
import socket
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from effx.errors import ArtifactError, UsageError

_CHUNK_BYTES = 1 << 20
_CANNOT_WRITE = {errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.EPERM, errno.ENOTDIR}
_SAFE_NAME = re.compile(r"[^A-Za-z0-9._-]+")


def sha256(path: Path) -> str:
    """Return the SHA-256 of a file's bytes as 64 hex digits."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(_CHUNK_BYTES):
            digest.update(chunk)
    return digest.hexdigest()


def json_digest(value: Mapping[str, Any]) -> str:
    """Return the SHA-256 of a JSON object in its canonical form (sorted keys, no spaces)."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return hashlib.sha256(text.encode()).hexdigest()


def safe_name(text: str) -> str:
    """Return ``text`` as a name that is a plain file name on every system."""
    return _SAFE_NAME.sub("-", text).strip("-.") or "unnamed"


def inside(folder: Path, name: str) -> Path:
    """Return ``folder/name`` after checking that it lies inside ``folder``.

    Raises:
        ArtifactError: the name is absolute, climbs out with ``..``, or is a link to elsewhere.
    """
    path = folder / name
    if Path(name).is_absolute() or not path.resolve().is_relative_to(folder.resolve()):
        raise ArtifactError(f"{folder}: the manifest names '{name}', which lies outside the folder.")
    return path


def write_atomic(path: Path, data: bytes, *, replace: bool = True) -> None:
    """Write ``data`` so that ``path`` holds all of it or does not change.

    Raises:
        UsageError: the place cannot be written to, or ``replace`` is false and ``path`` exists.
    """
    temporary = path.with_name(f".{path.name}.{_owner()}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        _write_synced(temporary, data)
        if replace:
            temporary.replace(path)
        else:
            os.link(temporary, path)  # fails if the name is taken, unlike rename
            temporary.unlink()
    except OSError as error:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)
        raise cannot_write(path, error) from error


def write_json(path: Path, value: Mapping[str, Any], *, replace: bool = True, indented: bool = True) -> None:
    """Write a JSON object atomically, as people read it (or, many times faster, on one line)."""
    text = json.dumps(value, indent=1 if indented else None, ensure_ascii=False, allow_nan=False)
    write_atomic(path, (text + "\n").encode(), replace=replace)


@contextlib.contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Yield a temporary sibling of ``path``, with its suffix, to write; on a clean exit it becomes ``path``.

    Raises:
        UsageError: the place cannot be written to.
    """
    temporary = path.with_name(f".{path.stem}.{_owner()}.tmp{path.suffix}")
    try:
        yield temporary
        temporary.replace(path)
    except OSError as error:
        raise cannot_write(path, error) from error
    finally:
        temporary.unlink(missing_ok=True)


def check_writable(folder: Path) -> None:
    """Raise :class:`UsageError` if nothing can be written into a folder; before hours of work, not after.

    A folder that is missing is not made: the nearest one above it is tried.
    """
    place = folder.absolute()
    while not place.exists() and place != place.parent:
        place = place.parent
    probe = place / f".probe.{_owner()}.tmp"
    write_atomic(probe, b"")
    probe.unlink(missing_ok=True)


@contextlib.contextmanager
def new_folder(path: Path, *, replace: bool = False) -> Iterator[Path]:
    """Yield a temporary sibling of ``path``; on a clean exit it becomes ``path``.

    If the block raises, the sibling is removed and ``path`` is as it was. The folder that the process
    works in keeps its place and changes its content: the caller's shell stands in it too.

    Raises:
        UsageError: the place cannot be written to, or ``path`` exists and ``replace`` is false.
    """
    path = Path(path)
    if path.exists() and not replace:
        raise UsageError(f"{path} exists already. Choose another name, or pass --overwrite.")
    place = Path(os.path.abspath(path))  # `.` has neither name nor siblings
    remove_stale(place)
    temporary = place.with_name(f".{place.name}.{_owner()}.tmp")
    try:
        temporary.mkdir(parents=True)
    except OSError as error:
        raise cannot_write(path, error) from error
    try:
        yield temporary
        _sync_folder(temporary)
        if place.exists():
            retired = place.with_name(f".{place.name}.{_owner()}.old.tmp")
            if place.samefile(os.curdir):
                retired.mkdir()
                _move_entries(place, retired)
                _move_entries(temporary, place)
                _sync(place)
            else:
                place.rename(retired)
                temporary.rename(place)
            shutil.rmtree(retired, ignore_errors=True)
        else:
            temporary.rename(place)
        _sync(place.parent)
    except OSError as error:
        if error.errno in _CANNOT_WRITE:  # other OSErrors are the block's own and say more
            raise cannot_write(path, error) from error
        raise
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def cannot_write(path: Path, error: OSError) -> UsageError:
    """Return the one-line error for a place that cannot be written to."""
    reason = error.strerror or str(error)
    return UsageError(f"cannot write {path}: {reason}. Free the disk or choose another place.")


def _owner() -> str:
    return f"{safe_name(socket.gethostname())}.{os.getpid()}"


def remove_stale(path: Path) -> None:
    """Remove what dead processes of this host left of earlier attempts at ``path``."""
    host = re.escape(safe_name(socket.gethostname()))
    pattern = re.compile(rf"\.{re.escape(path.name)}\.{host}\.(\d+)(\.old)?\.tmp")
    if not path.parent.is_dir():
        return
    for entry in path.parent.iterdir():
        match = pattern.fullmatch(entry.name)
        if match and not _alive(int(match.group(1))):
            shutil.rmtree(entry, ignore_errors=True)


def _alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def _move_entries(source: Path, target: Path) -> None:
    for entry in list(source.iterdir()):
        entry.rename(target / entry.name)


def _write_synced(path: Path, data: bytes) -> None:
    with path.open("wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())


def _sync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _sync_folder(folder: Path) -> None:
    for path in sorted(folder.rglob("*")):
        if path.is_file():
            _sync(path)
    _sync(folder)

"""Files and folders that are written completely or not at all.

    .NAME.HOST.OWNER.tmp/  written here, file by file, and synced ...
    NAME/                  ... then renamed in one step

OWNER is the namespace of the process, its id and its start time: containers may have one host name, each with
its own process ids, and the first process of a restarted container has the id of the one before.

If the process is killed or the machine loses power, at most a dot-folder remains. No command opens
it, and the next process that writes into the same parent removes it.
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
import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from effx import signals
from effx.errors import ArtifactError, UsageError

_CHUNK_BYTES = 1 << 20
_CANNOT_WRITE = {errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.EPERM, errno.ENOTDIR}
_DISK_IS_FULL = {errno.ENOSPC, errno.EDQUOT}
_OS_ERROR = re.compile(r"(?:os error|Os \{ code:) (\d+)")
_OF_HOST = "pid:[4026531836]"
"""The process namespace in which Linux starts; the number is fixed in the kernel."""
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
    """Return ``text`` as a file name that is valid on every system."""
    return _SAFE_NAME.sub("-", text).strip("-.") or "unnamed"


def inside(folder: Path, name: str) -> Path:
    """Return ``folder/name`` after checking that it is inside ``folder``.

    Raises:
        ArtifactError: the name is absolute, climbs out with ``..``, or is a link to elsewhere.
    """
    path = folder / name
    if Path(name).is_absolute() or not path.resolve().is_relative_to(folder.resolve()):
        raise ArtifactError(f"{folder}: the manifest names '{name}', which is outside the folder.")
    return path


def write_atomic(path: Path, data: bytes, *, replace: bool = True) -> None:
    """Write ``data`` so that ``path`` has all of it or does not change.

    Raises:
        UsageError: the path cannot be written to, or ``replace`` is false and ``path`` exists.
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


def write_json(
    path: Path, value: Mapping[str, Any] | Sequence[Any], *, replace: bool = True, indented: bool = True
) -> None:
    """Write JSON atomically, indented for reading or, many times faster, on one line."""
    text = json.dumps(value, indent=1 if indented else None, ensure_ascii=False, allow_nan=False)
    write_atomic(path, (text + "\n").encode(), replace=replace)


@contextlib.contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Yield a temporary sibling of ``path``, with its suffix, to write; on a clean exit it becomes ``path``.

    Raises:
        UsageError: the path cannot be written to.
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
    """Raise :class:`UsageError` if nothing can be written into a folder; to be called before long work.

    A missing folder is not created: its nearest existing parent is tried instead. What killed processes left
    in the folder is removed.
    """
    remove_leftovers(folder)
    existing = folder.absolute()
    while not existing.exists() and existing != existing.parent:
        existing = existing.parent
    probe = existing / f".probe.{_owner()}.tmp"
    write_atomic(probe, b"")
    probe.unlink(missing_ok=True)


@contextlib.contextmanager
def new_folder(path: Path, *, replace: bool = False) -> Iterator[Path]:
    """Yield a temporary sibling of ``path``; on a clean exit it becomes ``path``.

    If the block raises, the sibling is removed and ``path`` does not change. If ``path`` is the current
    folder, its content is replaced and not the folder itself, which is also the current folder of the
    user's shell.

    Raises:
        UsageError: the path cannot be written to, or ``path`` exists and ``replace`` is false.
    """
    path = Path(path)
    if path.exists() and not replace:
        raise UsageError(f"{path} exists already: choose another name, or overwrite it", settings="overwrite")
    target = Path(os.path.abspath(path))  # `.` has neither name nor siblings
    remove_leftovers(target.parent)
    temporary = target.with_name(f".{target.name}.{_owner()}.tmp")
    try:
        temporary.mkdir(parents=True)
    except OSError as error:
        raise cannot_write(path, error) from error
    try:
        yield temporary
        _sync_folder(temporary)
        with signals.shielded():
            _put_in_place(temporary, target)
    except OSError as error:
        if error.errno not in _CANNOT_WRITE:  # other OSErrors come from the block and say more
            raise
        concerned = culprit(error, target)
        if concerned.is_relative_to(temporary) or concerned.is_relative_to(target):
            raise cannot_write(path, error) from error
        if error.errno not in _DISK_IS_FULL:  # a file that the block reads, perhaps
            raise
        raise cannot_write(concerned, error) from error
    finally:
        with signals.shielded():
            shutil.rmtree(temporary, ignore_errors=True)


def _put_in_place(temporary: Path, target: Path) -> None:
    """Rename a folder; one of that name is replaced."""
    if not target.exists():
        temporary.rename(target)
    else:
        retired = target.with_name(f".{target.name}.{_owner()}.old.tmp")
        if target.samefile(os.curdir):
            retired.mkdir()
            _move_entries(target, retired)
            _move_entries(temporary, target)
            _sync(target)
        else:
            target.rename(retired)
            temporary.rename(target)
        retired.rename(temporary)  # by its name, it would be put back if this process were killed
        shutil.rmtree(temporary, ignore_errors=True)
    _sync(target.parent)


def of_one_name(folders: Iterable[Path]) -> tuple[Path, Path] | None:
    """Return the first two folders of one name, links by their targets; None: all names differ."""
    by_name: dict[str, Path] = {}
    for folder in folders:
        other = by_name.setdefault(folder.resolve().name, folder)
        if other is not folder:
            return other, folder
    return None


def culprit(error: OSError, folder: Path) -> Path:
    """Return the path that an error is about: ``folder`` unless it names another.

    The error of a write does not name its file. If a disk is full, that is either the one of ``folder`` or
    the one for temporary files, whichever has less space.
    """
    if error.errno in _DISK_IS_FULL and error.filename2 is not None:  # a copy: where it was written
        return Path(os.path.abspath(os.fsdecode(error.filename2)))
    if error.filename is not None:
        return Path(os.path.abspath(os.fsdecode(error.filename)))
    if error.errno in _DISK_IS_FULL:
        with contextlib.suppress(OSError):
            temporary = Path(tempfile.gettempdir())
            existing = next(path for path in (folder, *folder.absolute().parents) if path.exists())
            if shutil.disk_usage(temporary).free < shutil.disk_usage(existing).free:
                return temporary
    return folder


@contextlib.contextmanager
def os_errors(path: Path) -> Iterator[None]:
    """Raise the OSError that a library in Rust reports as another exception; ``path``: what it writes."""
    try:
        yield
    except Exception as error:
        match = None if isinstance(error, OSError) else _OS_ERROR.search(str(error))
        if match is None:
            raise
        number = int(match[1])
        raise OSError(number, os.strerror(number), str(path)) from error


def disk_is_full(error: OSError) -> bool:
    """Return whether an error is that of a full disk or quota."""
    return error.errno in _DISK_IS_FULL


def cannot_write(path: Path, error: OSError) -> UsageError:
    """Return the one-line error for a path that cannot be written to."""
    reason = error.strerror or str(error)
    advice = "Free disk space, or choose another folder."
    with contextlib.suppress(OSError):
        if path.is_relative_to(tempfile.gettempdir()) and error.errno in _DISK_IS_FULL:
            advice = (
                "Free disk space, or, if this folder is for temporary files, set TMPDIR to another folder."
            )
    return UsageError(f"cannot write {path}: {reason}. {advice}")


def _owner() -> str:
    pid = os.getpid()
    return f"{safe_name(socket.gethostname())}.{_namespace()}-{pid}-{start_of(pid) or ''}"


def _namespace() -> str:
    """Return the process namespace, in which process ids are comparable; empty: that of the host, or unknown.

    Namespaces of containers have the boot in them, so that those of two machines differ.
    """
    with contextlib.suppress(OSError):
        namespace = os.readlink("/proc/self/ns/pid")
        if namespace != _OF_HOST:
            boot = Path("/proc/sys/kernel/random/boot_id").read_text()
            return hashlib.sha256(f"{boot} {namespace}".encode()).hexdigest()[:12]
    return ""


def start_of(pid: int) -> str | None:
    """Return when a process started, in ticks since boot; empty: it has ended; None: it cannot be read."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return ""
    except OSError:
        return None
    return fields[19] if len(fields) > 19 and fields[0] != "Z" else ""


def remove_leftovers(folder: Path) -> None:
    """Remove the temporary files and folders in ``folder`` that killed processes of this host left behind.

    Those of other namespaces stay, as of a container whose processes cannot be seen from here, until a
    process of that namespace looks. After the end of the container nobody does: remove them by hand.

    A process that was killed while it replaced a folder may have moved the old one away, and not the new one,
    which was complete, into its place. That is done now.
    """
    host = re.escape(safe_name(socket.gethostname()))
    owner = rf"(?:{_namespace()}-(\d+)-(\d*)|(\d+))"  # the id alone: of an earlier version
    pattern = re.compile(rf"\.(.+)\.{host}\.{owner}(\.old)?\.tmp(\.\w+)?")
    with contextlib.suppress(OSError):
        for entry in sorted(folder.iterdir(), key=lambda entry: not entry.name.endswith(".old.tmp")):
            match = pattern.fullmatch(entry.name)
            if match and not is_alive(int(match.group(2) or match.group(4)), match.group(3) or ""):
                target = folder / match.group(1)
                if match.group(5) and not target.exists():
                    complete = entry.with_name(entry.name.removesuffix(".old.tmp") + ".tmp")
                    (complete if complete.is_dir() else entry).rename(target)
                if not entry.exists():
                    continue
                if entry.is_dir() and not entry.is_symlink():
                    shutil.rmtree(entry, ignore_errors=True)
                else:
                    entry.unlink(missing_ok=True)


def is_alive(pid: int, started: str) -> bool:
    """Return whether a process lives; one that started at another time than ``started`` has only its id."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass
    return not started or start_of(pid) in (started, None)


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

"""Locks: one per cell of a workspace, and one per host for measurements.

Many processes may share a workspace; each cell is computed once. The lock of a cell is a file that names its
holder: host, process id and start time of the process. It is

    free      if the file does not exist
    stale     if its holder ran on this host and has ended (or its process id was reused), or if it ran on
              another host and has not touched the file for a minute
    held      otherwise: the holder touches the file every few seconds

The lock of the host lets measurements run alone: cells that measure hold it exclusively, all others share it,
across runs, workspaces and Ray nodes of one host and user. It is an flock, which the kernel releases when the
process ends. While a measurement waits, no new cell may start, so that it is not delayed for ever.
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
import secrets
import socket
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import IO

from effx import files, progress, signals
from effx.errors import UsageError

try:
    import fcntl
except ImportError:  # Windows: the user has to run one process at a time
    fcntl = None  # type: ignore[assignment]

FOLDER = "locks"
"""Folder of a workspace that contains the locks of its cells."""
BEAT_S = 5.0
STALE_S = 60.0
"""Seconds without a touch after which the lock of another host's process is stale."""
_POLL_S = 0.2
_NO_LOCKS = {errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP}


@dataclass(frozen=True)
class Holder:
    """The process that holds a lock."""

    host: str
    """Name, boot id and process namespace; process ids are comparable only if these are equal."""
    pid: int
    started: str
    """When the process started, in the kernel's ticks; empty if the system does not report it."""
    token: str

    def __str__(self) -> str:
        return f"process {self.pid} on {self.host.split(' ')[0]}"


def this_process() -> Holder:
    """Return this process as a holder, with a random token."""
    return Holder(_host(), os.getpid(), files.start_of(os.getpid()) or "", secrets.token_hex(8))


def holder(path: Path) -> Holder | None:
    """Return the holder of the lock at ``path``; None: it is free or stale."""
    recorded = _read(path)
    return None if recorded is None or _is_stale(path, recorded) else recorded


class Lock:
    """A lock on one cell, held by this process while it is open."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._holder = this_process()
        self._end = threading.Event()
        self._beat: threading.Thread | None = None

    def take(self) -> bool:
        """Take the lock if it is free or stale; return whether this process now holds it.

        Raises:
            UsageError: the folder cannot be written.
        """
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise files.cannot_write(self._path.parent, error) from error
        with _guard(self._path.parent):
            if holder(self._path) is not None:
                return False
            files.write_json(self._path, asdict(self._holder))
        self._beat = threading.Thread(target=self._touch, name="effx-lock", daemon=True)
        self._beat.start()
        return True

    @property
    def held(self) -> bool:
        """Whether this process still holds the lock; it may have lost it if it was suspended for long."""
        return _read(self._path) == self._holder

    def release(self) -> None:
        """Release the lock."""
        self._end.set()
        with _guard(self._path.parent):
            if self.held:
                self._path.unlink(missing_ok=True)

    def _touch(self) -> None:
        while not self._end.wait(BEAT_S):
            with contextlib.suppress(OSError):
                if self.held:
                    os.utime(self._path)


@contextlib.contextmanager
def hold(path: Path, waiting: Callable[[Holder], None] = lambda holder: None) -> Iterator[Lock]:
    """Hold the lock at ``path``; wait while another process holds it; ``waiting`` is called once with it."""
    lock, notified = Lock(path), False
    while not lock.take():
        if not notified and (current := holder(path)):
            waiting(current)
            notified = True
        with signals.interruptible():
            time.sleep(_POLL_S)
    try:
        yield lock
    finally:
        lock.release()


@contextlib.contextmanager
def on_this_host(
    *, alone: bool, wait: bool = True, waiting: Callable[[str], None] = lambda reason: None
) -> Iterator[None]:
    """Run together with other cells of this host, or ``alone``; wait until that is possible.

    No effect inside another such block of this process.

    Args:
        alone: for measurements.
        wait: False: raise instead of waiting.
        waiting: called with the reason before waiting.

    Raises:
        UsageError: ``wait`` is false, and another process holds the lock; the message says which.
    """
    global _on_host
    with contextlib.ExitStack() as stack:
        folder = None if _on_host else _host_folder()
        if folder is not None:
            turnstile = stack.enter_context((folder / "turnstile").open("a"))
            host = stack.enter_context((folder / "host").open("a"))
            for file, kind in ((turnstile, fcntl.LOCK_EX), (host, fcntl.LOCK_EX if alone else fcntl.LOCK_SH)):
                try:
                    fcntl.flock(file, kind | fcntl.LOCK_NB)
                except BlockingIOError:
                    reason = _occupied(folder)
                    if not wait:
                        raise UsageError(
                            f"{reason}. Try again later, or wait for it.", settings="no_wait"
                        ) from None
                    waiting(f"{reason}: waiting")
                    with signals.interruptible():
                        fcntl.flock(file, kind)
            fcntl.flock(turnstile, fcntl.LOCK_UN)
            note = folder / f"{os.getpid()}.json"
            stack.callback(note.unlink, missing_ok=True)
            with contextlib.suppress(UsageError):  # a full disk: messages to waiting processes lack its id
                files.write_json(note, asdict(_HostUser(this_process(), time.strftime("%H:%M:%S"), alone)))
            _on_host = True
        try:
            yield
        finally:
            _on_host = _on_host and folder is None


_on_host = False
"""Whether this process is inside :func:`on_this_host`."""


@dataclass(frozen=True)
class _HostUser:
    """A process that holds the lock of the host."""

    holder: Holder
    since: str
    """Local time."""
    alone: bool


def parent_folder() -> Path:
    """Return where the folder of the host's lock is."""
    return Path(tempfile.gettempdir())


def _host_folder() -> Path | None:
    """Return the folder of the host's lock; None: this system has none, or it cannot be written."""
    if fcntl is None:
        return None
    folder = parent_folder() / f"effx-{os.getuid()}"
    try:
        folder.mkdir(mode=0o700, exist_ok=True)
        if folder.lstat().st_uid != os.getuid():
            raise PermissionError(errno.EPERM, "it belongs to another user")
        (folder / "turnstile").touch()
    except OSError as error:
        progress.say_once(
            f"cannot lock {folder} ({error.strerror}): other measurements may run on this host meanwhile"
        )
        return None
    return folder


def _occupied(folder: Path) -> str:
    """Return which processes hold the lock of the host, and since when; forget those that were killed."""
    users: list[_HostUser] = []
    for path in sorted(folder.glob("*.json")):
        with contextlib.suppress(OSError, ValueError, TypeError):
            value = json.loads(path.read_bytes())
            user = _HostUser(**{**value, "holder": Holder(**value["holder"])})
            if user.holder.host == _host() and not files.is_alive(user.holder.pid, user.holder.started):
                path.unlink(missing_ok=True)
            else:
                users.append(user)
    names = ", ".join(f"process {user.holder.pid} since {user.since}" for user in users) or "a process"
    verb = "measures" if all(user.alone for user in users) else "computes"
    return f"another effx run {verb} on this host ({names})"


@contextlib.contextmanager
def _guard(folder: Path) -> Iterator[None]:
    """Let one process at a time read and replace a lock."""
    with (folder / ".guard").open("a") as guard:
        locked = _flock(guard)
        try:
            yield
        finally:
            if locked:
                fcntl.flock(guard, fcntl.LOCK_UN)


def _flock(file: IO[str]) -> bool:
    if fcntl is None:
        return False
    try:
        fcntl.flock(file, fcntl.LOCK_EX)
    except OSError as error:
        if error.errno in _NO_LOCKS:  # some network file systems; then the rename of a cell decides who wins
            return False
        raise
    return True


def _read(path: Path) -> Holder | None:
    try:
        return Holder(**json.loads(path.read_bytes()))
    except (OSError, ValueError, TypeError):
        return None


def _is_stale(path: Path, recorded: Holder) -> bool:
    if recorded.host == _host():
        return not files.is_alive(recorded.pid, recorded.started)
    probe = path.with_name(f".clock.{os.getpid()}")  # clocks of hosts differ; file times are the server's
    try:
        probe.touch()
        now_s = probe.stat().st_mtime
        return now_s - path.stat().st_mtime > STALE_S
    except OSError:
        return False
    finally:
        probe.unlink(missing_ok=True)


def _host() -> str:
    boot = _text("/proc/sys/kernel/random/boot_id")
    try:
        namespace = os.readlink("/proc/self/ns/pid")
    except OSError:
        namespace = ""
    return f"{socket.gethostname()} {boot} {namespace}".strip()


def _text(path: str) -> str:
    try:
        return Path(path).read_text().strip()
    except OSError:
        return ""

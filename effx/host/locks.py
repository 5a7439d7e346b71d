"""Who works on what: locks in a workspace, and a turnstile for each host.

A workspace holds cells, each of them done once, by one of perhaps many processes. A cell's lock is a file
that names its holder: host, process, the time that process started. It is

    free      if there is no such file
    stale     if its holder ran on this host and is gone (or its number went to another process), or
              ran elsewhere and has not touched the file for a minute
    held      otherwise: the holder touches it every few seconds

The host's turnstile keeps measurements alone: cells that measure take it exclusively, all others
share it, across runs, workspaces and Ray nodes of one host and user. It is an flock, so the kernel
frees it with its process. A waiting measurement lets no new cell in, so it comes to its turn.
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

from effx import files

try:
    import fcntl
except ImportError:  # Windows: one process at a time is the user's to see to
    fcntl = None  # type: ignore[assignment]

FOLDER = "locks"
"""Of a workspace, where its cells' locks are."""
BEAT_S = 5.0
STALE_S = 60.0
"""Without a touch, the lock of another host's process is stale."""
_POLL_S = 0.2
_NO_LOCKS = {errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP}


@dataclass(frozen=True)
class Holder:
    """The process that holds a lock."""

    host: str
    """Name, boot and process namespace: within one of these a process number means something."""
    pid: int
    started: str
    """When the process started, in the kernel's ticks; empty where the system does not tell."""
    token: str

    def __str__(self) -> str:
        return f"process {self.pid} on {self.host.split(' ')[0]}"


def this_process() -> Holder:
    """Return this process as a holder, with a token of its own."""
    return Holder(_host(), os.getpid(), _start_of(os.getpid()), secrets.token_hex(8))


def holder(path: Path) -> Holder | None:
    """Return who holds the lock at ``path``; None: it is free or stale."""
    found = _read(path)
    return None if found is None or _is_stale(path, found) else found


class Lock:
    """A lock on one cell, held by this process while it is open."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._own = this_process()
        self._end = threading.Event()
        self._beat: threading.Thread | None = None

    def take(self) -> bool:
        """Take the lock if it is free or stale; return whether it is this process's now.

        Raises:
            UsageError: the place cannot be written to.
        """
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise files.cannot_write(self._path.parent, error) from error
        with _guard(self._path.parent):
            if holder(self._path) is not None:
                return False
            files.write_json(self._path, asdict(self._own))
        self._beat = threading.Thread(target=self._touch, name="effx-lock", daemon=True)
        self._beat.start()
        return True

    @property
    def held(self) -> bool:
        """Whether the lock is still this process's: one that slept for long may have lost it."""
        return _read(self._path) == self._own

    def release(self) -> None:
        """Give the lock back."""
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
    """Hold the lock at ``path``; while another process does, wait, telling ``waiting`` of it once."""
    lock, told = Lock(path), False
    while not lock.take():
        if not told and (by := holder(path)):
            waiting(by)
            told = True
        time.sleep(_POLL_S)
    try:
        yield lock
    finally:
        lock.release()


@contextlib.contextmanager
def on_this_host(*, alone: bool) -> Iterator[None]:
    """Compute beside other cells of this host, or ``alone``; waits until that is so."""
    if fcntl is None:
        yield
        return
    place = Path(tempfile.gettempdir()) / f"effx-{os.getuid()}"
    place.mkdir(mode=0o700, exist_ok=True)
    with (place / "turnstile").open("a") as turnstile, (place / "host").open("a") as host:
        fcntl.flock(turnstile, fcntl.LOCK_EX)
        fcntl.flock(host, fcntl.LOCK_EX if alone else fcntl.LOCK_SH)
        fcntl.flock(turnstile, fcntl.LOCK_UN)
        yield


@contextlib.contextmanager
def _guard(folder: Path) -> Iterator[None]:
    """Let one process at a time look at a lock and replace it."""
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
        if error.errno in _NO_LOCKS:  # some network file systems: the rename of a cell still decides
            return False
        raise
    return True


def _read(path: Path) -> Holder | None:
    try:
        return Holder(**json.loads(path.read_bytes()))
    except (OSError, ValueError, TypeError):
        return None


def _is_stale(path: Path, found: Holder) -> bool:
    if found.host == _host():
        return not _runs(found)
    probe = path.with_name(f".clock.{os.getpid()}")  # hosts' clocks differ; a file's time is the server's
    try:
        probe.touch()
        now_s = probe.stat().st_mtime
        return now_s - path.stat().st_mtime > STALE_S
    except OSError:
        return False
    finally:
        probe.unlink(missing_ok=True)


def _runs(found: Holder) -> bool:
    try:
        os.kill(found.pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass
    return not found.started or _start_of(found.pid) == found.started  # a zombie has no start here


def _host() -> str:
    boot = _text("/proc/sys/kernel/random/boot_id")
    try:
        namespace = os.readlink("/proc/self/ns/pid")
    except OSError:
        namespace = ""
    return f"{socket.gethostname()} {boot} {namespace}".strip()


def _start_of(pid: int) -> str:
    """Return when a process started, in ticks since boot; empty: gone, or the system does not tell."""
    fields = _text(f"/proc/{pid}/stat").rpartition(")")[2].split()  # the name may hold spaces
    if not fields or fields[0] == "Z":
        return ""
    return fields[19]


def _text(path: str) -> str:
    try:
        return Path(path).read_text().strip()
    except OSError:
        return ""

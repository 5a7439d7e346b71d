"""Stop requests: Ctrl-C (SIGINT) and SIGTERM, handled alike by commands, recipes and their workers.

A signal only sets a flag. What happens then depends on what the main thread does:

    at once        a wait inside :func:`interruptible` or the next :func:`check` of a loop raises StopRequest
    after 0.5 s    otherwise it is raised wherever the main thread is, and again every 2 s
    after 8 s      the process ends without unwinding; its temporary folders are removed

Raising at once wherever the main thread is would not do: Python ignores an exception inside a destructor,
prints its traceback and goes on. Libraries swallow exceptions too. A second signal ends the process at once.
"""

from __future__ import annotations

import atexit
import contextlib
import os
import select
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from types import FrameType
from typing import Any, NoReturn

RAISE_AFTER_S = 0.5
RAISE_AGAIN_S = 2.0
FORCE_AFTER_S = 8.0
"""Seconds from the signal; the process has to end within 10 s."""
_SAME_S = 0.5
"""A signal so soon after the first is the same one, sent to the process group and passed on by a parent."""
_SIGNALS = (signal.SIGINT, signal.SIGTERM)
_ENDED = b"\xff"


class StopRequest(KeyboardInterrupt):
    """Ctrl-C or SIGTERM; it is handled wherever Ctrl-C is."""

    def __init__(self, number: int = signal.SIGINT) -> None:
        super().__init__()
        self.number = number
        """SIGINT or SIGTERM."""


def exit_code(error: KeyboardInterrupt) -> int:
    """Return the exit code of a process that a signal stopped: 143 for SIGTERM, 130 for Ctrl-C."""
    return 128 + (error.number if isinstance(error, StopRequest) else signal.SIGINT)


def requested() -> StopRequest | None:
    """Return the stop that was requested of this process; None: it may go on."""
    return None if _state is None or _state.number is None else StopRequest(_state.number)


def check() -> None:
    """Raise :class:`StopRequest` if a stop was requested; to be called by loops."""
    stop, state = requested(), _state
    if stop is None or state is None or state.shields or state.acknowledged:
        return
    if threading.current_thread() is threading.main_thread():
        raise stop


def install(*, ctrl_c: bool = True) -> bool:
    """Handle Ctrl-C and SIGTERM as described above for the rest of this process.

    Args:
        ctrl_c: False: Ctrl-C is ignored, because a terminal sends it to the parent too, which decides.

    Returns:
        False: they are handled already, or this is not the main thread, which alone may set handlers.
    """
    global _state
    if _state is not None or threading.current_thread() is not threading.main_thread():
        return False
    _state = _State(ctrl_c)
    _state.begin()
    return True


def install_until_exit() -> None:
    """Do what :func:`install` does, and keep the handlers until :func:`exit_process` has ended the process.

    Call it before other modules are imported: what they do at exit is done before the process ends.
    """
    if install():
        atexit.register(_end_process)


def exit_process(code: int) -> NoReturn:
    """Exit with a code, or with that of a signal that arrives before the process has ended.

    Python restores the default handlers before it unloads modules and libraries, which takes some tenths of a
    second with PyTorch: a signal would then kill the process. So the process ends after the functions that
    were registered to run at exit, and nothing is unloaded.

    Raises:
        SystemExit: always.
    """
    global _final_code
    acknowledge()
    _final_code = code
    sys.exit(code)


@contextlib.contextmanager
def handled() -> Iterator[None]:
    """Do what :func:`install` does while the block runs."""
    global _state
    if not install():
        yield
        return
    assert _state is not None
    try:
        yield
    finally:
        _state.end()
        _state = None


@contextlib.contextmanager
def interruptible() -> Iterator[None]:
    """Raise :class:`StopRequest` at once if a signal arrives in the block, which only waits."""
    state = _state
    if state is None or threading.current_thread() is not threading.main_thread():
        yield
        return
    state.waits += 1
    try:
        check()
        yield
    finally:
        state.waits -= 1


@contextlib.contextmanager
def shielded() -> Iterator[None]:
    """Raise no :class:`StopRequest` inside the block, which takes a moment and has to be completed."""
    state = _state
    if state is None or threading.current_thread() is not threading.main_thread():
        yield
        return
    state.shields += 1
    try:
        yield
    finally:
        state.shields -= 1


def acknowledge() -> None:
    """Raise no further :class:`StopRequest`: the process is ending."""
    if _state is not None:
        _state.acknowledged = True


def at_forced_end(action: Callable[[], None]) -> None:
    """Call ``action`` if the process ends without unwinding."""
    _ACTIONS.append(action)


@contextlib.contextmanager
def without_ctrl_c() -> Iterator[None]:
    """Let the processes that are started in the block ignore Ctrl-C: a terminal sends it to them too."""
    if not hasattr(signal, "pthread_sigmask"):
        yield
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


_ACTIONS: list[Callable[[], None]] = []


class _State:
    """The handlers, and the thread that watches the time after a signal."""

    def __init__(self, ctrl_c: bool) -> None:
        self._ctrl_c = ctrl_c
        self._before: dict[int, Any] = {}
        self.number: int | None = None
        """The signal that requested the stop."""
        self.waits = self.shields = 0
        self.acknowledged = False
        self._due = False
        """The handler is to raise."""
        self._resent = 0
        """Signals that the watching thread has sent to the main thread."""

    def begin(self) -> None:
        """Install the handlers."""
        self._read, self._write = os.pipe()
        os.set_blocking(self._write, False)
        self._main = threading.main_thread().ident
        self._hook, sys.unraisablehook = sys.unraisablehook, self._unraisable
        self._wakeup = signal.set_wakeup_fd(self._write, warn_on_full_buffer=False)
        for number in _SIGNALS:
            ignored = signal.getsignal(number) == signal.SIG_IGN  # by nohup, or a shell's `command &`
            if number == signal.SIGINT and (ignored or not self._ctrl_c):
                self._before[number] = signal.signal(number, signal.SIG_IGN)
            else:
                self._before[number] = signal.signal(number, self._on_signal)
        self._thread = threading.Thread(target=self._watch, name="effx-signals", daemon=True)
        self._thread.start()

    def end(self) -> None:
        """Restore the handlers."""
        for number, handler in self._before.items():
            signal.signal(number, handler)
        signal.set_wakeup_fd(self._wakeup)
        sys.unraisablehook = self._hook
        os.write(self._write, _ENDED)
        self._thread.join()
        os.close(self._read)
        os.close(self._write)

    def forget(self) -> None:
        """Restore what signals usually do: this is a forked child, without the watching thread."""
        for number, handler in self._before.items():
            signal.signal(number, handler)
        signal.set_wakeup_fd(-1)

    def _on_signal(self, number: int, _: FrameType | None) -> None:
        if self.number is None:
            self.number = number
        if self.shields or self.acknowledged:
            return
        if self._due or self.waits:
            self._due = False
            raise StopRequest(self.number)

    def _unraisable(self, unraisable: sys.UnraisableHookArgs) -> None:
        """Print nothing if a destructor swallowed the exception: it is raised again."""
        if not isinstance(unraisable.exc_value, StopRequest):
            self._hook(unraisable)

    def _watch(self) -> None:
        """Raise or end after a signal; the interpreter writes its number into the pipe."""
        first_s: float | None = None
        due_s: float | None = None
        while True:
            wait_s = None if due_s is None else max(0.0, due_s - time.monotonic())
            ready, _, _ = select.select([self._read], [], [], wait_s)
            arrived = os.read(self._read, 64) if ready else b""
            if _ENDED in arrived:
                return
            for number in arrived:
                if number not in self._before:
                    continue
                if self._resent:
                    self._resent -= 1
                elif first_s is None:
                    self.number = self.number or number
                    first_s = time.monotonic()
                    due_s = first_s + RAISE_AFTER_S
                elif time.monotonic() - first_s > _SAME_S:
                    self._force("a second signal")
            if first_s is None or due_s is None or time.monotonic() < due_s:
                continue
            if time.monotonic() - first_s >= FORCE_AFTER_S:
                self._force(f"it did not end within {FORCE_AFTER_S:.0f} s")
            self._raise_in_main()
            due_s = min(time.monotonic() + RAISE_AGAIN_S, first_s + FORCE_AFTER_S)

    def _raise_in_main(self) -> None:
        if self.acknowledged or self.shields or self._main is None or self.number is None:
            return
        self._due = True
        if hasattr(signal, "pthread_kill"):  # it also interrupts a system call of the main thread
            self._resent += 1
            signal.pthread_kill(self._main, self.number)
        else:
            signal.raise_signal(self.number)

    def _force(self, reason: str) -> None:
        """End the process from the watching thread."""
        for action in _ACTIONS:
            with contextlib.suppress(Exception):
                action()
        with contextlib.suppress(OSError):
            os.write(2, f"effx: stopped at once ({reason}); completed work was saved.\n".encode())
        os._exit(exit_code(StopRequest(self.number or signal.SIGINT)))


_state: _State | None = None
_final_code: int | None = None
"""Exit code of the process, as passed to :func:`exit_process`."""


def _end_process() -> None:
    """End the process, after everything else that is done at exit."""
    if _final_code is None or _state is None:  # an exception, or a forked child
        return
    code = _final_code
    try:
        sys.stdout.flush()
    except (BrokenPipeError, AttributeError, ValueError):  # its reader has ended, or it was closed
        pass
    except OSError as error:
        os.write(2, f"effx: cannot write the output: {error.strerror}.\n".encode())
        code = code or 2
    with contextlib.suppress(OSError):
        sys.stderr.flush()
    if hasattr(signal, "pthread_sigmask"):
        signal.pthread_sigmask(signal.SIG_BLOCK, _SIGNALS)
    stop = requested()
    os._exit(code if stop is None else exit_code(stop))


def _after_fork() -> None:
    global _state
    if _state is not None:
        _state.forget()
        _state = None


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)

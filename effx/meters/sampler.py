"""Periodic reads between a start and a stop.

    start                                        stop
      |  read  .  read  .  read  .  ...  .  read  |
      first, by the caller                last, by the caller

A thread reads in between. Without the thread (tests with a virtual clock), the caller calls ``sample``.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Generic, TypeVar

T = TypeVar("T")


@dataclass(frozen=True)
class Clock:
    """A monotonic clock in seconds, and a way to wait."""

    now: Callable[[], float] = time.monotonic
    sleep: Callable[[float], None] = time.sleep


class Sampler(Generic[T]):
    """Calls ``read`` every ``period_s`` seconds; the first failed read ends the sampling."""

    def __init__(self, read: Callable[[], T], period_s: float, *, threaded: bool = True) -> None:
        self.period_s = period_s
        self._read = read
        self._threaded = threaded
        self._samples: list[T] = []
        self._error: Exception | None = None
        self._done = threading.Event()
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        """Discard the last window, read once, and start the thread."""
        self.halt()
        self._samples, self._error = [], None
        self.sample()
        if self._threaded:
            self._done.clear()
            self._thread = threading.Thread(target=self._loop, name="effx-meter", daemon=True)
            self._thread.start()

    def sample(self) -> None:
        """Read once."""
        if self._error is None:
            try:
                self._samples.append(self._read())
            except Exception as error:  # returned by stop, which runs in another thread
                self._error = error

    def stop(self) -> tuple[list[T], Exception | None]:
        """Read a last time; return the samples, and the error that ended sampling early, if any."""
        self.halt()
        self.sample()
        return self._samples, self._error

    def halt(self) -> None:
        """Stop the thread, if it runs."""
        if self._thread is not None:
            self._done.set()
            self._thread.join()
            self._thread = None

    def _loop(self) -> None:
        while self._error is None and not self._done.wait(self.period_s):
            self.sample()


def measure_tick(read: Callable[[], float], clock: Clock, *, every_s: float, limit_s: float) -> float | None:
    """Return the median time between two changes of a counter, seconds; None: it did not change enough.

    Waits for nine changes, at most ``limit_s``; the resolution is ``every_s``.
    """
    began = clock.now()
    last = read()
    changes: list[float] = []
    while len(changes) < 9 and clock.now() - began < limit_s:
        clock.sleep(every_s)
        value = read()
        if value != last:
            changes.append(clock.now())
            last = value
    gaps = sorted(later - earlier for earlier, later in zip(changes, changes[1:], strict=False))
    return gaps[len(gaps) // 2] if gaps else None

"""SIGTERM as an exception, so that a process stopped by a scheduler cleans up as it does after Ctrl-C."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any


class Terminated(KeyboardInterrupt):
    """SIGTERM, as from ``docker stop`` or a batch scheduler; handled wherever Ctrl-C is."""


def _raise(*_: Any) -> None:
    raise Terminated


def raise_on_sigterm() -> None:
    """Raise :class:`Terminated` in the main thread on SIGTERM, for the rest of this process."""
    signal.signal(signal.SIGTERM, _raise)


@contextmanager
def sigterm_raises() -> Iterator[None]:
    """Raise :class:`Terminated` on SIGTERM while the block runs; no effect outside the main thread."""
    try:
        previous = signal.signal(signal.SIGTERM, _raise)
    except ValueError:  # only the main thread may set handlers
        yield
        return
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, previous)


def exit_code(error: KeyboardInterrupt) -> int:
    """Return the exit code of a process that a signal stopped: 143 for SIGTERM, 130 for Ctrl-C."""
    return 143 if isinstance(error, Terminated) else 130

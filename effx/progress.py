"""Progress on stderr: a live bar in a terminal, a few plain lines elsewhere.

stdout has results only, so that JSON output can be piped.
"""

from __future__ import annotations

import functools
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Protocol

from effx.errors import printable

_PLAIN_INTERVAL_S = 10.0


class Advance(Protocol):
    """Reports that ``n`` more units are done, with an optional remark."""

    def __call__(self, n: float = 1.0, note: str = "") -> None: ...


def say(*lines: str) -> None:
    """Print lines on stderr; characters that a terminal would act on, line breaks too, are escaped."""
    for line in lines:
        print(printable(line), file=sys.stderr, flush=True)


@functools.cache
def say_once(*lines: str) -> None:
    """Print lines on stderr, unless this process has printed them before."""
    say(*lines)


@contextmanager
def bar(description: str, total: float, *, shown: bool = True) -> Iterator[Advance]:
    """Yield a function that advances a progress display of ``total`` units; does nothing if not ``shown``."""
    if not shown:
        yield lambda n=1.0, note="": None
    elif sys.stderr.isatty():
        with _live(description, total) as advance:
            yield advance
    else:
        yield _PlainBar(description, total)


@contextmanager
def _live(description: str, total: float) -> Iterator[Advance]:
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn

    columns = (
        TextColumn("{task.description}", markup=False),  # brackets in names and notes are not markup
        BarColumn(),
        TaskProgressColumn(),
        TimeRemainingColumn(),
        TextColumn("{task.fields[note]}", markup=False),
    )
    with Progress(*columns, console=Console(stderr=True)) as progress:
        task = progress.add_task(description, total=total, note="")

        def advance(n: float = 1.0, note: str = "") -> None:
            progress.update(task, advance=n)
            if note:
                progress.update(task, note=note)

        yield advance


class _PlainBar:
    """Prints the completed share every ten seconds, and once at the end."""

    def __init__(self, description: str, total: float) -> None:
        self._description, self._total = description, total
        self._done, self._finished = 0.0, False
        self._start = self._printed = time.monotonic()
        say(description)

    def __call__(self, n: float = 1.0, note: str = "") -> None:
        self._done += n
        clock = time.monotonic()
        finished = self._done >= self._total * (1 - 1e-9) > 0 and not self._finished  # sums of seconds round
        self._finished = self._finished or finished
        if finished or clock - self._printed >= _PLAIN_INTERVAL_S:
            self._printed = clock
            share = min(1.0, self._done / self._total) if self._total else 1.0
            spent = clock - self._start
            left = f", about {spent * (1 - share) / share:.0f} s left" if 0 < share < 1 else ""
            say(f"  {share:4.0%} after {spent:.0f} s{left} {note}".rstrip())

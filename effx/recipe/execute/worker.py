"""A process that does cells: ``python -m effx.recipe.execute.worker``; see ``process.py`` for the outside.

    stdin    a cell per line of JSON; open for as long as the run lives
    stdout   the outcome of each, one line of JSON
    stderr   the log; what libraries print on stdout is written there too

When stdin ends, the run is gone: the process stops and leaves nothing unfinished. SIGTERM does the same.
Ctrl-C is ignored: a terminal sends it to all processes, and the run decides. The cell's lock is
held by this process, not by the run, so that it is free once this process is gone.
"""

from __future__ import annotations

import contextlib
import os
import queue
import signal
import sys
import threading
import time
import traceback

from effx import progress, signals
from effx.errors import EffxError, one_line
from effx.recipe.execute.protocol import CellOutcome, CellSpec
from effx.recipe.execute.settle import settle
from effx.recipe.execute.store import CellStore


def main() -> int:
    """Do the cells on stdin until it ends."""
    answer = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    signals.install(ctrl_c=False)
    lines: queue.Queue[str | None] = queue.Queue()
    busy = threading.Event()
    threading.Thread(target=_read, args=(lines, busy), daemon=True).start()
    with contextlib.suppress(KeyboardInterrupt):  # SIGTERM between two cells
        while (line := _next(lines)) is not None:
            outcome = _attempt(CellSpec.from_line(line))
            busy.clear()
            with contextlib.suppress(OSError):
                answer.write(outcome.to_line() + "\n")
                answer.flush()
            if outcome.outcome == "stopped":
                break
    signals.acknowledge()
    return 0


def _next(lines: queue.Queue[str | None]) -> str | None:
    with signals.interruptible():
        return lines.get()


def _attempt(spec: CellSpec) -> CellOutcome:
    """Do a cell; every error becomes an outcome, so that the other cells are still done."""
    _log_to(spec)
    clock = time.perf_counter()

    def failed(note: str) -> CellOutcome:
        return CellOutcome("failed", note, round(time.perf_counter() - clock, 3))

    try:
        return settle(spec)
    except KeyboardInterrupt:
        return CellOutcome("stopped", "stopped")
    except EffxError as error:
        return failed(str(error))
    except MemoryError:
        return failed("not enough memory")
    except Exception as error:  # libraries raise many kinds
        traceback.print_exc()
        message = one_line(error)
        return failed(f"{type(error).__name__}: {message}")


def _log_to(spec: CellSpec) -> None:
    """Let stderr and stdout go to the cell's log."""
    log = os.open(CellStore(spec.workspace).log(spec.key), os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o666)
    os.dup2(log, 1)
    os.dup2(log, 2)
    os.close(log)


def _read(lines: queue.Queue[str | None], busy: threading.Event) -> None:
    """Pass on what the run writes; when it is gone, stop the cell at work."""
    for line in sys.stdin:
        busy.set()
        lines.put(line)
    lines.put(None)
    if busy.is_set():
        progress.say("the run has ended: stopping")
        os.kill(os.getpid(), signal.SIGTERM)


if __name__ == "__main__":
    sys.exit(main())

"""A worker process as seen by the run that started it: it receives cells, returns outcomes, is stopped.

Importing PyTorch takes seconds, so one process does many cells, one after the other, where their stage
allows it; each cell has a separate log and time limit. See :mod:`effx.recipe.execute.worker` for the
inside.
"""

from __future__ import annotations

import contextlib
import os
import select
import signal
import subprocess
import sys
import time
from pathlib import Path

import effx
from effx.recipe.execute.protocol import CellOutcome, CellSpec
from effx.recipe.execute.store import CellStore

_GRACE_S = 5.0
"""Seconds from SIGTERM to SIGKILL; the run itself has to end within 10 s of a signal."""
_THREAD_VARIABLES = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")
_LOG_TAIL_BYTES = 2000


class WorkerProcess:
    """A process that does cells; ``spec`` is the first."""

    def __init__(self, spec: CellSpec) -> None:
        self.threads = spec.threads
        self._log = self._log_of(spec)
        environment = dict(os.environ)
        if spec.threads is not None:
            environment |= dict.fromkeys(_THREAD_VARIABLES, str(spec.threads))
        package = str(Path(effx.__file__).parents[1])  # the same effx, wherever it was started
        environment["PYTHONPATH"] = os.pathsep.join(filter(None, (package, os.environ.get("PYTHONPATH"))))
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "effx.recipe.execute.worker"],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                env=environment,
                start_new_session=True,  # Ctrl-C is for the run, which ends its cells in order
            )
        self._send(spec)

    def give(self, spec: CellSpec) -> None:
        """Give an idle worker its next cell."""
        self._log = self._log_of(spec)
        self._send(spec)

    @property
    def alive(self) -> bool:
        """Whether the process is there to take another cell."""
        return self._process.poll() is None

    def poll(self) -> CellOutcome | None:
        """Return the cell's outcome; None while it is at work."""
        stdout = self._process.stdout
        assert stdout is not None
        ready, _, _ = select.select([stdout], [], [], 0.0)
        return self.wait() if ready else None

    def wait(self) -> CellOutcome:
        """Return the cell's outcome once there is one."""
        stdout = self._process.stdout
        assert stdout is not None
        outcome = CellOutcome.from_line(stdout.readline())
        return outcome or self._died()

    def terminate(self) -> None:
        """Send SIGTERM, without waiting for the end."""
        if self._process.poll() is None:
            self._process.terminate()

    def stop(self) -> None:
        """End the process: first with SIGTERM, so that it removes what is unfinished."""
        if self._process.poll() is None:
            self._process.terminate()
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._process.wait(_GRACE_S)
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self._process.pid, signal.SIGKILL)  # and the processes that it has started
        self._process.wait()
        for stream in (self._process.stdin, self._process.stdout):
            if stream is not None:
                with contextlib.suppress(OSError):
                    stream.close()

    def _send(self, spec: CellSpec) -> None:
        self._began = time.monotonic()
        assert self._process.stdin is not None
        with contextlib.suppress(OSError):  # it died: `poll` says so
            self._process.stdin.write((spec.to_line() + "\n").encode())
            self._process.stdin.flush()

    def _died(self) -> CellOutcome:
        code = self._process.wait()
        why = f"was killed by signal {-code}" if code < 0 else f"ended with code {code}"
        memory = "; was there enough memory?" if -code == signal.SIGKILL else ""
        seconds = time.monotonic() - self._began
        return CellOutcome("failed", f"its process {why}{memory}. See {self._log}", seconds)

    @staticmethod
    def _log_of(spec: CellSpec) -> Path:
        path = CellStore(spec.workspace).log(spec.key)
        path.parent.mkdir(parents=True, exist_ok=True)
        return path


def last_line(path: Path) -> str:
    """Return the last line of a log; empty if there is none."""
    try:
        with path.open("rb") as file:
            file.seek(max(0, path.stat().st_size - _LOG_TAIL_BYTES))
            lines = file.read().decode(errors="replace").splitlines()
    except OSError:
        return ""
    return next((line.strip() for line in reversed(lines) if line.strip()), "")

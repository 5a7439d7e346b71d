"""A cell in a process of its own, seen from outside: started, asked whether it is done, stopped."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import effx
from effx.recipe.execute.store import Workspace

_GRACE_S = 8.0
_THREAD_VARIABLES = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")
_LOG_TAIL_BYTES = 2000


class Child:
    """One cell at work; see :mod:`effx.recipe.execute.work` for what is said between the two."""

    def __init__(self, spec: dict[str, Any]) -> None:
        self.spec = spec
        self._log = Workspace(spec["workspace"]).log(spec["key"])
        self._log.parent.mkdir(parents=True, exist_ok=True)
        environment = dict(os.environ)
        if spec["threads"] is not None:
            environment |= dict.fromkeys(_THREAD_VARIABLES, str(spec["threads"]))
        package = str(Path(effx.__file__).parents[1])  # the same effx, wherever it was started
        environment["PYTHONPATH"] = os.pathsep.join(filter(None, (package, os.environ.get("PYTHONPATH"))))
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "effx.recipe.execute.work"],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                env=environment,
                start_new_session=True,  # Ctrl-C is for the run, which ends its cells in order
            )
        self._began = time.monotonic()
        assert self._process.stdin is not None
        with contextlib.suppress(BrokenPipeError):
            self._process.stdin.write((json.dumps(spec) + "\n").encode())
            self._process.stdin.flush()

    @property
    def seconds(self) -> float:
        """How long it has been running."""
        return time.monotonic() - self._began

    def poll(self) -> dict[str, Any] | None:
        """Return the outcome, or None while it is at work."""
        code = self._process.poll()
        return None if code is None else self._outcome(code)

    def wait(self) -> dict[str, Any]:
        """Return the outcome once there is one."""
        return self._outcome(self._process.wait())

    def stop(self) -> None:
        """End it: at first politely, so that it takes away what it has half made."""
        if self._process.poll() is None:
            self._process.terminate()
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._process.wait(_GRACE_S)
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self._process.pid, signal.SIGKILL)  # and what it has started
        self._process.wait()
        self._close()

    def _outcome(self, code: int) -> dict[str, Any]:
        assert self._process.stdout is not None
        text = self._process.stdout.read()
        self._close()
        with contextlib.suppress(ValueError):
            found = json.loads(text)
            if isinstance(found, dict):
                return {"seconds": self.seconds, **found}
        why = f"was killed by signal {-code}" if code < 0 else f"ended with code {code}"
        memory = "; did memory run out?" if -code == signal.SIGKILL else ""
        return {
            "outcome": "failed",
            "note": f"its process {why}{memory}. See {self._log}",
            "seconds": self.seconds,
        }

    def _close(self) -> None:
        for stream in (self._process.stdin, self._process.stdout):
            if stream is not None:
                with contextlib.suppress(OSError):
                    stream.close()


def last_line(path: Path) -> str:
    """Return the last line of a log; empty if there is none."""
    try:
        with path.open("rb") as file:
            file.seek(max(0, path.stat().st_size - _LOG_TAIL_BYTES))
            lines = file.read().decode(errors="replace").splitlines()
    except OSError:
        return ""
    return next((line.strip() for line in reversed(lines) if line.strip()), "")

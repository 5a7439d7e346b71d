"""The parent's end of a worker process."""

from __future__ import annotations

import contextlib
import json
import queue
import signal
import subprocess
import sys
import tempfile
import threading
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from effx.errors import WorkerError


class WorkerClient:
    """Starts a worker, asks it, and notices when it dies or hangs."""

    def __init__(self, name: str, timeout_s: float) -> None:
        self.name, self._timeout_s = name, timeout_s
        self._complaints = tempfile.TemporaryFile()  # noqa: SIM115 - lives as long as the worker
        package = Path(__file__).parents[2]
        self._process = subprocess.Popen(
            [sys.executable, "-c", _BOOT, str(package)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._complaints,
            text=True,
            encoding="utf-8",
        )
        self._lines: queue.SimpleQueue[str] = queue.SimpleQueue()
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def ask(self, do: str, **request: Any) -> Any:
        """Send one request and wait for its answer.

        Raises:
            WorkerError: the worker died, hung, or answered with an error.
        """
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(json.dumps({"do": do, **request}) + "\n")
            self._process.stdin.flush()
            line = self._lines.get(timeout=self._timeout_s)
        except queue.Empty:
            self._process.kill()
            raise WorkerError(
                f"{self.name}: no answer to '{do}' in {self._timeout_s:.0f} s; stopped."
            ) from None
        except BrokenPipeError:
            line = ""
        if not line:
            raise WorkerError(f"{self.name}: the worker died during '{do}' ({self._cause()}).")
        answer = json.loads(line)
        if "error" in answer:
            raise WorkerError(f"{self.name}: {answer['error']}")
        return answer["ok"]

    def close(self) -> None:
        """End the worker."""
        with contextlib.suppress(OSError):
            if self._process.stdin:
                self._process.stdin.close()
        try:
            self._process.wait(timeout=10)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._reader.join()
        if self._process.stdout:
            self._process.stdout.close()
        self._complaints.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    @property
    def pid(self) -> int:
        return self._process.pid

    def _read(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            self._lines.put(line)
        self._lines.put("")  # the worker is gone

    def _cause(self) -> str:
        code = self._process.wait()
        if code == -signal.SIGKILL:
            return "killed; out of memory?"
        if code < 0:
            return f"signal {signal.Signals(-code).name}"
        self._complaints.seek(0)
        lines = self._complaints.read().decode(errors="replace").strip().splitlines()
        return lines[-1] if lines else f"exit code {code}"


_BOOT = (
    # argv[1] makes the very effx of the parent importable, installed or not
    "import sys; sys.path.insert(0, sys.argv[1]); from effx.profile.worker import main; main()"
)

"""The parent's end of a worker process: sends requests, receives answers."""

from __future__ import annotations

import contextlib
import json
import os
import queue
import signal
import subprocess
import sys
import tempfile
import threading
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from effx import scratch, signals
from effx.errors import WorkerError

_GRACE_S = 10.0


class WorkerClient:
    """Starts a worker process, sends it requests, and notices when it dies or hangs."""

    def __init__(self, name: str, timeout_s: float) -> None:
        self.name, self._timeout_s = name, timeout_s
        self._stderr = tempfile.TemporaryFile()  # noqa: SIM115 - lives as long as the worker
        package = Path(__file__).parents[2]
        with signals.without_ctrl_c():
            self._process = subprocess.Popen(
                [sys.executable, "-c", _BOOT, str(package)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=self._stderr,
                text=True,
                encoding="utf-8",
                env=scratch.environment(),
                start_new_session=True,  # so that the processes that it starts can be ended with it
            )
        self._lines: queue.SimpleQueue[str] = queue.SimpleQueue()
        self._requests: queue.SimpleQueue[str | None] = queue.SimpleQueue()
        self._threads = [threading.Thread(target=target, daemon=True) for target in (self._read, self._write)]
        for thread in self._threads:
            thread.start()

    def request(self, action: str, *, lasting_s: float = 0.0, **arguments: Any) -> Any:
        """Send one request and wait for its answer.

        Args:
            action: the request; see :mod:`effx.profile.protocol`.
            lasting_s: expected duration of the request, added to the time limit of any answer.
            arguments: of the request.

        Returns:
            The fields of the answer.

        Raises:
            WorkerError: the worker died, hung, or answered with an error.
        """
        limit_s = self._timeout_s + lasting_s
        self._requests.put(json.dumps({"action": action, **arguments}) + "\n")
        try:
            with signals.interruptible():
                line = self._lines.get(timeout=limit_s)
        except queue.Empty:
            self._process.kill()
            raise WorkerError(
                f"{self.name}: no answer to '{action}' in {limit_s:.0f} s; stopped. If the engine is only "
                "slow, raise the timeout.",
                settings="timeout_s",
            ) from None
        if not line.endswith("\n"):  # no answer, or half an answer
            raise WorkerError(f"{self.name}: the worker died during '{action}' ({self._cause()}).")
        answer = json.loads(line)
        if "error" in answer:
            raise WorkerError(f"{self.name}: {answer['error']}")
        return answer["ok"]

    def close(self) -> None:
        """End the worker and the processes that it has started; after a stop request without waiting."""
        with signals.shielded():
            self._requests.put(None)
            if signals.requested() is None:
                with contextlib.suppress(subprocess.TimeoutExpired):
                    self._process.wait(timeout=_GRACE_S)
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()
            for thread in self._threads:
                thread.join()
            if self._process.stdout:
                self._process.stdout.close()
            self._stderr.close()

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

    def _write(self) -> None:
        """Write requests in a separate thread: a hung worker does not read, and the pipe fills up."""
        assert self._process.stdin is not None
        with (
            contextlib.suppress(OSError),
            self._process.stdin as pipe,
        ):  # the process has ended; the reader reports it
            while (request := self._requests.get()) is not None:
                pipe.write(request)
                pipe.flush()

    def _read(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            self._lines.put(line)
        self._lines.put("")  # the worker has ended

    def _cause(self) -> str:
        code = self._process.wait()
        if code == -signal.SIGKILL:
            return "killed; out of memory?"
        if code < 0:
            return f"signal {signal.Signals(-code).name}"
        self._stderr.seek(0)
        lines = self._stderr.read().decode(errors="replace").strip().splitlines()
        return lines[-1] if lines else f"exit code {code}"


_BOOT = (
    # argv[1] makes the parent's copy of effx importable, installed or not
    "import sys; sys.path.insert(0, sys.argv[1]); from effx.profile.worker import main; main()"
)

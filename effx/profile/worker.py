"""The process that holds one engine; the parent says what to run, block by block.

Each request is a JSON line on stdin, each answer a JSON line on stdout. Only numbers cross: the
worker encodes with the engine's own tokenizer and times around ``infer`` alone.

    open      engine folder, texts         -> how it runs, lengths of the rows
    accuracy  batch size                   -> logits in row order
    warm      workload                     -> seconds spent
    block     workload, queries, limit     -> seconds per query, CPU seconds
    memory                                 -> peak resident bytes
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from effx import engines
from effx.artifacts import Engine
from effx.encoding import Encoder, length_sorted
from effx.errors import EffxError, UsageError

_WINDOW_QUERIES = 5
_STABLE_WINDOWS = 3
_STABLE_RATIO = 1.1


class Worker:
    """One engine, its encoded rows, and the queries of each workload."""

    def open(self, folder: str, texts: list[list[str]], threads: int | None, seed: int) -> Any:
        engine = Engine.open(folder)
        self._session = engines.open(engine, threads=threads)
        encoder = Encoder(engine.folder, engine.max_length)
        self._rows = encoder([tuple(text) for text in texts])
        self._limit = int(engine.manifest["inputs"][0]["max"][1])
        self._seed = seed
        self._queries: dict[str, Iterator[dict[str, np.ndarray]]] = {}
        return {"describe": self._session.describe(), "lengths": self._rows.lengths.tolist()}

    def accuracy(self, batch_size: int) -> Any:
        """Run every row once, rows of like length together, and return logits in row order."""
        parts: list[tuple[np.ndarray, np.ndarray]] = []
        for rows in length_sorted(self._rows.lengths, batch_size):
            parts.append((rows, self._session.infer(self._rows.batch(rows))["logits"]))
        logits = np.empty((len(self._rows), parts[0][1].shape[1]), dtype=np.float32)
        for rows, values in parts:
            logits[rows] = values
        return {"logits": logits.tolist()}

    def warm(self, workload: dict[str, Any], limit_s: float) -> Any:
        """Run queries until the last windows agree within 10 %, or ``limit_s`` is over."""
        start = time.perf_counter()
        windows: list[float] = []
        while time.perf_counter() - start < limit_s:
            window = [self._timed(workload) for _ in range(_WINDOW_QUERIES)]
            windows.append(float(np.median(window)))
            last = windows[-_STABLE_WINDOWS:]
            if len(last) == _STABLE_WINDOWS and max(last) <= _STABLE_RATIO * min(last):
                break
        return {"seconds": time.perf_counter() - start, "windows": len(windows)}

    def block(self, workload: dict[str, Any], queries: int, least_s: float, limit_s: float) -> Any:
        """Time queries back to back: ``queries`` of them and ``least_s``, at most ``limit_s``."""
        samples: list[float] = []
        cpu = time.process_time()
        start = time.perf_counter()
        while True:
            spent = time.perf_counter() - start
            if samples and (spent >= limit_s or (len(samples) >= queries and spent >= least_s)):
                break
            samples.append(self._timed(workload))
        return {
            "samples_s": samples,
            "elapsed_s": time.perf_counter() - start,
            "cpu_s": time.process_time() - cpu,
        }

    def memory(self) -> Any:
        return {"host_peak_bytes": _peak_bytes()}

    def _timed(self, workload: dict[str, Any]) -> float:
        inputs = self._next(workload)
        start = time.perf_counter()
        self._session.infer(inputs)
        return time.perf_counter() - start

    def _next(self, workload: dict[str, Any]) -> dict[str, np.ndarray]:
        key = json.dumps(workload, sort_keys=True)
        if key not in self._queries:
            self._queries[key] = self._stream(workload)
        return next(self._queries[key])

    def _stream(self, workload: dict[str, Any]) -> Iterator[dict[str, np.ndarray]]:
        """Yield queries without end: real rows in a seeded order, or real ids at a fixed shape."""
        rng = np.random.default_rng(self._seed)
        batch, sequence = int(workload["batch"]), workload["sequence"]
        if sequence == "real":
            while True:
                order = rng.permutation(len(self._rows))
                for start in range(0, len(order) - batch + 1, batch):
                    yield self._rows.batch(order[start : start + batch])
        length = int(sequence)
        if length > self._limit:
            raise UsageError(f"length {length}: this engine reads {self._limit} tokens at most.")
        while True:  # ids as the task uses them: padding or zeros would draw less power
            start = int(rng.integers(0, len(self._rows.ids)))
            ids = np.resize(np.roll(self._rows.ids, -start), (batch, length)).astype(np.int64)
            yield {
                "input_ids": ids,
                "attention_mask": np.ones_like(ids),
                "token_type_ids": np.zeros_like(ids),
            }


def _peak_bytes() -> int | None:
    """Return the peak resident size of this process since it began to run Python.

    VmHWM, not ru_maxrss: the latter is inherited across fork and exec, so a worker of a large
    parent would report the parent's memory.
    """
    status = Path("/proc/self/status")
    if status.is_file():
        for line in status.read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
    try:
        import resource
    except ImportError:
        return None
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def main() -> None:
    """Answer requests until stdin closes."""
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)  # what a runtime prints goes to stderr, not between the answers
    worker = Worker()
    for line in sys.stdin:
        request = json.loads(line)
        action: Callable[..., Any] = getattr(worker, request.pop("do"))
        try:
            answer = {"ok": action(**request)}
        except EffxError as error:
            answer = {"error": str(error)}
        except Exception as error:  # told to the parent, which decides; the process stays up
            answer = {"error": f"{type(error).__name__}: {error}"}
        answers.write(json.dumps(answer) + "\n")
        answers.flush()


if __name__ == "__main__":
    main()

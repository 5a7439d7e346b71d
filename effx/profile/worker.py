"""The process that holds one engine; the parent says what to run, block by block.

Each request is a JSON line on stdin, each answer a JSON line on stdout. Only numbers cross: the
worker encodes with the engine's own tokenizer and times around ``infer`` alone, or, for a workload
with timing "device", between events on the GPU with the inputs already there.

    open      engine folder, texts         -> how it runs, lengths of the rows
    accuracy  batch size, where to begin   -> logits of some rows, depths of early exits, where to go on
    warm      workload                     -> seconds spent, whether it became steady
    block     workload, place, limits      -> seconds per query, CPU seconds, others' too, answers that agree
    serve     rate, place, queries         -> seconds from scheduled arrival to answer
    memory                                 -> peak resident bytes, and the GPU's

A workload's queries stand in one order, a circle, and a block begins at its ``place`` of it, from 0 to 1:
every engine is asked the same in the same round, however fast it is and whether it was loaded all along.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from itertools import count, islice
from pathlib import Path
from typing import Any, NamedTuple, cast

import numpy as np

from effx import engines
from effx.artifacts import Engine
from effx.encoding import Encoder, length_sorted
from effx.engines.protocol import TimedSession
from effx.errors import EffxError, UsageError
from effx.host import identity
from effx.profile.device_memory import DeviceMemory

_WINDOW_QUERIES = 5
_STABLE_WINDOWS = 3
_STABLE_RATIO = 1.1
_CHECKED_QUERIES = 16
_RECORDING_RUNS = 3  # torch.compile warms up, records, and runs the recording
_SPIN_S = 1e-3
_SCORING_S = 60.0
"""How long the accuracy pass goes on before it answers with what it has."""
_GOLDEN = (np.sqrt(5) - 1) / 2
_SINGLE: dict[str, Any] = {"scenario": "server", "batch": 1, "sequence": "real"}


class Query(NamedTuple):
    """What is asked at once."""

    rows: np.ndarray | None
    """Row numbers of the task; None: ids at a fixed shape, which are no row."""
    inputs: dict[str, np.ndarray]


class Worker:
    """One engine, its encoded rows, and the queries of each workload."""

    device_memory: DeviceMemory | None = None

    def open(
        self,
        folder: str,
        texts: list[list[str]],
        threads: int | None,
        seed: int,
        predictions: list[float] | None = None,
    ) -> Any:
        engine = Engine.open(folder)
        self.device_memory = DeviceMemory(engine.device)
        self.device_memory.begin()
        self._session = engines.open(engine, threads=threads)
        self._on_gpu = engine.on_gpu
        encoder = Encoder(engine.folder, engine.max_length)
        self._rows = encoder([tuple(text) for text in texts])
        self._limit = int(engine.manifest["inputs"][0]["max"][1])
        self._seed = seed
        self._labels = None if predictions is None else np.array(predictions, dtype=np.float64)
        self._task = engine.task
        return {"describe": self._session.describe(), "lengths": self._rows.lengths.tolist()}

    def accuracy(self, batch_size: int, begin: int) -> Any:
        """Run rows, those of like length together, from batch ``begin`` on, for about a minute.

        Returns:
            rows: their numbers; logits: [rows, outputs]; depths: of early exits, or empty; next: the batch to
            go on with, None at the end.
        """
        batches = length_sorted(self._rows.lengths, batch_size)
        if self._labels is None:
            self._labels = np.full(len(self._rows), np.nan)
        found: dict[str, list[Any]] = {"rows": [], "logits": [], "depths": []}
        start = time.perf_counter()
        for number, rows in enumerate(batches[begin:], begin + 1):
            out = self._session.infer(self._rows.batch(rows))
            self._labels[rows] = self._task.predict(out["logits"])
            found["rows"] += rows.tolist()
            found["logits"] += out["logits"].tolist()
            found["depths"] += out["depth"].tolist() if "depth" in out else []
            if number < len(batches) and time.perf_counter() - start > _SCORING_S:
                return {**found, "next": number}
        return {**found, "next": None}

    def warm(self, workload: dict[str, Any], limit_s: float) -> Any:
        """Run queries until the last windows agree within 10 %, or ``limit_s`` is over.

        Windows are of the same queries again and again, for others take longer or shorter; between them
        come others, so that more shapes than theirs are met. Too few windows tell nothing.

        On a GPU each shape that the workload may bring runs before that: what is recorded, compiled
        or reserved for a new shape is not part of a query.
        """
        if self._on_gpu:
            prepare = getattr(self._session, "prepare", self._session.infer)
            for inputs in self._shapes(workload):
                for _ in range(_RECORDING_RUNS):
                    prepare(inputs)
        start = time.perf_counter()
        stream = self._stream(workload, 0.0)
        same = list(islice(stream, _WINDOW_QUERIES))
        windows: list[float] = []
        steady: bool | None = None
        while not steady:
            window: list[float] = []
            for query in [*same, *islice(stream, _WINDOW_QUERIES)]:
                window.append(self._timed(workload, query)[0])
                if time.perf_counter() - start >= limit_s:
                    break
            if len(window) < len(same):
                break
            windows.append(float(np.median(window[: len(same)])))
            last = windows[-_STABLE_WINDOWS:]
            if len(last) == _STABLE_WINDOWS:
                steady = max(last) <= _STABLE_RATIO * min(last)
            if time.perf_counter() - start >= limit_s:
                break
        return {"seconds": time.perf_counter() - start, "windows": len(windows), "steady": steady}

    def block(
        self, workload: dict[str, Any], place: float, queries: int, least_s: float, limit_s: float
    ) -> Any:
        """Time queries back to back: ``queries`` of them and ``least_s``, at most ``limit_s``."""
        samples: list[float] = []
        answers: list[tuple[np.ndarray | None, np.ndarray]] = []
        examples = 0
        stream = self._stream(workload, place)
        query = next(stream)
        busy, cpu, start = identity.busy_s(), time.process_time(), time.perf_counter()
        while True:
            took, logits = self._timed(workload, query)
            samples.append(took)
            examples += len(logits)
            if len(answers) < _CHECKED_QUERIES:
                answers.append((query.rows, logits))
            spent = time.perf_counter() - start
            if spent >= limit_s or (len(samples) >= queries and spent >= least_s):
                break
            query = next(stream)
        elapsed, spent_cpu = time.perf_counter() - start, time.process_time() - cpu
        after = identity.busy_s()
        others = None if busy is None or after is None else after - busy - spent_cpu
        checked, agreed = self._agreement(answers)
        return {
            "samples_s": samples,
            "elapsed_s": elapsed,
            "cpu_s": spent_cpu,
            "others_s": others,
            "examples": examples,
            "checked": checked,
            "agreed": agreed,
        }

    def serve(self, rate_per_s: float, place: float, queries: int, limit_s: float, seed: int) -> Any:
        """Answer single rows that arrive by a Poisson process, first come, first served.

        A sample is the time from the scheduled arrival, waiting included: a stall delays those
        behind it, and that is seen (no coordinated omission).
        """
        rng = np.random.default_rng([self._seed, seed])
        due = np.cumsum(rng.exponential(1 / rate_per_s, queries))
        samples: list[float] = []
        stream = self._stream(_SINGLE, place)
        start = time.perf_counter()
        for arrival in due:
            query = next(stream)
            while (wait := start + arrival - time.perf_counter()) > 0:
                if wait > _SPIN_S:  # sleeping wakes late; the last stretch is spun
                    time.sleep(wait - _SPIN_S)
            self._session.infer(query.inputs)
            samples.append(time.perf_counter() - start - arrival)
            if time.perf_counter() - start > limit_s:
                break
        elapsed = time.perf_counter() - start
        return {"samples_s": samples, "elapsed_s": elapsed, "examples": len(samples)}

    def _agreement(self, answers: list[tuple[np.ndarray | None, np.ndarray]]) -> tuple[int, int]:
        """Return how many timed rows were scored before, and how many got the same prediction."""
        checked = agreed = 0
        for rows, logits in answers:
            if rows is None or self._labels is None:
                continue
            checked += len(rows)
            agreed += int(np.sum(np.isclose(self._task.predict(logits), self._labels[rows], atol=0.05)))
        return checked, agreed

    def memory(self) -> Any:
        device = self.device_memory
        return {
            "host_peak_bytes": _peak_bytes(),
            "device_peak_bytes": device and device.peak_bytes,
            "device_memory_by": device and (device.by or f"not measured: {device.reason}"),
            "describe": self._session.describe(),  # again: only now is it known what could be recorded
        }

    def _timed(self, workload: dict[str, Any], query: Query) -> tuple[float, np.ndarray]:
        if workload.get("timing") == "device":
            session = cast(TimedSession, self._session)
            took, answer = session.infer_timed(session.upload(query.inputs))
            return took, answer["logits"]
        start = time.perf_counter()
        out = self._session.infer(query.inputs)
        return time.perf_counter() - start, out["logits"]

    def _shapes(self, workload: dict[str, Any]) -> Iterator[dict[str, np.ndarray]]:
        """Yield inputs of every shape of a workload, the largest first: memory then grows once."""
        batch, lengths = int(workload["batch"]), self._rows.lengths
        if workload["scenario"] == "offline":
            chosen = list(length_sorted(lengths, batch))
        elif workload["sequence"] == "real":  # a batch is as wide as its longest row
            order = np.argsort(lengths, kind="stable")
            ends = np.searchsorted(lengths[order], np.unique(lengths), side="right")
            chosen = [np.resize(order[max(0, end - batch) : end], min(batch, len(order))) for end in ends]
        else:
            yield next(self._stream(workload, 0.0)).inputs
            return
        of_shape = {(len(rows), int(lengths[rows].max())): rows for rows in chosen}
        for _, rows in sorted(of_shape.items(), key=lambda item: item[0], reverse=True):
            yield self._rows.batch(rows)

    def _stream(self, workload: dict[str, Any], place: float) -> Iterator[Query]:
        """Yield queries without end: real rows in an order of their own, or real ids at a fixed shape."""
        rng = np.random.default_rng(self._seed)
        batch, sequence = int(workload["batch"]), workload["sequence"]
        if workload["scenario"] == "offline":  # rows of like length together, any stretch with all lengths
            batches = length_sorted(self._rows.lengths, batch)
            for number in _from(spread(len(batches)), place):
                yield Query(batches[number], self._rows.batch(batches[number]))
        if sequence == "real":
            order = rng.permutation(len(self._rows))
            starts = range(0, max(1, len(order) - batch + 1), batch)
            for start in _from(starts, place):
                rows = order[start : start + batch]
                yield Query(rows, self._rows.batch(rows))
        length = int(sequence)
        if length > self._limit:
            raise UsageError(f"length {length}: this engine reads {self._limit} tokens at most.")
        every = self._rows.ids  # as the task uses them: padding or zeros would draw less power
        stretch = np.arange(batch * length).reshape(batch, length)
        for start in _from(rng.permutation(len(every)), place):
            ids = every[(start + stretch) % len(every)].astype(np.int64)
            inputs = {
                "input_ids": ids,
                "attention_mask": np.ones_like(ids),
                "token_type_ids": np.zeros_like(ids),
            }
            yield Query(None, inputs)


def spread(n: int) -> np.ndarray:
    """Return 0 to n - 1 in an order any stretch of which is spread evenly over them.

    By multiples of the golden ratio: points that are next to one another in the order of their fractions
    leave gaps of at most three sizes (Steinhaus' three-gap theorem). A block of a few batches then has
    short and long ones as all rows have, and another block has others.
    """
    return np.argsort(np.arange(n) * _GOLDEN % 1)


def _from(order: Sequence[int] | np.ndarray, place: float) -> Iterator[int]:
    """Yield an order again and again, from a place in it, 0 to 1."""
    start = int(place * len(order))
    return (int(order[(start + step) % len(order)]) for step in count())


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
            if worker.device_memory:
                worker.device_memory.begin()
            answer = {"ok": action(**request)}
            if worker.device_memory:
                worker.device_memory.end()
        except EffxError as error:
            answer = {"error": str(error)}
        except Exception as error:  # told to the parent, which decides; the process stays up
            answer = {"error": f"{type(error).__name__}: {error}"}
        answers.write(json.dumps(answer) + "\n")
        answers.flush()


if __name__ == "__main__":
    main()

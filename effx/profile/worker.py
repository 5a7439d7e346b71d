"""The worker process: loads one engine and runs the parent's requests, block by block.

Requests and answers are described in :mod:`effx.profile.protocol`. The worker encodes the rows with the
tokenizer in the engine's folder, and times ``infer`` alone; in the scenario ``from-text``, the tokenizer too;
for a workload with timing ``device``, the run between events on the GPU with the inputs already there.
"""

from __future__ import annotations

import json
import os
import queue
import sys
import threading
import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import count, islice
from typing import Any, NamedTuple, cast

import numpy as np

from effx import engines
from effx.artifacts import Engine
from effx.encoding import Encoded, Encoder, length_sorted
from effx.engines import Session
from effx.engines.lead_in import lead_in
from effx.engines.protocol import Arrays, TimedSession
from effx.errors import ArtifactError, EffxError, UsageError, WorkerError
from effx.host import cpu, memory
from effx.profile.device_memory import DeviceMemory
from effx.profile.protocol import Block, MemoryUse, OpenedEngine, Rested, Scored, WarmedUp
from effx.specs import backends
from effx.specs.documents import Documents
from effx.specs.tasks import Task
from effx.specs.workloads import FROM_TEXT, SINGLE_STREAM, Workload

_WINDOW_QUERIES = 5
_STABLE_WINDOWS = 3
_STABLE_RATIO = 1.1
_CHECKED_QUERIES = 100
_RECORDING_RUNS = 3  # torch.compile warms up, records, and runs the recording
_SPIN_S = 1e-3
_PREPARING_S = 10.0
_SCORING_S = 60.0
"""Seconds after which an accuracy pass answers with the rows scored so far."""
_DOCUMENTS_AT_ONCE = 32
_GOLDEN = (np.sqrt(5) - 1) / 2


Answer = Scored | WarmedUp | Block | Rested | MemoryUse


class Query(NamedTuple):
    """One call of the engine."""

    inputs: dict[str, np.ndarray]
    rows: np.ndarray | None = None
    """Rows of the task; None: single texts of rows, or token ids at a fixed shape."""
    sequences: np.ndarray | None = None
    """The sequences of tokens in ``inputs``; None: token ids at a fixed shape."""


class Worker:
    """A loaded engine, its encoded rows, and the queries of each workload."""

    def __init__(
        self,
        session: Session,
        rows: Encoded,
        task: Task,
        *,
        longest: int,
        on_gpu: bool = False,
        lengths: Sequence[int] | None = None,
        seed: int = 0,
        scored: Mapping[Workload, Sequence[Any]] | None = None,
        device_memory: DeviceMemory | None = None,
        processors: Collection[int] | None = None,
        encode: Callable[[np.ndarray | None, np.ndarray | None], dict[str, np.ndarray]] | None = None,
        prepares_shapes: bool = False,
    ) -> None:
        """Args:
        session: the loaded engine.
        rows: validation rows, encoded by its tokenizer.
        task: turns logits into predictions.
        longest: maximum number of tokens per row that the engine accepts.
        on_gpu: whether it runs on a GPU.
        lengths: that the engine pads its inputs to; None: they keep their length.
        seed: of the order of queries and of arrivals.
        scored: predictions of earlier accuracy passes, one per row, by workload; the primary one first.
        device_memory: watches this process on the GPU.
        processors: that it may use, by their numbers; None: unknown.
        encode: encodes a query's texts, by its rows or sequences; None: ``from-text`` is not measured.
        prepares_shapes: whether the runtime takes longer for the first query of a shape.
        """
        self._session, self._rows, self._task = session, rows, task
        self._longest, self._on_gpu, self._seed = longest, on_gpu, seed
        self._lengths, self._prepares_shapes = lengths, prepares_shapes
        self._predictions = {
            workload: _comparable(task.behavior.restore(predictions, task.labels))
            for workload, predictions in (scored or {}).items()
        }
        self._device_memory, self._encode, self._processors = device_memory, encode, processors
        self._vectors: list[np.ndarray] = []
        """Of the documents, batch by batch, until all of them were embedded."""

    @classmethod
    def open(
        cls,
        folder: str,
        texts: Sequence[Sequence[str]],
        threads: int | None,
        seed: int,
        scored: Sequence[Mapping[str, Any]] = (),
        trust: bool = False,
        documents: Mapping[str, Sequence[str]] | None = None,
        digest: str | None = None,
    ) -> Worker:
        """Load the engine in ``folder`` and encode ``texts``, and documents, with its tokenizer.

        Raises:
            ArtifactError: the engine is damaged, or its digest is not ``digest`` (None: not compared): it was
                replaced since it was opened.
        """
        engine = Engine.open(folder)
        if digest is not None and engine.digest != digest:
            raise ArtifactError(
                f"{engine.folder}: the engine has changed since the measurement began. Measure it again, and "
                "do not export to this folder meanwhile."
            )
        processors = cpu.allowed()  # now: some runtimes pin the thread that loads them
        device_memory = DeviceMemory(engine.device)
        device_memory.begin()
        session = engines.open(engine, threads=threads, trust=trust)
        form = engine.task.behavior.form
        encoder = Encoder(engine.folder, engine.max_length, form=form, stride=engine.stride)
        if engine.runtime.pad_id != encoder.pad_id:
            raise ArtifactError(
                f"{engine.folder}: engine.json: runtime.pad_id is {engine.runtime.pad_id}, but "
                f"config.json says {encoder.pad_id}."
            )
        rows = encoder(
            [tuple(text) for text in texts],
            None if documents is None else Documents(tuple(documents["ids"]), tuple(documents["texts"])),
        )
        check_answer(session.infer(rows.batch(np.array([0]))), engine, int(rows.lengths[0]))
        device_memory.end()
        return cls(
            session, rows, engine.task,
            longest=engine.manifest.longest_input,
            on_gpu=engine.on_gpu, lengths=engine.runtime.lengths, seed=seed, device_memory=device_memory,
            processors=processors, encode=of_texts(encoder, texts, rows),
            prepares_shapes=backends.get(engine.backend).prepares_shapes,
            scored={Workload(**each["workload"]): each["predictions"] for each in scored},
        )  # fmt: skip

    def opened(self) -> OpenedEngine:
        """Return how the engine runs and the lengths of the rows."""
        of_queries = self._rows.lengths if self._task.behavior.query_is_text else self._rows.row_lengths
        return OpenedEngine(self._session.describe(), of_queries.tolist())

    def handle(self, action: str, arguments: dict[str, Any]) -> Answer:
        """Run a request, and measure the device's memory before and after it.

        Raises:
            WorkerError: unknown request.
        """
        actions: dict[str, Callable[..., Answer]] = {
            "score": self.score, "warm_up": self.warm_up, "block": self.block, "serve": self.serve,
            "rest": self.rest, "memory": self.memory,
        }  # fmt: skip
        if action not in actions:
            raise WorkerError(f"unknown request '{action}'")
        if "workload" in arguments:
            arguments = {**arguments, "workload": Workload(**arguments["workload"])}
        if self._device_memory:
            self._device_memory.begin()
        answer = actions[action](**arguments)
        if self._device_memory:
            self._device_memory.end()
        return answer

    def score(self, workload: Workload, first_batch: int, only: Sequence[int] | None = None) -> Scored:
        """Run rows in the batches of a workload, from ``first_batch`` on, for about a minute.

        Documents that the rows are compared with are embedded first, once; until all are, no row is scored.

        Args:
            workload: at real lengths.
            first_batch: index of the batch to begin with.
            only: these rows alone, whose predictions are not stored; None: all rows.

        Raises:
            WorkerError: logits are not finite, or have another shape than the task's.
        """
        batches = self._batches(workload) if only is None else [np.array([row]) for row in only]
        scored: list[int] = []
        predictions: list[Any] = []
        logits: list[list[float]] = []
        depths: list[int] = []
        start = time.perf_counter()
        if not self._embed_documents(start + _SCORING_S):
            return Scored([], [], [], [], first_batch)
        next_batch: int | None = None
        for number, rows in enumerate(batches[first_batch:], first_batch + 1):
            answer, depth = self._answer(rows, workload.batch)
            predicted = self._predict(rows, answer)
            if only is None:
                empty = np.full((self._rows.row_count, *predicted.shape[1:]), np.nan)
                if predicted.dtype == object:
                    empty = empty.astype(object)
                self._predictions.setdefault(workload, empty)[rows] = predicted
            scored += rows.tolist()
            predictions += self._task.behavior.store(predicted)
            logits += self._deciding(rows, answer)
            depths += depth
            if number < len(batches) and time.perf_counter() - start > _SCORING_S:
                next_batch = number
                break
        return Scored(scored, predictions, logits, depths, next_batch)

    def _embed_documents(self, until_s: float) -> bool:
        """Embed documents until a time of ``perf_counter``; return whether all of them are embedded.

        They run in batches of similar length, whatever the workload is: an index is built before queries.
        """
        documents = self._rows.documents
        if documents is None or documents.vectors is not None:
            return True
        batches = length_sorted(documents.tokens.lengths, _DOCUMENTS_AT_ONCE)
        for part in batches[len(self._vectors) :]:
            vectors = self._task.behavior.logits(self._session.infer(documents.tokens.batch(part)))
            if not np.isfinite(vectors).all():
                raise WorkerError("the engine's vectors of documents are not finite.")
            self._vectors.append(vectors)
            if time.perf_counter() > until_s and len(self._vectors) < len(batches):
                return False
        ordered = np.concatenate(self._vectors)[np.argsort(np.concatenate(batches))]
        self._rows, self._vectors = self._rows.with_vectors(ordered), []
        return True

    def _answer(self, rows: np.ndarray, batch: int) -> tuple[np.ndarray, list[int]]:
        """Return the logits and depths of rows, in queries of a workload's batch.

        Raises:
            WorkerError: logits have another shape than the task's.
        """
        answers: list[np.ndarray] = []
        depths: list[int] = []
        for query in self._queries(rows, batch):
            out, sent = self._session.infer(query.inputs), len(query.inputs["input_ids"])
            answer = self._task.behavior.logits(out)
            if answer.shape[0] != sent or self._task.outputs not in (0, answer.shape[-1]):
                expected = [sent, *answer.shape[1:-1], self._task.outputs or answer.shape[-1]]
                raise WorkerError(
                    f"the logits of {sent} sequences have the shape {list(answer.shape)}, expected "
                    f"{expected}."
                )
            answers.append(answer)
            depths += out["depth"].tolist() if "depth" in out else []
        return answers[0] if len(answers) == 1 else np.concatenate(answers), depths

    def _queries(self, rows: np.ndarray, batch: int) -> Iterator[Query]:
        """Yield rows as one query; or, where a query is a text, in queries of ``batch`` texts."""
        sequences = self._rows.sequences(rows)
        if not self._task.behavior.query_is_text:
            yield Query(self._rows.batch(sequences), rows, sequences)
            return
        for start in range(0, len(sequences), batch):
            part = sequences[start : start + batch]
            yield Query(self._rows.batch(part), sequences=part)

    def _flat(self, rows: np.ndarray, logits: np.ndarray) -> np.ndarray:
        """Return a batch's logits of tokens without padding; those of rows as they are."""
        if not self._task.behavior.of_tokens:
            return logits
        return self._rows.flat(self._rows.sequences(rows), logits)

    def _deciding(self, rows: np.ndarray, logits: np.ndarray) -> list[list[float]]:
        """Return the logits that decide the prediction of each row."""
        of_rows = self._task.behavior.deciding(self._flat(rows, logits), self._rows.take(rows))
        return [row.tolist() for row in of_rows]

    def _predict(self, rows: np.ndarray, logits: np.ndarray) -> np.ndarray:
        """Return the predictions of rows of the task from a batch's logits.

        Raises:
            WorkerError: a logit is not finite.
        """
        flat = self._flat(rows, logits)
        _check_finite(flat)
        return self._task.predict(flat, self._rows.take(rows))

    def warm_up(self, workload: Workload, limit_s: float) -> WarmedUp:
        """Run queries until the last windows agree within 10 %, or ``limit_s`` is over.

        Every window times the same few queries, because other queries take longer or shorter; between
        windows other queries run, so that more shapes are seen. Too few windows decide nothing.

        On a GPU, and where an engine has fixed lengths, each shape that the workload may bring runs before
        that: what is recorded, compiled or reserved for a new shape is not part of a query. Where a runtime
        prepares itself for a shape, which takes a few milliseconds, single rows of each length do, for ten
        seconds at most.
        """
        if self._on_gpu or self._lengths is not None:
            prepare = getattr(self._session, "prepare", self._session.infer)
            for inputs in self._shapes(workload):
                for _ in range(_RECORDING_RUNS):
                    prepare(inputs)
        elif self._prepares_shapes and workload.batch == 1:
            until_s = time.perf_counter() + _PREPARING_S
            for inputs in self._shapes(workload):
                self._session.infer(inputs)
                if time.perf_counter() >= until_s:
                    break
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
        return WarmedUp(time.perf_counter() - start, len(windows), steady)

    def block(self, workload: Workload, offset: float, queries: int, least_s: float, limit_s: float) -> Block:
        """Time queries back to back: ``queries`` of them and ``least_s``, at most ``limit_s``.

        Some other queries come first and are not timed: threads have to wake up, and the caches hold what
        another engine left there.

        Raises:
            WorkerError: an answer is not finite, of the first ones and the last.
        """
        lead_in(lambda query: self._timed(workload, query), self._stream(workload, (offset + 0.5) % 1))
        samples: list[float] = []
        answers: list[tuple[Query, np.ndarray]] = []
        examples = 0
        stream = self._stream(workload, offset)
        query = next(stream)
        busy_s, allowed_s = self._busy_s()
        worked_s, begin_s = time.process_time(), time.monotonic()
        start = time.perf_counter()
        while True:
            seconds, logits = self._timed(workload, query)
            samples.append(seconds)
            examples += len(logits if query.rows is None else query.rows)
            if len(answers) < _CHECKED_QUERIES:
                answers.append((query, logits))
            spent = time.perf_counter() - start
            if spent >= limit_s or (len(samples) >= queries and spent >= least_s):
                break
            query = next(stream)
        elapsed, cpu_s = time.perf_counter() - start, time.process_time() - worked_s
        during = begin_s, time.monotonic()
        others_s, others_allowed_s = (
            None if before is None or after is None else after - before - cpu_s
            for before, after in zip((busy_s, allowed_s), self._busy_s(), strict=True)
        )
        self._check_finite([*answers, (query, logits)])
        checked, agreed = self._agreement(workload, answers)
        return Block(samples, elapsed, examples, cpu_s, others_s, others_allowed_s, checked, agreed, during)

    def _busy_s(self) -> tuple[float | None, float | None]:
        """Return the busy time of all processors, and of those that this process may use."""
        return cpu.busy_s(), None if self._processors is None else cpu.busy_s_of(self._processors)

    def serve(
        self, rate_per_s: float, offset: float, queries: int, limit_s: float, seed: int, lead: int = 0
    ) -> Block:
        """Answer single rows that arrive by a Poisson process, first come, first served.

        A sample is the time from the scheduled arrival, waiting included: a stall delays the queries
        behind it, and the samples show that (no coordinated omission). ``lead`` queries come before those
        that are sampled, as the first ones find an empty queue.

        Raises:
            WorkerError: an answer is not finite, of the first ones and the last.
        """
        rng = np.random.default_rng([self._seed, seed])
        due = np.cumsum(rng.exponential(1 / rate_per_s, lead + queries))
        samples: list[float] = []
        busy_s = 0.0
        answers: list[tuple[Query, Arrays]] = []
        stream = self._stream(SINGLE_STREAM, offset)
        start = time.perf_counter()
        for number, arrival in enumerate(due):
            query = next(stream)
            while (wait := start + arrival - time.perf_counter()) > 0:
                if wait > _SPIN_S:  # sleeping wakes late; the last millisecond is spun
                    time.sleep(wait - _SPIN_S)
            begin = time.perf_counter()
            out = self._session.infer(query.inputs)
            end = time.perf_counter()
            busy_s += end - begin
            if len(answers) < _CHECKED_QUERIES:
                answers.append((query, out))
            if number >= lead:
                samples.append(end - start - arrival)
                if end - start > limit_s:
                    break
        elapsed_s = time.perf_counter() - start - (due[lead - 1] if lead else 0.0)
        load = rate_per_s * busy_s / (lead + len(samples))
        self._check_finite(
            [(asked, self._task.behavior.logits(given)) for asked, given in (*answers, (query, out))]
        )
        return Block(samples, float(elapsed_s), len(samples), load=load)

    def rest(self) -> Rested:
        """Wait until the engine's threads no longer wait busily for work, which slows other engines."""
        return Rested(cpu.rest())

    def memory(self) -> MemoryUse:
        """Return the peak memory so far, and how the engine runs after shapes were recorded."""
        device = self._device_memory
        return MemoryUse(
            host_peak_bytes=memory.peak_resident_bytes(),
            device_peak_bytes=None if device is None else device.peak_bytes,
            device_memory_by=None if device is None else device.by or f"not measured: {device.reason}",
            runtime=self._session.describe(),
        )

    def _of_rows(
        self, answers: Sequence[tuple[Query, np.ndarray]]
    ) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """Yield rows that were answered, and their logits.

        Texts of a row that were queries of their own are put together once all of them were answered.
        """
        waiting: dict[int, np.ndarray] = {}
        for query, logits in answers:
            if query.rows is not None:
                yield query.rows, logits
            elif query.sequences is not None and self._rows.row_of is not None:
                waiting.update(zip(query.sequences.tolist(), logits, strict=True))
                for row in np.unique(self._rows.row_of[query.sequences]):
                    of_row = self._rows.sequences([row]).tolist()
                    if waiting.keys() >= set(of_row):
                        yield np.array([row]), np.stack([waiting.pop(number) for number in of_row])

    def _agreement(self, workload: Workload, answers: Sequence[tuple[Query, np.ndarray]]) -> tuple[int, int]:
        """Return how many timed rows were scored before, and how many got the same prediction.

        They are compared with the score of the same batches, where there is one. Numbers are the same within
        1 % of their range.
        """
        checked = agreed = 0
        key = SINGLE_STREAM if workload.batch == 1 else replace(workload, timing="end-to-end")
        primary = next(iter(self._predictions.values()), None)
        predictions = self._predictions.get(key, primary)
        documents = self._rows.documents
        if predictions is None or (documents is not None and documents.vectors is None):
            return 0, 0  # not scored; or documents are not embedded again in a worker that was loaded again
        for rows, logits in self._of_rows(answers):
            checked += len(rows)
            answers_now, before = self._predict(rows, logits), predictions[rows]
            if (of_kind := self._task.behavior.same) is not None:
                same = of_kind(answers_now, before, predictions)
            elif self._task.behavior.has_classes:
                same = np.asarray(answers_now == before)
            else:
                same = np.abs(answers_now - before) <= 0.01 * float(np.ptp(predictions))
            agreed += int(np.sum(same.reshape(len(rows), -1).all(axis=1)))
        return checked, agreed

    def _check_finite(self, answers: Sequence[tuple[Query, np.ndarray]]) -> None:
        """Raise :class:`WorkerError` if a logit is not finite; those of padding are not answers."""
        for query, logits in answers:
            _check_finite(logits if query.rows is None else self._flat(query.rows, logits))

    def _timed(self, workload: Workload, query: Query) -> tuple[float, np.ndarray]:
        if workload.on_device:
            session = cast(TimedSession, self._session)
            seconds, out = session.infer_timed(session.upload(query.inputs))
            return seconds, self._task.behavior.logits(out)
        start = time.perf_counter()
        inputs = query.inputs
        if workload.scenario == FROM_TEXT.scenario:
            assert self._encode is not None
            inputs = self._encode(query.rows, query.sequences)
        out = self._session.infer(inputs)
        seconds = time.perf_counter() - start
        return seconds, self._task.behavior.logits(out)

    def _shapes(self, workload: Workload) -> Iterator[dict[str, np.ndarray]]:
        """Yield inputs of every shape of a workload, the largest first: memory then grows once.

        Inputs that the engine pads to the same length have the same shape.
        """
        batch, lengths = workload.batch, self._rows.row_widths
        if workload.scenario == "offline" or (workload.length == "real" and self._rows.row_of is not None):
            chosen = self._batches(workload)
        elif workload.length == "real":  # a batch is as wide as its longest row
            order = np.argsort(lengths, kind="stable")
            ends = np.searchsorted(lengths[order], np.unique(lengths), side="right")
            chosen = [np.resize(order[max(0, end - batch) : end], min(batch, len(order))) for end in ends]
        else:
            yield next(self._stream(workload, 0.0)).inputs
            return
        of_shape = {
            self._padded_shape(query.inputs["input_ids"].shape): query.inputs
            for rows in chosen
            for query in self._queries(rows, batch)
        }
        for shape in sorted(of_shape, reverse=True):
            yield of_shape[shape]

    def _padded_shape(self, shape: tuple[int, ...]) -> tuple[int, int]:
        """Return the shape that inputs have once the engine has padded them."""
        batch, length = shape
        return batch, next((known for known in self._lengths or () if known >= length), length)

    def _batches(self, workload: Workload) -> list[np.ndarray]:
        """Return the batches of a workload at real lengths, in which every row is once.

        Those of the offline scenario have rows of similar length, the longest first; others have rows in a
        random but fixed order.
        """
        if workload.scenario == "offline":
            return length_sorted(self._rows.row_widths, workload.batch)
        order = np.random.default_rng(self._seed).permutation(self._rows.row_count)
        return [order[start : start + workload.batch] for start in range(0, len(order), workload.batch)]

    def _stream(self, workload: Workload, offset: float) -> Iterator[Query]:
        """Yield queries endlessly: rows in a random but fixed order, or real token ids at a fixed shape."""
        rng = np.random.default_rng(self._seed)
        batch = workload.batch
        if workload.length == "real":
            batches = self._batches(workload)
            if workload.scenario == "offline":  # each block with all lengths
                batches = [batches[number] for number in spread(len(batches))]
            else:
                batches = [rows for rows in batches if len(rows) == batch] or batches
            for number in _circular(range(len(batches)), offset):
                yield from self._queries(batches[number], batch)
        length = int(workload.length)
        if length > self._longest:
            raise UsageError(f"length {length}: this engine accepts at most {self._longest} tokens.")
        every = self._rows.ids  # real token ids: padding or zeros would draw less power
        positions = np.arange(batch * length).reshape(batch, length)
        for start in _circular(rng.permutation(len(every)), offset):
            ids = every[(start + positions) % len(every)].astype(np.int64)
            inputs = {
                "input_ids": ids,
                "attention_mask": np.ones_like(ids),
                "token_type_ids": np.zeros_like(ids),
            }
            yield Query(inputs)


def _check_finite(logits: np.ndarray) -> None:
    if not np.isfinite(logits).all():
        raise WorkerError("the engine's logits are not finite.")


def of_texts(
    encoder: Encoder, texts: Sequence[Sequence[str]], rows: Encoded
) -> Callable[[np.ndarray | None, np.ndarray | None], dict[str, np.ndarray]]:
    """Return a function that encodes a query from its texts: of its rows; or, without them, its sequences.

    Args:
        encoder: the engine's tokenizer.
        texts: of each row.
        rows: the same, encoded.
    """

    def encode(of_rows: np.ndarray | None, sequences: np.ndarray | None) -> dict[str, np.ndarray]:
        if of_rows is not None:
            chosen = [tuple(texts[row]) for row in of_rows]
        else:
            assert sequences is not None and rows.row_of is not None
            owners = rows.row_of[sequences]
            positions = sequences - np.searchsorted(rows.row_of, owners)  # within its row
            chosen = [(texts[row][at],) for row, at in zip(owners, positions, strict=True)]
        encoded = encoder(chosen)
        return encoded.batch(np.arange(len(encoded)))

    return encode


def check_answer(answer: Mapping[str, np.ndarray], engine: Engine, tokens: int = 1) -> None:
    """Check the answer to one row before anything is measured.

    Args:
        answer: by the names of the outputs.
        engine: that answered.
        tokens: of the row.

    Raises:
        ArtifactError: logits are missing, not finite or not [1, outputs of the task], of a kind with logits
            of tokens [1, tokens, outputs], of vectors [1, width]; or a depth is not that of a layer.
    """
    kind, outputs = engine.task.behavior, engine.task.outputs
    if absent := [name for name in kind.output_names if name not in answer]:
        raise ArtifactError(f"the engine has no output {absent[0]}, but {', '.join(answer) or 'none'}.")
    logits = kind.logits({name: np.asarray(answer[name]) for name in kind.output_names})
    outputs = outputs or logits.shape[-1]
    expected = (1, tokens, outputs) if kind.of_tokens else (1, outputs)
    if logits.shape != expected:
        raise ArtifactError(
            f"the engine's logits have the shape {list(logits.shape)}, expected {list(expected)} for the "
            f"labels of {engine.task.name}."
        )
    if not np.isfinite(logits).all():
        raise ArtifactError("the engine's logits are not finite.")
    structure = engine.manifest.structure
    layers = 0 if structure is None else len(structure.layers)
    if "depth" in answer and not 1 <= int(np.asarray(answer["depth"]).ravel()[0]) <= layers:
        raise ArtifactError(f"the engine left after layer {answer['depth']} of {layers}.")


def _comparable(predictions: np.ndarray) -> np.ndarray:
    """Return predictions as an array in which NaN marks rows that were not scored yet."""
    return predictions if predictions.dtype == object else predictions.astype(np.float64)


def spread(n: int) -> np.ndarray:
    """Return 0 to n - 1 in an order in which any consecutive part is distributed evenly over the range.

    Numbers are ordered by the fractional parts of multiples of the golden ratio, whose gaps have at most
    three sizes (Steinhaus' three-gap theorem). A block of a few batches therefore has short and long rows
    in the proportion of all rows, and different blocks have different rows.
    """
    return np.argsort(np.arange(n) * _GOLDEN % 1)


def _circular(order: Sequence[int] | np.ndarray, offset: float) -> Iterator[int]:
    """Yield the entries of ``order`` cyclically, beginning at ``offset`` (a share of its length, 0 to 1)."""
    start = int(offset * len(order))
    return (int(order[(start + step) % len(order)]) for step in count())


def main() -> None:
    """Answer requests until stdin closes."""
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)  # output of a runtime is written to stderr, not between the answers
    worker: Worker | None = None
    for line in _requests():
        request = json.loads(line)
        action = request.pop("action")
        answer: dict[str, Any]
        try:
            if action == "open":
                worker = Worker.open(**request)
                answer = {"ok": vars(worker.opened())}
            elif worker is None:
                raise WorkerError("no engine is open")
            else:
                answer = {"ok": vars(worker.handle(action, request))}
        except EffxError as error:
            answer = {"error": str(error)}
        except Exception as error:  # reported to the parent, which decides; the process continues
            answer = {"error": f"{type(error).__name__}: {error}"}
        answers.write(json.dumps(answer) + "\n")
        answers.flush()


def _requests() -> Iterator[str]:
    """Yield the requests; the process ends when stdin does, in the middle of a request too."""
    lines: queue.SimpleQueue[str | None] = queue.SimpleQueue()
    idle = threading.Event()

    def read() -> None:
        for line in sys.stdin:
            idle.clear()
            lines.put(line)
        if not idle.is_set():
            os._exit(1)  # the parent was killed: nobody waits for the answer
        lines.put(None)

    idle.set()
    threading.Thread(target=read, daemon=True).start()
    while (line := lines.get()) is not None:
        yield line
        idle.set()


if __name__ == "__main__":
    main()

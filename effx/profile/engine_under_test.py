"""One engine under measurement: its worker process while it is loaded, and its results so far."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np

from effx import progress
from effx.artifacts import Engine
from effx.data import Rows, UnlabelledRows
from effx.errors import EffxError, WorkerError, one_line
from effx.host import cpu
from effx.host.cgroups import Cgroups, throttled_between
from effx.meters import Meter, whole_machine
from effx.profile import record
from effx.profile.client import WorkerClient
from effx.profile.journal import timestamp
from effx.profile.protocol import Block, BlockLimits, MemoryUse, OpenedEngine, Rested, Scored, WarmedUp
from effx.results import MOST_LOAD, EnergyWindow, Quality, ReferenceEngine, RuntimeRecord, facts
from effx.specs import workloads
from effx.specs.measurement import MeasurementPlan
from effx.specs.workloads import MULTI_STREAM, SINGLE_STREAM, Workload

_FEWEST_WINDOW_QUERIES = 32
_COMPARED_ROWS = 128
"""Rows that are answered alone and in batches, to see whether answers depend on the batch."""
_ROUNDING_SHARE = 1e-3
"""Share of the logits' range up to which a difference is rounding: kernels add in another order."""
_DECIDING_DETAILS = ("device", "uuid", "capability", "providers", "precision_hint", "compiled", "tf32")
"""Facts of a runtime that are known when an engine is loaded, and that must not change within a session."""
_LATEST_ARRIVAL = 2.0
"""A server block may last this multiple of its schedule; an engine slower than that cannot keep up."""


@dataclass
class Samples:
    """What was measured of one workload, block by block."""

    blocks_s: list[list[float]] = field(default_factory=list)
    rounds: list[int] = field(default_factory=list)
    elapsed_s: list[float] = field(default_factory=list)
    examples: list[int] = field(default_factory=list)
    cpu_s: list[float] = field(default_factory=list)
    loads: list[float] = field(default_factory=list)
    """While queries arrive: share of the time in which the engine works; empty: not recorded."""
    windows: list[EnergyWindow] = field(default_factory=list)
    window_reason: str | None = None
    """Why an energy window failed."""
    flags: list[str] = field(default_factory=list)

    def add(self, round_number: int, block: Block) -> None:
        """Append a block."""
        # the clock counts nanoseconds: further digits are rounding noise, and half of a result's bytes
        self.blocks_s.append([round(sample, 9) for sample in block.samples_s])
        self.rounds.append(round_number)
        self.elapsed_s.append(block.elapsed_s)
        self.examples.append(block.examples)
        self.cpu_s.append(round(block.cpu_s, 6))
        if block.load is not None:
            self.loads.append(block.load)


@dataclass(frozen=True)
class _Answers:
    """An engine's answers to rows, in the order of the rows."""

    predictions: np.ndarray
    logits: list[np.ndarray]
    """float32 [outputs] of each row, or [words x outputs]."""
    depths: list[int]
    """Layers that each row ran through; empty for engines without early exits."""


@dataclass(eq=False)
class EngineUnderTest:
    """An engine, the requests to its worker, and what they measured.

    All methods but ``samples`` need the engine to be loaded; see :class:`effx.profile.pool.WorkerPool`.
    They raise :class:`WorkerError` if the worker died, hung or answered with an error.
    """

    engine: Engine
    rows: Rows | UnlabelledRows
    plan: MeasurementPlan
    started: str = ""
    """Time in UTC at which its measurement began."""
    runtime: RuntimeRecord = field(default_factory=RuntimeRecord)
    """How it runs, as its worker reports."""
    expected_runtime: RuntimeRecord | None = None
    """How it ran before the session was interrupted."""
    mean_tokens: float = 0.0
    """Tokens of a row, mean; known once the engine was loaded."""
    mean_depth: float | None = None
    """Layers that a row ran through, mean; None: not scored yet, or without early exits."""
    device_memory_by: str | None = None
    """How the device's peak memory was obtained, or why there is none."""
    predictions: dict[Workload, np.ndarray] = field(default_factory=dict)
    """Of every row, by the workload in whose queries it was answered, that of the score first; empty: not
    scored yet."""
    batch_dependent: bool = False
    """Whether an answer depends on the other rows of its batch."""
    quality: Quality | None = None
    """None: not scored yet, or not compared with the reference yet."""
    in_batches: dict[Workload, Quality] = field(default_factory=dict)
    """Scores in the batches of other measured workloads, where answers depend on them."""
    measured: dict[Workload, Samples] = field(default_factory=dict)
    host_peak_bytes: int | None = None
    device_peak_bytes: int | None = None
    checked: int = 0
    """Timed rows whose predictions were compared with the accuracy pass."""
    agreed: int = 0
    """Those with the same prediction."""
    others_s: list[float] = field(default_factory=list)
    """Processor seconds of other processes on the processors that it may use, a figure per block; on all of
    them, where the system does not report each."""
    available_s: float = 0.0
    """Processor seconds of these processors together in those blocks."""
    quota_periods: int = 0
    """Scheduling periods of the container's CPU quota in those blocks; 0: there is no quota."""
    throttled_periods: int = 0
    """Those in which the quota was used up."""
    measured_s: float = 0.0
    """Seconds in which it was at work."""
    failure: str | None = None
    """Why it cannot be measured; None: nothing failed so far."""
    _client: WorkerClient | None = None
    _warm_for: Workload | None = None
    """The workload that ran last: another one may move memory, and what was recorded with it."""

    def fail(self, error: Exception) -> None:
        """Record why the engine cannot be measured; the first reason stays."""
        if self.failure is None:
            reason = one_line(
                error if isinstance(error, EffxError) else f"{type(error).__name__}: {error}", None
            )
            self.failure = reason if self.name in reason else f"{self.name}: {reason}"
            progress.say(self.failure)

    @property
    def name(self) -> str:
        """The engine's name."""
        return self.engine.name

    @property
    def pid(self) -> int | None:
        """The worker's process id; None: not loaded."""
        return None if self._client is None else self._client.pid

    @property
    def times_on_device(self) -> bool:
        """Whether the runtime can time itself on the device; known once the engine was loaded."""
        timing = self.runtime.details.get("timing")
        return isinstance(timing, list) and "device" in timing

    def samples(self, workload: Workload) -> Samples:
        """Return the samples of a workload, empty if nothing was measured yet."""
        return self.measured.setdefault(workload, Samples())

    def can_run(self, workload: Workload) -> bool:
        """Whether the workload's shape fits the engine, and its timing the runtime."""
        if workload.on_device and not self.times_on_device:
            return False
        return workload.length == "real" or accepts(self.engine, workload.batch, workload.length)

    def load(self) -> None:
        """Start a worker and open the engine in it.

        Raises:
            WorkerError: it cannot be opened, its folder has another engine than when the session began, or it
                runs in another way than before an interruption.
        """
        self._client = WorkerClient(self.name, self.plan.timeout_s)
        opened = OpenedEngine(
            **self._request(
                "open",
                folder=str(self.engine.folder),
                digest=self.engine.digest,
                texts=[list(texts) for texts in self.rows.texts],
                documents=None if self.rows.documents is None else asdict(self.rows.documents),
                threads=self.plan.threads,
                seed=self.plan.seed,
                scored=[
                    {"workload": workload.to_json(), "predictions": self.engine.task.behavior.store(answers)}
                    for workload, answers in self.predictions.items()
                ],
                trust=self.plan.trust,
            )
        )
        runtime = runtime_record(opened.runtime)
        if self.expected_runtime is not None and (differing := _differing(self.expected_runtime, runtime)):
            raise WorkerError(
                f"{self.name}: {', '.join(differing)} differ from those before the interruption."
            )
        self.runtime = runtime
        self.mean_tokens = float(np.mean(opened.lengths))
        self._rest()

    def unload(self) -> None:
        """End the worker without a further request."""
        self._warm_for = None
        client, self._client = self._client, None
        if client is not None:
            client.close()

    def score(self) -> None:
        """Run the accuracy pass over all rows: in batches or, if answers depend on them, in single queries.

        Some rows are answered alone and in batches of similar length. If their logits differ, the score is
        that of single queries, which is what frontiers show, and the batches of each other measured scenario
        are scored too.

        Raises:
            WorkerError: rows are missing, or the worker could not score some.
        """
        self.started = timestamp()
        offline = workloads.offline(self.plan.batch_size)
        in_batches = self._score(offline)
        compared = np.linspace(0, len(self.rows) - 1, min(len(self.rows), _COMPARED_ROWS)).astype(int)
        dependent = depends_on_batch(
            np.concatenate(self._score(SINGLE_STREAM, compared.tolist()).logits),
            np.concatenate([in_batches.logits[row] for row in compared]),
            np.concatenate(in_batches.logits),
        )
        answers = {offline: in_batches}
        if dependent:
            answers = {SINGLE_STREAM: self._score(SINGLE_STREAM)}
            if MULTI_STREAM.scenario in self.plan.scenarios:
                answers[MULTI_STREAM] = self._score(MULTI_STREAM)
            if offline.scenario in self.plan.scenarios:
                answers[offline] = in_batches
        task, rows = self.engine.task, self.rows
        self.batch_dependent = dependent
        self.predictions = {workload: each.predictions for workload, each in answers.items()}
        if isinstance(rows, Rows):
            self._set_scores(
                [
                    record.score(task, rows, predictions, workload, dependent=dependent)
                    for workload, predictions in self.predictions.items()
                ]
            )
        if depths := next(iter(answers.values())).depths:
            self.mean_depth = float(np.mean(depths))
        self._rest()

    def _score(self, workload: Workload, only: list[int] | None = None) -> _Answers:
        """Return the answers to rows in the batches of a workload.

        Args:
            workload: at real lengths.
            only: these rows; None: all.
        """
        rows: list[int] = []
        predictions: list[Any] = []
        logits: list[list[float]] = []
        depths: list[int] = []
        batch: int | None = 0
        begin_s = time.perf_counter()
        while batch is not None:
            part = Scored(**self._request("score", workload=workload.to_json(), first_batch=batch, only=only))
            rows, predictions = rows + part.rows, predictions + part.predictions
            logits, depths = logits + part.logits, depths + part.depths
            batch = part.next_batch
        self.measured_s += time.perf_counter() - begin_s
        expected = list(range(len(self.rows))) if only is None else only
        if sorted(rows) != expected:
            raise WorkerError(f"{self.name}: {len(set(rows))} of {len(expected)} rows were scored.")
        order, task = np.argsort(rows), self.engine.task
        return _Answers(
            task.behavior.restore([predictions[number] for number in order], task.labels),
            [np.array(logits[number], dtype=np.float32) for number in order],
            depths,
        )

    def compare_with(self, reference: EngineUnderTest) -> None:
        """Measure the agreement with a reference engine of the same rows, which have no labels.

        Raises:
            WorkerError: the reference could not be scored.
        """
        if not reference.predictions:
            raise WorkerError(f"{self.name}: its reference {reference.name} could not be scored.")
        assert isinstance(self.rows, UnlabelledRows)
        named = ReferenceEngine(reference.name, reference.engine.digest)
        expected = next(iter(reference.predictions.values()))
        self._set_scores(
            [
                record.agreement(
                    self.engine.task, self.rows, answers, named, expected, workload,
                    dependent=self.batch_dependent,
                )
                for workload, answers in self.predictions.items()
            ]
        )  # fmt: skip

    def restore_scores(self, scores: Sequence[Quality]) -> None:
        """Take over the scores of an earlier process of the session, the primary one first."""
        self._set_scores(scores)
        task = self.engine.task
        self.predictions = {
            each.workload: task.behavior.restore(each.predictions, task.labels) for each in scores
        }
        self.batch_dependent = bool(scores and scores[0].batch_dependent)

    def _set_scores(self, scores: Sequence[Quality]) -> None:
        self.quality = scores[0] if scores else None
        self.in_batches = {each.workload: each for each in scores[1:]}

    def warm_up(self, workload: Workload) -> None:
        """Warm up for a workload, unless it was the last one that ran."""
        if self._warm_for == workload:
            return
        warmed = WarmedUp(**self._request("warm_up", workload=workload.to_json(), limit_s=self.plan.warmup_s))
        if warmed.steady is False:
            self._flag(workload, "not steady after warm-up")
        self._warm_for = workload

    def _flag(self, workload: Workload, flag: str) -> None:
        flags = self.samples(workload).flags
        flags.append(flag)
        flags[:] = dict.fromkeys(flags)

    def run_block(self, workload: Workload, round_number: int, rounds: int, limits: BlockLimits) -> Block:
        """Measure one block of a workload; the blocks of all rounds begin evenly spread over its queries."""
        self.warm_up(workload)
        before = Cgroups().throttling()
        block = self._block(workload, round_number / rounds, limits)
        passed = throttled_between(before, Cgroups().throttling())
        self.quota_periods += passed.periods
        self.throttled_periods += passed.throttled
        self.add_block(workload, round_number, block)
        if not self._rest():
            self._flag(workload, "its threads compute between queries, which slows engines after it")
        return block

    def add_block(self, workload: Workload, round_number: int, block: Block) -> None:
        """Add a block that was measured."""
        if block.others_allowed_s is not None:
            self.others_s.append(block.others_allowed_s)
            self.available_s += block.elapsed_s * cpu.allowed_processors()
        elif block.others_s is not None:
            self.others_s.append(block.others_s)
            self.available_s += block.elapsed_s * cpu.installed_processors()
        self.samples(workload).add(round_number, block)
        self.checked += block.checked
        self.agreed += block.agreed

    def serve(self, rate_per_s: float, round_number: int, rounds: int, limits: BlockLimits) -> Block:
        """Measure one block of the server scenario, whose lead follows from the time of single queries."""
        self.warm_up(SINGLE_STREAM)
        mean_s = float(np.mean(np.concatenate(self.samples(SINGLE_STREAM).blocks_s)))
        lead = queries_before_steady(rate_per_s * mean_s)
        limit_s = max(limits.limit_s, _LATEST_ARRIVAL * (lead + limits.queries) / rate_per_s)
        block = Block(
            **self._request(
                "serve",
                lasting_s=limit_s,
                rate_per_s=rate_per_s,
                offset=round_number / rounds,
                queries=limits.queries,
                limit_s=limit_s,
                seed=round_number,
                lead=lead,
            )
        )
        self.samples(workloads.server(rate_per_s)).add(round_number, block)
        self.measured_s += block.elapsed_s
        self._rest()
        return block

    def run_window(self, workload: Workload, offset: float, meter: Meter, length_s: float) -> None:
        """Run a workload for one energy window of ``length_s``, beginning at ``offset`` in its queries."""
        self.warm_up(workload)
        samples = self.samples(workload)
        limits = BlockLimits(_FEWEST_WINDOW_QUERIES, length_s, 10 * length_s)
        meter.start()
        metering_s = time.process_time()
        block = self._block(workload, offset, limits, lasting_s=length_s)
        metering_s = time.process_time() - metering_s
        reading = meter.stop(block.cpu_s, block.during)
        self._rest()
        if reading.joules is None:
            samples.window_reason = reading.reason
            return
        # the reading's interval ends at ticks of the meter; the work went on evenly beyond them
        seconds = reading.seconds or block.elapsed_s
        examples = block.examples * seconds / block.elapsed_s
        others = None if block.others_s is None else (block.others_s - metering_s) / block.elapsed_s
        disturbed = whole_machine.disturbance(meter.name, others)
        unchecked = others is None and whole_machine.reads_everything(meter.name)
        samples.windows.append(
            EnergyWindow(
                duration_s=block.elapsed_s,
                examples=block.examples,
                joules=reading.joules,
                seconds=seconds,
                joules_per_example=reading.joules / examples,
                interval=_per_example(reading.interval, examples),
                interval_without_gain=_per_example(reading.interval_without_gain, examples),
                integrated_joules=reading.integrated_joules,
                flags=reading.flags + ((disturbed,) if disturbed else ()),
                unchecked=reading.unchecked + ((whole_machine.UNKNOWN,) if unchecked else ()),
                conditions=facts(reading.conditions),
            )
        )

    def read_memory(self) -> None:
        """Record the largest size that any of its workers has had."""
        used = MemoryUse(**self._request("memory"))
        self.host_peak_bytes = larger(self.host_peak_bytes, used.host_peak_bytes)
        self.device_peak_bytes = larger(self.device_peak_bytes, used.device_peak_bytes)
        self.runtime = runtime_record(used.runtime)
        self.device_memory_by = used.device_memory_by

    def _block(self, workload: Workload, offset: float, limits: BlockLimits, lasting_s: float = 0.0) -> Block:
        block = Block(
            **self._request(
                "block", lasting_s=lasting_s, workload=workload.to_json(), offset=offset, **asdict(limits)
            )
        )
        self.measured_s += block.elapsed_s
        return block

    def _rest(self) -> bool:
        """Let the engine's threads come to rest, before another engine is measured."""
        return Rested(**self._request("rest")).idle

    def _request(self, action: str, *, lasting_s: float = 0.0, **arguments: Any) -> Any:
        assert self._client is not None, "the engine is not loaded"
        return self._client.request(action, lasting_s=lasting_s, **arguments)


def depends_on_batch(alone: np.ndarray, in_batches: np.ndarray, every: np.ndarray) -> bool:
    """Return whether an engine's answers depend on the other rows of a batch, beyond rounding.

    Args:
        alone: logits of some rows in single queries.
        in_batches: of the same rows in batches.
        every: of all rows in batches, whose range is the scale.
    """
    return bool(np.abs(alone - in_batches).max() > _ROUNDING_SHARE * np.ptp(every))


def queries_before_steady(load: float) -> int:
    """Return how many queries arrive before a queue that was empty is as long as usual.

    That is twice the relaxation time of a queue of one server with random times of answer, 1 / (1 - sqrt
    load)^2 times the mean time of an answer (Cohen, The Single Server Queue, III.7); with less random times
    it is shorter. At a load at which latencies are not shown, nothing has to be waited for.

    Args:
        load: rate of arrivals times the mean time of an answer.
    """
    return 0 if load >= MOST_LOAD else math.ceil(2 * load / (1 - math.sqrt(load)) ** 2)


def runtime_record(reported: Mapping[str, object]) -> RuntimeRecord:
    """Return how an engine runs, from what its session's ``describe`` reports."""
    details = facts({key: value for key, value in reported.items() if key not in ("threads", "versions")})
    threads, versions = reported.get("threads"), reported.get("versions")
    return RuntimeRecord(
        threads=threads if isinstance(threads, int) else None,
        versions={name: str(text) for name, text in versions.items()} if isinstance(versions, dict) else {},
        details=details,
    )


def _differing(before: RuntimeRecord, after: RuntimeRecord) -> list[str]:
    """Return what differs between two processes of a session, of all that decides how fast an engine is.

    Facts that an earlier version did not record are not compared.
    """
    same = {"threads": before.threads == after.threads, "versions": before.versions == after.versions}
    same |= {
        name: before.details[name] == after.details.get(name)
        for name in _DECIDING_DETAILS
        if name in before.details
    }
    return [name for name, is_same in same.items() if not is_same]


def longest_input(engine: Engine) -> int:
    """Return the most tokens per row that an engine accepts."""
    return engine.manifest.longest_input


def accepts(engine: Engine, batch: int, length: int) -> bool:
    """Return whether an engine accepts ``batch`` rows of ``length`` tokens."""
    largest_batch = engine.manifest.largest_batch
    return length <= longest_input(engine) and (largest_batch is None or batch <= largest_batch)


def _per_example(joules: tuple[float, float] | None, examples: float) -> tuple[float, float] | None:
    return None if joules is None else (joules[0] / examples, joules[1] / examples)


def larger(first: int | None, second: int | None) -> int | None:
    """Return the larger of two figures, either of which may be unknown."""
    return max(filter(None, (first, second)), default=None)

"""One interleaved measurement of several engines: blocks in turn, so that their numbers can be compared.

One worker process per engine. Engines are measured in interleaved blocks, in a new random order
each round, so that a slow minute of the host affects all of them:

    quality     A  B  C           every row, every prediction stored; scored by the labels, or, if there
                                  are none, compared with a reference engine's predictions
    idle                          power with all engines loaded and none running, by each meter
    round 1     B  A  C           one block each of single queries
    round 2     C  B  A
    ...
    others      likewise, per scenario and per (batch, length)
    energy      A  B  C           windows of at least 10 s, if there is a meter

Everything measured is appended to the journal of the session, and what a journal has is not measured again.
Results are saved as soon as their engine has no more to do.
"""

from __future__ import annotations

import contextlib
import secrets
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np

from effx import files, progress, results
from effx.errors import ArtifactError, EffxError, UsageError, WorkerError, without_folders
from effx.host import cpu
from effx.meters import Meter
from effx.profile import energy, gates, record
from effx.profile.energy import NoIdle
from effx.profile.engine_under_test import EngineUnderTest, Samples, larger
from effx.profile.journal import Journal, JournalEntry, Round, timestamp
from effx.profile.pool import WorkerPool
from effx.profile.protocol import BlockLimits
from effx.profile.reference import References
from effx.results import (
    Energy,
    FailedEngineRecord,
    Failure,
    GateResult,
    Idle,
    Interruption,
    MeasurementRecord,
    MeterRecord,
    PeakMemory,
    Run,
    WorkloadResult,
)
from effx.specs import workloads
from effx.specs.workloads import FROM_TEXT, MULTI_STREAM, SINGLE_STREAM, Workload

_SCORING_S = 5.0
_BETWEEN_S = 0.1
"""Estimates for the progress bar: loading an engine and scoring its rows; the gap between blocks."""
_SERVER_LOAD = 0.5
"""Default rate of arrivals, as a share of what the slowest engine answers back to back."""


class InterleavedSession:
    """One interleaved measurement of several engines."""

    def __init__(
        self,
        engines: list[EngineUnderTest],
        references: References,
        pool: WorkerPool,
        meters: dict[bool, Meter],
        out: Path,
        journal: Journal,
    ) -> None:
        """Args:
        engines: measured side by side, in the order of the journal's header.
        references: the engines that they are compared with, where their rows have no labels.
        pool: loads and unloads them.
        meters: of engines on a GPU (True) and of others (False), where there are such engines.
        out: folder of the results.
        journal: what is measured, on which machine, and what was measured so far.
        """
        header = journal.header
        plan = header.plan
        self._journal, self._references = journal, references
        self._completed: set[Round] = set()
        """Rounds that every engine has measured."""
        self._interruptions: list[Interruption] = []
        self._out = out
        self._runs: dict[int, Run] = {}
        """Saved results, by the index of their engine: two engines may be equal in all but their names."""
        self._recorded: list[EngineUnderTest] = []
        self._started_s = 0.0
        self._failures: list[EffxError] = []
        self._unsaved: list[tuple[Run | Failure, OSError | EffxError]] = []
        self._engines, self._pool, self._plan, self._meters = engines, pool, plan, meters
        self._host, self._id = header.host, header.session
        earlier = sum(entry.step == "resumed" for entry in journal.entries) + bool(journal.entries)
        self._order = np.random.default_rng([plan.seed, earlier] if earlier else plan.seed)
        self._idle: dict[bool, list[Idle | NoIdle]] = {on_gpu: [] for on_gpu in meters}
        """Idle power by each meter, of every process of the session that measured energy windows."""
        self._offline = workloads.offline(plan.batch_size)
        metered = any(meter.source != "none" for meter in meters.values())
        self._metered: list[Workload] = [SINGLE_STREAM] if metered else []
        if metered and "offline" in plan.scenarios:
            self._metered.append(self._offline)

    def run(self) -> tuple[list[Run], list[EffxError]]:
        """Measure everything; each result is saved as soon as its engine has no more to do.

        Raises:
            UsageError: results could not be saved in their folder; the message names where they are.
        """
        self._restore()
        self._journal.begin()
        self._started_s = time.perf_counter()
        description = f"profile {len(self._engines)} engines, session {self._id}"
        with progress.bar(description, self._expected_s()) as advance:
            try:
                self._measure(advance)
            except KeyboardInterrupt as stop:
                stop.add_note(self._kept())
                raise
        if self._unsaved:
            error, lost = self._rescue()
            if not lost:
                self._journal.remove()
            raise error
        self._journal.remove()
        return [run for _, run in sorted(self._runs.items())], self._failures

    def _kept(self) -> str:
        """Return what an interruption leaves; nothing if no engine was scored yet."""
        if not any(engine.quality for engine in self._engines):
            self._journal.remove()
            return "nothing was measured."
        if self._unsaved:
            return str(self._rescue()[0])
        if not self._journal.resumable:
            return "completed results were saved."
        return f"what was measured is in session {self._id}, which can be resumed."

    def _restore(self) -> None:
        """Take over what earlier processes of the session have measured."""
        entries = self._journal.entries
        self._completed = {
            (entry.kind, entry.workload, entry.round)
            for entry in entries
            if entry.kind is not None and entry.workload is not None and entry.round is not None
        }
        # a round that was interrupted was measured again: only what was measured last belongs to it
        last = {_measured(entry): entry for entry in entries if entry.step in ("block", "window")}
        rounds = 0
        idle: dict[bool, Idle | NoIdle] = {}
        for before, entry in zip([None, *entries], entries, strict=False):
            rounds += entry.step == "round"
            if entry.step == "resumed" and before is not None:
                self._interruptions.append(Interruption(before.at, entry.at, rounds))
            elif entry.step == "idle" and entry.on_gpu is not None:
                idle[entry.on_gpu] = entry.idle or NoIdle(entry.reason or "")
            elif entry.step == "round" and entry.kind == "window":
                for on_gpu in list(idle):
                    self._idle[on_gpu].append(idle.pop(on_gpu))
            elif entry.engine is not None:
                superseded = last.get(_measured(entry), entry) is not entry
                self._restore_engine(self._engines[entry.engine], entry, superseded=superseded)
        if entries:
            self._interruptions.append(Interruption(entries[-1].at, timestamp(), rounds))
            progress.say(f"session {self._id}: {rounds} rounds were measured before")

    def _restore_engine(self, engine: EngineUnderTest, entry: JournalEntry, *, superseded: bool) -> None:
        """Take over an entry; of a block or window that was ``superseded``, what holds for its process."""
        workload, number = entry.workload, entry.round
        engine.host_peak_bytes = larger(engine.host_peak_bytes, entry.host_peak_bytes)
        engine.device_peak_bytes = larger(engine.device_peak_bytes, entry.device_peak_bytes)
        engine.device_memory_by = entry.device_memory_by or engine.device_memory_by
        engine.expected_runtime = entry.runtime or engine.expected_runtime
        engine.measured_s = entry.measured_s or engine.measured_s
        engine.quota_periods = entry.quota_periods or engine.quota_periods
        engine.throttled_periods = entry.throttled_periods or engine.throttled_periods
        if entry.step == "scored":
            engine.quality, engine.mean_depth = entry.quality, entry.mean_depth
            engine.restore_scores(
                [quality for quality in (entry.quality, *(entry.in_batches or ())) if quality]
            )
            engine.started = entry.started or ""
        elif entry.step == "saved":
            with contextlib.suppress(ArtifactError):  # of a recipe's cell, which was not completed
                self._runs[self._engines.index(engine)] = results.open_run(self._out / f"{entry.result}.json")
        elif entry.step == "failed":
            engine.failure = entry.reason
            if (self._out / f"{entry.result}.json").is_file():
                self._recorded.append(engine)
                self._failures.append(WorkerError(entry.reason or ""))
        elif workload is not None and number is not None:
            samples = engine.samples(workload)
            samples.flags[:] = dict.fromkeys([*samples.flags, *(entry.flags or ())])
            if superseded:
                return
            if entry.block is not None and ("block", workload, number) in self._completed:
                engine.add_block(workload, number, entry.block)
            elif entry.step == "window" and ("window", workload, number) in self._completed:
                samples.window_reason = entry.reason or samples.window_reason
                if entry.window is not None:
                    samples.windows.append(entry.window)

    def _note(self, engine: EngineUnderTest, entry: JournalEntry) -> None:
        """Append what an engine has measured, with the memory of its worker, which may be killed."""
        engine.read_memory()
        entry = replace(
            entry,
            engine=self._engines.index(engine),
            flags=None if entry.workload is None else list(engine.samples(entry.workload).flags),
            runtime=engine.runtime,
            host_peak_bytes=engine.host_peak_bytes,
            device_peak_bytes=engine.device_peak_bytes,
            device_memory_by=engine.device_memory_by,
            measured_s=engine.measured_s,
            quota_periods=engine.quota_periods,
            throttled_periods=engine.throttled_periods,
        )
        self._journal.add(entry)

    def refuse(self, folder: Path, error: EffxError) -> None:
        """Record the failure of an engine that cannot be prepared."""
        progress.say(str(error))
        self._save_failure(record.failed_engine(folder), timestamp(), str(error))

    def _finish(self, engine: EngineUnderTest) -> None:
        """Read the memory of an engine that has nothing more to do, and save its result."""
        index = self._engines.index(engine)
        if index in self._runs:
            return  # by an earlier process of this session
        self._pool.acquire(engine)
        engine.read_memory()
        run = self._result(engine)
        if self._save(run):
            self._journal.add(JournalEntry("saved", engine=index, result=run.id))
        self._runs[index] = run

    def _save_failure(self, engine: FailedEngineRecord, started: str, reason: str) -> str:
        """Save a failure and return its id."""
        self._failures.append(WorkerError(reason))
        failure = Failure(
            _result_id(engine.name, started), started, engine, self._host, self._id, without_folders(reason)
        )
        self._save(failure)
        return failure.id

    def _save(self, result: Run | Failure) -> bool:
        try:
            results.save(result, self._out)
        except (OSError, UsageError) as error:  # the other results may still fit on the disk
            self._unsaved.append((result, error))
            return False
        return True

    def _rescue(self) -> tuple[EffxError, bool]:
        """Save in another folder what could not be saved; return the error, and whether some is lost."""
        reason = str(self._unsaved[0][1]).removesuffix(".")
        unsaved = [result for result, _ in self._unsaved]
        saved_in: dict[Path, int] = {}
        for parent in _other_folders():
            with contextlib.suppress(OSError):
                folder = Path(tempfile.mkdtemp(prefix="effx-results-", dir=parent))
                left = [result for result in unsaved if not _saved(result, folder)]
                if len(left) < len(unsaved):
                    saved_in[folder] = len(unsaved) - len(left)
                else:
                    folder.rmdir()
                unsaved = left
            if not unsaved:
                break
        where = " ".join(f"{n} results are in {folder} instead: move them." for folder, n in saved_in.items())
        if unsaved:
            where += f" Not saved anywhere: {', '.join(result.name for result in unsaved)}."
            if self._journal.resumable:
                where += f" What was measured is in {self._journal.path}: resume it once there is space."
        return UsageError(f"{reason}. {where.strip()}", settings="out"), bool(unsaved)

    def _measure(self, advance: progress.Advance) -> None:
        plan = self._plan
        self._each(self._score, advance, "quality", _SCORING_S)
        if self._references:
            self._each(self._compare, advance, "agreement")
        for on_gpu, meter in self._meters.items():
            if meter.source not in ("none", "model") and self._windows_are_left():
                power = self._idle_power(meter)
                self._idle[on_gpu].append(power)
                idle, reason = (power, None) if isinstance(power, Idle) else (None, power.reason)
                self._journal.add(JournalEntry("idle", on_gpu=on_gpu, idle=idle, reason=reason))
        queries = BlockLimits(plan.block_queries, plan.block_s, plan.block_limit_s)
        cells = BlockLimits(plan.grid_queries, plan.grid_block_s, plan.grid_limit_s)
        self._blocks(SINGLE_STREAM, plan.rounds, queries, advance, "latency")
        if self._any_on_gpu:
            on_device = SINGLE_STREAM.timed_on_device()
            self._blocks(on_device, plan.rounds, queries, advance, "latency on the device")
        if FROM_TEXT.scenario in plan.scenarios:
            self._blocks(FROM_TEXT, plan.rounds, queries, advance, "latency from text")
        if "multi-stream" in plan.scenarios:
            self._blocks(MULTI_STREAM, plan.rounds, queries, advance, "multi-stream")
        if "offline" in plan.scenarios:
            batches = BlockLimits(plan.offline_batches, 0.0, plan.block_limit_s)
            self._blocks(self._offline, plan.grid_rounds, batches, advance, "offline")
        if "server" in plan.scenarios:
            self._serve(queries, advance)
        for batch, length in plan.grid or ():
            cell, note = workloads.grid(batch, length), f"grid {batch}x{length}"
            self._blocks(cell, plan.grid_rounds, cells, advance, note)
            if self._any_on_gpu:
                self._blocks(cell.timed_on_device(), plan.grid_rounds, cells, advance, f"{note} device")
        for workload in self._metered:
            self._windows(workload, advance)
        self._each(self._finish, advance, "memory", _BETWEEN_S)

    def _windows_are_left(self) -> bool:
        """Whether earlier processes of this session left energy windows to measure."""
        rounds: set[Round] = {
            ("window", workload, number) for workload in self._metered for number in range(self._plan.windows)
        }
        return not rounds <= self._completed

    def _idle_power(self, meter: Meter) -> Idle | NoIdle:
        try:
            return energy.idle(meter, self._plan.window_s / 2)
        except Exception as error:  # without it there is no net energy; the rest can be measured
            return NoIdle(f"the idle power was not measured: {type(error).__name__}: {error}")

    def _each(
        self,
        step: Callable[[EngineUnderTest], None],
        advance: progress.Advance,
        note: str,
        expected_s: float = 0.0,
        completes: Round | None = None,
    ) -> None:
        """Do ``step`` for every engine that has not failed, in a random order.

        Args:
            step: measures something of an engine.
            advance: of the progress bar.
            note: for the progress bar.
            expected_s: seconds of a step, for the progress bar.
            completes: the round that this is; nothing is done if an earlier process has completed it.
        """
        if completes in self._completed:
            advance(expected_s * len(self._engines), note)
            return
        for index in self._order.permutation(len(self._engines)):
            engine = self._engines[index]
            if engine.failure is None:
                try:
                    step(engine)
                except Exception as error:  # the measurement of the other engines goes on
                    engine.fail(error)
                    self._pool.discard(engine)
            advance(expected_s, note)
        self._record_failures()
        if completes is not None:
            kind, workload, number = completes
            self._completed.add(completes)
            self._journal.add(JournalEntry("round", kind=kind, workload=workload, round=number))

    def _record_failures(self) -> None:
        for engine in self._engines:
            if engine.failure is not None and engine not in self._recorded:
                self._recorded.append(engine)
                facts = FailedEngineRecord(engine.name, engine.engine.task.name, engine.engine.digest)
                saved = self._save_failure(facts, engine.started or timestamp(), engine.failure)
                index = self._engines.index(engine)
                self._journal.add(JournalEntry("failed", engine=index, reason=engine.failure, result=saved))

    def _blocks(
        self, workload: Workload, rounds: int, limits: BlockLimits, advance: progress.Advance, note: str
    ) -> None:
        for number in range(rounds):
            step = partial(self._block, workload=workload, number=number, rounds=rounds, limits=limits)
            self._each(step, advance, note, limits.least_s + _BETWEEN_S, ("block", workload, number))

    def _serve(self, limits: BlockLimits, advance: progress.Advance) -> None:
        plan = self._plan
        rate_per_s = plan.rate_per_s or self._earlier_rate() or self._affordable_rate()
        expected_s = plan.block_queries / rate_per_s + _BETWEEN_S
        for number in range(plan.rounds):
            step = partial(
                self._server_block, rate_per_s=rate_per_s, number=number, rounds=plan.rounds, limits=limits
            )
            completes: Round = ("block", workloads.server(rate_per_s), number)
            self._each(step, advance, f"server at {rate_per_s:.0f}/s", expected_s, completes)

    def _windows(self, workload: Workload, advance: progress.Advance) -> None:
        plan = self._plan
        for number in range(plan.windows):
            double = plan.windows > 1 and number == plan.windows - 1  # for the linearity gate
            length_s = plan.window_s * (1 + double)
            step = partial(self._window, workload=workload, number=number, length_s=length_s)
            self._each(step, advance, "energy", length_s, ("window", workload, number))

    def _score(self, engine: EngineUnderTest) -> None:
        if engine.quality is not None:
            return  # by an earlier process of this session
        self._pool.acquire(engine)
        if reason := self._unmetered(engine):
            progress.say(f"{engine.name}: energy unavailable: {reason}")
        engine.score()
        scored = JournalEntry(
            "scored", quality=engine.quality, mean_depth=engine.mean_depth, started=engine.started,
            in_batches=list(engine.in_batches.values()),
        )  # fmt: skip
        self._note(engine, scored)

    def _compare(self, engine: EngineUnderTest) -> None:
        """Compare an engine whose rows have no labels with its reference, once all are scored."""
        if engine.quality is not None or engine not in self._references:
            return
        engine.compare_with(self._references[engine])
        index = self._engines.index(engine)
        self._journal.add(
            JournalEntry(
                "scored", engine=index, quality=engine.quality, mean_depth=engine.mean_depth,
                started=engine.started, in_batches=list(engine.in_batches.values()),
            )
        )  # fmt: skip

    def _block(
        self, engine: EngineUnderTest, workload: Workload, number: int, rounds: int, limits: BlockLimits
    ) -> None:
        if engine.can_run(workload):
            self._pool.acquire(engine)
            block = engine.run_block(workload, number, rounds, limits)
            self._note(engine, JournalEntry("block", workload=workload, round=number, block=block))

    def _server_block(
        self, engine: EngineUnderTest, rate_per_s: float, number: int, rounds: int, limits: BlockLimits
    ) -> None:
        self._pool.acquire(engine)
        block = engine.serve(rate_per_s, number, rounds, limits)
        workload = workloads.server(rate_per_s)
        self._note(engine, JournalEntry("block", workload=workload, round=number, block=block))

    def _window(self, engine: EngineUnderTest, workload: Workload, number: int, length_s: float) -> None:
        meter = self._meter(engine)
        if meter.source != "none":
            self._pool.acquire(engine)
            samples = engine.samples(workload)
            before = len(samples.windows)
            if wrong := self._unmetered(engine):
                samples.window_reason = wrong
            else:
                engine.run_window(workload, number / self._plan.windows, meter, length_s)
            window = samples.windows[-1] if len(samples.windows) > before else None
            reason = samples.window_reason if window is None else None
            entry = JournalEntry("window", workload=workload, round=number, window=window, reason=reason)
            self._note(engine, entry)

    def _meter(self, engine: EngineUnderTest) -> Meter:
        return self._meters[engine.engine.on_gpu]

    def _unmetered(self, engine: EngineUnderTest) -> str | None:
        """Return that the meter reads another GPU than the one that a loaded engine runs on, if it does."""
        meter = self._meter(engine)
        metered, used = meter.describe().get("uuid"), engine.runtime.details.get("uuid")
        if metered is None or used is None or metered == used:
            return None
        return f"meter {meter.name} reads {metered}, but the engine runs on {used} (CUDA_VISIBLE_DEVICES)"

    @property
    def _any_on_gpu(self) -> bool:
        """Whether any engine can be timed on its device too."""
        return any(engine.engine.on_gpu for engine in self._engines)

    def _expected_s(self) -> float:
        """Return the seconds that the session takes if engines are neither slow nor many; for the bar."""
        plan = self._plan
        others = sum(name in plan.scenarios for name in ("from-text", "multi-stream", "server"))
        singles = 1 + others + self._any_on_gpu
        cells = len(plan.grid or ()) * (1 + self._any_on_gpu) + ("offline" in plan.scenarios)
        blocks = singles * plan.rounds * (plan.block_s + _BETWEEN_S)
        blocks += cells * plan.grid_rounds * (plan.grid_block_s + _BETWEEN_S)
        windows = len(self._metered) * (plan.windows + 1) * plan.window_s  # the last is twice as long
        return len(self._engines) * (_SCORING_S + blocks + windows + _BETWEEN_S)

    def _earlier_rate(self) -> float | None:
        """Return the rate of arrivals before the session was interrupted."""
        rates = [workload.rate_per_s for _, workload, _ in self._completed if workload.rate_per_s is not None]
        return rates[0] if rates else None

    def _affordable_rate(self) -> float:
        running = [engine for engine in self._engines if engine.failure is None]
        means = [float(np.mean(np.concatenate(engine.samples(SINGLE_STREAM).blocks_s))) for engine in running]
        return _SERVER_LOAD / max(means, default=1.0)

    def _result(self, engine: EngineUnderTest) -> Run:
        assert engine.quality is not None
        meter = self._meter(engine)
        measured = [
            WorkloadResult(
                workload=workload,
                blocks_s=samples.blocks_s,
                rounds=samples.rounds,
                energy=self._energy(engine, workload, samples),
                flags=samples.flags,
                quality=engine.in_batches.get(workload),
                elapsed_s=samples.elapsed_s,
                examples=samples.examples,
                cpu_s=None if workload.rate_per_s else samples.cpu_s,
                load=float(np.mean(samples.loads)) if samples.loads else None,
            )
            for workload, samples in engine.measured.items()
        ]
        checked = [
            self._prediction_agreement(engine),
            gates.host_idle(engine.others_s, engine.available_s),
            gates.cpu_quota(engine.quota_periods, engine.throttled_periods),
            *map(gates.steady_rounds, measured),
            *(gates.server_load(result) for result in measured if result.workload.rate_per_s),
        ]
        operations = record.operations(engine.engine, engine.mean_tokens)
        for result in measured:
            # no energy is measured for queries timed on the device
            primary = result.workload == SINGLE_STREAM
            if result.energy.source != "none" or primary:
                name = None if primary else result.workload.name
                checked += gates.energy(result.energy, meter, operations, name)
        measured_s = sum(other.measured_s for other in self._engines)
        return Run(
            id=_result_id(engine.name, engine.started),
            started=engine.started,
            engine=record.of_engine(engine.engine),
            host=self._host,
            quality=engine.quality,
            workloads=measured,
            memory=PeakMemory(engine.host_peak_bytes, engine.device_peak_bytes),
            settings=MeasurementRecord(
                plan=self._plan,
                runtime=engine.runtime,
                meter=MeterRecord(meter.name, results.facts(meter.describe())),
                mean_tokens=engine.mean_tokens,
                mean_depth=engine.mean_depth,
                device_memory_by=engine.device_memory_by,
                load_average=cpu.load_average(),
                session_wall_s=round(time.perf_counter() - self._started_s, 3),
                session_measured_s=round(measured_s, 3),
                interruptions=list(self._interruptions),
            ),
            session=self._id,
            flags=list(dict.fromkeys(gate.name for gate in checked if gate.passed is False)),
            gates=checked,
        )

    def _prediction_agreement(self, engine: EngineUnderTest) -> GateResult:
        """Return the gate of the predictions; an agreement is only as good as those of the reference."""
        gate = gates.prediction_agreement(engine.checked, engine.agreed)
        reference = self._references.get(engine)
        if reference is None or reference is engine or gate.passed is False:
            return gate
        of_reference = gates.prediction_agreement(reference.checked, reference.agreed)
        if of_reference.passed is not False:
            return gate
        return replace(of_reference, detail=f"of the reference {reference.name}: {of_reference.detail}")

    def _energy(self, engine: EngineUnderTest, workload: Workload, samples: Samples) -> Energy:
        meter = self._meter(engine)
        if meter.source == "none" or workload not in self._metered:
            names = " and ".join(metered.name for metered in self._metered) or "no workload"
            return Energy("none", meter.name, meter.reason or f"measured for {names} only")
        if not samples.windows or samples.window_reason:
            return Energy("none", meter.name, samples.window_reason or "no window was measured")
        measured = energy.of_windows(
            samples.windows, meter, energy.of_parts(self._idle[engine.engine.on_gpu])
        )
        if measured.net_reason:
            samples.flags.append(measured.net_reason)
        return measured


def _measured(entry: JournalEntry) -> tuple[int | None, str, Workload | None, int | None]:
    """Return which measurement of which engine an entry is."""
    return entry.engine, entry.step, entry.workload, entry.round


def _other_folders() -> Iterator[Path]:
    """Yield folders for results that do not fit where they should be."""
    with contextlib.suppress(FileNotFoundError):
        yield Path(tempfile.gettempdir())
    with contextlib.suppress(RuntimeError):
        yield Path.home()
    yield from (Path.cwd(), Path("/var/tmp"), Path("/dev/shm"))


def _saved(result: Run | Failure, folder: Path) -> bool:
    try:
        results.save(result, folder)
    except (OSError, EffxError):
        return False
    return True


def _result_id(name: str, started: str) -> str:
    stamp = started.replace("-", "").replace(":", "").split("+")[0]
    return f"{stamp}-{files.safe_name(name)}-{secrets.token_hex(3)}"

"""Profile engines in one session: interleaved blocks, so that their numbers can be compared.

One worker process per engine. Engines are measured in interleaved blocks, in a new random order
each round, so that a slow minute of the host affects all of them:

    accuracy    A  B  C           every row, every prediction stored
    idle                          power with all engines loaded and none running, by each meter
    round 1     B  A  C           one block each of single queries
    round 2     C  B  A
    ...
    others      likewise, per scenario and per (batch, length)
    energy      A  B  C           windows of at least 10 s, if there is a meter

If a worker fails, only its engine has no result, and the failure is recorded. Engines that run on a
GPU are metered by the GPU's meter, the others by the processor's.
"""

from __future__ import annotations

import os
import secrets
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np

from effx import data, files, progress, results
from effx.artifacts import Engine
from effx.data import Rows
from effx.errors import DataError, EffxError, UsageError, WorkerError
from effx.host import cpu, identity
from effx.host.identity import Host
from effx.profile import energy, gates, meters, record
from effx.profile.energy import NoIdle
from effx.profile.engine_under_test import EngineUnderTest, Samples, accepts, longest_input, timestamp
from effx.profile.meters import Meter
from effx.profile.pool import WorkerPool, affordable
from effx.profile.protocol import BlockLimits
from effx.results import (
    Energy,
    FailedEngineRecord,
    Failure,
    Idle,
    MeasurementRecord,
    MeterRecord,
    PeakMemory,
    Run,
    WorkloadResult,
)
from effx.specs import workloads
from effx.specs.data import DataLocation, DataSource, override
from effx.specs.measurement import DEFAULT_GRID, GPU_GRID, MeasurementPlan
from effx.specs.workloads import MULTI_STREAM, SINGLE_STREAM, Workload

_ACCURACY_S = 5.0
_BETWEEN_S = 0.1
"""Estimates for the progress bar: loading an engine and scoring its rows; the gap between blocks."""
_SERVER_LOAD = 0.5
"""Default rate of arrivals, as a share of what the slowest engine answers back to back."""


def profile(
    engines: Sequence[str | Path],
    *,
    out: str | Path = "results",
    plan: MeasurementPlan | None = None,
    meter: str = "auto",
    data_folder: DataLocation = None,
    host: str | None = None,
) -> tuple[list[Run], list[EffxError]]:
    """Profile engines and write one result each.

    Args:
        engines: engine folders, or folders of them.
        out: folder of the results, one ID.json each; those of engines that failed say why.
        plan: what is measured.
        meter: see :func:`effx.profile.meters.open`.
        data_folder: file or folder of validation rows; default: where the checkpoint's came from.
        host: a name for this machine; default: the host name.

    Returns:
        The runs, and the errors of the engines that have none.

    Raises:
        UsageError, ArtifactError, DataError: nothing can be measured with these arguments.
    """
    plan = plan or MeasurementPlan()
    files.check_writable(Path(out))
    folders = Engine.find_all([Path(path) for path in engines])
    prepared, refused = _prepare(folders, data_folder, plan.limit)
    opened = [engine for engine, _ in prepared]
    plan = _with_grid(plan, opened)
    under_test = [EngineUnderTest(engine, rows, plan) for engine, rows in prepared]
    pool = WorkerPool(plan.resident or affordable(opened))
    by_device: dict[bool, Meter] = {}

    def our_pids() -> set[int]:
        return pool.pids | {os.getpid()}

    try:
        for engine in opened:
            if engine.on_gpu not in by_device:
                by_device[engine.on_gpu] = meters.open(meter, engine.device, worker_pids=our_pids)
        for reason in dict.fromkeys(each.reason for each in by_device.values() if each.reason):
            progress.say(f"energy unavailable: {reason}")
        session = _Session(under_test, pool, plan, by_device, identity.host(host), Path(out))
        for folder, error in refused:
            session.refuse(folder, error)
        return session.run()
    finally:
        pool.close()
        for opened_meter in by_device.values():
            opened_meter.close()


class _Session:
    """One interleaved measurement of several engines."""

    def __init__(
        self,
        engines: list[EngineUnderTest],
        pool: WorkerPool,
        plan: MeasurementPlan,
        meters: dict[bool, Meter],
        host: Host,
        out: Path,
    ) -> None:
        """Args:
        engines: measured side by side.
        pool: loads and unloads them.
        plan: what is measured.
        meters: of engines on a GPU (True) and of others (False), where there are such engines.
        host: the machine.
        out: folder of the results.
        """
        self._out = out
        self._runs: list[Run] = []
        self._recorded: list[EngineUnderTest] = []
        self._started_s = 0.0
        self._failures: list[EffxError] = []
        self._unsaved: list[tuple[Run | Failure, OSError | EffxError]] = []
        self._engines, self._pool, self._plan, self._meters, self._host = engines, pool, plan, meters, host
        self._id = secrets.token_hex(4)
        self._order = np.random.default_rng(plan.seed)
        self._idle: dict[bool, Idle | NoIdle] = {}
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
        self._started_s = time.perf_counter()
        with progress.bar(f"profile {len(self._engines)} engines", self._expected_s()) as advance:
            try:
                self._measure(advance)
            except KeyboardInterrupt as stop:
                if not self._runs:
                    stop.add_note(
                        "nothing was written: engines are measured side by side, and none was finished."
                    )
                raise
        if self._unsaved:
            raise self._rescue()
        names = [engine.name for engine in self._engines]
        return sorted(self._runs, key=lambda run: names.index(run.name)), self._failures

    def refuse(self, folder: Path, error: EffxError) -> None:
        """Record the failure of an engine that cannot be prepared."""
        progress.say(str(error))
        self._save_failure(record.failed_engine(folder), "", str(error))

    def _finish(self, engine: EngineUnderTest) -> None:
        """Read the memory of an engine that has nothing more to do, and save its result."""
        self._pool.acquire(engine)
        engine.read_memory()
        run = self._result(engine)
        self._save(run)
        self._runs.append(run)

    def _save_failure(self, engine: FailedEngineRecord, started: str, reason: str) -> None:
        self._failures.append(WorkerError(reason))
        self._save(Failure(_result_id(engine.name, started), started, engine, self._host, self._id, reason))

    def _save(self, result: Run | Failure) -> None:
        try:
            results.save(result, self._out)
        except (OSError, UsageError) as error:  # the other results may still fit on the disk
            self._unsaved.append((result, error))

    def _rescue(self) -> EffxError:
        """Save in a temporary folder what could not be saved, so that nothing measured is lost."""
        folder = Path(tempfile.mkdtemp(prefix="effx-results-"))
        lost = [result.name for result, _ in self._unsaved if not _saved(result, folder)]
        rescued = len(self._unsaved) - len(lost)
        reason = str(self._unsaved[0][1]).removesuffix(".")
        where = f"{rescued} results are in {folder} instead: move them."
        if lost:
            where += f" Not saved anywhere: {', '.join(lost)}."
        return UsageError(f"{reason}. {where}", settings="out")

    def _measure(self, advance: progress.Advance) -> None:
        plan = self._plan
        self._each(self._score, advance, "accuracy", _ACCURACY_S)
        for on_gpu, meter in self._meters.items():
            if meter.source not in ("none", "model"):
                self._idle[on_gpu] = self._idle_power(meter, on_cpu=not on_gpu)
        queries = BlockLimits(plan.block_queries, plan.block_s, plan.block_limit_s)
        cells = BlockLimits(plan.grid_queries, plan.grid_block_s, plan.grid_limit_s)
        self._blocks(SINGLE_STREAM, plan.rounds, queries, advance, "latency")
        if self._any_on_gpu:
            on_device = SINGLE_STREAM.timed_on_device()
            self._blocks(on_device, plan.rounds, queries, advance, "latency on the device")
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

    def _idle_power(self, meter: Meter, *, on_cpu: bool) -> Idle | NoIdle:
        try:
            return energy.idle(meter, self._plan.window_s / 2, on_cpu=on_cpu)
        except Exception as error:  # without it there is no net energy; the rest can be measured
            return NoIdle(f"the idle power was not measured: {type(error).__name__}: {error}")

    def _each(
        self,
        step: Callable[[EngineUnderTest], None],
        advance: progress.Advance,
        note: str,
        expected_s: float = 0.0,
    ) -> None:
        """Do ``step`` for every engine that has not failed, in a random order."""
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

    def _record_failures(self) -> None:
        for engine in self._engines:
            if engine.failure is not None and engine not in self._recorded:
                self._recorded.append(engine)
                facts = FailedEngineRecord(engine.name, engine.engine.task.name, engine.engine.digest)
                self._save_failure(facts, engine.started, engine.failure)

    def _blocks(
        self, workload: Workload, rounds: int, limits: BlockLimits, advance: progress.Advance, note: str
    ) -> None:
        for number in range(rounds):
            step = partial(self._block, workload=workload, number=number, rounds=rounds, limits=limits)
            self._each(step, advance, note, limits.least_s + _BETWEEN_S)

    def _serve(self, limits: BlockLimits, advance: progress.Advance) -> None:
        plan = self._plan
        rate_per_s = plan.rate_per_s or self._affordable_rate()
        expected_s = plan.block_queries / rate_per_s + _BETWEEN_S
        for number in range(plan.rounds):
            step = partial(
                self._server_block, rate_per_s=rate_per_s, number=number, rounds=plan.rounds, limits=limits
            )
            self._each(step, advance, f"server at {rate_per_s:.0f}/s", expected_s)

    def _windows(self, workload: Workload, advance: progress.Advance) -> None:
        plan = self._plan
        for number in range(plan.windows):
            double = plan.windows > 1 and number == plan.windows - 1  # for the linearity gate
            length_s = plan.window_s * (1 + double)
            step = partial(self._window, workload=workload, offset=number / plan.windows, length_s=length_s)
            self._each(step, advance, "energy", length_s)

    def _score(self, engine: EngineUnderTest) -> None:
        self._pool.acquire(engine)
        engine.score()

    def _block(
        self, engine: EngineUnderTest, workload: Workload, number: int, rounds: int, limits: BlockLimits
    ) -> None:
        if engine.can_run(workload):
            self._pool.acquire(engine)
            engine.run_block(workload, number, rounds, limits)

    def _server_block(
        self, engine: EngineUnderTest, rate_per_s: float, number: int, rounds: int, limits: BlockLimits
    ) -> None:
        self._pool.acquire(engine)
        engine.serve(rate_per_s, number, rounds, limits)

    def _window(self, engine: EngineUnderTest, workload: Workload, offset: float, length_s: float) -> None:
        meter = self._meter(engine)
        if meter.source != "none":
            self._pool.acquire(engine)
            engine.run_window(workload, offset, meter, length_s)

    def _meter(self, engine: EngineUnderTest) -> Meter:
        return self._meters[engine.engine.on_gpu]

    @property
    def _any_on_gpu(self) -> bool:
        """Whether any engine can be timed on its device too."""
        return any(engine.engine.on_gpu for engine in self._engines)

    def _expected_s(self) -> float:
        """Return the seconds that the session takes if engines are neither slow nor many; for the bar."""
        plan = self._plan
        singles = 1 + ("multi-stream" in plan.scenarios) + ("server" in plan.scenarios) + self._any_on_gpu
        cells = len(plan.grid or ()) * (1 + self._any_on_gpu) + ("offline" in plan.scenarios)
        blocks = singles * plan.rounds * (plan.block_s + _BETWEEN_S)
        blocks += cells * plan.grid_rounds * (plan.grid_block_s + _BETWEEN_S)
        windows = len(self._metered) * (plan.windows + 1) * plan.window_s  # the last is twice as long
        return len(self._engines) * (_ACCURACY_S + blocks + windows + _BETWEEN_S)

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
                elapsed_s=samples.elapsed_s,
                examples=samples.examples,
            )
            for workload, samples in engine.measured.items()
        ]
        checked = [
            gates.prediction_agreement(engine.checked, engine.agreed),
            gates.host_idle(engine.others_s, engine.available_s),
            gates.cpu_quota(engine.quota_periods, engine.throttled_periods),
            *map(gates.steady_rounds, measured),
        ]
        operations = record.operations(engine.engine, engine.mean_tokens)
        for result in measured:
            # queries timed on the device have no energy of their own
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
            ),
            session=self._id,
            flags=list(dict.fromkeys(gate.name for gate in checked if gate.passed is False)),
            gates=checked,
        )

    def _energy(self, engine: EngineUnderTest, workload: Workload, samples: Samples) -> Energy:
        meter = self._meter(engine)
        if meter.source == "none" or workload not in self._metered:
            names = " and ".join(metered.name for metered in self._metered) or "no workload"
            return Energy("none", meter.name, meter.reason or f"measured for {names} only")
        if not samples.windows or samples.window_reason:
            return Energy("none", meter.name, samples.window_reason or "no window was measured")
        measured = energy.of_windows(samples.windows, meter, self._idle.get(engine.engine.on_gpu))
        if measured.net_reason:
            samples.flags.append(measured.net_reason)
        return measured


def _saved(result: Run | Failure, folder: Path) -> bool:
    try:
        results.save(result, folder)
    except (OSError, EffxError):
        return False
    return True


def _result_id(name: str, started: str) -> str:
    stamp = (started or timestamp()).replace("-", "").replace(":", "").split("+")[0]
    return f"{stamp}-{files.safe_name(name)}-{secrets.token_hex(3)}"


def _prepare(
    folders: Sequence[Path], data_folder: DataLocation, limit: int | None
) -> tuple[list[tuple[Engine, Rows]], list[tuple[Path, EffxError]]]:
    """Return the engines that open and have rows, and why others do not.

    Raises:
        EffxError: none does; the error of the first.
    """
    loaded: dict[tuple[str, DataSource | None], Rows] = {}
    prepared: list[tuple[Engine, Rows]] = []
    refused: list[tuple[Path, EffxError]] = []
    for folder in folders:
        try:
            engine = Engine.open(folder)
            prepared.append((engine, _rows(engine, data_folder, limit, loaded)))
        except EffxError as error:
            refused.append((folder, error))
    if not prepared:
        raise refused[0][1]
    return prepared, refused


def _with_grid(plan: MeasurementPlan, opened: Sequence[Engine]) -> MeasurementPlan:
    """Return the plan with a grid: the default one as far as engines accept it, or the given one, checked.

    Raises:
        UsageError: no engine can run a cell; an engine that accepts less than others leaves cells out.
    """
    if plan.grid is None:
        usual = GPU_GRID if all(engine.on_gpu for engine in opened) else DEFAULT_GRID
        fitting = tuple(shape for shape in usual if any(accepts(engine, *shape) for engine in opened))
        return plan.replace(grid=fitting)
    longest = max(longest_input(engine) for engine in opened)
    for batch, length in plan.grid:
        if length > longest:
            raise UsageError(
                f"grid {batch}x{length}: these engines accept at most {longest} tokens.", settings="grid"
            )
    return plan


def _rows(
    engine: Engine,
    data_folder: DataLocation,
    limit: int | None,
    loaded: dict[tuple[str, DataSource | None], Rows],
) -> Rows:
    engine.task.behavior.check_supported("profiling", engine.task.name)
    source = override(data_folder, engine.data)
    if source is not None:  # results of the same rows are comparable, from whichever folder they were read
        source = replace(source, path=str(Path(source.path).resolve()))
    key = (engine.task.name, source)
    if key not in loaded:
        try:
            loaded[key] = data.load(engine.task, "validation", source).limit(limit)
        except DataError as error:
            raise DataError(f"{engine.name}: {error}", settings=error.settings) from error
        progress.say(*data.scored(engine.task, loaded[key]))
    return loaded[key]

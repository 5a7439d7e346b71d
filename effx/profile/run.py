"""Profile engines side by side.

One worker process per engine. Engines are measured in interleaved blocks, in a new random order
each round, so that a slow minute of the host falls on all of them:

    accuracy    A  B  C           every row, every prediction stored
    idle                          power with all loaded and none at work, of each meter
    round 1     B  A  C           one block each of single queries
    round 2     C  B  A
    ...
    others      likewise, per scenario and per (batch, length)
    energy      A  B  C           windows of at least 10 s, if there is a meter

A worker that fails costs its own engine only, and the failure is a recorded result. Engines that run on a
GPU are read by its meter, the others by the processor's.
"""

from __future__ import annotations

import os
import secrets
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from effx import data, files, progress
from effx.artifacts import Engine
from effx.data import Rows
from effx.errors import DataError, EffxError, UsageError, WorkerError, unknown
from effx.host import identity
from effx.profile import energy, gates, meters, record, session
from effx.profile.meters import Meter
from effx.profile.plan import DEFAULT_GRID, GPU_GRID, SCENARIOS, Plan
from effx.profile.session import SINGLE, Crew, Limits, Samples, Subject
from effx.results import Energy, Failure, Idle, Run, Workload

_MULTI: dict[str, Any] = {"scenario": "multi-stream", "batch": 8, "sequence": "real"}
_ON_DEVICE = {"timing": "device"}
_ACCURACY_S = 5.0
_BETWEEN_S = 0.1
"""For the progress bar alone: what loading an engine and scoring its rows may take, what lies between
blocks."""
_SERVER_LOAD = 0.5
"""Arrivals by default, as a share of what the slowest engine answers one by one."""


def profile(
    engines: Sequence[str | Path],
    *,
    out: str | Path = "results",
    plan: Plan | None = None,
    meter: str = "auto",
    data_folder: str | Path | None = None,
    host: str | None = None,
) -> tuple[list[Run], list[EffxError]]:
    """Profile engines and write one result each.

    Args:
        engines: engine folders, or folders of them.
        out: where results go, as ID.json; those of engines that failed say why.
        plan: what is measured.
        meter: see :func:`effx.profile.meters.open`.
        data_folder: validation rows; default: where the checkpoint's came from.
        host: what to call this machine; default: its own name and hardware.

    Returns:
        The runs, and what went wrong with the engines that have none.

    Raises:
        UsageError, ArtifactError, DataError: nothing could be measured as asked.
    """
    plan = plan or Plan()
    for scenario in plan.scenarios:
        if scenario not in SCENARIOS:
            raise unknown("scenario", scenario, SCENARIOS)
    opened = [Engine.open(path) for path in Engine.find_all([Path(path) for path in engines])]
    if plan.grid is None:
        usual = GPU_GRID if all(engine.on_gpu for engine in opened) else DEFAULT_GRID
        fitting = tuple(pair for pair in usual if any(_holds(engine, *pair) for engine in opened))
        plan = replace(plan, grid=fitting)
    _check_grid(opened, plan)
    files.check_writable(Path(out))
    loaded: dict[tuple[str, str], Rows] = {}
    rows = [_rows(engine, data_folder, plan.limit, loaded) for engine in opened]
    subjects = [Subject(engine, own) for engine, own in zip(opened, rows, strict=True)]
    crew = Crew(subjects, plan)
    watches: dict[bool, Meter] = {}

    def own_pids() -> set[int]:
        return crew.pids | {os.getpid()}

    try:
        for engine in opened:
            if engine.on_gpu not in watches:
                watches[engine.on_gpu] = meters.open(meter, engine.device, own_pids=own_pids)
        for reason in dict.fromkeys(watch.reason for watch in watches.values() if watch.reason):
            progress.say(f"energy unavailable: {reason}")
        return _Session(subjects, crew, plan, watches, identity.host(host)).run(Path(out))
    finally:
        crew.close()
        for watch in watches.values():
            watch.close()


class _Session:
    """One interleaved measurement of some engines."""

    def __init__(
        self,
        subjects: list[Subject],
        crew: Crew,
        plan: Plan,
        meters: dict[bool, Meter],
        host: dict[str, Any],
    ) -> None:
        """Args:
        subjects: the engines.
        crew: their workers.
        plan: what is measured.
        meters: of engines on a GPU (True) and of others (False), as far as there are such engines.
        host: what they are measured on.
        """
        self._subjects, self._crew, self._plan, self._meters, self._host = subjects, crew, plan, meters, host
        self._id = secrets.token_hex(4)
        self._order = np.random.default_rng(plan.seed)
        self._idle: dict[bool, Idle | None] = {}
        self._wall_s = 0.0
        metered = any(meter.source != "none" for meter in meters.values())
        self._metered = [SINGLE] if metered else []
        if metered and "offline" in plan.scenarios:
            self._metered.append(self._offline)

    def run(self, out: Path) -> tuple[list[Run], list[EffxError]]:
        """Measure everything; write results and failures."""
        started = time.perf_counter()
        with progress.bar(f"profile {len(self._subjects)} engines", self._expected_s()) as advance:
            try:
                self._measure(advance)
            except KeyboardInterrupt as stop:
                stop.add_note(
                    "nothing was written: engines are measured side by side, and none was finished."
                )
                raise
        self._wall_s = time.perf_counter() - started
        runs: list[Run] = []
        failures: list[EffxError] = []
        unsaved: OSError | None = None
        for subject in self._subjects:
            found: Run | Failure
            if subject.failure is None:
                found = self._result(subject)
                runs.append(found)
            else:
                failures.append(WorkerError(subject.failure))
                found = Failure(
                    self._name(subject), subject.started, record.of_engine(subject.engine), self._host,
                    self._id, subject.failure,
                )  # fmt: skip
            try:
                found.save(out)
            except OSError as error:  # the others may still find room
                unsaved = error
        if unsaved is not None:
            raise unsaved
        return runs, failures

    def _meter(self, subject: Subject) -> Meter:
        """Return what reads an engine's energy."""
        return self._meters[subject.engine.on_gpu]

    @property
    def _offline(self) -> dict[str, Any]:
        return {"scenario": "offline", "batch": self._plan.batch_size, "sequence": "real"}

    @property
    def _grid(self) -> list[dict[str, Any]]:
        return [{"scenario": "grid", "batch": b, "sequence": s} for b, s in self._plan.grid or ()]

    @property
    def _any_on_gpu(self) -> bool:
        """Whether any engine can be timed on its device too."""
        return any(subject.engine.on_gpu for subject in self._subjects)

    def _expected_s(self) -> float:
        """Return the seconds that the session takes if engines are neither slow nor many; for the bar."""
        plan = self._plan
        singles = 1 + ("multi-stream" in plan.scenarios) + ("server" in plan.scenarios) + self._any_on_gpu
        cells = len(plan.grid or ()) * (1 + self._any_on_gpu) + ("offline" in plan.scenarios)
        blocks = singles * plan.rounds * (plan.block_s + _BETWEEN_S)
        blocks += cells * plan.grid_rounds * (plan.grid_block_s + _BETWEEN_S)
        windows = len(self._metered) * (plan.windows + 1) * plan.window_s  # the last is twice as long
        return len(self._subjects) * (_ACCURACY_S + blocks + windows + _BETWEEN_S)

    def _each(
        self, step: Callable[[Subject], None], advance: progress.Advance, note: str, expected_s: float = 0.0
    ) -> None:
        """Do ``step``, expected to take so long, for every engine still alive, in a random order."""
        for index in self._order.permutation(len(self._subjects)):
            subject = self._subjects[index]
            if subject.failure is None:
                try:
                    step(subject)
                except WorkerError as error:
                    subject.failure = str(error)
                if subject.failure is not None:
                    progress.say(subject.failure)
                    self._crew.drop(subject)
            advance(expected_s, note)

    def _measure(self, advance: progress.Advance) -> None:
        plan, crew = self._plan, self._crew
        self._each(self._score, advance, "accuracy", _ACCURACY_S)
        for on_gpu, meter in self._meters.items():
            if meter.source not in ("none", "model"):
                self._idle[on_gpu] = energy.idle(meter, plan.window_s / 2)
        singles = Limits(plan.block_queries, plan.block_s, plan.block_limit_s)
        cells = Limits(plan.grid_queries, plan.grid_block_s, plan.grid_limit_s)
        self._blocks(SINGLE, plan.rounds, singles, advance, "latency")
        if self._any_on_gpu:
            self._blocks({**SINGLE, **_ON_DEVICE}, plan.rounds, singles, advance, "latency on the device")
        if "multi-stream" in plan.scenarios:
            self._blocks(_MULTI, plan.rounds, singles, advance, "multi-stream")
        if "offline" in plan.scenarios:
            batches = Limits(plan.offline_batches, 0.0, plan.block_limit_s)
            self._blocks(self._offline, plan.grid_rounds, batches, advance, "offline")
        if "server" in plan.scenarios:
            rate = plan.rate_per_s or self._affordable_rate()
            for number in range(plan.rounds):
                step = partial(
                    session.serve, crew, rate_per_s=rate, number=number, rounds=plan.rounds, limits=singles
                )
                self._each(step, advance, f"server at {rate:.0f}/s", plan.block_queries / rate + _BETWEEN_S)
        for workload in self._grid:
            note = f"grid {workload['batch']}x{workload['sequence']}"
            self._blocks(workload, plan.grid_rounds, cells, advance, note)
            if self._any_on_gpu:
                self._blocks({**workload, **_ON_DEVICE}, plan.grid_rounds, cells, advance, f"{note} device")
        for workload in self._metered:
            for number in range(plan.windows):
                twice = plan.windows > 1 and number == plan.windows - 1  # is energy linear in the work?
                length_s = plan.window_s * (1 + twice)
                step = partial(self._window, workload, number / plan.windows, length_s)
                self._each(step, advance, "energy", length_s)
        self._each(crew.memory, advance, "memory", _BETWEEN_S)

    def _window(self, workload: dict[str, Any], place: float, length_s: float, subject: Subject) -> None:
        meter = self._meter(subject)
        if meter.source != "none":
            session.window(self._crew, subject, workload, place, meter, length_s)

    def _blocks(
        self, workload: dict[str, Any], rounds: int, limits: Limits, advance: progress.Advance, note: str
    ) -> None:
        for number in range(rounds):

            def step(subject: Subject, number: int = number) -> None:
                timed = workload.get("timing") != "device" or "device" in subject.described.get("timing", ())
                if timed and _fits(subject.engine, workload):
                    session.block(self._crew, subject, workload, number, rounds, limits)

            self._each(step, advance, note, limits.least_s + _BETWEEN_S)

    def _score(self, subject: Subject) -> None:
        subject.started = session.timestamp()
        client, clock = self._crew.client(subject), time.perf_counter()
        rows, parts, depths = [], [], []
        begin: int | None = 0
        while begin is not None:
            answer = client.ask("accuracy", batch_size=self._plan.batch_size, begin=begin)
            rows += answer["rows"]
            parts += answer["logits"]
            depths += answer["depths"]
            begin = answer["next"]
        subject.measured_s += time.perf_counter() - clock
        logits = np.array(parts, dtype=np.float32)[np.argsort(rows)]
        if not np.isfinite(logits).all():
            raise WorkerError(f"{subject.engine.name}: the engine's logits are not finite.")
        subject.accuracy = record.score(subject.engine.task, subject.rows, logits)
        if depths:
            subject.described["mean_depth"] = float(np.mean(depths))

    def _affordable_rate(self) -> float:
        alive = [subject for subject in self._subjects if subject.failure is None]
        means = [float(np.mean(np.concatenate(subject.of(SINGLE).blocks_s))) for subject in alive]
        return _SERVER_LOAD / max(means, default=1.0)

    def _name(self, subject: Subject) -> str:
        stamp = (subject.started or session.timestamp()).replace("-", "").replace(":", "").split("+")[0]
        return f"{stamp}-{files.safe_name(subject.engine.name)}-{secrets.token_hex(3)}"

    def _energy(self, subject: Subject, samples: Samples) -> Energy:
        meter = self._meter(subject)
        if meter.source == "none" or samples.workload not in self._metered:
            what = " and ".join(session.key(workload) for workload in self._metered) or "no workload"
            reason = meter.reason or f"measured for {what} only"
            return Energy("none", meter.name, reason)
        if not samples.windows or samples.window_reason:
            return Energy("none", meter.name, samples.window_reason or "no window")
        found, fault = energy.of_windows(samples.windows, meter, self._idle.get(subject.engine.on_gpu))
        if fault:
            samples.flags.append(fault)
        return found

    def _workload(self, subject: Subject, samples: Samples) -> Workload:
        workload = samples.workload
        return Workload(
            scenario=workload["scenario"],
            batch=workload["batch"],
            sequence=workload["sequence"],
            timing=workload.get("timing", "end-to-end"),
            blocks_s=samples.blocks_s,
            rounds=samples.rounds,
            energy=self._energy(subject, samples),
            flags=samples.flags,
            elapsed_s=samples.elapsed_s,
            examples=samples.examples,
            rate_per_s=workload.get("rate_per_s"),
        )

    def _result(self, subject: Subject) -> Run:
        assert subject.accuracy is not None
        meter = self._meter(subject)
        workloads = [self._workload(subject, samples) for samples in subject.samples.values()]
        found = [
            gates.same_answers(subject.checked, subject.agreed),
            gates.alone(subject.others_s, subject.watched_s),
        ]
        found += [gates.latency(workload) for workload in workloads]
        operations = record.operations(subject.engine, float(subject.described["mean_tokens"]))
        for workload in workloads:
            if workload.energy.source != "none" or workload.scenario == "single-stream":
                of = "" if workload.scenario == "single-stream" else workload.scenario
                found += gates.energy(workload.energy, meter, operations, of)
        measured = sum(other.measured_s for other in self._subjects)
        return Run(
            id=self._name(subject),
            started=subject.started,
            engine=record.of_engine(subject.engine),
            host=self._host,
            accuracy=subject.accuracy,
            workloads=workloads,
            memory={
                "host_peak_bytes": subject.host_peak_bytes,
                "device_peak_bytes": subject.device_peak_bytes,
            },
            settings={
                **asdict(self._plan),
                **subject.described,
                "meter": {"name": meter.name, **meter.describe()},
                "load_average": identity.load_average(),
                "session_wall_s": round(self._wall_s, 3),
                "session_measured_s": round(measured, 3),
            },
            session=self._id,
            flags=[gate.name for gate in found if gate.passed is False],
            gates=[gate.to_json() for gate in found],
        )


def _rows(
    engine: Engine,
    data_folder: str | Path | None,
    limit: int | None,
    loaded: dict[tuple[str, str], Rows],
) -> Rows:
    if engine.task.kind == "answer-span":
        raise UsageError(f"{engine.name}: question answering cannot be profiled yet; effx verify checks it.")
    folder = Path(data_folder).resolve() if data_folder else engine.data
    key = (engine.task.name, str(folder))
    if key not in loaded:
        try:
            loaded[key] = data.load(engine.task, "validation", folder).limit(limit)
        except DataError as error:
            raise DataError(f"{engine.name}: {error}") from error
    return loaded[key]


def _check_grid(opened: list[Engine], plan: Plan) -> None:
    """Raise for a cell that no engine can run; an engine of a shorter length leaves it out."""
    longest = max(_limit(engine) for engine in opened)
    for batch, length in plan.grid or ():
        if length > longest:
            raise UsageError(f"--grid {batch}x{length}: these engines read {longest} tokens at most.")


def _limit(engine: Engine) -> int:
    return int(engine.manifest["inputs"][0]["max"][1])


def _fits(engine: Engine, workload: dict[str, Any]) -> bool:
    return workload["sequence"] == "real" or _holds(engine, int(workload["batch"]), int(workload["sequence"]))


def _holds(engine: Engine, batch: int, length: int) -> bool:
    most = engine.manifest["inputs"][0]["max"][0]
    return length <= _limit(engine) and (most is None or batch <= int(most))

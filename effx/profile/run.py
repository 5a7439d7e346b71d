"""Profile engines side by side.

One worker process per engine; all engines of a session are loaded at once and measured in
interleaved blocks, in a new random order each round, so that a slow minute of the host falls on
all of them:

    accuracy    A  B  C           every row, every prediction stored
    round 1     B  A  C           one block each of single queries
    round 2     C  B  A
    ...
    grid        likewise, per (batch, length)
    energy      A  B  C           windows of at least 10 s, if there is a meter

A worker that fails costs its own engine only.
"""

from __future__ import annotations

import datetime
import math
import secrets
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from effx import data, files, progress
from effx.artifacts import Engine
from effx.data import Rows
from effx.errors import DataError, EffxError, UsageError, WorkerError
from effx.metrics import METRICS
from effx.profile import environment, meters, statistics
from effx.profile.client import WorkerClient
from effx.profile.meters import Meter
from effx.profile.plan import Plan
from effx.results import Accuracy, Energy, Run, Workload
from effx.tasks import Task

_RESIDENT = 8  # engines loaded at once; more are profiled in several sessions
_WINDOWS = 3
_SINGLE: dict[str, Any] = {"scenario": "single-stream", "batch": 1, "sequence": "real"}


@dataclass
class _Subject:
    """One engine under measurement."""

    engine: Engine
    rows: Rows
    client: WorkerClient
    started: str
    described: dict[str, Any] = field(default_factory=dict)
    accuracy: Accuracy | None = None
    blocks: dict[str, list[list[float]]] = field(default_factory=dict)
    rounds: dict[str, list[int]] = field(default_factory=dict)
    windows: list[dict[str, Any]] = field(default_factory=list)
    window_reason: str | None = None
    memory: dict[str, int | None] = field(default_factory=dict)
    flags: list[str] = field(default_factory=list)


def profile(
    engines: Sequence[str | Path],
    *,
    out: str | Path = "results",
    plan: Plan | None = None,
    meter: str = "auto",
    data_folder: str | Path | None = None,
) -> tuple[list[Run], list[EffxError]]:
    """Profile engines and write one result each.

    Args:
        engines: engine folders, or folders of them.
        out: where results go, as ID.json.
        plan: what is measured.
        meter: see :func:`effx.profile.meters.open`.
        data_folder: validation rows; default: where the checkpoint's came from.

    Returns:
        The runs, and what went wrong with the engines that have none.

    Raises:
        UsageError, ArtifactError, DataError: nothing could be measured as asked.
    """
    plan = plan or Plan()
    opened = [Engine.open(path) for path in Engine.find_all([Path(path) for path in engines])]
    _check_grid(opened, plan)
    _check_writable(Path(out))
    loaded: dict[tuple[str, str], Rows] = {}
    rows = [_rows(engine, data_folder, plan.limit, loaded) for engine in opened]
    watch = meters.open(meter, opened[0].device)
    if watch.reason:
        progress.say(f"energy unavailable: {watch.reason}")
    runs: list[Run] = []
    failures: list[EffxError] = []
    for start in range(0, len(opened), _RESIDENT):
        part = slice(start, start + _RESIDENT)
        found, failed = _session(opened[part], rows[part], plan, watch)
        for run in found:
            run.save(out)
        runs += found
        failures += failed
    return runs, failures


def _session(
    opened: list[Engine], rows: list[Rows], plan: Plan, meter: Meter
) -> tuple[list[Run], list[EffxError]]:
    """Measure engines that are loaded at the same time."""
    session = secrets.token_hex(4)
    rng = np.random.default_rng(plan.seed)
    failures: list[EffxError] = []
    subjects: list[_Subject] = []
    everyone: list[WorkerClient] = []
    grid = [{"scenario": "grid", "batch": b, "sequence": s} for b, s in plan.grid]
    steps = len(opened) * (3 + plan.rounds + plan.grid_rounds * len(grid))
    metered = meter.source != "none"
    if metered:
        steps += len(opened) * _WINDOWS

    def each(step: Callable[[_Subject], None], advance: progress.Advance, note: str) -> None:
        """Do ``step`` for every engine still alive, in a random order."""
        for index in rng.permutation(len(subjects)):
            subject = subjects[index]
            try:
                step(subject)
            except WorkerError as error:
                failures.append(error)
                progress.say(str(error))
                subject.flags.append("failed")
            advance(1, note)
        subjects[:] = [subject for subject in subjects if "failed" not in subject.flags]

    try:
        for engine, own in zip(opened, rows, strict=True):
            client = WorkerClient(engine.name, plan.timeout_s)
            everyone.append(client)
            subjects.append(_Subject(engine, own, client, _timestamp()))
        with progress.bar(f"profile {len(opened)} engines", steps) as advance:
            each(lambda subject: _open(subject, plan), advance, "load")
            each(lambda subject: _measure_accuracy(subject, plan), advance, "accuracy")
            for number in range(plan.rounds):
                limits = (plan.block_queries, 0.0, plan.block_limit_s)
                step = partial(_block, workload=_SINGLE, number=number, limits=limits, plan=plan)
                each(step, advance, "latency")
            for workload in grid:
                for number in range(plan.grid_rounds):
                    limits = (plan.grid_queries, 0.05, plan.grid_limit_s)
                    note = f"grid {workload['batch']}x{workload['sequence']}"
                    step = partial(_block, workload=workload, number=number, limits=limits, plan=plan)
                    each(step, advance, note)
            if metered:
                for _ in range(_WINDOWS):
                    each(lambda subject: _window(subject, meter, plan), advance, "energy")
            each(_measure_memory, advance, "memory")
    finally:
        for client in everyone:
            client.close()
    return [_run(subject, plan, meter, session, grid) for subject in subjects], failures


def _open(subject: _Subject, plan: Plan) -> None:
    answer = subject.client.ask(
        "open",
        folder=str(subject.engine.folder),
        texts=[list(texts) for texts in subject.rows.texts],
        threads=plan.threads,
        seed=plan.seed,
    )
    subject.described = {**answer["describe"], "mean_tokens": float(np.mean(answer["lengths"]))}


def _measure_accuracy(subject: _Subject, plan: Plan) -> None:
    answer = subject.client.ask("accuracy", batch_size=plan.batch_size)
    logits = np.array(answer["logits"], dtype=np.float32)
    if not np.isfinite(logits).all():
        raise WorkerError(f"{subject.engine.name}: the engine's logits are not finite.")
    subject.accuracy = score(subject.engine.task, subject.rows, logits)


def _measure_memory(subject: _Subject) -> None:
    subject.memory = subject.client.ask("memory")


def score(task: Task, rows: Rows, logits: np.ndarray) -> Accuracy:
    """Return the accuracy of logits [n, outputs] with its interval and all predictions."""
    predictions = task.predict(logits)
    metrics = task.score(rows.labels, predictions)
    if task.metric == "accuracy":
        correct = int(np.sum(predictions == rows.labels))
        interval = statistics.wilson(correct, len(rows))
    else:
        interval = statistics.bootstrap_metric(METRICS[task.metric], rows.labels, predictions)
    return Accuracy(
        metric=task.metric,
        value=metrics[task.metric],
        n=len(rows),
        interval=interval,
        metrics=metrics,
        predictions=predictions.tolist(),
        labels=rows.labels.tolist(),
        source=rows.source,
    )


def _block(
    subject: _Subject,
    workload: dict[str, Any],
    number: int,
    limits: tuple[int, float, float],
    plan: Plan,
) -> None:
    key = _key(workload)
    if not _fits(subject.engine, workload):
        return
    if key not in subject.blocks:
        subject.client.ask("warm", workload=workload, limit_s=plan.warmup_s)
        subject.blocks[key], subject.rounds[key] = [], []
    queries, least_s, limit_s = limits
    answer = subject.client.ask("block", workload=workload, queries=queries, least_s=least_s, limit_s=limit_s)
    subject.blocks[key].append(answer["samples_s"])
    subject.rounds[key].append(number)


def _window(subject: _Subject, meter: Meter, plan: Plan) -> None:
    """Run single queries for one energy window."""
    meter.start()
    answer = subject.client.ask(
        "block", workload=_SINGLE, queries=32, least_s=plan.window_s, limit_s=10 * plan.window_s
    )
    reading = meter.stop(answer["cpu_s"])
    if reading.joules is None:
        subject.window_reason = reading.reason
        return
    subject.windows.append(
        {
            "duration_s": answer["elapsed_s"],
            "joules": reading.joules,
            "examples": len(answer["samples_s"]),
        }
    )


def _energy(subject: _Subject, meter: Meter) -> Energy:
    if meter.source == "none" or not subject.windows:
        return Energy("none", meter.name, meter.reason or subject.window_reason or "no window")
    per_example = [window["joules"] / window["examples"] for window in subject.windows]
    gross = float(np.mean(per_example))
    if not (math.isfinite(gross) and gross > 0):
        return Energy("none", meter.name, f"the meter gave {gross} J per example")
    return Energy(
        source=meter.source,
        meter=meter.name,
        reason=None,
        joules_per_example=gross,
        interval=statistics.mean_interval(per_example),
        gross=gross,
        windows=subject.windows,
    )


def _run(subject: _Subject, plan: Plan, meter: Meter, session: str, grid: list[dict[str, Any]]) -> Run:
    engine, manifest = subject.engine, subject.engine.manifest
    assert subject.accuracy is not None
    not_metered = Energy("none", meter.name, "measured for the single-stream workload only")
    workloads = []
    for workload in (_SINGLE, *grid):
        if not _fits(engine, workload):
            continue
        key = _key(workload)
        single = workload is _SINGLE
        workloads.append(
            Workload(
                scenario=workload["scenario"],
                batch=workload["batch"],
                sequence=workload["sequence"],
                timing="end-to-end",
                blocks_s=subject.blocks[key],
                rounds=subject.rounds[key],
                energy=_energy(subject, meter) if single else not_metered,
            )
        )
    stamp = subject.started.replace("-", "").replace(":", "").split("+")[0]
    return Run(
        id=f"{stamp}-{files.safe_name(engine.name)}-{secrets.token_hex(3)}",
        started=subject.started,
        engine={
            "name": engine.name,
            "digest": engine.digest,
            "variant": engine.variant,
            "precision": manifest["precision"],
            "scheme": manifest["scheme"],
            "backend": engine.backend,
            "device": engine.device,
            "task": engine.task.name,
            "checkpoint": manifest["checkpoint"],
            "model": manifest.get("model"),
            "regime": manifest.get("regime"),
            "parameters": manifest["parameters"],
            "weight_remaining": manifest.get("weight_remaining"),
            "size_bytes": engine.size_bytes,
            "parity": manifest["parity"],
        },
        host=environment.host(),
        accuracy=subject.accuracy,
        workloads=workloads,
        memory={"host_peak_bytes": None, "device_peak_bytes": None, **subject.memory},
        settings={
            **asdict(plan),
            **subject.described,
            "meter": meter.name,
            "load_average": environment.load_average(),
        },
        session=session,
        flags=subject.flags,
    )


def _rows(
    engine: Engine,
    data_folder: str | Path | None,
    limit: int | None,
    loaded: dict[tuple[str, str], Rows],
) -> Rows:
    if engine.task.kind == "answer-span":
        raise UsageError(f"{engine.name}: question answering cannot be profiled yet; effx verify checks it.")
    folder = data_folder or engine.data
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
    for batch, length in plan.grid:
        if length > longest:
            raise UsageError(f"--grid {batch}x{length}: these engines read {longest} tokens at most.")


def _limit(engine: Engine) -> int:
    return int(engine.manifest["inputs"][0]["max"][1])


def _fits(engine: Engine, workload: dict[str, Any]) -> bool:
    return workload["sequence"] == "real" or int(workload["sequence"]) <= _limit(engine)


def _check_writable(out: Path) -> None:
    """Fail before the measurement, not after it, where results cannot be written."""
    probe = out / f".probe-{secrets.token_hex(4)}"
    files.write_atomic(probe, b"")
    probe.unlink()


def _key(workload: dict[str, Any]) -> str:
    return f"{workload['scenario']} {workload['batch']}x{workload['sequence']}"


def _timestamp() -> str:
    return datetime.datetime.now(datetime.UTC).isoformat(timespec="milliseconds")

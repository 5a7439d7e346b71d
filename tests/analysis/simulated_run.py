"""A simulated run with known predictions, latencies and energy."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import replace

import numpy as np

from effx.host.identity import Host
from effx.manifests import ArtifactReference, Parity
from effx.results import (
    Energy,
    EnergyWindow,
    EngineRecord,
    MeasurementRecord,
    MeterRecord,
    PeakMemory,
    Quality,
    Run,
    RuntimeRecord,
    WorkloadResult,
)
from effx.specs.measurement import MeasurementPlan
from effx.specs.workloads import SINGLE_STREAM, Workload
from effx.stats import intervals
from effx.stats.metrics import METRICS

N = 400
SETTINGS = MeasurementRecord(
    plan=MeasurementPlan(),
    runtime=RuntimeRecord(1, {"onnxruntime": "1.31.1"}),
    meter=MeterRecord("simulated"),
    mean_tokens=20.0,
)


def engine(name: str, *, task: str = "sst2", precision: str = "fp32", **changes: object) -> EngineRecord:
    """Return an unreduced engine."""
    record = EngineRecord(
        name=name, digest=hashlib.sha256(name.encode()).hexdigest(), task=task, variant=precision,
        precision=precision, scheme="int8-dynamic" if precision == "int8" else precision,
        backend="onnxruntime", device="cpu",
        checkpoint=ArtifactReference(name=f"{task}-{name}", digest="0" * 64), parameters=7,
        model="simulated", regime="full", weight_remaining=1.0, size_bytes=1,
        parity=Parity(200, 0.0, 1.0, True, "task"),
    )  # fmt: skip
    return replace(record, **changes)  # type: ignore[arg-type]


def simulated_run(
    name: str,
    wrong: Iterable[int] = (),
    seconds: float = 0.01,
    joules: float | None = None,
    *,
    spread: float = 0.02,
    energy_spread: float = 0.02,
    source: str = "counter",
    meter: str = "rapl",
    memory: int = 100_000_000,
    size: int = 50_000_000,
    precision: str = "int8",
    task: str = "sst2",
    host: str = "h",
    metric: str = "accuracy",
    n: int = N,
    rows: str = "rows",
    rounds: int = 6,
    queries: int = 30,
    session: str = "s",
    started: str = "2026",
    offline_per_s: float | None = None,
) -> Run:
    """Return a run with wrong predictions on the rows ``wrong``; the drift is the same for all engines."""
    labels = np.arange(n) % 2
    predictions = labels.copy()
    predictions[list(wrong)] = 1 - predictions[list(wrong)]
    rng = np.random.default_rng(list(name.encode()))
    drift = np.exp(np.linspace(0, 0.1, rounds))
    blocks = [(seconds * slow * rng.uniform(1 - spread, 1 + spread, queries)).tolist() for slow in drift]
    energy = Energy("none", "none", "no meter")
    if joules is not None:
        around = (joules * (1 - energy_spread), joules * (1 + energy_spread))
        windows = [EnergyWindow(10.0, 1000, 1000 * joules, 10.0, joules)] * 3
        energy = Energy(source, meter, None, joules, around, joules, windows=windows)  # type: ignore[arg-type]
    value = METRICS[metric](labels, predictions)
    correct = int(np.sum(predictions == labels))
    accuracy = Quality(
        metric, value, n, intervals.wilson(correct, n),
        {metric: value, "f1": METRICS["f1"](labels, predictions)},
        predictions.tolist(), labels.tolist(), rows, batch_dependent=False,
    )  # fmt: skip
    none = Energy("none", "none", "measured for single-stream only")
    workloads = [WorkloadResult(SINGLE_STREAM, blocks, list(range(rounds)), energy)]
    if offline_per_s is not None:
        blocks = [[32 / offline_per_s]] * 5
        workloads.append(WorkloadResult(Workload("offline", 32, "real"), blocks, list(range(5)), none))
    return Run(
        id=f"id-{name}-{started}", session=session,
        started=f"{started}-11-21T00:00:00+00:00" if len(started) == 4 else started,
        host=Host(host, cpu="simulated", cores=1, virtual=False, system="none", effx="0"),
        engine=engine(name, task=task, precision=precision, size_bytes=size),
        quality=accuracy, workloads=workloads, memory=PeakMemory(memory, None), settings=SETTINGS,
    )  # fmt: skip

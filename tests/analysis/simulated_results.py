"""Simulated results of any number of engines: several techniques, sessions, hosts and meters.

The files contain samples, predictions and windows like real ones, so reading and resampling take as long as
for real results. Nothing in them was measured; they are used only in tests and benchmarks.
"""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np

from effx.host.identity import Host
from effx.manifests import ArtifactReference, Parity
from effx.results import (
    Energy,
    EnergyWindow,
    EngineRecord,
    ExitSettings,
    GateResult,
    Idle,
    PeakMemory,
    Quality,
    Run,
    StructureSummary,
    WorkloadResult,
)
from effx.specs.measurement import MeasurementPlan
from effx.specs.workloads import SINGLE_STREAM, Workload
from effx.stats import intervals
from tests.analysis.simulated_run import SETTINGS

SHAPES = ((1, 32), (1, 128), (8, 32), (8, 128), (32, 32), (32, 128))
_VARIANTS = ("fp32", "int8", "seq64", "seq32+int8", "exit", "exit+int8", "tokens", "tokens+int8")


def host(number: int = 0) -> Host:
    return Host(
        f"host{number}-{number:08x}", name=f"host{number}", cpu=f"Processor {number}", cores=8,
        memory_bytes=2**35, virtual=False, system="Linux 6.1", python="3.11.7", effx="0.1.0",
    )  # fmt: skip


def run(
    number: int,
    *,
    n: int = 200,
    rounds: int = 10,
    queries: int = 70,
    session: int = 0,
    on: int = 0,
    metered: str = "counter",
    name: str | None = None,
) -> Run:
    """Return the result of engine ``number`` on host ``on``; both determine level, size and speed."""
    rng = np.random.default_rng([number, on, session])
    variant = _VARIANTS[number % len(_VARIANTS)]
    level = 1 - (number // len(_VARIANTS) % 8) / 10
    int8, reduced = "int8" in variant, variant not in ("fp32", "int8")
    pruned = not reduced and level < 1
    speed = (0.55 if int8 else 1.0) * (0.4 + 0.6 * level) * (1 + 0.1 * on * (-1) ** number)
    share = 0.92 - 0.06 * (1 - level) - (0.012 if int8 else 0.0) - (0.01 if reduced else 0.0)
    labels = np.random.default_rng([7, n]).integers(0, 2, n)
    hard = np.random.default_rng([8, n]).random(n)  # the same rows are hard for every engine
    wrong = 0.7 * hard + 0.3 * rng.random(n) > np.quantile(0.7 * hard + 0.3 * rng.random(n), share)
    predictions = np.where(wrong, 1 - labels, labels)
    engine = name or f"demo-e{number:05d}.{variant}.onnxruntime"
    value = float(np.mean(predictions == labels))
    return Run(
        id=f"2026112{session % 9 + 1}T000000.{number:05d}-{on}-{session}",
        started=f"2026-11-2{session % 9 + 1}T00:{number // 60 % 60:02d}:{number % 60:02d}+00:00",
        engine=_engine(engine, variant, level, int8, pruned, number),
        host=host(on),
        quality=Quality(
            "accuracy", value, n, intervals.wilson(int(np.sum(predictions == labels)), n),
            {"accuracy": value}, predictions.tolist(), labels.tolist(), "demo/validation.jsonl",
            batch_dependent=False,
        ),
        workloads=_workloads(rng, speed, rounds, queries, session, metered),
        memory=PeakMemory(int((300 if int8 else 600) * 2**20 * level), None),
        settings=replace(
            SETTINGS, plan=MeasurementPlan(rounds=rounds), mean_depth=6 * level if "exit" in variant else None
        ),
        session=f"{session:08x}",
        flags=["host-idle"] if number % 7 == 3 else [],
        gates=[
            GateResult("steady-rounds", True, "+1.0%", "single-stream 1xreal"),
            GateResult("host-idle", number % 7 != 3, "other processes took 12.0%"),
        ],
    )  # fmt: skip


def _engine(name: str, variant: str, level: float, int8: bool, pruned: bool, number: int) -> EngineRecord:
    layers = 6
    exits, tokens = "exit" in variant, "tokens" in variant
    return EngineRecord(
        name=name, digest=f"{number:064x}", task="demo", variant=variant,
        precision="int8" if int8 else "fp32", scheme="int8-dynamic" if int8 else "fp32",
        backend="onnxruntime", device="cpu",
        checkpoint=ArtifactReference(name=f"demo-c{number % 5}", digest=f"{number % 5:064x}"),
        model="demo-bert", regime="full", parameters=int(22e6 * (level if pruned else 1)),
        weight_remaining=level if pruned else 1.0, size_bytes=int((23 if int8 else 90) * 2**20 * level),
        max_length=128,
        exits=ExitSettings("entropy", 1 - level, 1, [2, 4, 6], 3) if exits else None,
        parity=Parity(200, 0.01, 0.99, True, "task"),
        structure=StructureSummary(
            layers, [12 - (5 if pruned else 0)] * layers, [1536] * layers, 12, 1536,
            [2, 4] if exits else [], [level] * layers if tokens else None,
        ),
    )  # fmt: skip


def _workloads(
    rng: np.random.Generator, speed: float, rounds: int, queries: int, session: int, metered: str
) -> list[WorkloadResult]:
    drift = np.random.default_rng([9, session]).lognormal(0, 0.05, rounds)  # the same for all engines
    blocks = [(3e-3 * speed * factor * rng.lognormal(0, 0.15, queries)).tolist() for factor in drift]
    energy = Energy("none", "none", "no counters here")
    if metered != "none":
        per = [float(0.03 * speed * rng.normal(1, 0.01)) for _ in range(3)]
        windows = [
            EnergyWindow(10.0, int(10 / (3e-3 * speed)), joules * int(10 / (3e-3 * speed)), 10.0, joules)
            for joules in per
        ]  # fmt: skip
        mean = float(np.mean(per))
        energy = Energy(metered, "model" if metered == "model" else "rapl", None, mean,  # type: ignore[arg-type]
                        (mean * 0.97, mean * 1.03), mean, None, windows,
                        Idle(3.0, (2.9, 3.1), 15.0))  # fmt: skip
    results = [WorkloadResult(SINGLE_STREAM, blocks, list(range(rounds)), energy)]
    none = Energy("none", "none", "measured for single-stream only")
    for batch, length in SHAPES:
        centre = 1e-3 * speed * batch**0.9 * length / 32 * (1.3 if batch == 1 and speed < 0.5 else 1.0)
        grid = [(centre * factor * rng.lognormal(0, 0.05, 4)).tolist() for factor in drift[:5]]
        results.append(WorkloadResult(Workload("grid", batch, length), grid, list(range(len(grid))), none))
    return results


def write(runs: list[Run], folder: Path) -> Path:
    """Write result files without syncing them to disk, which would take minutes for ten thousand files."""
    folder.mkdir(parents=True, exist_ok=True)
    for result in runs:
        (folder / f"{result.id}.json").write_text(json.dumps(result.to_json(), indent=1))
    return folder

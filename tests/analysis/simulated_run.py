"""A simulated run with known predictions, latencies and energy."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from effx.host.identity import Host
from effx.results import Accuracy, Energy, Run, WorkloadResult
from effx.specs.workloads import SINGLE_STREAM, Workload
from effx.stats import intervals
from effx.stats.metrics import METRICS

N = 400


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
        energy = Energy(source, meter, None, joules, around, joules)  # type: ignore[arg-type]
    value = METRICS[metric](labels, predictions)
    correct = int(np.sum(predictions == labels))
    accuracy = Accuracy(
        metric, value, n, intervals.wilson(correct, n),
        {metric: value, "f1": METRICS["f1"](labels, predictions)},
        predictions.tolist(), labels.tolist(), rows,
    )  # fmt: skip
    none = Energy("none", "none", "measured for single-stream only")
    workloads = [WorkloadResult(SINGLE_STREAM, blocks, list(range(rounds)), energy)]
    if offline_per_s is not None:
        blocks = [[32 / offline_per_s]] * 5
        workloads.append(WorkloadResult(Workload("offline", 32, "real"), blocks, list(range(5)), none))
    return Run(
        id=f"id-{name}-{started}", started=started, session=session,
        host=Host(host, cpu="simulated", cores=1, virtual=False, system="none", effx="0"),
        engine={"name": name, "task": task, "precision": precision, "size_bytes": size, "parameters": 7,
                "digest": f"engine of {name}",
                "checkpoint": {"name": f"{task}-{name}", "digest": f"checkpoint of {name}"},
                "model": "simulated", "regime": "full",
                "variant": precision, "scheme": precision, "backend": "none", "device": "cpu",
                "weight_remaining": 1.0, "parity": {"label_agreement": 1.0}},
        accuracy=accuracy, workloads=workloads,
        memory={"host_peak_bytes": memory, "device_peak_bytes": None}, settings={},
    )  # fmt: skip

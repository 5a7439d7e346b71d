"""Results and reports in MLflow, for those who keep their experiments there.

    profile --mlflow URI   one MLflow run per result: experiment effx/TASK, run ENGINE
    report --mlflow URI    one MLflow run per report: experiment effx/reports, the folder as artifacts

The result files stay the record; what is logged are their figures and the files themselves. Off
unless a URI is given: the environment alone (MLFLOW_TRACKING_URI) turns nothing on. MLflow is
imported when it is used.
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from effx.analysis import cohorts, objectives
from effx.errors import UsageError, need
from effx.results import Run

_LONGEST = 500
"""Characters of a parameter's value that every MLflow store takes."""
_REPORTS = "effx/reports"


def check(uri: str) -> None:
    """Open a store, so that a wrong one is told before anything is measured.

    Raises:
        MissingExtraError: the extra ``mlflow`` is not installed.
        UsageError: the URI is none, or its store cannot be opened.
    """
    _client(uri)


def log_runs(runs: Sequence[Run], uri: str) -> list[str]:
    """Log results, each as an MLflow run that ends with the result's file as artifact.

    Args:
        runs: results.
        uri: MLflow's tracking URI: ``sqlite:///FILE`` or ``http://HOST``; a folder of files only where
            MLflow is allowed it, by MLFLOW_ALLOW_FILE_STORE=true.

    Returns:
        The ids of the MLflow runs. A result that is in the store already is not logged again.

    Raises:
        MissingExtraError: the extra ``mlflow`` is not installed.
        UsageError: the store cannot be reached or written.
    """
    client = _client(uri)
    try:
        return [_log_run(client, run) for run in runs]
    except Exception as error:
        raise _failed(uri, error) from error


def log_report(content: dict[str, Any], folder: str | Path, uri: str) -> str:
    """Log a report: its folder as artifacts, the frontiers' hypervolumes as metrics.

    Args:
        content: what frontier.json holds.
        folder: the report's.
        uri: MLflow's tracking URI.

    Returns:
        The id of the MLflow run.

    Raises:
        MissingExtraError: the extra ``mlflow`` is not installed.
        UsageError: the store cannot be reached or written.
    """
    client = _client(uri)
    try:
        tracked = client.create_run(
            _experiment(client, _REPORTS), run_name=content["created"], tags={"effx": content["effx"]}
        )
        name = tracked.info.run_id
        for frontier in content["frontiers"]:
            if frontier["hypervolume"] is not None:
                axes = ".".join(frontier["objectives"])
                key = f"hypervolume.{frontier['task']}.{frontier['host']}.{axes}"
                client.log_metric(name, _key(key), frontier["hypervolume"])
        client.log_artifacts(name, str(folder))
        client.set_terminated(name)
        return str(name)
    except Exception as error:
        raise _failed(uri, error) from error


def parameters(run: Run) -> dict[str, str]:
    """Return what an engine and a host are, as MLflow's parameters."""
    engine = {key: value for key, value in run.engine.items() if not isinstance(value, dict)}
    checkpoint = run.engine.get("checkpoint") or {}
    found = {
        **{f"engine.{key}": value for key, value in engine.items()},
        "engine.checkpoint": checkpoint.get("name"),
        "host": run.host_id,
        "host.cpu": run.host.get("cpu"),
        "metric": run.accuracy.metric,
        "rows": run.accuracy.n,
        "rows.source": run.accuracy.source,
        "energy.source": cohorts.single_stream(run).energy.source,
        "energy.meter": cohorts.single_stream(run).energy.meter,
        "settings.threads": run.settings.get("threads"),
        "settings.rounds": run.settings.get("rounds"),
    }
    return {key: str(value)[:_LONGEST] for key, value in found.items() if value is not None}


def figures(run: Run) -> dict[str, float]:
    """Return every figure of a result with its unit in its name, as MLflow's metrics; none that is None."""
    single = cohorts.single_stream(run)
    found: dict[str, float | None] = {
        run.accuracy.metric: run.accuracy.value,
        **run.accuracy.metrics,
        f"{run.accuracy.metric}.low": run.accuracy.interval[0],
        f"{run.accuracy.metric}.high": run.accuracy.interval[1],
        "joules_per_example": single.energy.joules_per_example,
        "joules_per_correct": objectives.OBJECTIVES["energy_per_correct"].value(run),
        "host_peak_bytes": run.memory.get("host_peak_bytes"),
        "device_peak_bytes": run.memory.get("device_peak_bytes"),
        "gates_failed": float(sum(gate["passed"] is False for gate in run.gates)),
    }
    for workload in run.workloads:
        key = f"{workload.scenario}.{workload.batch}x{workload.sequence}"
        if workload.timing == "device":  # the same queries again: one key for both would keep the last alone
            key += ".device"
        found |= {f"{key}.{name}_s": value for name, value in workload.latency_s.items()}
        found[f"{key}.throughput_per_s"] = workload.throughput_per_s
    return {
        _key(key): float(value) for key, value in found.items() if value is not None and math.isfinite(value)
    }


def _log_run(client: Any, run: Run) -> str:
    experiment = _experiment(client, f"effx/{run.task}")
    known = client.search_runs([experiment], f"tags.effx_result = '{run.id}'", max_results=1)
    if known:
        return str(known[0].info.run_id)
    tags = {"effx_result": run.id, "effx_session": run.session, "effx_started": run.started}
    name = client.create_run(experiment, run_name=run.name, tags=tags).info.run_id
    for key, value in parameters(run).items():
        client.log_param(name, key, value)
    for key, number in figures(run).items():
        client.log_metric(name, key, number)
    client.log_dict(name, json.loads(json.dumps(run.to_json())), f"{run.id}.json")
    client.set_terminated(name)
    return str(name)


def _client(uri: str) -> Any:
    need("mlflow", "mlflow")
    if not uri.strip():
        raise UsageError("--mlflow needs a tracking URI: sqlite:///FILE or http://HOST.")
    os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")  # effx tells nobody what is measured
    from mlflow.tracking import MlflowClient

    try:
        return MlflowClient(tracking_uri=uri)
    except Exception as error:
        raise _failed(uri, error) from error


def _experiment(client: Any, name: str) -> str:
    known = client.get_experiment_by_name(name)
    return str(known.experiment_id if known else client.create_experiment(name))


def _failed(uri: str, error: Exception) -> UsageError:
    reason = " ".join(str(error).split())[:200] or type(error).__name__
    return UsageError(f"--mlflow {uri}: {reason}. Results and report are kept where they were written.")


def _key(name: str) -> str:
    """Return a metric's name with the characters that MLflow takes."""
    return "".join(char if char.isalnum() or char in "_-. /" else "_" for char in name)

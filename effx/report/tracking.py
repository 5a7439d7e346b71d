"""Logging results and reports to MLflow.

    a result   one MLflow run, named after the engine, in the experiment effx/TASK
    a report   one MLflow run in the experiment effx/reports, with the report's folder as artifacts

Each run has the measurements as metrics and the file itself as an artifact. Nothing is logged unless a
tracking URI is given; the environment variable MLFLOW_TRACKING_URI is ignored. MLflow is imported on use.
"""

from __future__ import annotations

import math
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import effx
from effx.analysis.cohorts import energy_of
from effx.analysis.objectives import OBJECTIVES
from effx.errors import UsageError, need, one_line
from effx.report.contents import ReportContents
from effx.results import Run

_MAX_PARAMETER = 500
"""Characters of a parameter's value that every MLflow store accepts."""
_REPORTS = "effx/reports"


def check(uri: str) -> None:
    """Check that a store can be opened, before anything is measured.

    Raises:
        MissingExtraError: the extra ``mlflow`` is not installed.
        UsageError: the URI is empty, or its store cannot be opened.
    """
    _client(uri)


def log_runs(runs: Sequence[Run], uri: str) -> list[str]:
    """Log results, each as an MLflow run that ends with the result's file as artifact.

    Args:
        runs: results.
        uri: MLflow's tracking URI: ``sqlite:///FILE`` or ``http://HOST``; a folder only with
            MLFLOW_ALLOW_FILE_STORE=true.

    Returns:
        The ids of the MLflow runs. A result that is in the store already is not logged again.

    Raises:
        MissingExtraError: the extra ``mlflow`` is not installed.
        UsageError: the store cannot be reached or written to.
    """
    client = _client(uri)
    try:
        return [_log_run(client, run) for run in runs]
    except Exception as error:
        raise _failed(uri, error) from error


def log_report(contents: ReportContents, folder: str | Path, uri: str) -> str:
    """Log a report: its folder as artifacts, the frontiers' hypervolumes as metrics.

    Args:
        contents: what frontier.json holds.
        folder: the report's folder.
        uri: MLflow's tracking URI.

    Returns:
        The id of the MLflow run.

    Raises:
        MissingExtraError: the extra ``mlflow`` is not installed.
        UsageError: the store cannot be reached or written to.
    """
    client = _client(uri)
    try:
        experiment = _experiment(client, _REPORTS)
        tags = {"effx": effx.__version__}
        run_id = client.create_run(experiment, run_name=contents.created, tags=tags).info.run_id
        for frontier in contents.frontiers:
            if frontier.hypervolume is not None:
                objectives = ".".join(frontier.objectives)
                key = f"hypervolume.{frontier.task}.{frontier.host}.{objectives}"
                client.log_metric(run_id, _metric_name(key), frontier.hypervolume)
        client.log_artifacts(run_id, str(folder))
        client.set_terminated(run_id)
        return str(run_id)
    except Exception as error:
        raise _failed(uri, error) from error


def parameters(run: Run) -> dict[str, str]:
    """Return MLflow's parameters of a result: the engine, the host and the settings."""
    engine = {key: value for key, value in vars(run.engine).items() if isinstance(value, str | int | float)}
    energy = energy_of(run)
    values = {
        **{f"engine.{key}": value for key, value in engine.items()},
        "engine.checkpoint": run.engine.checkpoint.name,
        "host": run.host_id,
        "host.cpu": run.host.cpu,
        "metric": run.quality.metric,
        "reference": None if run.quality.reference is None else run.quality.reference.name,
        "rows": run.quality.n,
        "rows.source": run.quality.source,
        "energy.source": energy.source,
        "energy.meter": energy.meter,
        "settings.threads": run.settings.runtime.threads,
        "settings.rounds": run.settings.plan.rounds,
    }
    return {key: str(value)[:_MAX_PARAMETER] for key, value in values.items() if value is not None}


def metrics(run: Run) -> dict[str, float]:
    """Return MLflow's metrics of a result: every measurement that is not None, in SI units."""
    score = run.quality
    scores: dict[str, float | None] = {
        score.metric: score.value,
        **score.metrics,
        f"{score.metric}.low": score.interval[0],
        f"{score.metric}.high": score.interval[1],
    }
    values: dict[str, float | None] = {
        **({} if run.withdrawn("quality") else scores),
        "energy_j_per_example": energy_of(run).joules_per_example,
        "energy_j_per_correct_prediction": OBJECTIVES["energy_per_correct"].value(run),
        "host_peak_memory_bytes": run.memory.host_peak_bytes,
        "device_peak_memory_bytes": run.memory.device_peak_bytes,
        "failed_gates": float(len(run.failed_gates)),
    }
    for result in run.workloads:
        workload = result.workload
        key = f"{workload.scenario}.{workload.batch}x{workload.length}"
        if workload.on_device:  # the same queries as end to end
            key += ".device"
        values |= {f"{key}.{name}_s": value for name, value in result.latency_s.items()}
        values[f"{key}.throughput_per_s"] = result.throughput_per_s
    return {
        _metric_name(key): float(value)
        for key, value in values.items()
        if value is not None and math.isfinite(value)
    }


def _log_run(client: Any, run: Run) -> str:
    experiment = _experiment(client, f"effx/{run.task}")
    logged = client.search_runs([experiment], f"tags.effx_result = '{run.id}'", max_results=1)
    if logged:
        return str(logged[0].info.run_id)
    tags = {"effx_result": run.id, "effx_session": run.session, "effx_started": run.started}
    run_id = client.create_run(experiment, run_name=run.name, tags=tags).info.run_id
    for key, value in parameters(run).items():
        client.log_param(run_id, key, value)
    for key, number in metrics(run).items():
        client.log_metric(run_id, key, number)
    client.log_dict(run_id, run.to_json(), f"{run.id}.json")
    client.set_terminated(run_id)
    return str(run_id)


def _client(uri: str) -> Any:
    need("mlflow", "mlflow")
    if not uri.strip():
        raise UsageError("expected a tracking URI: sqlite:///FILE or http://HOST.", settings="mlflow")
    os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
    from mlflow.tracking import MlflowClient

    try:
        return MlflowClient(tracking_uri=uri)
    except Exception as error:
        raise _failed(uri, error) from error


def _experiment(client: Any, name: str) -> str:
    known = client.get_experiment_by_name(name)
    return str(known.experiment_id if known else client.create_experiment(name))


def _failed(uri: str, error: Exception) -> UsageError:
    reason = one_line(error)
    return UsageError(f"{uri}: {reason}. Results and report were written.", settings="mlflow")


def _metric_name(name: str) -> str:
    """Return a metric's name, with characters that MLflow does not accept replaced."""
    return "".join(char if char.isalnum() or char in "_-. /" else "_" for char in name)

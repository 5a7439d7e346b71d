"""MLflow logging against real stores: a folder of files and a database."""

from __future__ import annotations

import importlib.util
import json
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from effx import results
from effx.analysis.frontier import Frontier
from effx.cli import run as effx
from effx.errors import MissingExtraError, UsageError
from effx.report import ReportContents, tracking
from effx.specs.workloads import SINGLE_STREAM
from tests.analysis.simulated_run import simulated_run

RUN = simulated_run("int8", range(42), 0.015, 1.5, offline_per_s=50)
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")  # MLflow's, of SQLAlchemy
needs_mlflow = pytest.mark.skipif(
    importlib.util.find_spec("mlflow") is None, reason="mlflow is not installed: pip install 'effx[mlflow]'"
)


@pytest.fixture(params=["files", "sqlite"])
def uri(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.chdir(tmp_path)  # artifacts are written next to the database
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path}/mlflow.db"
    return str(tmp_path / "store")


def stored(uri: str, experiment: str) -> list[Any]:
    from mlflow.tracking import MlflowClient

    client = MlflowClient(tracking_uri=uri)
    return list(client.search_runs([client.get_experiment_by_name(experiment).experiment_id]))


@needs_mlflow
def test_a_result_is_logged_once_with_all_metrics(uri: str, tmp_path: Path) -> None:
    from mlflow.tracking import MlflowClient

    (name,) = tracking.log_runs([RUN], uri)
    assert tracking.log_runs([RUN], uri) == [name]
    (logged_run,) = stored(uri, "effx/sst2")
    assert (logged_run.info.status, logged_run.info.run_name) == ("FINISHED", "int8")
    assert logged_run.data.tags["effx_result"] == RUN.id
    assert logged_run.data.params["engine.size_bytes"] == "50000000"
    assert logged_run.data.params["energy.source"] == "counter"
    latency = RUN.workloads[0].latency_s
    assert logged_run.data.metrics["single-stream.1xreal.p50_s"] == latency["p50"]
    assert "single-stream.1xreal.p99_s" not in logged_run.data.metrics  # refused, so not logged
    assert logged_run.data.metrics["accuracy"] == RUN.quality.value
    assert logged_run.data.metrics["energy_j_per_example"] == 1.5
    assert logged_run.data.metrics["offline.32xreal.throughput_per_s"] == pytest.approx(50)
    path = MlflowClient(tracking_uri=uri).download_artifacts(name, f"{RUN.id}.json", str(tmp_path))
    assert json.loads(Path(path).read_text()) == RUN.to_json()


def test_workloads_timed_on_the_device_have_separate_keys() -> None:
    whole = RUN.workloads[0]
    device = replace(whole, workload=SINGLE_STREAM.timed_on_device(), blocks_s=[[0.004] * 70] * 10)
    metrics = tracking.metrics(replace(RUN, workloads=[*RUN.workloads, device]))
    assert metrics["single-stream.1xreal.p50_s"] == whole.latency_s["p50"]
    assert (
        metrics["single-stream.1xreal.device.p50_s"] == metrics["single-stream.1xreal.device.p90_s"] == 0.004
    )
    assert metrics["single-stream.1xreal.device.throughput_per_s"] == pytest.approx(250)
    assert {key: value for key, value in metrics.items() if ".device." not in key} == tracking.metrics(RUN)


@needs_mlflow
def test_a_report_is_logged_with_its_folder_as_artifacts(uri: str, tmp_path: Path) -> None:
    from mlflow.tracking import MlflowClient

    (tmp_path / "report").mkdir()
    (tmp_path / "report/index.html").write_text("<p>page</p>")
    frontier = Frontier(
        "sst2", "h:1", ("quality", "latency"), "accuracy", "none", [], 0.5, None, None, None, []
    )  # fmt: skip
    logged = ReportContents("2026", [frontier, replace(frontier, hypervolume=None)], [], {}, [], [], [])
    name = tracking.log_report(logged, tmp_path / "report", uri)
    (logged_run,) = stored(uri, "effx/reports")
    assert logged_run.info.run_id == name
    assert logged_run.data.metrics == {"hypervolume.sst2.h_1.quality.latency": 0.5}
    assert [one.path for one in MlflowClient(tracking_uri=uri).list_artifacts(name)] == ["index.html"]


@needs_mlflow
def test_the_report_command_logs_the_report(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    results.save(RUN, tmp_path / "results")
    uri = f"sqlite:///{tmp_path}/mlflow.db"
    assert effx(["report", "--mlflow", uri]) == 0
    (logged_run,) = stored(uri, "effx/reports")
    assert logged_run.info.status == "FINISHED"


@needs_mlflow
def test_a_store_that_cannot_be_written_gives_a_message_of_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    for uri in (str(tmp_path / "file/store"), "nonsense://x", " "):
        with pytest.raises(
            UsageError, match="Results and report were written|expected a tracking URI"
        ) as caught:
            tracking.log_runs([RUN], uri)
        assert "\n" not in str(caught.value) and caught.value.settings == ("mlflow",)


def test_a_missing_mlflow_gives_the_pip_command(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    find_spec = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name, *rest: None if name == "mlflow" else find_spec(name, *rest)
    )
    with pytest.raises(
        MissingExtraError, match=r"mlflow is not installed. Run: pip install 'effx\[mlflow\]'"
    ):
        tracking.log_runs([RUN], str(tmp_path))
    for command in (["report", str(tmp_path)], ["profile", str(tmp_path)]):
        assert effx([*command, "--mlflow", str(tmp_path / "store")]) == 2
        assert "pip install 'effx[mlflow]'" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_the_environment_variable_alone_logs_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path}/store")
    before = "mlflow" in sys.modules
    results.save(RUN, tmp_path / "results")
    assert effx(["report", str(tmp_path / "results"), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["frontiers"]
    assert not (tmp_path / "store").exists()
    assert ("mlflow" in sys.modules) == before

"""Profiles of real engines in separate processes."""

from __future__ import annotations

import json
import os
import shutil
import signal
import time
from pathlib import Path

import numpy as np
import pytest

from effx import data, engines, meters, results
from effx.artifacts import Checkpoint, Engine
from effx.cli import run as command
from effx.encoding import Encoder
from effx.errors import ArtifactError, DataError, UsageError, WorkerError
from effx.export import export_all
from effx.profile import profile
from effx.profile.client import WorkerClient
from effx.report import report
from effx.specs.measurement import MeasurementPlan
from tests.conftest import QUICK


def test_results_have_the_parts_of_their_rows(results_folder: Path) -> None:
    for run in results.find([results_folder]):
        groups = {each.group: each for each in run.quality.groups}
        assert {"label", "words", "negation"} <= groups.keys()
        assert groups["label"].of_rows == run.quality.labels
        assert all(len(each.of_rows) == run.quality.n for each in groups.values())


def test_results_contain_the_engines_predictions(
    results_folder: Path, engines_folder: Path, rows_folder: Path
) -> None:
    runs = results.find([results_folder])
    assert len(runs) == 2
    for run in runs:
        engine = Engine.open(engines_folder / run.name)
        rows = data.load(engine.task, "validation", rows_folder)
        with engines.open(engine.folder) as session:
            batch = Encoder(engine.folder, engine.max_length)(rows.texts).batch(np.arange(len(rows)))
            expected = np.argmax(session.infer(batch)["logits"], axis=1)
        assert run.engine.digest == engine.digest
        assert run.quality.n == len(rows) == len(run.quality.predictions)
        assert run.quality.labels == rows.labels.tolist()
        # int8 scales depend on the batch, so a row near the boundary may differ
        assert np.mean(np.array(run.quality.predictions) == expected) >= (1.0 if "fp32" in run.name else 0.95)
        assert run.quality.value == np.mean(np.array(run.quality.predictions) == rows.labels)
        low, high = run.quality.interval
        assert low < run.quality.value < high


def test_results_have_all_workloads_and_rounds(results_folder: Path) -> None:
    for run in results.find([results_folder]):
        shapes = [(w.workload.scenario, w.workload.batch, w.workload.length) for w in run.workloads]
        assert shapes == [("single-stream", 1, "real"), ("grid", 1, 8), ("grid", 4, 16)]
        single = run.workloads[0]
        assert [len(block) for block in single.blocks_s] == [24] * 3
        assert single.rounds == [0, 1, 2]
        samples = np.concatenate(single.blocks_s)
        assert single.latency_s["p50"] == np.sort(samples)[35]  # the 36th of 72
        assert single.latency_s["p90"] is not None
        assert single.latency_s["p99"] is None  # 72 samples are too few
        assert single.throughput_per_s == pytest.approx(72 / samples.sum())
        assert 20e6 < run.memory.host_peak_bytes < 700e6
        assert run.memory.device_peak_bytes is None


def test_modelled_energy_is_labelled_as_model(results_folder: Path) -> None:
    for run in results.find([results_folder]):
        energy = run.workloads[0].energy
        assert (energy.source, energy.meter, energy.reason, energy.net) == ("model", "model:10", None, None)
        assert len(energy.windows) == 3
        joules = [window.joules / window.examples for window in energy.windows]
        assert energy.joules_per_example == pytest.approx(np.mean(joules))
        assert all(window.duration_s >= 0.2 and window.examples >= 32 for window in energy.windows)
        assert run.workloads[1].energy.source == "none"


def test_results_are_read_as_written(results_folder: Path) -> None:
    for path in results_folder.glob("*.json"):
        value = json.loads(path.read_text())
        assert json.loads(json.dumps(results.open_run(path).to_json())) == value


def test_engines_that_are_equal_but_for_their_names_have_a_result_each(
    engines_folder: Path, tmp_path: Path
) -> None:
    for name in ("a", "b"):
        shutil.copytree(engines_folder / "tiny.fp32.onnxruntime", tmp_path / "engines" / name)
    plan = QUICK.replace(grid=())
    runs, errors = profile([tmp_path / "engines"], plan=plan, meter="none", out=tmp_path / "results")
    assert [run.name for run in runs] == ["a", "b"] and not errors
    assert sorted(run.name for run in results.find([tmp_path / "results"])) == ["a", "b"]


def test_engines_of_one_name_are_refused(engines_folder: Path, tmp_path: Path) -> None:
    for folder in ("before", "after"):
        shutil.copytree(engines_folder / "tiny.fp32.onnxruntime", tmp_path / folder / "x")
    with pytest.raises(UsageError, match="before/x and .*after/x are two engines of one name"):
        profile([tmp_path / "before", tmp_path / "after"], plan=QUICK, meter="none", out=tmp_path / "results")
    assert not (tmp_path / "results").exists() or not list((tmp_path / "results").glob("*.json"))


def test_a_killed_worker_affects_only_its_engine(
    engines_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = WorkerClient.request

    def deadly(self: WorkerClient, action: str, **arguments: object) -> object:
        if action == "block" and "int8" in self.name:
            os.kill(self.pid, signal.SIGKILL)
        return real(self, action, **arguments)

    monkeypatch.setattr(WorkerClient, "request", deadly)
    runs, failures = profile([engines_folder], out=tmp_path, plan=QUICK, meter="none")
    assert [run.name for run in runs] == ["tiny.fp32.onnxruntime"]
    assert "int8" in str(failures[0])
    assert "killed; out of memory?" in str(failures[0])
    assert runs[0].workloads[0].energy.reason == "energy was not requested (meter none)"


def test_each_engine_is_metered_on_its_device(
    engines_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The manifest of one engine says cuda, although it runs on the CPU: only the meter is tested."""

    real = meters.open

    def opened(spec: str, device: str, **_: object) -> meters.Meter:
        return real("model:10") if device == "cpu" else meters.Unavailable("no GPU to read")

    monkeypatch.setattr(Engine, "device", property(lambda self: "cuda" if "int8" in self.name else "cpu"))
    monkeypatch.setattr("effx.profile.run.meters.open", opened)
    runs, failures = profile([engines_folder], out=tmp_path, plan=QUICK)
    assert not failures
    energies = {run.name: run.workloads[0].energy for run in runs}
    assert energies["tiny.fp32.onnxruntime"].meter == "model:10"
    assert energies["tiny.int8.onnxruntime"].source == "none"
    assert energies["tiny.int8.onnxruntime"].reason == "no GPU to read"


def test_a_session_that_is_stopped_before_anything_was_measured_writes_nothing(
    engines_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    real = WorkerClient.request

    def stopped(self: WorkerClient, action: str, **arguments: object) -> object:
        if action == "score":
            raise KeyboardInterrupt
        return real(self, action, **arguments)

    monkeypatch.setattr(WorkerClient, "request", stopped)
    assert command(["profile", str(engines_folder), "-o", str(tmp_path / "r"), "--meter", "none"]) == 130
    reported = capsys.readouterr().err
    assert "effx: stopped; nothing was measured." in reported
    assert not list(tmp_path.glob("r/*"))


def test_the_default_grid_leaves_out_shapes_that_do_not_fit(engines_folder: Path, tmp_path: Path) -> None:
    """These engines read at most 66 tokens: longer shapes of the default grid are left out, not refused."""
    quick = QUICK.replace(grid=None, grid_rounds=1, grid_queries=1, grid_block_s=0.0)
    runs, failures = profile([engines_folder], out=tmp_path, plan=quick, meter="none")
    assert not failures
    cells = [
        (work.workload.batch, work.workload.length)
        for work in runs[0].workloads
        if work.workload.scenario == "grid"
    ]
    assert cells == [(1, 32), (8, 32), (32, 32)]


def test_an_engine_that_crashes_while_it_is_unloaded_is_reported(
    engines_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    real = WorkerClient.request

    def deadly(self: WorkerClient, action: str, **arguments: object) -> object:
        if action == "memory" and "int8" in self.name:
            os.kill(self.pid, signal.SIGKILL)
        return real(self, action, **arguments)

    monkeypatch.setattr(WorkerClient, "request", deadly)
    runs, failures = profile([engines_folder], out=tmp_path, plan=QUICK.replace(resident=1), meter="none")
    assert [run.name for run in runs] == ["tiny.fp32.onnxruntime"] and len(failures) == 1
    assert str(failures[0]) in " ".join(capsys.readouterr().err.split())


def test_the_same_rows_in_another_folder_have_the_same_digest(
    engines_folder: Path, rows_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(rows_folder.parent)
    plan = QUICK.replace(grid=())
    actual = [
        profile([engines_folder / "tiny.fp32.onnxruntime"], out=tmp_path, plan=plan, data_folder=folder,
                meter="none")[0][0].quality.source
        for folder in (rows_folder, Path(rows_folder.name))
    ]  # fmt: skip
    assert actual[0] == actual[1]


def test_a_truncated_answer_counts_as_a_crash(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("effx.profile.client._BOOT", "import sys; sys.stdout.write('{\"ok\": [1, 2')")
    with (
        WorkerClient("torn", timeout_s=20) as client,
        pytest.raises(WorkerError, match="the worker died during 'memory'"),
    ):
        client.request("memory")


def test_a_worker_that_does_not_read_is_stopped(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its pipe holds 64 KiB."""
    monkeypatch.setattr("effx.profile.client._BOOT", "import time; time.sleep(60)")
    started = time.monotonic()
    client = WorkerClient("deaf", timeout_s=0.5)
    with pytest.raises(WorkerError, match="no answer to 'open'"):
        client.request("open", texts=["x" * 1_000_000])
    client.close()
    assert time.monotonic() - started < 15


def test_a_hung_worker_is_stopped() -> None:
    with WorkerClient("sleepy", timeout_s=0.5) as client:
        os.kill(client.pid, signal.SIGSTOP)
        with pytest.raises(WorkerError, match="no answer to 'memory'"):
            client.request("memory")


def test_wrong_input_is_refused_before_anything_is_measured(engines_folder: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(UsageError, match="cannot write"):
        profile([engines_folder], out=tmp_path / "file", plan=QUICK)
    with pytest.raises(UsageError, match="these engines accept at most 66 tokens"):
        profile([engines_folder], out=tmp_path / "r", plan=MeasurementPlan(grid=((1, 512),)))
    with pytest.raises(DataError, match="nowhere does not exist"):
        profile([engines_folder], out=tmp_path / "r", plan=QUICK, data_folder=tmp_path / "nowhere")
    with pytest.raises(UsageError, match="expected the watts"):
        profile([engines_folder], out=tmp_path / "r", plan=QUICK, meter="model:lots")
    with pytest.raises(UsageError, match="Did you mean 'rapl'"):
        profile([engines_folder], out=tmp_path / "r", plan=QUICK, meter="rap")
    broken = Path(shutil.copytree(engines_folder / "tiny.fp32.onnxruntime", tmp_path / "e"))
    (broken / "model.onnx").write_bytes(b"")
    with pytest.raises(ArtifactError, match="truncated or changed"):
        profile([broken], out=tmp_path / "r", plan=QUICK)
    assert not list((tmp_path / "r").glob("*.json"))


def test_engines_of_every_kind_are_profiled_together(
    checkpoint: Checkpoint, engines_folder: Path, tmp_path: Path
) -> None:
    """A short fixed length leaves out the cells that it cannot run; the others measure them."""
    built, failures = export_all([checkpoint.folder], ["seq8", "buckets"], ["onnxruntime"], tmp_path / "e")
    more, also = export_all([checkpoint.folder], ["fp32"], ["openvino"], tmp_path / "e")
    assert not failures and not also and len(built + more) == 3
    runs, failed = profile([tmp_path / "e"], out=tmp_path / "r", plan=QUICK)
    assert not failed
    cells = {run.name: [result.workload.length for result in run.workloads] for run in runs}
    assert cells == {
        "tiny.seq8.onnxruntime": ["real", 8],
        "tiny.buckets.onnxruntime": ["real", 8, 16],
        "tiny.fp32.openvino": ["real", 8, 16],
    }
    report([tmp_path / "r"])
    assert "–" in (tmp_path / "r/report/index.html").read_text()


def test_a_damaged_result_is_named(results_folder: Path, tmp_path: Path) -> None:
    first = next(results_folder.glob("*.json"))
    (tmp_path / "a.json").write_text(first.read_text()[:500])
    with pytest.raises(ArtifactError, match=r"a.json cannot be read"):
        results.find([tmp_path])
    with pytest.raises(ArtifactError, match="no results"):
        results.find([tmp_path / "nowhere"])


def test_other_json_files_in_a_folder_are_ignored(
    results_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    first = next(results_folder.glob("*.json"))
    shutil.copy(first, tmp_path)
    other = tmp_path / "frontier.json"
    other.write_text('{"schema": 2, "frontiers": []}')
    assert [run.id for run in results.find([tmp_path])] == [first.stem]
    assert f"{other} is not a result: skipped" in capsys.readouterr().err
    with pytest.raises(ArtifactError, match=r"frontier.json is not a valid result"):
        results.find([other])  # it was named: it is to be one
    (tmp_path / first.name).unlink()
    with pytest.raises(ArtifactError, match="no results"):
        results.find([tmp_path])

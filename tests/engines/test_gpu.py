"""Tests that need a GPU: the real driver, runtimes and meters."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from effx import engines
from effx.artifacts import Checkpoint, Engine
from effx.engines import cuda
from effx.errors import DeviceError
from effx.export import export, export_all
from effx.profile import profile
from effx.specs.measurement import MeasurementPlan
from effx.specs.workloads import SINGLE_STREAM, grid
from tests.engines.drive_device import batch


def _missing() -> str | None:
    try:
        cuda.device()
    except DeviceError as error:
        return str(error)
    return None


REASON = _missing()
pytestmark = [pytest.mark.gpu, pytest.mark.skipif(REASON is not None, reason=str(REASON))]
BACKENDS = ["onnxruntime", "torch", "torch-compile", "tensorrt"]


def built(checkpoint: Checkpoint, variant: str, backend: str, out: Path) -> Engine:
    if backend == "tensorrt":
        pytest.importorskip("tensorrt", reason="TensorRT is not installed")
    if backend == "onnxruntime":
        import onnxruntime

        if "CUDAExecutionProvider" not in onnxruntime.get_available_providers():
            pytest.skip("this onnxruntime has no CUDA provider")
    return export(checkpoint.folder, variant, backend, out, device="cuda", keep_failed=True)


def test_memory_streams_events_and_graphs() -> None:
    device = cuda.device()
    memory = cuda.Memory(device)
    rng = np.random.default_rng(0)
    values = rng.standard_normal((6, 5, 3)).astype(np.float32)
    source = memory.array("source", values.shape, np.float32)
    target = memory.array("target", (4, 2, 3), np.float32)
    device.upload(source, values)
    rows = np.array([0, 1, 3, 5])
    device.copy_rows(target, source, rows)
    np.testing.assert_array_equal(device.download(target), values[rows, :2])
    before, after = device.event(), device.event()
    before.record()
    with device.capture() as graph:
        device.copy_rows(target, source, rows[::-1].copy())
    graph.launch()
    after.record()
    assert 0 < after.seconds_since(before) < 1
    np.testing.assert_array_equal(device.download(target), values[rows[::-1], :2])
    graph.close()


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("precision", ["fp32", "fp16"])
def test_engine_matches_the_cpu_engine(
    checkpoint: Checkpoint, tmp_path: Path, backend: str, precision: str
) -> None:
    engine = built(checkpoint, precision, backend, tmp_path)
    assert engine.manifest.parity.measured_on == "engine" and engine.manifest.parity.passed
    on_cpu = export(checkpoint.folder, "fp32", out=tmp_path)
    rng = np.random.default_rng(0)
    near = {"fp32": 1e-3, "fp16": 0.1}[precision]
    with engines.open(on_cpu, threads=1) as expected, engines.open(engine) as session:
        timer: Any = session
        for n, length in ((1, 7), (8, 16), (1, 7), (40, 30), (8, 16)):
            inputs = batch(rng, n, length)
            wanted = expected.infer(inputs)["logits"]
            assert np.abs(session.infer(inputs)["logits"] - wanted).max() < near
            seconds, again = timer.infer_timed(timer.upload(inputs))
            assert 0 < seconds < 5 and np.abs(again["logits"] - wanted).max() < near


def test_stripped_plan_is_small_and_matches_the_complete_plan(checkpoint: Checkpoint, tmp_path: Path) -> None:
    whole = built(checkpoint, "fp32", "tensorrt", tmp_path)
    bare = built(checkpoint, "stripped", "tensorrt", tmp_path)
    sizes = [(engine.folder / "model.plan").stat().st_size for engine in (whole, bare)]
    assert sizes[0] - sizes[1] > 0.7 * 4 * whole.manifest.parameters  # bytes of its weights in fp32
    inputs = batch(np.random.default_rng(0), 8, 16)
    with engines.open(whole) as one, engines.open(bare) as other:
        assert np.abs(one.infer(inputs)["logits"] - other.infer(inputs)["logits"]).max() < 1e-3


@pytest.mark.parametrize("backend", ["onnxruntime", "torch", "tensorrt"])
def test_early_exit_with_compaction_matches_the_cpu_engine(
    checkpoint: Checkpoint, tmp_path: Path, backend: str
) -> None:
    from effx.specs.exits import EarlyExitSettings
    from effx.train import exits

    settings = EarlyExitSettings.of(epochs=1, depth=2.0, rule="max-probability")
    exiting = exits.train(checkpoint.folder, out=tmp_path, name="te", settings=settings)
    engine, on_cpu = built(exiting, "exit", backend, tmp_path), export(exiting.folder, "exit", out=tmp_path)
    with engines.open(on_cpu, threads=1) as expected, engines.open(engine) as session:
        inputs = batch(np.random.default_rng(0), 64, 24)
        wanted, given = expected.infer(inputs), session.infer(inputs)
        assert len(set(wanted["depth"].tolist())) > 1
        assert np.mean(wanted["depth"] == given["depth"]) > 0.95
        same = wanted["depth"] == given["depth"]
        assert np.abs(wanted["logits"] - given["logits"])[same].max() < 1e-3


def test_profile_has_both_timings_energy_and_memory(checkpoint: Checkpoint, tmp_path: Path) -> None:
    created, failures = export_all([checkpoint.folder], ["fp16"], ["torch"], tmp_path / "e", device="cuda")
    assert created and not failures
    plan = MeasurementPlan(grid=((1, 16), (32, 16)), rounds=3, grid_rounds=3, window_s=2.0, windows=2)
    runs, failed = profile([tmp_path / "e"], out=tmp_path / "results", plan=plan)
    assert not failed
    run = runs[0]
    assert run.memory.device_peak_bytes and run.settings.device_memory_by
    assert 0 <= (run.host_overhead_share or 0) < 1
    assert run.workload(grid(32, 16).timed_on_device()) is not None
    single = run.workload(SINGLE_STREAM)
    assert single is not None and single.energy.source in ("counter", "integrated")
    assert json.loads(next((tmp_path / "results").glob("*.json")).read_bytes())["host"]["gpu"]

"""Engines on a GPU, without a GPU: the code of effx with a fake driver and runtime that use host memory.

tests/engines/fake has both. What runs on them is the code that runs on a GPU, unmodified: memory,
streams, events, recording, compaction. That the real ones behave likewise is for the ``gpu`` tests.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from effx import engines
from effx.artifacts import Engine
from effx.engines import on_device, sessions
from effx.engines.cuda import DeviceArray
from effx.errors import DeviceError, MissingExtraError

ROOT = Path(__file__).parents[2]
FAKE = Path(__file__).parent / "fake"
VARIANTS = ["fp32", "buckets", "seq16", "exit", "tokens", "exit+tokens", "exit+buckets"]


@pytest.fixture(scope="session")
def built(reduced_engines: dict[str, Engine]) -> list[Engine]:
    return [reduced_engines[variant] for variant in VARIANTS]


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    compiler = shutil.which("cc")
    if compiler is None:
        pytest.skip("no C compiler (cc) to build the fake driver")
    created = tmp_path_factory.mktemp("driver") / "libcuda.so.1"
    command = [
        compiler,
        "-shared",
        "-fPIC",
        "-O1",
        "-Wall",
        "-Werror",
        str(FAKE / "cuda.c"),
        "-o",
        str(created),
    ]
    subprocess.run(command, check=True)
    return created


def environment(library: Path, **more: str) -> dict[str, str]:
    paths = os.pathsep.join([str(FAKE), str(ROOT)])
    return {**os.environ, "LD_LIBRARY_PATH": str(library.parent), "PYTHONPATH": paths, **more}


@pytest.fixture(scope="module")
def result(library: Path, built: list[Engine], tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    command = [sys.executable, "-m", "tests.engines.drive_device", str(tmp_path_factory.mktemp("scratch"))]
    done = subprocess.run(
        [*command, *(str(engine.folder) for engine in built)],
        cwd=ROOT, env=environment(library), capture_output=True, text=True, timeout=300,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_answers_match_onnxruntime(result: dict[str, Any]) -> None:
    assert len(result["compared"]) == len(VARIANTS)
    for name, one in result["compared"].items():
        assert one["logits"] < 1e-5, name
        assert one["timed"] < 1e-6, name
        assert one["depth"] == 0, name
        assert one["described"]["cuda_graph"] is True and one["described"]["tf32"] is False
        if ".exit" in name:
            assert len(one["depths"]) > 1, f"{name}: nobody exits early, so nothing was compacted"
    described = result["compared"]["te.buckets.onnxruntime"]["described"]
    assert described["device"] == "Fake GPU"
    assert described["uuid"] == "GPU-00112233-4455-6677-8899-aabbccddeeff"


def test_cuda_libraries_are_loaded_from_the_python_path(library: Path, tmp_path: Path) -> None:
    """In a folder of packages that is on the path, without onnxruntime in it."""
    library_folder = tmp_path / "elsewhere/nvidia/cu13/lib"
    library_folder.mkdir(parents=True)
    shutil.copyfile(library, library_folder / "libcublas.so.13")
    code = (
        "from effx.engines import onnxruntime_cuda; onnxruntime_cuda.preload(); "
        "print(open('/proc/self/maps').read().count('libcublas.so.13') > 0)"
    )
    env = {**os.environ, "PYTHONPATH": os.pathsep.join([str(tmp_path / "elsewhere"), str(ROOT)])}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=env, check=True)
    assert done.stdout.splitlines()[-1] == "True"


def test_optimization_profile_covers_all_shapes(built: list[Engine]) -> None:
    from effx.engines import onnxruntime_cuda

    result = {engine.manifest.variant: engine for engine in built}
    reported = onnxruntime_cuda.optimization_profile(result["fp32"].folder / "model.onnx", 64, 512)
    names = ("input_ids", "attention_mask", "token_type_ids")
    for what, shape in (("min", "1x1"), ("opt", "8x64"), ("max", "512x64")):
        assert reported[f"trt_profile_{what}_shapes"] == ",".join(f"{name}:{shape}" for name in names)
    fixed = onnxruntime_cuda.optimization_profile(result["seq16"].folder / "model.onnx", 16, 512)
    assert fixed["trt_profile_min_shapes"].startswith("input_ids:1x16,")
    later = onnxruntime_cuda.optimization_profile(result["exit"].folder / "segment-1.onnx", 64, 512)
    assert "hidden:512x64x32" in later["trt_profile_max_shapes"].split(",")


def test_timed_run_is_queued_behind_another_run() -> None:
    """So that the work of the host before a launch is not included in the device's time."""
    reported: list[str] = []

    class Event:
        def __init__(self, name: str) -> None:
            self.name = name

        def record(self) -> None:
            reported.append(self.name)

        def seconds_since(self, other: Event) -> float:
            return 1.0

    class Device:
        def event(self) -> Event:
            return Event("event")

        def synchronize(self) -> None:
            reported.append("wait")

    class Graph:
        device = Device()

        def launch(self, inputs: Any) -> dict[str, Any]:
            reported.append("launch")
            return {}

    on_device.SingleOnDevice(Graph()).infer_timed({})  # type: ignore[arg-type]
    assert reported == ["wait", "launch", "event", "launch", "event"]


def test_profiles_and_data_dependent_outputs_match_onnxruntime(result: dict[str, Any]) -> None:
    profiles, growing = result["profiles"], result["data_dependent"]
    assert profiles["described"]["profiles"] == 3 and profiles["logits"] < 1e-5
    assert growing["logits"] < 1e-5 and growing["depth"] == 0 and len(growing["depths"]) > 1
    assert growing["described"]["cuda_graph"] is False
    assert growing["described"]["cuda_graph_reason"] == "the sizes of outputs depend on the data"


def test_stripped_plan_is_refitted_with_its_weights(result: dict[str, Any]) -> None:
    assert result["stripped"]["logits"] < 1e-5
    assert "does not accept the weights of gone.onnx: no such model" in result["errors"]["weights"]


def test_shape_is_recorded_once_and_replayed_afterwards(result: dict[str, Any]) -> None:
    first, replay = ["context", "queue", "run", "queue"], ["run"]
    # the second shape fits in the memory of the first, whose recording remains
    assert result["recorded"] == [first, replay, replay, first, replay, replay]


def test_hundreds_of_shapes_are_recorded_before_queries_are_timed(result: dict[str, Any]) -> None:
    """Rows of questions with their contexts have 343 shapes at 384 tokens."""
    many = result["many"]
    assert many["calls"] == {"run": 300} and many["logits"] < 1e-5
    assert (many["described"]["cuda_graph"], many["described"]["cuda_graph_reason"]) == (True, None)


def test_shapes_beyond_the_most_are_queued_and_reported(result: dict[str, Any]) -> None:
    """Nothing is recorded in a query, no context is made, and what was recorded stays."""
    many = result["too_many"]
    assert many["calls"] == {"run": 40, "queue run": 260} and many["logits"] < 1e-5
    assert many["described"]["cuda_graph"] is False
    reason = "only the first 40 input shapes were recorded, others run kernel by kernel"
    assert many["described"]["cuda_graph_reason"] == reason


@pytest.mark.parametrize("runtime", ["torch", "onnxruntime"])
def test_other_runtimes_report_shapes_beyond_the_most(runtime: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Their libraries need a GPU: what they record and run is replaced here."""
    monkeypatch.setattr(on_device, "MOST_SHAPES", 3)
    graph, calls = _without_a_library(runtime)
    shapes = [(1, length) for length in (9, 8, 7, 6, 5)]

    def launch(shape: tuple[int, int]) -> None:
        graph.launch({"input_ids": DeviceArray(1, shape, np.dtype(np.int64))})

    for shape in shapes[:3]:
        launch(shape)
    assert calls == ["record", "replay"] * 3
    assert graph.describe()["cuda_graph"] is True and graph.describe()["cuda_graph_reason"] is None
    calls.clear()
    for shape in shapes:
        launch(shape)
    assert calls == ["replay"] * 3 + ["run"] * 2
    assert graph.describe()["cuda_graph"] is False
    reason = "only the first 3 input shapes were recorded, others run kernel by kernel"
    assert graph.describe()["cuda_graph_reason"] == reason


def _without_a_library(runtime: str) -> tuple[Any, list[str]]:
    """Return a graph whose calls of its library are noted instead."""
    calls: list[str] = []
    session = SimpleNamespace(get_providers=list)
    fields: dict[str, Any] = {
        "device": SimpleNamespace(name="GPU", uuid="GPU-0", capability="sm90"),
        "_tf32": False, "_no_graph": None, "_left_out": False,
    }  # fmt: skip
    if runtime == "torch":
        from effx.engines.torch import TorchCudaGraph

        class Torch(TorchCudaGraph):
            def __init__(self) -> None:
                vars(self).update(fields, _names=["input_ids"], _compiled=False, _stream=None, _recorded={})

            def _record(self, key: Any, tensors: list[Any]) -> bool:
                calls.append("record")
                replay = SimpleNamespace(replay=lambda: calls.append("replay"))
                self._recorded[key] = replay, {}  # type: ignore[assignment]
                return True

            def _run(self, tensors: list[Any]) -> on_device.DeviceArrays:
                calls.append("run")
                return {}

        return Torch(), calls
    from effx.engines.onnxruntime_cuda import OnnxRuntimeCudaGraph

    class OnnxRuntime(OnnxRuntimeCudaGraph):
        def __init__(self) -> None:
            vars(self).update(
                fields, _inputs={"input_ids": np.dtype(np.int64)}, _shapes={}, _reallocations=0,
                _memory=SimpleNamespace(reallocations=0), _session=session,
            )  # fmt: skip

        def _record(self, key: Any, inputs: on_device.DeviceArrays) -> bool:
            calls.append("record")
            self._shapes[key] = 1, None, {}
            return True

        def _run(self, binding: Any, graph: str) -> None:
            calls.append("replay")

        def _run_unrecorded(self, inputs: on_device.DeviceArrays) -> on_device.DeviceArrays:
            calls.append("run")
            return {}

    return OnnxRuntime(), calls


def test_prepare_records_every_number_of_remaining_rows(result: dict[str, Any]) -> None:
    early = result["early"]
    assert len(early["sizes"]) > 4  # different numbers of rows remained after a ramp
    assert early["queued"] == [0] * 32


def test_prepare_of_padded_session_uses_padded_shapes() -> None:
    """The inner session is prepared; one run would not record the shapes after exits."""
    reported: list[tuple[int, ...]] = []

    class Session:
        def prepare(self, inputs: Any) -> None:
            reported.append(inputs["input_ids"].shape)

        def infer(self, inputs: Any) -> Any:
            raise AssertionError

    inputs = {"input_ids": np.ones((3, 13), np.int64), "attention_mask": np.ones((3, 13), np.int64)}
    padded = sessions.Padded(Session(), [8, 16], 0)  # type: ignore[arg-type]
    padded.prepare(inputs)
    assert reported == [(3, 16)]


@pytest.mark.parametrize(
    ("rows", "limit", "batch"),
    [(1, 9, 1), (5, 6, 6), (9, 128, 16), (33, 128, 48), (50, 128, 64), (70, 80, 80), (97, 512, 128)],
)
def test_batches_are_padded_to_few_sizes(rows: int, limit: int, batch: int) -> None:
    assert on_device._padded_batch(rows, limit) == batch


def test_profile_is_timed_end_to_end_and_on_the_device(result: dict[str, Any]) -> None:
    run = result["profiled"]
    timings: dict[tuple[str, int, Any], dict[str, float]] = {}
    for result in run["workloads"]:
        workload = result["workload"]
        key = (workload["scenario"], workload["batch"], workload["length"])
        timings.setdefault(key, {})[workload["timing"]] = result["statistics"]["latency_s"]["p50"]
    # up to what the plan holds of the grid for GPUs: no batch of 512, nothing longer than 64
    assert set(timings) == {("single-stream", 1, "real"), *(("grid", n, 32) for n in (1, 8, 32, 128))}
    for both in timings.values():
        assert set(both) == {"device", "end-to-end"} and both["device"] > 0
    assert 0 <= run["host_overhead_share"] < 1
    assert run["settings"]["runtime"]["details"]["cuda_graph"] is True
    agreed = next(gate for gate in run["gates"] if gate["name"] == "prediction-agreement")
    assert agreed["passed"]
    assert any(
        (gate["name"], gate["workload"]) == ("steady-rounds", "grid 8x32 device") for gate in run["gates"]
    )


@pytest.mark.usefixtures("without_gpu")
def test_device_memory_is_not_measured_without_nvml(result: dict[str, Any]) -> None:
    run = result["profiled"]
    assert run["memory"]["device_peak_bytes"] is None
    assert run["settings"]["device_memory_by"].startswith("not measured: NVML cannot be read")


def test_device_memory_is_freed(result: dict[str, Any]) -> None:
    assert result["left_bytes"] == 0


def test_incompatible_plan_is_refused_with_the_command_to_rebuild_it(result: dict[str, Any]) -> None:
    again = "Build it again on this machine: "
    again += "effx export CHECKPOINT --backend tensorrt-rtx --variant V --overwrite"
    errors = result["errors"]
    assert f"was built for tensorrt-rtx 1.7.1, this machine has 9.9.9. {again}" in errors["version"]
    assert (
        f"was built for compute capability sm120, this machine has sm89. {again} --device sm89"
        in errors["device"]
    )
    assert f"was built for GPU Another GPU, this machine has Fake GPU. {again}" in errors["model"]
    assert errors["damaged"].startswith("ArtifactError")
    assert "cannot be loaded by tensorrt-rtx: magic tag" in errors["damaged"]
    for name in ("batch", "length"):
        assert (
            errors[name].startswith("UsageError")
            and "no optimization profile of this plan accepts" in errors[name]
        )


def test_driver_without_a_device_is_reported(library: Path) -> None:
    code = "from effx.engines import cuda; cuda.device()"
    env = environment(library, FAKE_CUDA_NO_DEVICE="1")
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=env)
    assert "the GPU driver failed (cuInit: no CUDA-capable device is detected, error 100)" in done.stderr


@pytest.mark.usefixtures("without_gpu")
def test_every_backend_is_refused_without_a_gpu(built: list[Engine], tmp_path: Path) -> None:
    engine = built[0]
    settings = replace(engine.runtime, device="cuda")
    with pytest.raises(MissingExtraError, match="this onnxruntime was built without CUDAExecutionProvider"):
        engines.open_unchecked(engine.folder, "onnxruntime", settings)
    with pytest.raises((DeviceError, MissingExtraError), match="no NVIDIA driver|tensorrt_rtx is not"):
        engines.open_unchecked(engine.folder, "tensorrt-rtx", settings)
    with pytest.raises(
        MissingExtraError, match=r"tensorrt is not installed. Run: pip install 'effx\[tensorrt\]'"
    ):
        engines.open_unchecked(engine.folder, "tensorrt", settings)
    with pytest.raises((MissingExtraError, DeviceError), match="built without CUDA|no NVIDIA driver"):
        engines.open_unchecked(engine.folder, "torch", settings)

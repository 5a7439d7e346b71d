"""Model repositories, validated by Triton's schema in its client package."""

from __future__ import annotations

import importlib.util
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

from effx.artifacts import Checkpoint, Engine
from effx.cli import run
from effx.errors import UsageError
from effx.export import export, triton
from effx.export.foreign.importing import import_engine
from effx.host import cpu
from tests.export.foreign import graphs


@pytest.fixture(scope="module")
def schema() -> Any:
    """Return inference.ModelConfig without importing the client."""
    package = importlib.util.find_spec("tritonclient")
    assert package and package.submodule_search_locations
    file = Path(package.submodule_search_locations[0]) / "grpc" / "model_config_pb2.py"
    spec = importlib.util.spec_from_file_location("model_config_pb2", file)
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def parsed(schema: Any, folder: Path) -> Any:
    from google.protobuf import text_format

    return text_format.Parse((folder / "config.pbtxt").read_text(), schema.ModelConfig())


def test_configuration_matches_inputs_and_outputs_of_the_graph(
    schema: Any, engines_folder: Path, tmp_path: Path
) -> None:
    engine = Engine.open(engines_folder / "tiny.int8.onnxruntime")
    folder = triton.write(engine, tmp_path)
    config = parsed(schema, folder)
    graph = onnx.load(folder / "1" / "model.onnx").graph
    assert config.name == folder.name == "tiny.int8.onnxruntime"
    assert config.backend == "onnxruntime" and config.max_batch_size == 64
    assert config.HasField("dynamic_batching")
    for declared, actual in ((config.input, graph.input), (config.output, graph.output)):
        assert [entry.name for entry in declared] == [entry.name for entry in actual]
        for mine, theirs in zip(declared, actual, strict=True):
            kind = schema.DataType.Name(mine.data_type).removeprefix("TYPE_").replace("FP32", "FLOAT")
            assert kind == onnx.TensorProto.DataType.Name(theirs.type.tensor_type.elem_type)
            sizes = [dim.dim_value or -1 for dim in theirs.type.tensor_type.shape.dim]
            assert [-1, *mine.dims] == sizes  # the server counts the batch apart
    assert (folder / config.output[0].label_filename).read_text().split() == ["negative", "positive"]
    assert config.instance_group[0].kind == schema.ModelInstanceGroup.KIND_CPU


def test_openvino_engine_of_fixed_length(schema: Any, checkpoint: Checkpoint, tmp_path: Path) -> None:
    engine = export(checkpoint.folder, "seq16", "openvino", tmp_path / "engines")
    folder = triton.write(engine, tmp_path / "repository")
    config = parsed(schema, folder)
    assert sorted(path.name for path in (folder / "1").iterdir()) == ["model.bin", "model.xml"]
    assert config.backend == "openvino"
    assert [list(entry.dims) for entry in config.input] == [[16]] * 3
    assert not config.parameters


def test_a_graph_made_elsewhere_is_refused(tmp_path: Path) -> None:
    """Its logits may be in another order than the labels, which the host puts right."""
    graphs.write(tmp_path / "hub", id2label={"0": "POSITIVE", "1": "NEGATIVE"})
    rows = graphs.write_rows(tmp_path / "rows")
    engine = import_engine(tmp_path / "hub", "sst2", data_folder=rows, out=tmp_path / "engines")
    assert engine.runtime.interface is not None and engine.runtime.interface.label_order == (1, 0)
    with pytest.raises(UsageError, match="it was made elsewhere"):
        triton.write(engine, tmp_path / "repository")
    assert not (tmp_path / "repository").exists()


@pytest.mark.parametrize(("backend", "key"), [("onnxruntime", "intra_op_thread_count"),
                                              ("openvino", "INFERENCE_NUM_THREADS")])  # fmt: skip
def test_threads_and_bf16_are_parameters(
    backend: str, key: str, schema: Any, checkpoint: Checkpoint, tmp_path: Path
) -> None:
    engine = export(checkpoint.folder, "threads1", backend, tmp_path / "engines")
    config = parsed(schema, triton.write(engine, tmp_path / "repository"))
    assert {name: value.string_value for name, value in config.parameters.items()} == {key: "1"}
    if backend == "openvino" and cpu.has_bf16():
        engine = export(checkpoint.folder, "bf16", backend, tmp_path / "engines")
        config = parsed(schema, triton.write(engine, tmp_path / "repository"))
        assert {name: value.string_value for name, value in config.parameters.items()} == {"HINT_BF16": "YES"}


def test_what_the_server_computes_otherwise_is_told(
    checkpoint: Checkpoint, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    engines = [export(checkpoint.folder, "fp32", name, tmp_path) for name in ("onnxruntime", "openvino")]
    capsys.readouterr()
    assert not triton.write_all(engines, tmp_path / "repository")
    told = [line for line in capsys.readouterr().err.splitlines() if "in bf16" in line]
    assert len(told) == 1 and told[0].startswith("tiny.fp32.openvino: ")


def test_plan_lists_its_optimization_profiles(schema: Any, checkpoint: Checkpoint, tmp_path: Path) -> None:
    """A plan of TensorRT-RTX under TensorRT's name: their configurations of the server are the same."""
    pytest.importorskip("tensorrt_rtx", reason="TensorRT-RTX has no wheel for this system")
    built = export(checkpoint.folder, "buckets", "tensorrt-rtx", tmp_path / "engines", device="sm89")
    with pytest.raises(UsageError, match="Triton cannot run tensorrt-rtx engines"):
        triton.write(built, tmp_path / "repository")
    engine = Engine(built.folder, built.manifest.model_copy(update={"backend": "tensorrt"}), built.digest)
    folder = triton.write(engine, tmp_path / "repository")
    config = parsed(schema, folder)
    assert [path.name for path in (folder / "1").iterdir()] == ["model.plan"]  # the name it looks for
    assert config.backend == "tensorrt" and config.max_batch_size == 64
    group = config.instance_group[0]
    assert group.kind == schema.ModelInstanceGroup.KIND_GPU
    lengths = engine.runtime.lengths or ()
    assert engine.runtime.profile_batches == (16, 512) * len(lengths) and len(lengths) > 1
    # those that hold the server's largest batch, short to long
    assert list(group.profile) == [str(2 * number + 1) for number in range(len(lengths))]
    runtime = replace(engine.runtime, weight_files={"model.plan": "model.onnx"})
    stripped = replace(engine, manifest=engine.manifest.model_copy(update={"runtime": runtime}))
    with pytest.raises(UsageError, match="Triton cannot put weights back into a stripped plan"):
        triton.write(stripped, tmp_path / "repository")


def test_command_writes_engines_that_triton_can_run(
    checkpoint: Checkpoint, engines_copy: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["export", str(checkpoint.folder), "-o", str(engines_copy), "--triton", str(tmp_path)]
    assert run([*arguments, "--variant", "fp32"]) == 0
    assert (tmp_path / "tiny.fp32.onnxruntime" / "1" / "model.onnx").is_file()
    assert run([*arguments, "--backend", "torch", "-o", str(tmp_path / "engines")]) == 1
    assert (
        "Triton cannot run torch engines. Supported: onnxruntime, openvino, tensorrt."
        in capsys.readouterr().err
    )


def test_exit_if_is_written_and_segments_are_refused(
    schema: Any, tmp_path: Path, reduced_checkpoint: Checkpoint, reduced_engines: dict[str, Engine]
) -> None:
    nested = export(
        reduced_checkpoint.folder, "exit-if+int8-dynamic", out=tmp_path / "engines", keep_failed=True
    )
    folder = triton.write(nested, tmp_path / "repository")
    assert folder.name == "te.exit-if-int8-dynamic.onnxruntime"
    config = parsed(schema, folder)
    assert [entry.name for entry in config.output] == ["logits", "depth"]
    assert config.output[1].HasField("reshape") and list(config.output[1].reshape.shape) == []
    with pytest.raises(UsageError, match="export exit-if"):
        triton.write(reduced_engines["exit"], tmp_path / "repository")
    assert np.array([path.name for path in (tmp_path / "repository").iterdir()]).tolist() == [folder.name]

"""Constants that are folded before quantization, and quantized graphs of every family."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper

from effx.export import folding, graph, quantize
from effx.models import prune
from tests.conftest import CONFIGS
from tests.models import tiny

RNG = np.random.default_rng(0)
WEIGHT = RNG.normal(size=(6, 4)).astype(np.float32)
TABLE = RNG.normal(size=(5, 4)).astype(np.float32)


def shared() -> onnx.ModelProto:
    """x W' + sum over rows of (table W' as a Gemm): a weight with two readers, one of them constant."""
    nodes = [
        helper.make_node("Transpose", ["w"], ["turned"], perm=[1, 0]),
        helper.make_node("MatMul", ["x", "turned"], ["projected"]),
        helper.make_node("Gemm", ["table", "w"], ["positions"], transB=1),
        helper.make_node("ReduceSum", ["positions", "axes"], ["summed"], keepdims=0),
        helper.make_node("Add", ["projected", "summed"], ["y"]),
    ]
    values = [
        numpy_helper.from_array(WEIGHT, "w"),
        numpy_helper.from_array(TABLE, "table"),
        numpy_helper.from_array(np.array([0]), "axes"),
    ]
    inputs = [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["rows", 4])]
    outputs = [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["rows", 6])]
    made = helper.make_graph(nodes, "shared", inputs, outputs, values)
    return helper.make_model(made, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)


def run(model: onnx.ModelProto | Path, feed: dict[str, np.ndarray]) -> list[Any]:
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    source = str(model) if isinstance(model, Path) else model.SerializeToString()
    session = onnxruntime.InferenceSession(source, options, providers=["CPUExecutionProvider"])
    taken = {entry.name for entry in session.get_inputs()}
    return session.run(None, {name: array for name, array in feed.items() if name in taken})


def test_nodes_that_do_not_depend_on_the_input_are_folded() -> None:
    model = shared()
    x = RNG.normal(size=(3, 4)).astype(np.float32)
    assert folding.fold(model) == 3
    assert [node.op_type for node in model.graph.node] == ["MatMul", "Add"]
    assert sorted(entry.name for entry in model.graph.initializer) == ["summed", "turned"]
    np.testing.assert_allclose(run(model, {"x": x})[0], x @ WEIGHT.T + (TABLE @ WEIGHT.T).sum(0), rtol=1e-5)
    assert folding.fold(model) == 0


def test_a_gemm_gets_weights_of_its_own() -> None:
    model = shared()
    folding.separate_gemm_weights(model)
    gemm = next(node for node in model.graph.node if node.op_type == "Gemm")
    others = {name for node in model.graph.node if node is not gemm for name in node.input}
    assert gemm.input[1] not in others
    x = RNG.normal(size=(3, 4)).astype(np.float32)
    np.testing.assert_allclose(run(model, {"x": x})[0], run(shared(), {"x": x})[0], rtol=1e-6)


@pytest.mark.parametrize("scheme", ["dynamic", "static"])
@pytest.mark.parametrize("family", CONFIGS)
def test_quantized_graphs_answer_as_the_model_does(family: str, scheme: str, tmp_path: Path) -> None:
    """With heads removed, so that matrices are not square: a transposed one would not fit."""
    model = tiny.model(family, layers=2, heads=4, head_size=16, neurons=96)
    prune(model, heads={0: [1], 1: [0, 3]})
    graph.write(model, tmp_path / "model.onnx")
    arrays = tiny.inputs(model, [30, 17, 5, 24, 9, 12])
    feed = {name: array.numpy() for name, array in arrays.items()}
    if scheme == "dynamic":
        quantize.dynamic(tmp_path / "model.onnx", tmp_path / "int8.onnx")
    else:
        quantize.static(tmp_path / "model.onnx", tmp_path / "int8.onnx", [feed])
    with torch.inference_mode():
        expected = model(**arrays).logits.numpy()
    found = run(tmp_path / "int8.onnx", feed)[0]
    assert np.abs(found - expected).mean() < 0.1 * np.abs(expected).mean()

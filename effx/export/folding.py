"""Constant folding in a traced ONNX graph, before it is quantized.

DeBERTa projects its table of positions with the weights that also project the tokens. The exporter writes
these projections, which do not depend on the input, as nodes, and the shared weights as one initializer with
a Transpose for one of the products. ONNX Runtime folds such nodes when it loads an fp32 graph, but its
quantizer sees them as they are written: it would compute the projections for every query, and where it turns
a Gemm into a MatMul, it transposes the shared initializer for all its readers, which changes the answers.
"""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import onnx
import onnxruntime
from onnx import numpy_helper

from effx.export import graph

_ERRORS_ONLY = 3
_NOT_FOLDED = ("Constant", "RandomNormal", "RandomUniform", "RandomNormalLike", "RandomUniformLike")


def fold(model: onnx.ModelProto) -> int:
    """Replace nodes whose inputs are all constant by initializers, in place; return how many nodes.

    Nodes in the branches of an If stay as they are, and so do nodes with branches.
    """
    outer = model.graph
    constants = {entry.name for entry in outer.initializer}
    constants |= {node.output[0] for node in outer.node if node.op_type == "Constant"}
    folded = []
    for node in outer.node:  # in topological order
        if node.op_type in _NOT_FOLDED or not node.input or any(
            attribute.type in (onnx.AttributeProto.GRAPH, onnx.AttributeProto.GRAPHS)
            for attribute in node.attribute
        ):  # fmt: skip
            continue
        if all(name in constants for name in node.input if name):
            folded.append(node)
            constants.update(node.output)
    if not folded:
        return 0
    produced = {name for node in folded for name in node.output if name}
    gone = {id(node) for node in folded}
    read = {
        name
        for inner in graph.graphs(outer)
        for node in inner.node
        if id(node) not in gone
        for name in node.input
    } | {entry.name for inner in graph.graphs(outer) for entry in inner.output}
    wanted = sorted(produced & read)
    values = _evaluated(model, folded, wanted)
    kept = [node for node in outer.node if id(node) not in gone]
    del outer.node[:]
    outer.node.extend(kept)
    left = [entry for entry in outer.initializer if entry.name in read]
    del outer.initializer[:]
    outer.initializer.extend([*left, *values])
    return len(folded)


def write(source: Path, folder: Path) -> Path:
    """Write a graph with its constants folded to a new folder; return its path, or ``source`` as it was."""
    model = onnx.load(source)
    if not fold(model):
        return source
    folder.mkdir()
    graph.save(model, folder / source.name)
    return folder / source.name


def separate_gemm_weights(model: onnx.ModelProto) -> None:
    """Give each Gemm of the outer graph an initializer of its own, in place."""
    outer = model.graph
    readers = Counter(name for inner in graph.graphs(outer) for node in inner.node for name in node.input)
    initializers = {entry.name: entry for entry in outer.initializer}
    for number, node in enumerate(outer.node):
        if node.op_type != "Gemm" or readers[node.input[1]] < 2 or node.input[1] not in initializers:
            continue
        copied = onnx.TensorProto()
        copied.CopyFrom(initializers[node.input[1]])
        copied.name = f"{copied.name}_of_gemm_{number}"
        outer.initializer.append(copied)
        node.input[1] = copied.name


def _evaluated(
    model: onnx.ModelProto, nodes: list[onnx.NodeProto], wanted: list[str]
) -> list[onnx.TensorProto]:
    """Run nodes without inputs, and return their outputs of these names."""
    if not wanted:
        return []
    read = {name for node in nodes for name in node.input}
    part = onnx.helper.make_graph(
        [node for node in model.graph.node if node.op_type == "Constant" and node.output[0] in read] + nodes,
        "constants",
        [],
        [onnx.helper.make_empty_tensor_value_info(name) for name in wanted],
        [entry for entry in model.graph.initializer if entry.name in read],
    )
    whole = onnx.helper.make_model(part, opset_imports=model.opset_import, ir_version=model.ir_version)
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.log_severity_level = _ERRORS_ONLY
    session = onnxruntime.InferenceSession(
        whole.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
    return [
        numpy_helper.from_array(value, name)
        for name, value in zip(wanted, session.run(wanted, {}), strict=True)
    ]

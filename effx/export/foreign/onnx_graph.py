"""Read an ONNX file that was made elsewhere."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import external_data_helper

from effx.errors import ArtifactError, one_line
from effx.export.foreign.facts import Arithmetic, GraphFacts, TensorFacts
from effx.export.foreign.location import check_regular, check_size

_INTEGER_DYNAMIC = ("MatMulInteger", "DynamicQuantizeMatMul", "MatMulIntegerToFloat", "QAttention")
_INTEGER_STATIC = ("QLinearMatMul", "QGemm")
_PACKED = {"MatMulNBits": "int4-weights", "MatMulBnb4": "int4-weights"}
_FLOATS = {
    onnx.TensorProto.FLOAT: "fp32",
    onnx.TensorProto.FLOAT16: "fp16",
    onnx.TensorProto.BFLOAT16: "bf16",
}
_WEIGHTS = {*_FLOATS, onnx.TensorProto.INT8, onnx.TensorProto.UINT8, onnx.TensorProto.INT4,
            onnx.TensorProto.UINT4}  # fmt: skip
_VIEWS = ("Transpose", "Reshape", "Cast", "Identity", "Squeeze", "Unsqueeze")
_LARGEST_ONNX_BYTES = 2 << 30
"""Protobuf's limit."""
_MOST_NODES = 1_000_000
_MOST_ELEMENTS = 1 << 40
_MOST_CASTS = 8


@dataclass(frozen=True)
class _GraphNodes:
    """A graph's nodes, those in branches of If and Loop among them."""

    nodes: tuple[onnx.NodeProto, ...]
    produced: dict[str, onnx.NodeProto]
    """Value -> the node that computes it."""
    weights: dict[str, onnx.TensorProto]
    """Value -> the constant that it is."""


def read(path: Path) -> GraphFacts:
    """Return what a graph takes, gives and computes.

    Raises:
        ArtifactError: the file is not ONNX or too large, or its weights are in files that are missing, or are
            not regular files in its folder.
    """
    if path.stat().st_size > _LARGEST_ONNX_BYTES:
        raise ArtifactError(f"{path} is not an ONNX file: it has more than {_LARGEST_ONNX_BYTES:,} bytes.")
    try:
        model = onnx.load(path, load_external_data=False)
    except Exception as error:  # protobuf's and onnx's errors have no common base
        raise ArtifactError(f"{path} is not an ONNX file: {one_line(error)}") from error
    if not model.graph.node:
        raise ArtifactError(f"{path} is not an ONNX file: it has no nodes.")
    files = (path.name, *_external_files(path, model))
    check_size(path, files)
    graph = _read_nodes(path, model.graph)
    kinds, elements = _products(graph)
    inputs = tuple(_tensor(entry) for entry in model.graph.input if entry.name not in graph.weights)
    return GraphFacts(
        inputs=inputs,
        outputs=tuple(
            replace(_tensor(entry), computed_by=_operation(entry.name, graph)) for entry in model.graph.output
        ),
        arithmetic=_arithmetic(kinds),
        parameters=sum(_size(entry) for entry in graph.weights.values() if entry.data_type in _WEIGHTS),
        weights_per_token=elements,
        embedding_rows=_embedding_rows(graph, {entry.name for entry in inputs}),
        producer=f"{model.producer_name} {model.producer_version}".strip(),
        files=files,
    )


def _external_files(path: Path, model: onnx.ModelProto) -> list[str]:
    """Return the files that hold weights, relative to the graph's folder, each checked."""
    names: dict[str, None] = {}
    for tensor in _tensors(model):
        if external_data_helper.uses_external_data(tensor):
            try:
                location = external_data_helper.ExternalDataInfo(tensor).location
            except (ValueError, AttributeError) as error:
                raise ArtifactError(f"{path}: weights in other files: {one_line(error)}") from error
            names[location] = None
    for name in names:
        check_regular(path, name)
    return list(names)


def _tensors(model: onnx.ModelProto) -> Iterator[onnx.TensorProto]:
    """Yield every tensor of a model, wherever it is: in graphs, attributes, functions, sparse tensors."""
    pending: list[Any] = [model]
    while pending:
        part = pending.pop()
        if isinstance(part, onnx.TensorProto):
            yield part
            continue
        for field, value in part.ListFields():
            if field.message_type is not None:
                pending.extend([value] if hasattr(value, "ListFields") else value)


def _read_nodes(path: Path, graph: onnx.GraphProto) -> _GraphNodes:
    """Return a graph's nodes and constants.

    Raises:
        ArtifactError: there are too many nodes, or a constant's dimensions are wrong.
    """
    graphs = list(_graphs(graph))
    nodes = tuple(node for inner in graphs for node in inner.node)
    if len(nodes) > _MOST_NODES:
        raise ArtifactError(f"{path}: expected at most {_MOST_NODES:,} nodes, got {len(nodes):,}.")
    weights = {entry.name: entry for inner in graphs for entry in inner.initializer}
    for node in nodes:
        for attribute in node.attribute:
            if node.op_type == "Constant" and attribute.name == "value" and node.output:
                weights[node.output[0]] = attribute.t
    for name, tensor in weights.items():
        if any(size < 0 for size in tensor.dims) or _size(tensor) > _MOST_ELEMENTS:
            raise ArtifactError(f"{path}: the constant {name} has the dimensions {list(tensor.dims)}.")
    return _GraphNodes(nodes, {output: node for node in nodes for output in node.output}, weights)


def _products(graph: _GraphNodes) -> tuple[dict[str, int], int]:
    """Return how many products with weights are computed how, and how many elements their weights have."""
    kinds: dict[str, int] = {}
    elements = 0
    for node in graph.nodes:
        kind, tensor = _product(node, graph)
        if kind is not None:
            kinds[kind] = kinds.get(kind, 0) + 1
            elements += 0 if tensor is None else _size(tensor)
    return kinds, elements


def _arithmetic(kinds: dict[str, int]) -> Arithmetic:
    """Return the arithmetic of the products with weights.

    ONNX Runtime's CPU provider has no matrix products in fp16 and bf16: it casts, and computes in fp32.
    """
    products = sum(kinds.values())
    integer = sum(count for kind, count in kinds.items() if kind in ("int8-dynamic", "int8-static"))
    if 2 * integer > products:
        scheme = max(("int8-dynamic", "int8-static"), key=lambda kind: kinds.get(kind, 0))
        return Arithmetic("int8", scheme, products, integer)
    scheme = max(kinds, key=lambda kind: kinds[kind], default="fp32")
    if scheme in ("fp16", "bf16"):
        scheme = f"{scheme}-weights"
    return Arithmetic("fp32", scheme, products, integer)


def _product(node: onnx.NodeProto, graph: _GraphNodes) -> tuple[str | None, onnx.TensorProto | None]:
    """Return how a matrix product with weights is computed, and its weights; None: it is not one."""
    if node.op_type in _PACKED and len(node.input) > 1:
        return _PACKED[node.op_type], graph.weights.get(node.input[1])
    if node.op_type in (*_INTEGER_DYNAMIC, *_INTEGER_STATIC):
        candidates = [_source(name, graph)[0] for name in node.input]
        matrices = [tensor for tensor in candidates if tensor is not None and len(tensor.dims) == 2]
        if not matrices:
            return None, None
        return "int8-dynamic" if node.op_type in _INTEGER_DYNAMIC else "int8-static", matrices[0]
    if node.op_type not in ("MatMul", "Gemm", "FusedMatMul") or len(node.input) < 2:
        return None, None
    tensor, quantized = _source(node.input[1], graph)
    if tensor is None:
        return None, None
    if not quantized:
        return _FLOATS.get(tensor.data_type, "fp32"), tensor
    activation = graph.produced.get(node.input[0])
    static = activation is not None and activation.op_type == "DequantizeLinear"
    return "int8-static" if static else "int8-weights", tensor


def _source(name: str, graph: _GraphNodes) -> tuple[onnx.TensorProto | None, bool]:
    """Return the constant that a value is made of, and whether it is dequantized on the way."""
    quantized, seen = False, set[str]()
    while name not in graph.weights:
        node = graph.produced.get(name)
        if node is None or node.op_type not in (*_VIEWS, "DequantizeLinear"):
            return None, quantized
        if name in seen or not node.input:
            return None, quantized
        seen.add(name)
        quantized = quantized or node.op_type == "DequantizeLinear"
        name = node.input[0]
    return graph.weights[name], quantized


def _operation(name: str, graph: _GraphNodes) -> str:
    """Return the operation whose values an output has, views and casts left out; empty: there is none."""
    seen = set[str]()
    while (node := graph.produced.get(name)) is not None and node.op_type in _VIEWS and node.input:
        if name in seen:
            return ""
        seen.add(name)
        name = node.input[0]
    return "" if node is None else str(node.op_type)


def _embedding_rows(graph: _GraphNodes, inputs: set[str]) -> dict[str, int]:
    """Return input -> rows of the embedding that its values select, where the graph has one."""
    rows: dict[str, int] = {}
    for node in graph.nodes:
        if node.op_type != "Gather" or len(node.input) < 2:
            continue
        table, _ = _source(node.input[0], graph)
        selected = node.input[1]
        for _ in range(_MOST_CASTS):
            before = graph.produced.get(selected)
            if before is None or before.op_type not in ("Cast", "Identity") or not before.input:
                break
            selected = before.input[0]
        if table is not None and table.dims and selected in inputs:
            rows[selected] = min(table.dims[0], rows.get(selected, table.dims[0]))
    return rows


def _tensor(entry: onnx.ValueInfoProto) -> TensorFacts:
    kind = entry.type.tensor_type
    try:
        dtype = np.dtype(onnx.helper.tensor_dtype_to_np_dtype(kind.elem_type)).name
    except (KeyError, TypeError, ValueError):
        dtype = "unknown"
    if not kind.HasField("shape"):
        return TensorFacts(entry.name, dtype, None)
    sizes = [axis.dim_value if axis.HasField("dim_value") and axis.dim_value > 0 else None
             for axis in kind.shape.dim]  # fmt: skip
    return TensorFacts(entry.name, dtype, tuple(sizes))


def _size(tensor: onnx.TensorProto) -> int:
    return math.prod(tensor.dims)


def _graphs(graph: onnx.GraphProto) -> Iterator[onnx.GraphProto]:
    """Yield a graph and those in the branches of its nodes."""
    yield graph
    for node in graph.node:
        for attribute in node.attribute:
            if attribute.HasField("g"):
                yield from _graphs(attribute.g)
            for inner in attribute.graphs:
                yield from _graphs(inner)

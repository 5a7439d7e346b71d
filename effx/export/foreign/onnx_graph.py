"""Read an ONNX file that was made elsewhere."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import onnx
from onnx import external_data_helper

from effx.errors import ArtifactError
from effx.export.foreign.facts import Arithmetic, GraphFacts, TensorFacts

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


def read(path: Path) -> GraphFacts:
    """Return what a graph takes, gives and computes.

    Raises:
        ArtifactError: the file is not ONNX, or its weights are in files that are missing, or are not regular
            files in its folder.
    """
    try:
        model = onnx.load(path, load_external_data=False)
    except Exception as error:  # protobuf's and onnx's errors have no common base
        raise ArtifactError(f"{path} is not an ONNX file: {' '.join(str(error).split())[:200]}") from error
    if not model.graph.node:
        raise ArtifactError(f"{path} is not an ONNX file: it has no nodes.")
    graph = model.graph
    weights = {entry.name: entry for inner in _graphs(graph) for entry in inner.initializer}
    for node in _nodes(graph):
        for attribute in node.attribute:
            if node.op_type == "Constant" and attribute.name == "value":
                weights[node.output[0]] = attribute.t
    return GraphFacts(
        inputs=tuple(_tensor(entry) for entry in graph.input if entry.name not in weights),
        outputs=tuple(_tensor(entry) for entry in graph.output),
        **_computed(graph, weights),  # type: ignore[arg-type]
        parameters=sum(_size(entry) for entry in weights.values() if entry.data_type in _WEIGHTS),
        producer=f"{model.producer_name} {model.producer_version}".strip(),
        files=(path.name, *_external_files(path, graph)),
    )


def _external_files(path: Path, graph: onnx.GraphProto) -> list[str]:
    """Return the files that hold weights, relative to the graph's folder, each checked."""
    names: dict[str, None] = {}
    tensors = [entry for inner in _graphs(graph) for entry in inner.initializer]
    tensors += [
        attribute.t for node in _nodes(graph) for attribute in node.attribute if attribute.HasField("t")
    ]
    for tensor in tensors:
        if not external_data_helper.uses_external_data(tensor):
            continue
        location = external_data_helper.ExternalDataInfo(tensor).location
        names[location] = None
    for name in names:
        file = path.parent / name
        if not name or Path(name).is_absolute() or "\\" in name or ".." in Path(name).parts:
            raise ArtifactError(f"{path}: its weights are at '{name}', which is not a file in its folder.")
        if not file.exists():
            raise ArtifactError(f"{path}: {name}, which has its weights, is missing.")
        if file.is_symlink() or not file.is_file() or path.parent.resolve() not in file.resolve().parents:
            raise ArtifactError(
                f"{path}: {name}, which has its weights, is not a regular file in its folder: copy it there."
            )
    return list(names)


def _computed(graph: onnx.GraphProto, weights: dict[str, onnx.TensorProto]) -> dict[str, Arithmetic | int]:
    """Return the arithmetic of the products with weights, and how many weights they have."""
    produced = {output: node for node in _nodes(graph) for output in node.output}
    kinds: dict[str, int] = {}
    elements = 0
    for node in _nodes(graph):
        kind, tensor = _product(node, produced, weights)
        if kind is not None:
            kinds[kind] = kinds.get(kind, 0) + 1
            elements += 0 if tensor is None else _size(tensor)
    products = sum(kinds.values())
    integer = sum(count for kind, count in kinds.items() if kind in ("int8-dynamic", "int8-static"))
    scheme = max(kinds, key=lambda kind: kinds[kind], default="fp32")
    if 2 * integer > products:
        scheme = max(("int8-dynamic", "int8-static"), key=lambda kind: kinds.get(kind, 0))
    precision = "int8" if 2 * integer > products else scheme if scheme in _FLOATS.values() else "fp32"
    return {
        "arithmetic": Arithmetic(precision, scheme, products, integer),
        "weights_per_token": elements,
    }


def _product(
    node: onnx.NodeProto, produced: dict[str, onnx.NodeProto], weights: dict[str, onnx.TensorProto]
) -> tuple[str | None, onnx.TensorProto | None]:
    """Return how a matrix product with weights is computed, and its weights; None: it is not one."""
    if node.op_type in _PACKED:
        return _PACKED[node.op_type], weights.get(node.input[1])
    if node.op_type in (*_INTEGER_DYNAMIC, *_INTEGER_STATIC):
        candidates = [_source(name, produced, weights)[0] for name in node.input]
        matrices = [tensor for tensor in candidates if tensor is not None and len(tensor.dims) == 2]
        if not matrices:
            return None, None
        return "int8-dynamic" if node.op_type in _INTEGER_DYNAMIC else "int8-static", matrices[0]
    if node.op_type not in ("MatMul", "Gemm", "FusedMatMul"):
        return None, None
    tensor, quantized = _source(node.input[1], produced, weights)
    if tensor is None:
        return None, None
    if not quantized:
        return _FLOATS.get(tensor.data_type, "fp32"), tensor
    activation = produced.get(node.input[0])
    static = activation is not None and activation.op_type == "DequantizeLinear"
    return "int8-static" if static else "int8-weights", tensor


def _source(
    name: str, produced: dict[str, onnx.NodeProto], weights: dict[str, onnx.TensorProto]
) -> tuple[onnx.TensorProto | None, bool]:
    """Return the constant that a value is made of, and whether it is dequantized on the way."""
    quantized = False
    while name not in weights:
        node = produced.get(name)
        if node is None or node.op_type not in (*_VIEWS, "DequantizeLinear"):
            return None, quantized
        quantized = quantized or node.op_type == "DequantizeLinear"
        name = node.input[0]
    return weights[name], quantized


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
    return int(np.prod(tensor.dims, dtype=np.int64))


def _graphs(graph: onnx.GraphProto) -> Iterator[onnx.GraphProto]:
    """Yield a graph and those in the branches of its nodes."""
    yield graph
    for node in graph.node:
        for attribute in node.attribute:
            if attribute.HasField("g"):
                yield from _graphs(attribute.g)


def _nodes(graph: onnx.GraphProto) -> Iterator[onnx.NodeProto]:
    for inner in _graphs(graph):
        yield from inner.node

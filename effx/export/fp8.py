"""fp8 (E4M3) graphs from calibrated int8 ones: the same Q/DQ pairs, ranges and weights in the other type.

An int8 scale is range / 127; E4M3 ends at 448 (Micikevicius et al. 2022, arXiv 2209.05433, table 1),
so its scale is range / 448. Weights are rounded again from the fp32 graph, per output channel.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import numpy_helper

LARGEST = 448.0
_INT8_LARGEST = 127.0
_WEIGHT = "_quantized"


def from_int8(path: Path, original: Path) -> None:
    """Rewrite a symmetric int8 Q/DQ graph in place.

    Args:
        path: a graph written by :func:`effx.export.quantize.static` with ``symmetric``.
        original: its fp32 graph, whose weights have the same names.
    """
    import ml_dtypes

    model = onnx.load(path)
    constants = {entry.name: entry for entry in model.graph.initializer}
    weights = {entry.name: entry for entry in onnx.load(original).graph.initializer}
    pairs = [node for node in model.graph.node if node.op_type in ("QuantizeLinear", "DequantizeLinear")]
    scales: dict[str, float] = {}
    replaced: dict[str, onnx.TensorProto] = {}
    for node in pairs:
        if node.op_type == "DequantizeLinear" and node.input[0] in constants:
            name, axis = node.input[0], _axis(node)
            full = numpy_helper.to_array(weights[name.removesuffix(_WEIGHT)]).astype(np.float32)
            scale = numpy_helper.to_array(constants[node.input[1]])
            others = tuple(other for other in range(full.ndim) if other != axis) if scale.ndim else None
            scales_of_weight = np.maximum(np.abs(full).max(axis=others), 1e-12).astype(
                np.float32
            ) / np.float32(LARGEST)
            broadcast = scales_of_weight
            if broadcast.ndim:
                broadcast = broadcast.reshape([-1 if other == axis else 1 for other in range(full.ndim)])
            rounded = (full / broadcast).astype(ml_dtypes.float8_e4m3fn)
            replaced[name] = _tensor(name, rounded)
            replaced[node.input[1]] = numpy_helper.from_array(
                scales_of_weight.reshape(scale.shape), node.input[1]
            )
        else:
            scales[node.input[1]] = _INT8_LARGEST / LARGEST
        if len(node.input) > 2:
            zero = numpy_helper.to_array(constants[node.input[2]])
            replaced[node.input[2]] = _tensor(node.input[2], np.zeros(zero.shape, ml_dtypes.float8_e4m3fn))
    for name, factor in scales.items():
        if name not in replaced:
            value = numpy_helper.to_array(constants[name])
            replaced[name] = numpy_helper.from_array((value * np.float32(factor)).astype(value.dtype), name)
    initializers = [replaced.get(entry.name, entry) for entry in model.graph.initializer]
    del model.graph.initializer[:]
    model.graph.initializer.extend(initializers)
    del model.graph.value_info[:]
    onnx.save(model, path)


def _axis(node: onnx.NodeProto) -> int:
    return next((int(attribute.i) for attribute in node.attribute if attribute.name == "axis"), 1)


def _tensor(name: str, values: Any) -> onnx.TensorProto:
    return onnx.helper.make_tensor(
        name, onnx.TensorProto.FLOAT8E4M3FN, values.shape, values.tobytes(), raw=True
    )

"""Read an OpenVINO IR (.xml with its .bin) that was made elsewhere."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import openvino

from effx.errors import ArtifactError, one_line
from effx.export.foreign.facts import Arithmetic, GraphFacts, TensorFacts
from effx.export.foreign.location import check_regular, check_size

_DTYPES = {"f32": "float32", "f16": "float16", "bf16": "bfloat16", "i64": "int64", "i32": "int32",
           "i8": "int8", "u8": "uint8", "boolean": "bool"}  # fmt: skip
_LOW_BITS = {"i8": "int8-weights", "u8": "int8-weights", "i4": "int4-weights", "u4": "int4-weights",
             "nf4": "int4-weights"}  # fmt: skip
_HALVES = {"f16": "fp16-weights", "bf16": "bf16-weights"}
_WEIGHTS = {"f32", "f16", "bf16", *_LOW_BITS}
_VIEWS = ("Convert", "Transpose", "Reshape", "Multiply", "Subtract", "Squeeze", "Unsqueeze")
"""Between a constant and its product: conversion, and decompression by scale and zero point."""
_SAME_VALUES = ("Result", "Identity", "Convert", "Transpose", "Reshape", "Squeeze", "Unsqueeze")
"""Between an output and the operation that computes its values."""


def read(path: Path) -> GraphFacts:
    """Return what a graph takes, gives and computes.

    Raises:
        ArtifactError: the .bin is missing or not a regular file, or OpenVINO cannot read the graph.
    """
    weights = path.with_suffix(".bin").name
    check_regular(path, weights)
    check_size(path, (path.name, weights))
    try:
        model = openvino.Core().read_model(path)
    except RuntimeError as error:
        raise ArtifactError(f"{path} cannot be read: {one_line(error)}") from error
    kinds: dict[str, int] = {}
    parameters = elements = 0
    for node in model.get_ops():
        if node.get_type_name() == "Constant" and node.get_element_type().get_type_name() in _WEIGHTS:
            parameters += _size(node)
        if node.get_type_name() == "MatMul":
            constant, quantized = _source(node.input_value(1).get_node())
            if constant is not None:
                elements += _size(constant)
                kind = _kind(constant, quantized, node.input_value(0).get_node())
                kinds[kind] = kinds.get(kind, 0) + 1
    products, integer = sum(kinds.values()), kinds.get("int8-static", 0)
    scheme = "int8-static" if 2 * integer > products else max(kinds, key=lambda k: kinds[k], default="fp32")
    precision = "int8" if scheme == "int8-static" else "fp32"
    return GraphFacts(
        inputs=tuple(_tensor(entry) for entry in model.inputs),
        outputs=tuple(replace(_tensor(entry), computed_by=_operation(entry)) for entry in model.outputs),
        arithmetic=Arithmetic(precision, scheme, products, integer),
        parameters=parameters,
        weights_per_token=elements,
        embedding_rows=_embedding_rows(model),
        producer=_producer(model),
        files=(path.name, weights),
    )


def _operation(output: Any) -> str:
    """Return the operation whose values an output of the model has, views and casts left out."""
    node = output.get_node()
    while node.get_type_name() in _SAME_VALUES:
        node = node.input_value(0).get_node()
    return str(node.get_type_name())


def _embedding_rows(model: Any) -> dict[str, int]:
    """Return input -> rows of the embedding that its values select, where the graph has one."""
    rows: dict[str, int] = {}
    for node in model.get_ops():
        if node.get_type_name() != "Gather":
            continue
        table, _ = _source(node.input_value(0).get_node())
        selected = node.input_value(1).get_node()
        while selected.get_type_name() == "Convert":
            selected = selected.input_value(0).get_node()
        if table is not None and selected.get_type_name() == "Parameter" and list(table.get_output_shape(0)):
            name, size = _name(selected.output(0)), int(table.get_output_shape(0)[0])
            rows[name] = min(size, rows.get(name, size))
    return rows


def _source(node: Any) -> tuple[Any | None, bool]:
    """Return the constant that a value is made of, and whether it passes a FakeQuantize on the way."""
    quantized = False
    while node.get_type_name() != "Constant":
        if node.get_type_name() not in (*_VIEWS, "FakeQuantize"):
            return None, quantized
        quantized = quantized or node.get_type_name() == "FakeQuantize"
        node = node.input_value(0).get_node()
    return node, quantized


def _kind(constant: Any, quantized: bool, activation: Any) -> str:
    """Return how a product with weights is computed."""
    while activation.get_type_name() in ("Reshape", "Transpose"):
        activation = activation.input_value(0).get_node()
    stored = constant.get_element_type().get_type_name()
    low = _LOW_BITS.get(stored)
    if activation.get_type_name() == "FakeQuantize" and (quantized or low):
        return "int8-static"
    # constants in half precision are decompressed: the plugin computes in the precision of its hint
    return low or _HALVES.get(stored, "fp32")


def _tensor(entry: Any) -> TensorFacts:
    kind = entry.get_element_type().get_type_name()
    shape = entry.get_partial_shape()
    sizes = None
    if not shape.rank.is_dynamic:
        sizes = tuple(axis.get_length() if axis.is_static else None for axis in shape)
    return TensorFacts(_name(entry), _DTYPES.get(kind, kind), sizes)


def _name(entry: Any) -> str:
    return str(entry.get_any_name()) if entry.get_names() else str(entry.get_index())


def _size(node: Any) -> int:
    return int(np.prod(list(node.get_output_shape(0)), dtype=np.int64))


def _producer(model: Any) -> str:
    """Return the tools that the metadata of the IR names."""
    names = []
    for section in ("optimum", "nncf", "conversion_parameters"):
        if model.has_rt_info([section]):
            names.append("model conversion" if section == "conversion_parameters" else section)
    return ", ".join(["OpenVINO", *names])

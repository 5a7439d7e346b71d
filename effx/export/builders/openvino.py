"""Engines for OpenVINO's CPU plugin, from the same ONNX graphs; int8 by NNCF."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

from effx.errors import need
from effx.export.builders import onnxruntime as onnx_parts
from effx.export.source import Source
from effx.quiet import quiet
from effx.specs.backends import INT8_BF16
from effx.specs.variants import Variant

_PRODUCTS = ("FullyConnected", "MatMul")
_ELEMENT = {"f32": "fp32", "bf16": "bf16", "f16": "fp16", "i8": "int8", "u8": "int8"}


def refuse(variant: Variant, device: str) -> str | None:
    """Say why a variant cannot be built."""
    if variant.exits == "exit-if" and variant.precision == "int8":
        return "NNCF calibrates straight graphs only; use exit, which runs segments"
    return None


def build(source: Source, variant: Variant, scheme: str, folder: Path, device: str) -> dict[str, Any]:
    """Write model.xml and .bin, or segment-* for staged early exit."""
    import openvino

    ready = folder.parent / "int8-static"
    if scheme == INT8_BF16 and ready.is_dir():  # the same files, run otherwise
        for file in ready.iterdir():
            shutil.copyfile(file, folder / file.name)
        names = [f"{part.stem}.xml" for part in source.graphs(variant)]
        return source.session(variant, names, rest="bf16")
    if variant.exits == "exit-if":
        place = folder / ".onnx"
        place.mkdir()
        session = onnx_parts.build(source, variant, "fp32", place, device)
        parts = [place / name for name in session["files"]]
    else:
        parts = source.graphs(variant)
    rows = onnx_parts.calibration(source, variant, parts) if scheme == "int8-static" else []
    files = []
    for number, part in enumerate(parts):
        with quiet(output=True):
            model = openvino.Core().read_model(part)
            if scheme == "int8-static":
                model = _quantized(model, rows[number])
            name = f"{part.stem}.xml"
            openvino.save_model(model, folder / name, compress_to_fp16=False)
        files.append(name)
    if variant.exits == "exit-if":
        for file in sorted((folder / ".onnx").iterdir()):
            file.unlink()
        (folder / ".onnx").rmdir()
    return source.session(variant, files)


def _quantized(model: Any, rows: list[dict[str, Any]]) -> Any:
    need("openvino", "nncf")
    import nncf

    return nncf.quantize(
        model,
        nncf.Dataset(rows),
        model_type=nncf.ModelType.TRANSFORMER,
        subset_size=len(rows),
    )


def audit(folder: Path, session: dict[str, Any]) -> dict[str, Any]:
    """Count nodes as the plugin runs them, and the precision that matrix products run in.

    The plugin does not tell what it runs in the branches of an If; their products with weights are
    counted from the model.
    """
    import openvino

    from effx.engines import open_graph

    counts: dict[str, int] = {}
    precisions: dict[str, int] = {}
    integer = products = attention = 0
    for name in session["files"]:
        graph: Any = open_graph(folder / name, "openvino", session)
        for _, kind, precision in graph.executed():
            counts[kind] = counts.get(kind, 0) + 1
            attention += kind in ("ScaledDotProductAttention", "ScaledAttn", "MHA")
            if kind in _PRODUCTS:
                precisions[precision] = precisions.get(precision, 0) + 1
            if kind == "FullyConnected":
                products += 1
                integer += _ELEMENT.get(precision) == "int8"
        graph.close()
        products += _products_in_branches(openvino.Core().read_model(folder / name), inside=False)
    return {
        "nodes": dict(sorted(counts.items(), key=lambda item: (-item[1], item[0]))),
        "weight_products": products,
        "integer_weight_products": integer,
        "product_precisions": precisions,
        "fused_attention": attention,
    }


def _products_in_branches(model: Any, inside: bool = True) -> int:
    """Return the matrix products with weights in the branches of a model's Ifs, however deep."""
    count = 0
    for node in model.get_ops():
        if node.get_type_name() == "If":
            count += sum(_products_in_branches(node.get_function(branch)) for branch in (0, 1))
        elif inside and node.get_type_name() == "MatMul":
            weights = node.input_value(1).get_node()
            while weights.get_type_name() in ("Convert", "Transpose", "Reshape"):
                weights = weights.input_value(0).get_node()
            count += weights.get_type_name() == "Constant"
    return count

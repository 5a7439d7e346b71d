"""Engines for OpenVINO's CPU plugin, from the same ONNX graphs; int8 by NNCF."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

from effx.errors import need
from effx.export import folding
from effx.export.audit import by_frequency
from effx.export.builders import onnxruntime as onnx_parts
from effx.export.built import Built
from effx.export.source import ExportSource
from effx.manifests import Audit
from effx.quiet import quiet
from effx.specs.backends import INT8_BF16
from effx.specs.variants import Variant

_PRODUCTS = ("FullyConnected", "MatMul")
_ELEMENT = {"f32": "fp32", "bf16": "bf16", "f16": "fp16", "i8": "int8", "u8": "int8"}


def refuse(variant: Variant, device: str) -> str | None:
    """Return why a variant cannot be built, or None."""
    if variant.exits == "exit-if" and variant.precision == "int8":
        return "NNCF does not calibrate graphs with If; use exit, which runs segments"
    return None


def build(source: ExportSource, variant: Variant, scheme: str, folder: Path, device: str) -> Built:
    """Write model.xml and .bin, or segment-* for staged early exit."""
    import openvino

    ready = folder.parent / "int8-static"
    if scheme == INT8_BF16 and ready.is_dir():  # the same files, run with another precision hint
        for file in ready.iterdir():
            shutil.copyfile(file, folder / file.name)
        names = [f"{part.stem}.xml" for part in source.graphs(variant)]
        return Built(replace(source.runtime(variant, names), unquantized_precision="bf16"))
    if variant.exits == "exit-if":
        onnx_folder = folder / ".onnx"
        onnx_folder.mkdir()
        composed = onnx_parts.build(source, variant, "fp32", onnx_folder, device)
        parts = [onnx_folder / name for name in composed.files]
    else:
        parts = source.graphs(variant)
    rows = onnx_parts.calibration(source, variant, parts) if scheme == "int8-static" else []
    files = []
    for number, part in enumerate(parts):
        with quiet(output=True):
            if scheme == "int8-static":
                # NNCF leaves weights in fp32 that a product of constants reads, too: DeBERTa's positions
                plain = folding.write(part, folder / f".folded-{number}")
                model = _quantize(openvino.Core().read_model(plain), rows[number])
            else:
                model = openvino.Core().read_model(part)
            name = f"{part.stem}.xml"
            openvino.save_model(model, folder / name, compress_to_fp16=False)
        files.append(name)
        shutil.rmtree(folder / f".folded-{number}", ignore_errors=True)
    if variant.exits == "exit-if":
        shutil.rmtree(folder / ".onnx")
    return Built(source.runtime(variant, files))


def _quantize(model: Any, rows: list[dict[str, Any]]) -> Any:
    need("openvino", "nncf")
    import nncf

    return nncf.quantize(
        model,
        nncf.Dataset(rows),
        model_type=nncf.ModelType.TRANSFORMER,
        subset_size=len(rows),
    )


def audit(folder: Path, built: Built) -> Audit:
    """Count nodes as the plugin runs them, and the precision that matrix products run in.

    The plugin does not report what it runs in the branches of an If; their products with weights are
    counted from the model.
    """
    import openvino

    from effx.engines import open_graph

    counts: dict[str, int] = {}
    precisions: dict[str, int] = {}
    integer = products = attention = 0
    for name in built.files:
        graph: Any = open_graph(folder / name, "openvino", built.runtime)
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
    return Audit(
        nodes=by_frequency(counts),
        weight_products=products,
        integer_weight_products=integer,
        fused_attention=attention,
        product_precisions=precisions,
    )


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

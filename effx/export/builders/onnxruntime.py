"""Engines for ONNX Runtime's CPU provider.

Attention is left as MatMul-Softmax-MatMul: fused into com.microsoft::MultiHeadAttention (with true head
counts) it was not faster in fp32 and up to 1.3x slower with dynamic int8 on the x86 processor that it was
measured on (docs/results/export). ONNX Runtime fuses nodes when it loads the graph.
"""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import onnx
import torch

from effx.export import exit_if, graph, quantize
from effx.export.audit import by_frequency
from effx.export.built import Built
from effx.export.source import ExportSource
from effx.manifests import Audit
from effx.models import exits
from effx.specs.backends import SYMMETRIC_INT8
from effx.specs.runtime import RuntimeSettings
from effx.specs.variants import Variant

DTYPES = {"fp32": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16}
"""Scheme -> type of the traced graph's weights; other schemes are quantized from fp32."""
_INTEGER = ("MatMulInteger", "QLinearMatMul")


def refuse(variant: Variant, device: str) -> str | None:
    """Return None: every variant can be built in the precisions of the backend."""
    return None


def build(source: ExportSource, variant: Variant, scheme: str, folder: Path, device: str) -> Built:
    """Write model.onnx, or segment-*.onnx for staged early exit."""
    return Built(joined(source, variant, parts(source, variant, scheme, folder), folder))


def parts(source: ExportSource, variant: Variant, scheme: str, folder: Path) -> list[Path]:
    """Write the complete graph, or the segments of either kind of early exit; return the files.

    The segments of ``exit-if`` are written to a subfolder, which :func:`joined` removes.
    """
    target_folder = folder / ".parts" if variant.exits == "exit-if" else folder
    target_folder.mkdir(exist_ok=True)
    traced = source.graphs(variant, DTYPES.get(scheme, torch.float32))
    rows: list[list[dict[str, np.ndarray]]] = [[] for _ in traced]
    if scheme in ("int8-static", SYMMETRIC_INT8):
        rows = calibration(source, variant, traced)
    written = []
    for part, inputs in zip(traced, rows, strict=True):
        target = target_folder / part.name
        if scheme in DTYPES:
            for file in part.parent.iterdir():  # the graph and, past 2 GB, its weights
                shutil.copyfile(file, target_folder / file.name)
        elif scheme == "int8-dynamic":
            quantize.dynamic(part, target)
        else:
            quantize.static(part, target, inputs, symmetric=scheme == SYMMETRIC_INT8)
        written.append(target)
    return written


def joined(
    source: ExportSource, variant: Variant, segments: Sequence[Path], folder: Path, *, chained: bool = False
) -> RuntimeSettings:
    """Put the segments of ``exit-if`` into one graph; return how to run the files.

    Args:
        source: the checkpoint.
        variant: the variant of it.
        segments: files of :func:`parts`.
        folder: the engine's.
        chained: see :func:`effx.export.exit_if.compose`.
    """
    if variant.exits == "exit-if":
        composed = folder / "model.onnx"
        exit_if.compose(segments, composed, source.rule(), exits.depths(source.model), chained=chained)
        shutil.rmtree(segments[0].parent)
        segments = [composed]
    return source.runtime(variant, [path.name for path in segments])


def calibration(
    source: ExportSource, variant: Variant, traced: Sequence[Path]
) -> list[list[dict[str, np.ndarray]]]:
    """Return each part's inputs for the calibration rows: ids, or the outputs of the part before it."""
    from effx.engines import open_graph

    feeds: list[list[dict[str, np.ndarray]]] = []
    rows = source.calibration(variant)
    for part in traced:
        feeds.append(rows)
        if part is traced[-1]:
            break
        running = open_graph(part, "onnxruntime")
        outputs = []
        for row in rows:
            out = running.run(row)
            outputs.append({"hidden": out["hidden_out"], "token_mask": out["token_mask_out"],
                          "attention_mask": row["attention_mask"]})  # fmt: skip
        running.close()
        rows = [{name: row[name] for name in row if _takes(traced[len(feeds)], name)} for row in outputs]
    return feeds


def audit(folder: Path, built: Built) -> Audit:
    """Count nodes, and the matrix products with weights that are computed in integers."""
    counts: dict[str, int] = {}
    integer = products = 0
    for name in built.files:
        model = onnx.load(folder / name, load_external_data=False).graph
        constants = {
            entry.name
            for inner in graph.graphs(model)
            for entry in inner.initializer
            if len(entry.dims) == 2  # others are no weights, but tables of positions for each head
        }
        produced = {output: node for node in graph.nodes(model) for output in node.output}
        for node in graph.nodes(model):
            counts[node.op_type] = counts.get(node.op_type, 0) + 1
            if node.op_type in _INTEGER:
                integer, products = integer + 1, products + 1
            elif node.op_type in ("MatMul", "Gemm"):
                weight = produced.get(node.input[1])
                if (
                    weight is not None
                    and weight.op_type == "DequantizeLinear"
                    and weight.input[0] in constants
                ):
                    integer, products = integer + 1, products + 1
                elif node.input[1] in constants:
                    products += 1
    return Audit(
        nodes=by_frequency(counts),
        weight_products=products,
        integer_weight_products=integer,
        fused_attention=sum(counts.get(kind, 0) for kind in ("Attention", "MultiHeadAttention")),
    )


def _takes(path: Path, name: str) -> bool:
    return any(entry.name == name for entry in onnx.load(path, load_external_data=False).graph.input)

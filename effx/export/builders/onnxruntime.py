"""Engines for ONNX Runtime's CPU provider.

Attention is left as MatMul-Softmax-MatMul: fused into com.microsoft::MultiHeadAttention (with true
head counts) it was no faster in fp32 and up to 1.3x slower beside dynamic int8 on the x86 it was
tried on (docs/results/export). ONNX Runtime itself fuses what pays when it loads the graph.
"""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch

from effx.export import exit_if, graph, quantize
from effx.export.source import Source
from effx.models import exits
from effx.specs.backends import SYMMETRIC_INT8
from effx.specs.variants import Variant

DTYPES = {"fp32": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16}
"""Scheme -> type of the traced graph's weights; the others are quantised from fp32."""
_INTEGER = ("MatMulInteger", "QLinearMatMul")


def refuse(variant: Variant, device: str) -> str | None:
    """Return why a variant cannot be built: never, in a precision that the backend has."""
    return None


def build(source: Source, variant: Variant, scheme: str, folder: Path, device: str) -> dict[str, Any]:
    """Write model.onnx, or segment-*.onnx for staged early exit."""
    return joined(source, variant, parts(source, variant, scheme, folder), folder)


def parts(source: Source, variant: Variant, scheme: str, folder: Path) -> list[Path]:
    """Write the whole graph, or the segments of either kind of early exit; return the files.

    Those of ``exit-if`` lie in a folder of their own, which :func:`joined` removes.
    """
    place = folder / ".parts" if variant.exits == "exit-if" else folder
    place.mkdir(exist_ok=True)
    traced = source.graphs(variant, DTYPES.get(scheme, torch.float32))
    rows: list[list[dict[str, np.ndarray]]] = [[] for _ in traced]
    if scheme in ("int8-static", SYMMETRIC_INT8):
        rows = calibration(source, variant, traced)
    made = []
    for part, inputs in zip(traced, rows, strict=True):
        target = place / part.name
        if scheme in DTYPES:
            for file in part.parent.iterdir():  # the graph and, past 2 GB, its weights
                shutil.copyfile(file, place / file.name)
        elif scheme == "int8-dynamic":
            quantize.dynamic(part, target)
        else:
            quantize.static(part, target, inputs, symmetric=scheme == SYMMETRIC_INT8)
        made.append(target)
    return made


def joined(
    source: Source, variant: Variant, made: Sequence[Path], folder: Path, *, chained: bool = False
) -> dict[str, Any]:
    """Put the segments of ``exit-if`` into one graph; return the session of what is there then.

    Args:
        source: what is exported.
        variant: what of it.
        made: files of :func:`parts`.
        folder: the engine's.
        chained: of :func:`effx.export.exit_if.compose`.
    """
    if variant.exits == "exit-if":
        one = folder / "model.onnx"
        exit_if.compose(made, one, source.rule(), exits.depths(source.model), chained=chained)
        shutil.rmtree(made[0].parent)
        made = [one]
    return source.session(variant, [path.name for path in made])


def calibration(
    source: Source, variant: Variant, traced: Sequence[Path]
) -> list[list[dict[str, np.ndarray]]]:
    """Return what each part is fed on the calibration rows: ids, or what the parts before it give."""
    from effx.engines import open_graph

    feeds: list[list[dict[str, np.ndarray]]] = []
    rows = source.calibration(variant)
    for part in traced:
        feeds.append(rows)
        if part is traced[-1]:
            break
        running = open_graph(part, "onnxruntime", {})
        after = []
        for row in rows:
            out = running.run(row)
            after.append({"hidden": out["hidden_out"], "alive": out["alive_out"],
                          "attention_mask": row["attention_mask"]})  # fmt: skip
        running.close()
        rows = [{name: row[name] for name in row if _takes(traced[len(feeds)], name)} for row in after]
    return feeds


def audit(folder: Path, session: dict[str, Any]) -> dict[str, Any]:
    """Count nodes, and the matrix products with weights that are computed in integers."""
    counts: dict[str, int] = {}
    integer = products = 0
    for name in session["files"]:
        model = onnx.load(folder / name, load_external_data=False).graph
        constants = {entry.name for inner in graph.graphs(model) for entry in inner.initializer}
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
    return {
        "nodes": dict(sorted(counts.items(), key=lambda item: (-item[1], item[0]))),
        "weight_products": products,
        "integer_weight_products": integer,
        "fused_attention": sum(counts.get(kind, 0) for kind in ("Attention", "MultiHeadAttention")),
    }


def _takes(path: Path, name: str) -> bool:
    return any(entry.name == name for entry in onnx.load(path, load_external_data=False).graph.input)

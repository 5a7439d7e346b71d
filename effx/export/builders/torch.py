"""Engines that are exported PyTorch programs: the reference, run eagerly."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import torch

from effx.export import graph
from effx.export.source import Source
from effx.models import forward
from effx.quiet import quiet
from effx.specs.variants import Variant

_ON_GPU = {"fp32": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16}
"""On a GPU weights have the precision; on a CPU bf16 is autocast."""


def refuse(variant: Variant, device: str) -> str | None:
    """Say why a variant cannot be built."""
    if variant.exits == "exit-if":
        return "the PyTorch program has no If; use exit, which runs segments"
    if variant.tokens and (variant.length is None or variant.exits):
        return "torch.export ties token pruning to a range of lengths; use seqN without exit, which fixes one"
    return None


def build(source: Source, variant: Variant, scheme: str, folder: Path, device: str) -> dict[str, Any]:
    """Write model.pt2, or segment-*.pt2 for staged early exit."""
    on_gpu = device == "cuda"
    shape = graph.Shape(variant.length, variant.tokens, _ON_GPU[scheme] if on_gpu else torch.float32)
    parts: list[range | None] = [*graph.segments(source.model)] if variant.exits else [None]
    files, inputs, outputs = [], {}, {}
    for number, places in enumerate(parts):
        name = "model.pt2" if places is None else f"segment-{number}.pt2"
        traced = graph.traced(source.model, shape, places)
        with quiet(), forward.fused_attention(on_gpu):
            program = torch.export.export(
                traced.module, traced.example, dynamic_shapes=(tuple(traced.axes),), strict=False
            )
            if scheme == "bf16":
                _forget_types(program.graph_module)
            whole = io.BytesIO()  # its writer ends the process where a disk is full
            torch.export.save(program, whole)
        (folder / name).write_bytes(whole.getbuffer())
        files.append(name)
        inputs[name], outputs[name] = traced.inputs, traced.outputs
    return source.session(variant, files, inputs=inputs, outputs=outputs)


def _forget_types(module: torch.fx.GraphModule) -> None:
    """Take out the checks that tensors have the type of the trace: autocast gives them another."""
    for node in list(module.graph.nodes):
        if node.target is torch.ops.aten._assert_tensor_metadata.default:
            module.graph.erase_node(node)
    module.recompile()


def audit(folder: Path, session: dict[str, Any]) -> dict[str, Any]:
    """Count the program's operations."""
    counts: dict[str, int] = {}
    with quiet():
        for name in session["files"]:
            for node in torch.export.load(folder / name).graph.nodes:
                if node.op == "call_function":
                    kind = str(node.target)
                    counts[kind] = counts.get(kind, 0) + 1
    return {
        "nodes": dict(sorted(counts.items(), key=lambda item: (-item[1], item[0]))),
        "weight_products": counts.get("aten.linear.default", 0),
        "integer_weight_products": 0,
        "fused_attention": counts.get("aten.scaled_dot_product_attention.default", 0),
    }

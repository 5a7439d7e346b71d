"""Engines that are exported PyTorch programs: the reference, run eagerly."""

from __future__ import annotations

import io
import shutil
from dataclasses import replace
from pathlib import Path

import torch

from effx.export import graph
from effx.export.audit import by_frequency
from effx.export.builders import UNPADDED_REFUSAL
from effx.export.built import Built
from effx.export.source import ExportSource
from effx.manifests import Audit
from effx.models.attention import fused_attention, local_blocks
from effx.quiet import quiet
from effx.specs.variants import Variant

_ON_GPU = {"fp32": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16}
"""On a GPU weights have the precision; on a CPU bf16 is autocast."""

_TRACES = ("stack_trace", "nn_module_stack", "source_fn_stack", "torch_fn", "from_node", "custom")
"""Entries of a node that say where in the source code it comes from."""


def refuse(variant: Variant, device: str) -> str | None:
    """Return why a variant cannot be built, or None."""
    if variant.exits == "exit-if":
        return "the PyTorch program cannot branch; use exit, which runs segments"
    if variant.unpadded:
        return UNPADDED_REFUSAL
    if variant.tokens and (variant.length is None or variant.exits):
        return "torch.export cannot trace token pruning at dynamic lengths; use seqN without exit"
    return None


def build(source: ExportSource, variant: Variant, scheme: str, folder: Path, device: str) -> Built:
    """Write model.pt2, or segment-*.pt2 for staged early exit."""
    on_gpu = device == "cuda"
    shape = source.trace_shape(variant, _ON_GPU[scheme] if on_gpu else torch.float32)
    if variant.length is None:  # torch.export cannot divide a dynamic length into blocks
        shape = replace(shape, blocks=False)
    parts: list[range | None] = [*graph.segments(source.model)] if variant.exits else [None]
    files, inputs, outputs = [], {}, {}
    for number, layers in enumerate(parts):
        name = "model.pt2" if layers is None else f"segment-{number}.pt2"
        traced = graph.traced(source.model, shape, layers, source.other_models if variant.multi else None)
        key = (shape, layers, on_gpu, scheme == "bf16", variant.multi)
        if key not in source.programs:  # variants that differ in padding only share their programs
            path = source.scratch / f"program-{len(source.programs)}.pt2"
            path.write_bytes(_exported(traced, shape, on_gpu=on_gpu, type_checks=scheme != "bf16"))
            source.programs[key] = path
        shutil.copyfile(source.programs[key], folder / name)
        files.append(name)
        inputs[name], outputs[name] = tuple(traced.inputs), tuple(traced.outputs)
    return Built(replace(source.runtime(variant, files), input_names=inputs, output_names=outputs))


def _exported(
    traced: graph.Traced, shape: graph.TraceShape, *, on_gpu: bool, type_checks: bool
) -> memoryview:
    """Return the bytes of an exported program; without type checks, autocast may change types in it."""
    with quiet(), fused_attention(on_gpu), local_blocks(shape.blocks):
        program = torch.export.export(
            traced.module, traced.example, dynamic_shapes=(tuple(traced.axes),), strict=False
        )
        if not type_checks:
            _remove_type_checks(program.graph_module)
        _clear_metadata(program.graph_module)
        buffer = io.BytesIO()  # the writer to files ends the process when a disk is full
        torch.export.save(program, buffer)
    return buffer.getbuffer()


def _remove_type_checks(module: torch.fx.GraphModule) -> None:
    """Remove the checks that tensors have the type of the trace: autocast changes it."""
    for node in list(module.graph.nodes):
        if node.target is torch.ops.aten._assert_tensor_metadata.default:
            module.graph.erase_node(node)
    module.recompile()


def _clear_metadata(module: torch.fx.GraphModule) -> None:
    """Remove what torch.export notes on each operation: stack traces, so paths of this machine."""
    for part in module.modules():
        if isinstance(part, torch.fx.GraphModule):
            for node in part.graph.nodes:
                for name in _TRACES:
                    node.meta.pop(name, None)


def audit(folder: Path, built: Built) -> Audit:
    """Count the program's operations."""
    counts: dict[str, int] = {}
    with quiet():
        for name in built.files:
            for node in torch.export.load(folder / name).graph.nodes:
                if node.op == "call_function":
                    kind = str(node.target)
                    counts[kind] = counts.get(kind, 0) + 1
    return Audit(
        nodes=by_frequency(counts),
        weight_products=counts.get("aten.linear.default", 0),
        integer_weight_products=0,
        fused_attention=counts.get("aten.scaled_dot_product_attention.default", 0),
    )

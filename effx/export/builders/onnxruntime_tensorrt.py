"""Engines for ONNX Runtime's TensorRT provider, which builds its plans from the graph on the target."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from effx.export.builders import UNPADDED_REFUSAL
from effx.export.builders import onnxruntime as onnx_parts
from effx.export.builders.onnxruntime import audit
from effx.export.builders.tensorrt import MAX_BATCH
from effx.export.built import Built
from effx.export.source import ExportSource
from effx.specs.variants import Variant

__all__ = ["audit", "build", "refuse"]


def refuse(variant: Variant, device: str) -> str | None:
    """Return why a variant cannot be built, or None."""
    if variant.unpadded:
        return UNPADDED_REFUSAL
    return None


def build(source: ExportSource, variant: Variant, scheme: str, folder: Path, device: str) -> Built:
    """Write model.onnx, or segment-*.onnx for staged early exit, in the types that it will run in."""
    runtime = onnx_parts.build(source, variant, scheme, folder, device).runtime
    return Built(replace(runtime, max_length=variant.length or source.limit, max_batch=MAX_BATCH))

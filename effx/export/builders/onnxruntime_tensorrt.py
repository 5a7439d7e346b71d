"""Engines for ONNX Runtime's TensorRT provider, which builds its plans from the graph on the target."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from effx.export.builders import onnxruntime as onnx_parts
from effx.export.builders.onnxruntime import audit, refuse
from effx.export.builders.tensorrt import LARGEST_BATCH
from effx.export.source import Source
from effx.specs.variants import Variant

__all__ = ["audit", "build", "refuse"]


def build(source: Source, variant: Variant, scheme: str, folder: Path, device: str) -> dict[str, Any]:
    """Write model.onnx, or segment-*.onnx for staged early exit, in the types that it will run in."""
    made = onnx_parts.build(source, variant, scheme, folder, device)
    return {**made, "longest": variant.length or source.limit, "largest_batch": LARGEST_BATCH}

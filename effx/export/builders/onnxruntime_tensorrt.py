"""Engines for ONNX Runtime's TensorRT provider, which builds its plans from the graph on the target."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from effx.export.builders import onnxruntime as onnx_parts
from effx.export.builders.onnxruntime import audit
from effx.export.builders.tensorrt import LARGEST_BATCH
from effx.export.source import Source
from effx.specs.variants import Variant

__all__ = ["DEVICES", "audit", "build", "refuse", "schemes"]

DEVICES = ("cuda",)
_SCHEMES = {
    "fp32": ["fp32"],
    "fp16": ["fp16"],
    "int8": [onnx_parts.SYMMETRIC],
    "int8-static": [onnx_parts.SYMMETRIC],
}


def schemes(precision: str, device: str) -> Sequence[str]:
    """Return the schemes to try for a precision."""
    return _SCHEMES.get(precision, [])


def refuse(variant: Variant, device: str) -> str | None:
    """Say why a variant cannot be built."""
    if schemes(variant.scheme, device):
        return None
    return f"effx has no {variant.scheme} for ONNX Runtime's TensorRT provider ({', '.join(_SCHEMES)})"


def build(source: Source, variant: Variant, scheme: str, folder: Path, device: str) -> dict[str, Any]:
    """Write model.onnx, or segment-*.onnx for staged early exit, in the types that it will run in."""
    made = onnx_parts.build(source, variant, scheme, folder, device)
    return {**made, "longest": variant.length or source.limit, "largest_batch": LARGEST_BATCH}

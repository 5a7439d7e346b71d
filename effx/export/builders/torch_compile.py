"""Engines that are exported PyTorch programs, compiled where they run; needs a C++ compiler there."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from effx.export.builders import torch as eager
from effx.export.builders.torch import audit, refuse
from effx.export.built import Built
from effx.export.source import ExportSource
from effx.specs.variants import Variant

__all__ = ["audit", "build", "refuse"]


def build(source: ExportSource, variant: Variant, scheme: str, folder: Path, device: str) -> Built:
    """Write the same files as the eager backend."""
    runtime = eager.build(source, variant, scheme, folder, device).runtime
    return Built(replace(runtime, compiled=True))

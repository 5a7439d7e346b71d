"""Engines that are exported PyTorch programs, compiled where they run; needs a C++ compiler there."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from effx.export.builders.torch import audit, refuse
from effx.export.builders.torch import build as _build
from effx.export.source import Source
from effx.specs.variants import Variant

__all__ = ["audit", "build", "refuse"]


def build(source: Source, variant: Variant, scheme: str, folder: Path, device: str) -> dict[str, Any]:
    """Write the same files as the eager backend."""
    return {**_build(source, variant, scheme, folder, device), "compiled": True}

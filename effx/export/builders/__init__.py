"""What turns fp32 graphs into a runtime's own files: one module per backend.

Each has

    DEVICES                       what it builds for, the usual one first
    schemes(precision, device)    the schemes to build for it, the best of which is kept; none: it cannot
    refuse(variant, device)       why a variant cannot be built here, or None
    build(source, variant, scheme, folder, device)   files in the folder -> what a session must know,
                                  and stand_in: (folder, backend, session) to check what cannot run here
    audit(folder, session)        what is in the files
"""

from __future__ import annotations

import importlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol, cast

from effx.errors import unknown
from effx.export.source import Source
from effx.specs.variants import Variant

BUILDERS: dict[str, str] = {
    "onnxruntime": "effx.export.builders.onnxruntime",
    "onnxruntime-tensorrt": "effx.export.builders.onnxruntime_tensorrt",
    "tensorrt": "effx.export.builders.tensorrt",
    "tensorrt-rtx": "effx.export.builders.tensorrt_rtx",
    "openvino": "effx.export.builders.openvino",
    "torch": "effx.export.builders.torch",
    "torch-compile": "effx.export.builders.torch_compile",
}
"""Backend -> its module."""


class Builder(Protocol):
    """A backend's module."""

    DEVICES: tuple[str, ...]

    def schemes(self, precision: str, device: str) -> Sequence[str]: ...

    def refuse(self, variant: Variant, device: str) -> str | None: ...

    def build(
        self, source: Source, variant: Variant, scheme: str, folder: Path, device: str
    ) -> dict[str, Any]: ...

    def audit(self, folder: Path, session: dict[str, Any]) -> dict[str, Any]: ...


def builder(backend: str) -> Builder:
    """Return the module that builds for ``backend``.

    Raises:
        UsageError: there is none.
    """
    if backend not in BUILDERS:
        raise unknown("backend", backend, BUILDERS)
    return cast(Builder, importlib.import_module(BUILDERS[backend]))

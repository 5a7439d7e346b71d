"""What turns fp32 graphs into a runtime's files: one module per backend.

The module of a backend is named in its row in :mod:`effx.specs.backends`; it has the functions of
:class:`Builder`.
"""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Protocol, cast

from effx.export.built import Built
from effx.export.source import ExportSource
from effx.manifests import Audit
from effx.specs import backends
from effx.specs.variants import Variant

UNPADDED_REFUSAL = "effx builds unpadded for onnxruntime and openvino only"


class Builder(Protocol):
    """The functions of a backend's module."""

    def refuse(self, variant: Variant, device: str) -> str | None:
        """Return why a variant cannot be built, or None.

        Called only with precisions and devices of the backend's row.
        """
        ...

    def build(self, source: ExportSource, variant: Variant, scheme: str, folder: Path, device: str) -> Built:
        """Write an engine's files into ``folder``."""
        ...

    def audit(self, folder: Path, built: Built) -> Audit:
        """Return what the files compute."""
        ...


def builder(backend: str) -> Builder:
    """Return the module that builds for ``backend``.

    Raises:
        UsageError: the backend is unknown, or its engines are not exported.
    """
    return cast(Builder, importlib.import_module(f".{backends.builder_module(backend)}", __name__))

"""What turns fp32 graphs into a runtime's own files: one module per backend.

Each has

    refuse(variant, device)       why a variant cannot be built here, or None; that the backend builds its
                                  precision for the device is checked before (effx.specs.backends)
    build(source, variant, scheme, folder, device)   files in the folder -> what a session must know,
                                  and stand_in: (folder, backend, session) to check what cannot run here
    audit(folder, session)        what is in the files
"""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Any, Protocol, cast

from effx.export.source import Source
from effx.specs import backends
from effx.specs.variants import Variant


class Builder(Protocol):
    """A backend's module."""

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
    return cast(Builder, importlib.import_module(f".{backends.builder_module(backend)}", __name__))

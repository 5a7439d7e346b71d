"""TensorRT plans. This version builds them and does not run them yet."""

from __future__ import annotations

import importlib.metadata
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from effx.engines.protocol import Graph
from effx.errors import UsageError

_PACKAGES = ("tensorrt", "tensorrt-rtx")


def open(path: Path, settings: Mapping[str, Any], threads: int) -> Graph:
    """Raise: running plans is not built yet."""
    raise UsageError(f"{path}: this version of effx builds TensorRT plans, it does not run them yet.")


def versions() -> dict[str, str]:
    """Return the versions of the packages that are here."""
    found = {}
    for name in _PACKAGES:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found

"""How a built engine runs: one session class per runtime, behind one Protocol.

A new runtime is one module and one line in ``_BACKENDS``. Nothing here needs torch.
"""

from __future__ import annotations

import importlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from effx.artifacts import Engine
from effx.engines.protocol import Session
from effx.errors import need, unknown

__all__ = ["Session", "check_backend", "open", "open_unchecked", "versions"]

_BACKENDS: dict[str, tuple[str, str, str]] = {
    "onnxruntime": ("effx.engines.onnxruntime", "onnxruntime", "cpu"),
}
"""Backend -> the module with its session, the package it needs, the extra that brings it."""


def open(folder: str | Path | Engine, *, threads: int | None = None) -> Session:
    """Open an engine as a session; use it as a context manager.

    Args:
        folder: the engine's folder, whose digests are checked, or an engine already opened.
        threads: compute threads; default: the processors that this process may use.

    Raises:
        ArtifactError: the engine is missing, damaged or cannot be loaded.
        MissingExtraError: its runtime is not installed.
    """
    engine = folder if isinstance(folder, Engine) else Engine.open(folder)
    return open_unchecked(engine.folder, engine.backend, engine.input_names, threads=threads)


def open_unchecked(
    folder: Path, backend: str, input_names: Sequence[str], *, threads: int | None = None
) -> Session:
    """Open what an unfinished engine folder holds; for the parity gate."""
    session: Session = _module(backend).open(folder, input_names, threads=threads)
    return session


def check_backend(backend: str) -> None:
    """Raise unless the backend is known and its runtime is installed."""
    if backend not in _BACKENDS:
        raise unknown("backend", backend, _BACKENDS)
    _, package, extra = _BACKENDS[backend]
    need(extra, package)


def versions(backend: str) -> dict[str, str]:
    """Return the versions of the packages that run this backend."""
    return dict(_module(backend).versions())


def _module(backend: str) -> Any:
    check_backend(backend)
    return importlib.import_module(_BACKENDS[backend][0])

"""How a built engine runs: one graph class per runtime, behind one Protocol.

A new runtime is one module here and one row in :mod:`effx.specs.backends`. Nothing here needs torch but the
module that runs it. What a session needs to know besides its files stands in the manifest's ``session``:

    device      what it was built for; absent: cpu
    files       graphs in order; several are early-exit segments
    precision   of the arithmetic
    rest        that of what int8 leaves unquantised; absent: fp32
    lengths     sequence lengths that inputs are padded to; null: any
    exits       {rule, threshold, patience, depths} of early-exit segments; null: none
    pad_id      the id that fills padding
    cuda_graph  on a GPU: whether shapes are recorded; absent: yes
    keep_qdq    of ONNX Runtime on the CPU: whether Q/DQ pairs are run as written; absent: fused
    tf32        on a GPU: whether fp32 products may run in TF32; absent: no
    longest     tokens at most, and largest_batch, of the profile that ONNX Runtime's TensorRT provider builds
    profiles    of a plan: the largest batch of each
    weights     plan -> the ONNX file beside it whose weights it was stripped of
    plan        what a plan was built with: version, capability, and device (its name; null: ahead of time)
"""

from __future__ import annotations

import importlib
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from effx.artifacts import Engine
from effx.engines.on_device import SingleOnDevice, StagedOnDevice
from effx.engines.protocol import Graph, Session
from effx.engines.sessions import Padded, Single, Staged
from effx.errors import need
from effx.specs import backends
from effx.specs.exit_rules import ExitRule

__all__ = ["Session", "check_backend", "open", "open_graph", "open_unchecked", "versions"]


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
    settings = engine.manifest.get("session") or {"files": ["model.onnx"]}
    return open_unchecked(engine.folder, engine.backend, settings, threads=threads)


def open_unchecked(
    folder: Path, backend: str, settings: Mapping[str, Any], *, threads: int | None = None
) -> Session:
    """Open what an unfinished engine folder holds; for the parity gate."""
    graphs = [open_graph(folder / name, backend, settings, threads=threads) for name in settings["files"]]
    session: Session
    exits: Any = settings.get("exits")
    staged = bool(exits) and len(graphs) > 1
    cut = settings.get("lengths") is None
    if hasattr(graphs[0], "launch"):  # on a GPU
        on_gpu: list[Any] = list(graphs)
        if staged:
            rule = ExitRule.from_json(exits)
            tokens = bool(settings.get("tokens"))
            session = StagedOnDevice(on_gpu, rule, exits["depths"], cut=cut, tokens=tokens)
        else:
            session = SingleOnDevice(on_gpu[0])
    elif staged:
        session = Staged(graphs, ExitRule.from_json(exits), exits["depths"], cut=cut)
    else:
        session = Single(graphs[0])
    if settings.get("lengths"):
        session = Padded(session, settings["lengths"], int(settings.get("pad_id", 0)))
    return session


def open_graph(path: Path, backend: str, settings: Mapping[str, Any], *, threads: int | None = None) -> Graph:
    """Open one of an engine's files."""
    available = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    graph: Graph = _module(backend).open(path, {**settings, "backend": backend}, threads or available or 1)
    return graph


def check_backend(backend: str, device: str = "cpu") -> None:
    """Raise unless the backend is known and its runtime installed; for ``cuda``, with a GPU that is here."""
    row = backends.get(backend)
    need(row.extra, row.python_module)
    if device == "cuda":
        _module(backend).check_gpu(backend)


def versions(backend: str) -> dict[str, str]:
    """Return the versions of the packages that run this backend."""
    return dict(_module(backend).versions(backend))


def _module(backend: str) -> Any:
    check_backend(backend)
    return importlib.import_module(f".{backends.get(backend).engine_module}", __name__)

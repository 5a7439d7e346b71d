"""Run built engines: one module per runtime, behind one Protocol.

    open(folder) -> Session    an engine: padding, early exit between segments, one or more graphs
    open_graph(path) -> EngineGraph    one built file in one runtime

A new runtime is one module here and one row in :mod:`effx.specs.backends`. Only the PyTorch module needs
torch. What a runtime must know besides the files is :class:`effx.specs.runtime.RuntimeSettings`, in
engine.json under ``runtime``. A runtime's module has

    open(path, backend, runtime, threads)   load a file
    versions(backend)                       the installed versions of the packages that run it
    check_gpu(backend)                      raise unless a GPU can be used (runtimes that have GPUs)

``effx.engines.mock`` writes and runs engines that need no runtime, for tests.
"""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Any

from effx.artifacts import Engine
from effx.engines import onnx_files
from effx.engines.on_device import DeviceGraph, SingleOnDevice, StagedOnDevice
from effx.engines.protocol import EngineGraph, Session
from effx.engines.renamed import RenamedGraph
from effx.engines.sessions import Padded, Single, Staged
from effx.errors import ArtifactError, need
from effx.host import built, cpu
from effx.specs import backends
from effx.specs.runtime import RuntimeSettings

__all__ = ["Session", "check_backend", "open", "open_graph", "open_unchecked", "versions"]


def open(folder: str | Path | Engine, *, threads: int | None = None, trust: bool = False) -> Session:
    """Open an engine as a session; use it as a context manager.

    Args:
        folder: the engine's folder, whose digests are checked, or an opened engine.
        threads: compute threads; default: the processors that this process may use.
        trust: open engines that can run code, as PyTorch programs, although they were not built here.

    Raises:
        ArtifactError: the engine is missing, damaged, not trusted or cannot be loaded.
        DeviceError: the GPU that it needs is missing or fails.
        MissingExtraError: its runtime is not installed.
    """
    engine = folder if isinstance(folder, Engine) else Engine.open(folder)
    row = backends.get(engine.backend)
    if row.runs_code and not trust and not built.is_known(engine.digest):
        raise ArtifactError(
            f"{engine.folder} was not built here, and opening an engine of {row.title} runs code that it "
            "contains. Build it again with: effx export. Or open it with trust, if you trust its source.",
            settings="trust",
        )
    return open_unchecked(engine.folder, engine.backend, engine.runtime, threads=threads)


def open_unchecked(
    folder: Path, backend: str, runtime: RuntimeSettings, *, threads: int | None = None
) -> Session:
    """Open built files that are not sealed as an engine yet; the parity gate uses this."""
    graphs: list[Any] = [
        open_graph(folder / name, backend, runtime, threads=threads) for name in runtime.files
    ]
    if runtime.interface is not None:
        graphs = [RenamedGraph(graph, runtime.interface) for graph in graphs]
    session = _on_device(graphs, runtime) if hasattr(graphs[0], "launch") else _on_host(graphs, runtime)
    return session if runtime.lengths is None else Padded(session, runtime.lengths, runtime.pad_id)


def open_graph(
    path: Path, backend: str, runtime: RuntimeSettings | None = None, *, threads: int | None = None
) -> EngineGraph:
    """Open one of an engine's files.

    Args:
        path: the file.
        backend: the runtime's name.
        runtime: default: that of a plain fp32 graph on the CPU.
        threads: compute threads, of which ``runtime`` may allow fewer; default: the processors that this
            process may use.

    Raises:
        ArtifactError: the file is missing, damaged or refers to files outside its folder.
        DeviceError: the GPU that it needs is missing or fails.
        MissingExtraError: its runtime is not installed.
    """
    settings = runtime or RuntimeSettings((path.name,))
    if path.suffix == ".onnx":
        onnx_files.check(path)
    most = threads or cpu.usable_processors()
    graph: EngineGraph = _module(backend).open(path, backend, settings, min(settings.threads or most, most))
    return graph


def check_backend(backend: str, device: str = "cpu") -> None:
    """Raise unless a backend can run here.

    Raises:
        UsageError: the backend is unknown.
        MissingExtraError: its runtime is not installed.
        DeviceError: ``device`` is ``cuda``, and there is no usable GPU.
    """
    row = backends.get(backend)
    need(row.extra, row.python_module)
    if device == "cuda":
        _module(backend).check_gpu(backend)


def versions(backend: str) -> dict[str, str]:
    """Return the versions of the packages that run this backend."""
    return dict(_module(backend).versions(backend))


def _on_device(graphs: list[DeviceGraph], runtime: RuntimeSettings) -> Session:
    if not runtime.is_staged or runtime.exits is None:
        return SingleOnDevice(graphs[0])
    return StagedOnDevice(
        graphs, runtime.exits, dynamic_length=runtime.dynamic_length, token_pruning=runtime.token_pruning
    )


def _on_host(graphs: list[EngineGraph], runtime: RuntimeSettings) -> Session:
    if not runtime.is_staged or runtime.exits is None:
        return Single(graphs[0])
    return Staged(graphs, runtime.exits, dynamic_length=runtime.dynamic_length)


def _module(backend: str) -> Any:
    check_backend(backend)
    return importlib.import_module(f".{backends.get(backend).engine_module}", __name__)

"""Folders that take seconds to build, built once for all xdist workers and later runs of the same code.

A session fixture passes a function that fills a folder. The folder is at ``.pytest_cache/effx/KEY/NAME-CODE``
(``EFFX_TEST_CACHE`` names another folder than ``.pytest_cache/effx``). KEY is a digest of all that may change
its content: every file of ``effx/``, the modules with the shared fixtures, the installed packages, Python,
the processor, and the environment variables that training reads. CODE is a digest of the module that has the
function. So a folder is never out of date. Folders of all but the last few keys are deleted.
"""

from __future__ import annotations

import functools
import hashlib
import importlib
import importlib.metadata
import inspect
import json
import os
import platform
import shutil
import sys
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import pytest
from filelock import FileLock

ROOT = Path(__file__).parents[1]
FOLDER = Path(os.environ.get("EFFX_TEST_CACHE", ROOT / ".pytest_cache" / "effx"))
KEYS_KEPT = 4
"""Number of states of the code whose folders are kept; the least recently used are removed."""


class Cache:
    """Built folders of one state of the code; every one is left as it was built."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self._digests: dict[Path, str] = {}

    def folder(self, name: str, build: Callable[[Path], object]) -> Path:
        """Return the folder that ``build(folder)`` fills; one process builds it, all others wait.

        It is for reading: a test that changes something copies it first.
        """
        code = hashlib.sha256(Path(inspect.getfile(build)).read_bytes()).hexdigest()[:8]
        folder = self._root / f"{name}-{code}"
        complete = folder.with_name(f"{folder.name}.json")  # written last: without it the folder is rebuilt
        self._root.mkdir(parents=True, exist_ok=True)
        with FileLock(folder.with_name(f"{folder.name}.lock")):
            if not complete.exists() or json.loads(complete.read_text())["digest"] != digest(folder):
                complete.unlink(missing_ok=True)
                shutil.rmtree(folder, ignore_errors=True)
                folder.mkdir()
                build(folder)
                scratch = complete.with_suffix(".tmp")
                scratch.write_text(json.dumps({"digest": digest(folder)}))
                scratch.replace(complete)
        self._digests[folder] = json.loads(complete.read_text())["digest"]
        return folder

    def changed(self) -> list[Path]:
        """Return the folders that a test has changed; the next run builds them again."""
        return [folder for folder, before in self._digests.items() if digest(folder) != before]


def open_cache() -> Cache:
    """Return the cache of the code as it is now."""
    root = FOLDER / key()
    root.mkdir(parents=True, exist_ok=True)
    os.utime(root)
    return Cache(root)


def convert_once(cache: Cache, patch: pytest.MonkeyPatch) -> None:
    """Let ``graph.write`` copy the ONNX file that it wrote before for the same weights, modules and shape.

    The first conversion of each is real. One that writes its weights to a separate file is never copied.
    """
    graph = importlib.import_module("effx.export.graph")
    write, arguments = graph.write, inspect.signature(graph.write)

    def copied(*args: Any, **options: Any) -> None:
        called = arguments.bind(*args, **options)
        called.apply_defaults()
        values = dict(called.arguments)
        model, path = values.pop("model"), values.pop("path")
        state = dict(model.state_dict())
        for output, other in (values.get("others") or {}).items():
            state |= {f"{output} {name}": value for name, value in other.state_dict().items()}
        size = sum(value.numel() * value.element_size() for value in state.values())
        if size > graph.LARGEST_PROTOBUF_BYTES // 2:
            return write(*args, **options)
        state_digest = hashlib.sha256(
            f"{values} {graph.OPSET} {model} {model.config.to_json_string()}".encode()
        )
        state_digest.update(repr(graph.structure(model)).encode())
        for name, value in state.items():
            state_digest.update(f"{name} {value.dtype} {tuple(value.shape)}".encode())
            state_digest.update(value.detach().cpu().contiguous().numpy().tobytes())

        def build(folder: Path) -> None:
            _read_registry_once(patch)
            write(model, folder / "model.onnx", **values)

        shutil.copyfile(cache.folder(f"graph-{state_digest.hexdigest()[:24]}", build) / "model.onnx", path)

    patch.setattr(graph, "write", copied)


def build_in_process(*arguments: Any) -> Any:
    """As ``plan._in_process``, for processes that a test starts: modules that were converted are copied."""
    plan = importlib.import_module("effx.export.plan")
    with pytest.MonkeyPatch.context() as patch:
        convert_once(open_cache(), patch)
        return plan._in_process(*arguments)


def _read_registry_once(patch: pytest.MonkeyPatch) -> None:
    """Let PyTorch read the table of its ONNX operators once: a second and a half of CPU per conversion."""
    registry = importlib.import_module("torch.onnx._internal.exporter._registration").ONNXRegistry
    read = registry.from_torchlib
    if not hasattr(read, "cache_info"):
        patch.setattr(registry, "from_torchlib", staticmethod(functools.cache(read)))


def prune() -> None:
    """Delete the folders of all but the last few states of the code."""
    roots = sorted(FOLDER.glob("*/"), key=lambda root: root.stat().st_mtime)
    for root in roots[:-KEYS_KEPT]:
        shutil.rmtree(root, ignore_errors=True)


@functools.cache
def key() -> str:
    """Return a digest of everything that may change what the shared fixtures build."""
    state_digest = hashlib.sha256()
    for part in (*_code(), *_packages(), *_machine()):
        state_digest.update(part.encode() + b"\0")
    return state_digest.hexdigest()[:16]


def digest(folder: Path) -> str:
    """Return a digest of the names and bytes of all files in a folder."""
    state_digest = hashlib.sha256()
    for path in sorted(path for path in folder.rglob("*") if path.is_file()):
        content = hashlib.sha256(path.read_bytes()).hexdigest()
        state_digest.update(f"{path.relative_to(folder)} {content}\n".encode())
    return state_digest.hexdigest()


def _code() -> Iterable[str]:
    shared = [Path(__file__), Path(__file__).with_name("conftest.py")]
    package = [path for path in (ROOT / "effx").rglob("*") if "__pycache__" not in path.parts]
    for path in sorted(path for path in [*package, *shared] if path.is_file()):
        yield f"{path.relative_to(ROOT)} {hashlib.sha256(path.read_bytes()).hexdigest()}"


def _packages() -> Iterable[str]:
    """Name and version of each package; of two on the path, the one that is imported."""
    versions: dict[str, str] = {}
    for package in importlib.metadata.distributions():
        versions.setdefault(package.name, package.version)
    return sorted(f"{name}=={version}" for name, version in versions.items())


def _machine() -> Iterable[str]:
    yield f"{sys.version} {platform.platform()} {ROOT}"  # manifests hold absolute paths
    processor = Path("/proc/cpuinfo")
    if processor.exists():
        lines = processor.read_text().splitlines()
        yield from sorted({line for line in lines if line.startswith(("model name", "flags", "Features"))})
    yield str(Path("/proc/driver/nvidia/version").exists())
    names = ("EFFX_", "OMP_", "MKL_", "ORT_", "CUDA_")
    yield from sorted(f"{name}={value}" for name, value in os.environ.items() if name.startswith(names))

"""What a cell's key is made of: digests of files and of code, versions of packages.

Hashing a model takes seconds, so digests are remembered by path, size and time of change.
"""

from __future__ import annotations

import ast
import contextlib
import functools
import hashlib
import importlib.metadata
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import effx
from effx import data, files
from effx.errors import EffxError
from effx.specs import backends
from effx.specs.tasks import Task

_ROOT = Path(effx.__file__).parent
_MODEL_FILES = ("*.json", "*.safetensors", "*.txt", "*.model", "*.py")
_ENTRIES: dict[str, tuple[str, ...]] = {
    "pretrain": ("demo/pretraining.py",),
    "finetune": ("train/finetune.py",),
    "prune": ("train/tickets/draw.py",),
    "lottery": ("train/lottery.py",),
    "tokens": ("train/tokens.py",),
    "exits": ("train/exits.py",),
    "tickets-full": ("train/tickets/*.py",),
    "ticket": ("train/tickets/*.py",),
    "tickets": ("train/tickets/*.py",),
    "export": ("export/plan.py", "export/builders/*.py", "engines/*.py"),
    "profile": ("profile/run.py", "profile/worker.py", "profile/meters/*.py", "engines/*.py"),
    "report": ("report/*.py",),
}
"""Modules that make a kind of cell. With what they import of effx, they decide what it makes: when any of
that changes, the cell is made again."""
_INDIFFERENT = {"__init__.py", "errors.py", "files.py", "progress.py", "host/memory.py", "artifacts.py"}
"""These decide how things are told and kept, not what they are."""
_TRAINS = ("torch", "transformers", "tokenizers", "numpy")
_TRAINING = ("pretrain", "finetune", "prune", "lottery", "tokens", "exits", "tickets-full", "ticket")
_PACKAGES: dict[str, tuple[str, ...]] = {
    **dict.fromkeys(_TRAINING, _TRAINS),
    "tickets": (*_TRAINS, "matplotlib"),
    "export": ("torch", "transformers", "onnx", "onnxscript", "tokenizers"),
    "profile": ("numpy", "tokenizers"),
    "report": ("matplotlib", "numpy"),
}


class Digests:
    """Digests of inputs, remembered in a file."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._known: dict[str, Any] = {}
        self._changed = False
        with contextlib.suppress(OSError, ValueError):
            found = json.loads(path.read_bytes())
            self._known = found if isinstance(found, dict) else {}

    def save(self) -> None:
        """Remember what was computed."""
        if self._changed:
            files.write_json(self._path, self._known)
            self._changed = False

    def rows(self, task: Task, folder: str | None) -> dict[str, Any]:
        """Return the digests of a task's files, and how many training rows there are if known.

        Raises:
            DataError: files are missing, or rows do not fit the task.
        """
        if folder is None:
            rows = len(data.load(task, "train")) if task.name == "demo" else None
            return {"hub": None if task.hub is None else list(map(str, (task.hub.path, task.hub.config))),
                    "rows": rows}  # fmt: skip
        paths = {split: data.find(Path(folder), split, task.name) for split in ("train", "validation")}
        found: dict[str, Any] = {
            split: self._of(path, "sha256", files.sha256) for split, path in paths.items()
        }
        found["rows"] = self._of(
            paths["train"], f"rows of {task.name}", lambda _: len(data.load(task, "train", folder))
        )
        return found

    def model(self, source: str) -> dict[str, Any]:
        """Return the digests of a model's files, or its name on the hub."""
        folder = Path(source)
        if not folder.is_dir():
            return {"hub": source}
        names = sorted({path for pattern in _MODEL_FILES for path in folder.glob(pattern) if path.is_file()})
        return {path.name: self._of(path, "sha256", files.sha256) for path in names}

    def code(self, kind: str) -> str:
        """Return the digest of the code that makes a kind of cell, without comments and docstrings."""
        todo = [path for pattern in _ENTRIES[kind] for path in sorted(_ROOT.glob(pattern))]
        parts: dict[str, str] = {}
        while todo:
            path = todo.pop()
            name = path.relative_to(_ROOT).as_posix()
            if name in parts or name in _INDIFFERENT:
                continue
            found = self._of(path, "code", _code)
            parts[name] = found["digest"]
            todo += [_ROOT / module for module in found["imports"] if (_ROOT / module).is_file()]
        return files.json_digest(parts)

    def _of(self, path: Path, what: str, compute: Callable[[Path], Any]) -> Any:
        stat = path.stat()
        name, stamp = f"{what}: {path.resolve()}", [stat.st_size, stat.st_mtime_ns, stat.st_ino]
        entry = self._known.get(name)
        if not isinstance(entry, dict) or entry.get("stamp") != stamp:
            self._known[name] = entry = {"stamp": stamp, "value": compute(path)}
            self._changed = True
        return entry["value"]


def versions(kind: str, backend_names: Sequence[str] = ()) -> dict[str, str]:
    """Return the installed versions that decide what a kind of cell makes."""
    names = (
        *_PACKAGES[kind],
        *(name for backend in backend_names for name in backends.get(backend).packages),
    )
    return {name: version for name in dict.fromkeys(names) if (version := _version(name))}


@functools.cache
def _version(name: str) -> str | None:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None


def _code(path: Path) -> dict[str, Any]:
    """Return the digest of a module's syntax tree without docstrings, and the files of effx it imports."""
    try:
        tree = ast.parse(path.read_bytes())
    except SyntaxError as error:
        raise EffxError(f"{path}: {error}") from error
    imports = sorted({file for node in ast.walk(tree) for file in _imported(node)})
    for node in ast.walk(tree):
        body = getattr(node, "body", None)
        if isinstance(body, list) and body and isinstance(body[0], ast.Expr):
            value = body[0].value
            if isinstance(value, ast.Constant) and isinstance(value.value, str):
                del body[0]
    return {"digest": hashlib.sha256(ast.dump(tree).encode()).hexdigest(), "imports": imports}


def _imported(node: ast.AST) -> set[str]:
    """Return the files, relative to the package, that an import statement reads."""
    names = []
    if isinstance(node, ast.Import):
        names = [(alias.name, "") for alias in node.names]
    elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
        names = [(node.module, alias.name) for alias in node.names]
    found = set()
    for module, name in names:
        if module.split(".")[0] != "effx":
            continue
        place = "/".join(module.split(".")[1:])
        inner = f"{place}/{name}" if place else name
        if name and any((_ROOT / file).is_file() for file in (f"{inner}.py", f"{inner}/__init__.py")):
            found |= {f"{inner}.py", f"{inner}/__init__.py"}  # a module: its package's own code is not read
        else:
            found |= {f"{place}.py", f"{place}/__init__.py"}
    return found

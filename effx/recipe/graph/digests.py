"""The parts of a cell's key: digests of files and of code, versions of packages.

The code of a stage is what its row in :data:`effx.specs.stages.STAGES` names, with all that it imports of
effx. It counts as a syntax tree without comments, docstrings and imports, so that only what decides the
result changes a key:

    tables (BACKENDS, TASKS, METERS, ...)   their rows do not count; what a cell uses of them does
    specs/                                  only the definitions that are imported count, with those they use
    types of arguments and results          do not count, nor what is imported for them alone
    backends and meters                     only the modules of those in use count
    errors, files, formatting, ...          do not count: they decide how results are written and reported;
                                            formatting counts for the stages that write pages and tables

Hashing a model takes seconds, so digests are remembered by path, size and time of change.
"""

from __future__ import annotations

import ast
import contextlib
import functools
import hashlib
import importlib.metadata
import json
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import effx
from effx import data, files, model_files
from effx.errors import EffxError
from effx.specs import backends as backend_rows
from effx.specs.data import DataSource
from effx.specs.meters import METERS
from effx.specs.stages import STAGES
from effx.specs.tasks import Task

_ROOT = Path(effx.__file__).parent
_WITHOUT_EFFECT = {
    "__init__.py", "errors.py", "files.py", "formatting.py", "progress.py", "quiet.py", "host/memory.py",
    "artifacts.py", "records.py", "signals.py", "scratch.py", "host/locks.py", "profile/journal.py",
    "specs/settings.py", "costs.py", "meters/running.py", "recipe/execute/protocol.py",
    "recipe/execute/store.py", "train/understood.py",
}  # fmt: skip
"""Modules that decide how results are written, checked and reported, not what they are.

They count for stages whose row names them in ``code``: the texts of these are their result.
"""
_FOLDERS_WITHOUT_EFFECT = ("manifests/",)
"""Likewise."""
_TABLES = {"BACKENDS", "BUILDERS", "METERS", "PRESETS", "STAGES", "TASKS"}
"""Tables whose rows are not code: a cell's settings and inputs have what it uses of them."""
_TABLES_OF_SPECS = {"_ROWS"}
"""Likewise, in modules of ``specs/``; elsewhere the name is that of a number."""
_BY_DEFINITION = "specs/"
"""Modules of which only the imported definitions count."""
Imports = dict[str, list[str] | None]
"""Module of effx, as a path -> the names imported from it; None: the module itself."""


class Digests:
    """Digests of inputs, remembered in a file.

    One object takes each digest once: a run plans further cells after it has done some, with the rows and
    models that it began with.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._known: dict[str, Any] = {}
        self._taken: dict[str, Any] = {}
        self._models: dict[str, dict[str, Any]] = {}
        self._rows: dict[str, dict[str, Any]] = {}
        self._changed = False
        self._codes: dict[tuple[str, ...], str] = {}
        with contextlib.suppress(OSError, ValueError):
            value = json.loads(path.read_bytes())
            self._known = value if isinstance(value, dict) else {}

    def save(self) -> None:
        """Remember what was computed."""
        if self._changed:
            files.write_json(self._path, self._known)
            self._changed = False

    def rows(self, task: Task, source: DataSource | None) -> dict[str, Any]:
        """Return a task's definition, the digests of its files, and its number of training rows if known.

        Raises:
            DataError: files are missing, or rows do not fit the task.
        """
        name = files.json_digest({"task": _plain(task), "source": source and source.to_json()})
        if name not in self._rows:
            self._rows[name] = self._rows_of(task, source)
        return self._rows[name]

    def _rows_of(self, task: Task, source: DataSource | None) -> dict[str, Any]:
        if source is None:
            rows = len(data.load(task, "train")) if task.name == "demo" else None
            hub = None if task.hub is None else [str(task.hub.path), str(task.hub.config)]
            return {"task": _plain(task), "hub": hub, "rows": rows}
        digests: dict[str, Any] = {"task": _plain(task), "reading": source.to_json()["settings"]}
        paths = {split: data.paths(task.name, split, source) for split in ("train", "validation")}
        for split, files_of_split in paths.items():
            digests[split] = [self.file(path) for path in files_of_split]
        digests["rows"] = self._of(
            paths["train"][0],
            f"rows of {task.name}, {files.json_digest(digests)}",
            lambda _: len(data.load(task, "train", source)),
        )
        return digests

    def file(self, path: Path) -> str:
        """Return the SHA-256 of a file; it is read again only if it has changed."""
        return str(self._of(path, "sha256", files.sha256))

    def model(self, source: str) -> dict[str, Any]:
        """Return the digests of a model's files, or its name on the hub."""
        folder = Path(source)
        if not folder.is_dir():
            return {"hub": source}
        if source not in self._models:
            paths = model_files.deciding(folder)
            self._models[source] = {path.relative_to(folder).as_posix(): self.file(path) for path in paths}
        return self._models[source]

    def code(self, stage: str, backends: Sequence[str] = (), meter: str | None = None) -> str:
        """Return the digest of the code and assets that decide a stage's results.

        Args:
            stage: one of :data:`effx.specs.stages.STAGES`.
            backends: those in use.
            meter: the energy meter in use, as the recipe names it.

        Raises:
            UsageError: there is no such backend.
        """
        known = (stage, *backends, meter or "")
        if known not in self._codes:
            self._codes[known] = self._code(stage, backends, meter)
        return self._codes[known]

    def _code(self, stage: str, backends: Sequence[str], meter: str | None) -> str:
        parts: dict[str, str] = {}
        named = roots(stage, backends, meter)
        todo: list[tuple[Path, list[str] | None]] = [(path, None) for path in named]
        todo.append((_ROOT / "specs/stages.py", [STAGES[stage].settings.__name__]))
        while todo:
            path, names = todo.pop()
            name = path.relative_to(_ROOT).as_posix()
            reported = name in _WITHOUT_EFFECT or name.startswith(_FOLDERS_WITHOUT_EFFECT)
            if reported and path not in named:
                continue
            wanted: list[str | None] = [None]
            if names is not None and name.startswith(_BY_DEFINITION):
                wanted = [*sorted(names)]
            for definition in wanted:
                part = f"{name} {definition or ''}"
                if part in parts:
                    continue
                module = self._of(
                    path, f"syntax {definition}", functools.partial(_code, definition=definition)
                )
                parts[part] = module["digest"]
                todo += [(_ROOT / file, names) for file, names in module["imports"].items()]
        parts |= {path.name: self.file(path) for path in assets(stage)}
        for backend in backends:
            facts = replace(backend_rows.get(backend), title="", extra="")  # for messages
            parts[f"backend {backend}"] = repr(facts)
        return files.json_digest(parts)

    def versions(self, stage: str, backends: Sequence[str] = ()) -> dict[str, str]:
        """Return the installed versions that decide a stage's results.

        Raises:
            UsageError: there is no such backend.
        """
        names = [*STAGES[stage].packages]
        for backend in backends:
            names += backend_rows.get(backend).packages
        return {name: version for name in dict.fromkeys(names) if (version := _version(name))}

    def _of(self, path: Path, what: str, compute: Callable[[Path], Any]) -> Any:
        name = f"{what}: {path.resolve()}"
        if name not in self._taken:
            self._taken[name] = self._now(path, name, compute)
        return self._taken[name]

    def _now(self, path: Path, name: str, compute: Callable[[Path], Any]) -> Any:
        stat = path.stat()
        stamp = [stat.st_size, stat.st_mtime_ns, stat.st_ino]
        entry = self._known.get(name)
        if not isinstance(entry, dict) or entry.get("stamp") != stamp:
            self._known[name] = entry = {"stamp": stamp, "value": compute(path)}
            self._changed = True
        return entry["value"]


def _plain(task: Task) -> dict[str, Any]:
    """Return a task's definition as a record that is read back has it."""
    value: dict[str, Any] = json.loads(json.dumps(task.to_json()))
    return value


def roots(stage: str, backends: Sequence[str] = (), meter: str | None = None) -> list[Path]:
    """Return the modules that decide a stage's results, without what they import.

    Raises:
        UsageError: there is no such backend.
    """
    row = STAGES[stage]
    patterns = [f"recipe/execute/stages/{stage.replace('-', '_')}.py", *row.code]
    for backend in backends:
        facts = backend_rows.get(backend)
        modules = {"engine": facts.engine_module, "builder": facts.builder_module}
        patterns += [pattern.format(**modules) for pattern in row.code_of_backend]
    for name in _meters(meter):
        patterns += [pattern.format(meter=name) for pattern in row.code_of_meter]
    return [path for pattern in patterns for path in sorted(_ROOT.glob(pattern))]


def assets(stage: str) -> list[Path]:
    """Return the other files that decide a stage's results."""
    paths = [path for pattern in STAGES[stage].assets for path in sorted(_ROOT.glob(pattern))]
    return [path for path in paths if path.is_file()]


def _meters(meter: str | None) -> tuple[str, ...]:
    """Return the names of the meters that may be in use."""
    name = (meter or "none").partition(":")[0]
    if name == "none":
        return ()
    if name == "auto":
        return tuple(name for name, row in METERS.items() if row.devices)
    return (name,)


@functools.cache
def _version(name: str) -> str | None:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None


def _code(path: Path, definition: str | None) -> dict[str, Any]:
    """As :func:`_code_at`, remembered by this process too."""
    return _code_at(path, path.stat().st_mtime_ns, definition)


@functools.cache
def _code_at(path: Path, changed_ns: int, definition: str | None) -> dict[str, Any]:
    """Return the digest of a module, or of one definition in it, and what it imports of effx.

    Args:
        path: the module.
        changed_ns: when it was changed.
        definition: a name at its top level; only what this name needs counts. None: all of the module.
    """
    try:
        tree = ast.parse(path.read_bytes())
    except SyntaxError as error:
        raise EffxError(f"{path}: {error}") from error
    body = tree.body if definition is None else _needed(tree.body, definition)
    module = ast.Module(body, [])
    unused = _names_of_types(module)
    if definition is not None:  # an import statement may have names for other definitions too
        used = {node.id for node in ast.walk(module) if isinstance(node, ast.Name)} | {definition}
        unused = {name for statement in body for name in _defined(statement)} - used
    imports = _imports(module, path, unused)
    in_specs = path.relative_to(_ROOT).as_posix().startswith(_BY_DEFINITION)
    stripped = _Stripped(_TABLES | _TABLES_OF_SPECS if in_specs else _TABLES).visit(module)
    return {"digest": hashlib.sha256(ast.dump(stripped).encode()).hexdigest(), "imports": imports}


class _Stripped(ast.NodeTransformer):
    """Removes what decides nothing: docstrings, imports of effx, tables, types of arguments and results."""

    def __init__(self, tables: Collection[str]) -> None:
        self._tables = frozenset(tables)

    def visit_arg(self, node: ast.arg) -> ast.AST:
        node.annotation = None
        return node

    def visit_FunctionDef(self, node: ast.FunctionDef) -> ast.AST:
        node.returns = None
        return self.generic_visit(node)

    def visit_Expr(self, node: ast.Expr) -> ast.AST | None:
        is_text = isinstance(node.value, ast.Constant) and isinstance(node.value.value, str)
        return None if is_text else self.generic_visit(node)

    def visit_Import(self, node: ast.Import) -> ast.AST | None:
        return None if all(_is_ours(alias.name) for alias in node.names) else node

    def visit_ImportFrom(self, node: ast.ImportFrom) -> ast.AST | None:
        return None if _is_ours(node.module or "") else node

    def visit_Assign(self, node: ast.Assign) -> ast.AST | None:
        return None if _defined(node) & self._tables else self.generic_visit(node)

    def visit_AnnAssign(self, node: ast.AnnAssign) -> ast.AST | None:
        return None if _defined(node) & self._tables else self.generic_visit(node)


def _needed(body: Sequence[ast.stmt], definition: str) -> list[ast.stmt]:
    """Return the statements of a module that one of its definitions needs, in their order."""
    named = [(_defined(statement), statement) for statement in body]
    todo, seen, chosen = [definition], set[str](), set[int]()
    while todo:
        name = todo.pop()
        seen.add(name)
        for index, (names, statement) in enumerate(named):
            if name in names and index not in chosen:
                chosen.add(index)
                used = {node.id for node in ast.walk(statement) if isinstance(node, ast.Name)}
                todo += sorted(used - seen)
    return [statement for index, (_, statement) in enumerate(named) if index in chosen]


def _defined(statement: ast.stmt) -> set[str]:
    """Return the names that a statement defines at its module's top level."""
    if isinstance(statement, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
        return {statement.name}
    if isinstance(statement, ast.Import | ast.ImportFrom):
        return {(alias.asname or alias.name).partition(".")[0] for alias in statement.names}
    targets: list[ast.expr] = []
    if isinstance(statement, ast.Assign):
        targets = list(statement.targets)
    elif isinstance(statement, ast.AnnAssign | ast.AugAssign):
        targets = [statement.target]
    return {node.id for target in targets for node in ast.walk(target) if isinstance(node, ast.Name)}


def _is_ours(module: str) -> bool:
    return module.partition(".")[0] == "effx"


def _names_of_types(module: ast.Module) -> set[str]:
    """Return the names that occur in types of arguments and results, and nowhere else."""
    every, in_types = [], []
    for node in ast.walk(module):
        if isinstance(node, ast.Name):
            every.append(node.id)
        annotation = None
        if isinstance(node, ast.arg):
            annotation = node.annotation
        elif isinstance(node, ast.FunctionDef):
            annotation = node.returns
        if annotation is not None:
            in_types += [inner.id for inner in ast.walk(annotation) if isinstance(inner, ast.Name)]
    return {name for name in set(in_types) if every.count(name) == in_types.count(name)}


def _alternatives() -> set[str]:
    """Return the modules of which a cell uses those of its backends and of its meter."""
    rows_ = backend_rows.BACKENDS.values()
    engines = {f"engines/{row.engine_module}.py" for row in rows_}
    builders = {f"export/builders/{row.builder_module}.py" for row in rows_}
    return engines | builders | {f"meters/{name}.py" for name in METERS}


def _imports(module: ast.Module, path: Path, unused: set[str]) -> Imports:
    """Return the modules of effx that a module imports, and which names of each but the unused."""
    imports: dict[str, set[str] | None] = {}
    alternatives = _alternatives()
    importer = path.relative_to(_ROOT)
    for node in ast.walk(module):
        for file, name, bound in _imported(node):
            is_part = importer.parent == Path(file).parent and importer.name != "__init__.py"
            if file in alternatives and not is_part:
                continue  # those in use are roots
            if bound in unused:
                continue
            known = imports.setdefault(file, set())
            imports[file] = None if name is None or known is None else known | {name}
    return {file: None if names is None else sorted(names) for file, names in sorted(imports.items())}


def _imported(node: ast.AST) -> Iterator[tuple[str, str | None, str]]:
    """Yield what an import statement reads: file relative to the package, name in it or None, name here."""
    if isinstance(node, ast.Import):
        names = [(alias.name, "", alias.asname or alias.name) for alias in node.names]
    elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
        names = [(node.module, alias.name, alias.asname or alias.name) for alias in node.names]
    else:
        return
    for module, name, bound in names:
        if not _is_ours(module):
            continue
        parent = "/".join(module.split(".")[1:])
        inner = f"{parent}/{name}" if parent else name
        candidates = [(inner, None)] if name else []  # a module: its package's __init__ is not read
        for stem, imported in (*candidates, (parent, name or None)):
            existing = [file for file in (f"{stem}.py", f"{stem}/__init__.py") if (_ROOT / file).is_file()]
            if existing:
                yield from ((file, imported, bound) for file in existing)
                break

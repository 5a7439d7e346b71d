"""A workspace on disk, shared by runs, recipes and processes.

    cells/KEY/cell.json      the record of a completed cell; the folder appears in one rename
    cells/KEY/NAME/          its output: a checkpoint, an engine, a folder of results, a report
    cells/KEY/*.json         results of a ticket, which stay when its checkpoint is removed
    paused/KEY/STEPS/        a training run of successive halving, or of several tasks, that may be continued
    locks/KEY                the process that works on a cell; see :mod:`effx.host.locks`
    logs/KEY.log             what a cell printed
    journal/HOST.jsonl       one line each time a cell begins, is done or fails
    checkpoints/ engines/    links to the outputs of the last recipe, under readable names,
    results/ report ...      and results/RECIPE.yaml, the recipe with every default filled in

A record never changes. The output of a cell may be removed if it is not to be kept; the record remains, and
the cell is done again only if its artifact is needed again.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import socket
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from effx import files, records
from effx.artifacts import now
from effx.errors import ArtifactError
from effx.host import locks
from effx.recipe.execute.protocol import CellInputs

RECORD = "cell.json"
_NOT_VIEWS = {"cells", "paused", locks.FOLDER, "logs", "journal"}
SETTLED = ("done", "gate", "refused")
"""Outcomes that stay: doing the cell again would end the same way."""


@dataclass(frozen=True)
class CellRecord:
    """A completed cell."""

    key: str
    stage: str
    name: str
    outcome: str
    """One of :data:`SETTLED`."""
    note: str
    """One line: a score, or why not."""
    digest: str | None
    """Of the artifact, where it has one."""
    seconds: float
    work: float
    group: str
    started: str
    host: str
    threads: int | None
    settings: dict[str, Any]
    inputs: CellInputs
    sources: dict[str, str]
    """Cells that it read, by id, and their keys."""
    sizes: dict[str, int] | None = None
    """Bytes of each file of the output, by its path within; None: a record of an earlier version."""

    def to_json(self) -> dict[str, Any]:
        """Return the record as cell.json has it."""
        return {**vars(self), "inputs": self.inputs.to_json()}

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> CellRecord:
        """Return the record that cell.json holds.

        Raises:
            TypeError: it is not a record.
        """
        return cls(**{**value, "inputs": CellInputs(**value.get("inputs", {}))})


class CellStore:
    """The folder of a workspace."""

    def __init__(self, folder: str | Path) -> None:
        self.folder = Path(folder)

    @property
    def digests(self) -> Path:
        """The file of remembered digests."""
        return self.folder / ".digests.json"

    def cell(self, key: str) -> Path:
        """Return a cell's folder."""
        return self.folder / "cells" / key

    def lock(self, key: str) -> Path:
        """Return a cell's lock."""
        return self.folder / locks.FOLDER / key

    def log(self, key: str) -> Path:
        """Return a cell's log."""
        return self.folder / "logs" / f"{key}.log"

    def create(self) -> None:
        """Create the folders.

        Raises:
            UsageError: the folder cannot be written to.
        """
        try:
            for name in ("cells", locks.FOLDER, "logs", "journal"):
                (self.folder / name).mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise files.cannot_write(self.folder, error) from error

    def find(self, key: str, *, artifact: bool = True) -> CellRecord | None:
        """Return the record of a completed cell; None: it has to be done.

        Args:
            key: the cell's.
            artifact: its output has to exist too. Its files are not hashed here: whoever opens them
                does that.
        """
        try:
            record = CellRecord.from_json(records.read_json(self.cell(key) / RECORD))
        except (ArtifactError, ValueError, TypeError, AttributeError):
            return None
        if record.outcome != "done":
            return record if record.outcome in SETTLED else None
        return record if not artifact or self.has_artifact(record) else None

    def has_artifact(self, record: CellRecord) -> bool:
        """Whether the output of a cell is in its folder, with all its files in their sizes."""
        folder = self.cell(record.key) / record.name
        if record.sizes is not None and not _has(folder, record.sizes):
            return False
        if record.digest is None:
            return folder.is_dir() and (record.sizes is not None or any(folder.iterdir()))
        for manifest in ("effx.json", "engine.json"):
            with contextlib.suppress(ArtifactError):
                if records.read_json(folder / manifest).get("digest") == record.digest:
                    return True
        return False

    def records(self) -> list[CellRecord]:
        """Return the records of all completed cells, whatever recipe they belong to."""
        parent = self.folder / "cells"
        keys = sorted(child.name for child in parent.iterdir()) if parent.is_dir() else []
        stored = (self.find(key, artifact=False) for key in keys if not key.startswith("."))
        return [record for record in stored if record]

    @contextlib.contextmanager
    def settle(self, key: str) -> Iterator[Path]:
        """Yield a folder that becomes the cell's on a clean exit; an earlier one is replaced."""
        with files.new_folder(self.cell(key), replace=True) as temporary:
            yield temporary

    def remove_artifact(self, record: CellRecord) -> None:
        """Remove the output of a cell; its record and results remain."""
        folder = self.cell(record.key) / record.name
        removed = folder.with_name(f".{record.name}.removed.{os.getpid()}")
        with contextlib.suppress(OSError):  # gone already, or another process removes it
            folder.rename(removed)
            shutil.rmtree(removed, ignore_errors=True)

    def paused_folder(self, run_key: str) -> Path:
        """Return the folder of what a run may be continued from."""
        return self.folder / "paused" / run_key

    def paused(self, run_key: str) -> dict[int, Path]:
        """Return the paused states of a training run: optimizer steps -> folder."""
        folder = self.paused_folder(run_key)
        children = folder.iterdir() if folder.is_dir() else ()
        return {int(child.name): child for child in children if child.name.isdigit()}

    def paused_state(self, run_key: str, steps: int) -> Path:
        """Return the folder of the state that a training run has after some optimizer steps."""
        return self.paused_folder(run_key) / str(steps)

    def remove_paused(self, run_key: str, before: int | None = None) -> None:
        """Remove the states of a training run: those with fewer steps than ``before``, or all."""
        if before is None:
            shutil.rmtree(self.paused_folder(run_key), ignore_errors=True)
            with contextlib.suppress(OSError):  # other runs have states, or there are none
                (self.folder / "paused").rmdir()
            return
        for steps, folder in self.paused(run_key).items():
            if steps < before:
                shutil.rmtree(folder, ignore_errors=True)

    def note(self, event: str, key: str, cell: str, **more: Any) -> None:
        """Add a line to this host's journal; each line is one write, so that lines never mix."""
        line = {"at": now(), "event": event, "key": key, "cell": cell, "pid": os.getpid(), **more}
        path = self.folder / "journal" / f"{files.safe_name(socket.gethostname())}.jsonl"
        handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o666)
        try:
            cut = False
            if os.fstat(handle).st_size:
                os.lseek(handle, -1, os.SEEK_END)
                cut = os.read(handle, 1) != b"\n"  # as the machine died
            os.write(handle, ("\n" * cut + json.dumps(line, ensure_ascii=False) + "\n").encode())
        finally:
            os.close(handle)

    def journal(self) -> list[dict[str, Any]]:
        """Return the journals of all hosts, each in order."""
        lines: list[dict[str, Any]] = []
        for path in sorted((self.folder / "journal").glob("*.jsonl")):
            for text in path.read_text(encoding="utf-8", errors="replace").splitlines():
                with contextlib.suppress(ValueError, RecursionError):  # cut short as its machine died
                    lines.append(json.loads(text))
        return lines

    def link(self, wanted: Mapping[str, Path]) -> None:
        """Make links in the workspace for people, and remove those of earlier recipes.

        Args:
            wanted: path of a link relative to the workspace -> what it points to. A file or folder that is
                not a link is never replaced.
        """
        links = {self.folder / name: target for name, target in wanted.items()}
        for old in self._views():
            if old not in links:
                old.unlink(missing_ok=True)
        for link, target in links.items():
            link.parent.mkdir(parents=True, exist_ok=True)
            _link(link, target)

    def _views(self) -> Iterator[Path]:
        """Yield the links that earlier recipes were given."""
        for parent, folders, names in os.walk(self.folder):
            if Path(parent) == self.folder:
                folders[:] = [name for name in folders if name not in _NOT_VIEWS]
            yield from (
                Path(parent) / name for name in (*folders, *names) if self._is_view(Path(parent) / name)
            )

    def _is_view(self, path: Path) -> bool:
        """Whether a path is a link to the output of a cell."""
        if not path.is_symlink():
            return False
        target = os.path.normpath(path.parent / os.readlink(path))
        return Path(target).is_relative_to(os.path.normpath(self.folder / "cells"))

    def write_recipe(self, name: str, text: str) -> None:
        """Write the recipe with every default filled in, for people and to run again."""
        path = self.folder / "results" / f"{name}.yaml"
        if not path.is_file() or path.read_text(encoding="utf-8") != text:
            files.write_atomic(path, text.encode())

    def clean(self) -> None:
        """Remove what processes left unfinished that are gone; see :mod:`effx.files`."""
        parent = self.folder / "cells"
        for folder in (self.folder, parent, self.folder / locks.FOLDER, self.folder / "results"):
            files.remove_leftovers(folder)
        for removed in parent.glob("*/.*.removed.*"):
            shutil.rmtree(removed, ignore_errors=True)


def sizes(folder: Path) -> dict[str, int]:
    """Return the bytes of every file in a folder, by its path within."""
    found = sorted(path for path in folder.rglob("*") if path.is_file())
    return {path.relative_to(folder).as_posix(): path.stat().st_size for path in found}


def _has(folder: Path, expected: Mapping[str, int]) -> bool:
    """Return whether a folder has files of these sizes; it may have others too."""
    try:
        return all((folder / name).stat().st_size == size for name, size in expected.items())
    except OSError:
        return False


def _link(link: Path, target: Path) -> None:
    """Point a link at its target, in one step."""
    relative = os.path.relpath(target, link.parent)
    if link.is_symlink() and os.readlink(link) == relative:
        return
    if link.exists() and not link.is_symlink():
        return  # a file or folder of the user
    temporary = link.with_name(f".{link.name}.{os.getpid()}.link")
    temporary.unlink(missing_ok=True)
    temporary.symlink_to(relative)
    temporary.replace(link)

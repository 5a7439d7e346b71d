"""A workspace on disk.

    cells/KEY/cell.json      what was done, beside what it made; the folder appears in one rename
    cells/KEY/NAME/          a checkpoint, an engine, a folder of results, a report
    checkpoints/ engines/    links to those of the last recipe
    results/ report tickets/ likewise; results/RECIPE.yaml is the recipe with every default filled in
    locks/KEY                who works on a cell; see locks.py
    logs/KEY.log             what it printed
    journal/HOST.jsonl       begun, done, failed: one line each, in order

Nothing in ``cells`` is ever changed, so that several runs and recipes may share a workspace.
"""

from __future__ import annotations

import contextlib
import json
import os
import socket
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from effx import files
from effx.artifacts import now
from effx.host import locks

RECORD = "cell.json"
_VIEWS = {
    "pretrain": "pretrained",
    "finetune": "checkpoints",
    "prune": "checkpoints",
    "lottery": "checkpoints",
    "tokens": "checkpoints",
    "exits": "checkpoints",
    "export": "engines",
    "profile": "results",
    "tickets": "tickets",
}
SETTLED = ("done", "gate", "refused")
"""Outcomes that are kept: doing the cell again would end the same way."""


@dataclass(frozen=True)
class Record:
    """A cell that was settled."""

    key: str
    kind: str
    name: str
    outcome: str
    """``done``; ``gate``: built and not passed; ``refused``: cannot be built."""
    note: str
    """One line: a score, or why not."""
    digest: str | None
    """Of the artefact, where it has one."""
    seconds: float
    work: float
    group: str
    started: str
    host: str
    threads: int | None
    settings: dict[str, Any]
    inputs: dict[str, Any]
    needs: dict[str, str]
    """Cells that it read, and their keys."""


class Workspace:
    """The folder that a recipe fills."""

    def __init__(self, folder: str | Path) -> None:
        self.folder = Path(folder)

    @property
    def digests(self) -> Path:
        return self.folder / ".digests.json"

    def cell(self, key: str) -> Path:
        """Return a cell's folder."""
        return self.folder / "cells" / key

    def lock(self, key: str) -> Path:
        return self.folder / locks.FOLDER / key

    def log(self, key: str) -> Path:
        return self.folder / "logs" / f"{key}.log"

    def make(self) -> None:
        """Create the folders.

        Raises:
            UsageError: the place cannot be written to.
        """
        try:
            for name in ("cells", locks.FOLDER, "logs", "journal"):
                (self.folder / name).mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise files.cannot_write(self.folder, error) from error

    def find(self, key: str) -> Record | None:
        """Return a cell's record if it is settled and what it made is there.

        The artefact's files are not hashed here: whoever opens it does that.
        """
        try:
            record = Record(**json.loads((self.cell(key) / RECORD).read_bytes()))
        except (OSError, ValueError, TypeError):
            return None
        if record.outcome != "done":
            return record if record.outcome in SETTLED else None
        made = self.cell(key) / record.name
        if record.digest is None:
            return record if made.is_dir() and any(made.iterdir()) else None
        for manifest in ("effx.json", "engine.json"):
            with contextlib.suppress(OSError, ValueError):
                if json.loads((made / manifest).read_bytes()).get("digest") == record.digest:
                    return record
        return None

    def records(self) -> list[Record]:
        """Return every settled cell, whatever recipe it is of."""
        place = self.folder / "cells"
        keys = sorted(child.name for child in place.iterdir()) if place.is_dir() else []
        return [found for key in keys if not key.startswith(".") and (found := self.find(key))]

    @contextlib.contextmanager
    def settle(self, key: str) -> Iterator[Path]:
        """Yield a folder that becomes the cell's on a clean exit; a damaged one is replaced."""
        with files.new_folder(self.cell(key), replace=True) as temporary:
            yield temporary

    def note(self, event: str, key: str, name: str, **more: Any) -> None:
        """Add a line to the journal; lines of one host never mix, for each is one write."""
        line = {"at": now(), "event": event, "key": key, "cell": name, "pid": os.getpid(), **more}
        path = self.folder / "journal" / f"{files.safe_name(socket.gethostname())}.jsonl"
        handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o666)
        try:
            os.write(handle, (json.dumps(line, ensure_ascii=False) + "\n").encode())
        finally:
            os.close(handle)

    def journal(self) -> list[dict[str, Any]]:
        """Return the journals of all hosts, each in order."""
        lines: list[dict[str, Any]] = []
        for path in sorted((self.folder / "journal").glob("*.jsonl")):
            for text in path.read_text(encoding="utf-8").splitlines():
                with contextlib.suppress(ValueError):  # a line that a dying machine cut
                    lines.append(json.loads(text))
        return lines

    def show(self, records: Mapping[str, Record], recipe_name: str, resolved: str) -> None:
        """Link what a recipe made under names for people, and leave the resolved recipe beside it."""
        wanted: dict[str, dict[str, Path]] = {view: {} for view in set(_VIEWS.values())}
        report: Path | None = None
        for record in records.values():
            if record.outcome != "done":
                continue
            made = self.cell(record.key) / record.name
            if record.kind == "report":
                report = made
            elif record.kind in _VIEWS:
                wanted[_VIEWS[record.kind]][record.name] = made
        for view, entries in wanted.items():
            place = self.folder / view
            if entries:
                place.mkdir(exist_ok=True)
            for link in place.iterdir() if place.is_dir() else ():
                if link.is_symlink() and link.name not in entries:
                    link.unlink(missing_ok=True)
            for name, made in entries.items():
                _link(place / name, made)
        if report is not None:
            _link(self.folder / "report", report)
        path = self.folder / "results" / f"{recipe_name}.yaml"
        if not path.is_file() or path.read_text(encoding="utf-8") != resolved:
            files.write_atomic(path, resolved.encode())

    def clean(self) -> None:
        """Remove what writers left that are gone; see :mod:`effx.files`."""
        place = self.folder / "cells"
        for name in {child.name.split(".")[1] for child in place.glob(".*.tmp")} if place.is_dir() else ():
            files.remove_stale(place / name)


def _link(link: Path, made: Path) -> None:
    """Point a link at what was made, in one step."""
    target = os.path.relpath(made, link.parent)
    if link.is_symlink() and os.readlink(link) == target:
        return
    if link.exists() and not link.is_symlink():
        return  # someone's own folder: theirs stays
    temporary = link.with_name(f".{link.name}.{os.getpid()}.link")
    temporary.unlink(missing_ok=True)
    temporary.symlink_to(target)
    temporary.replace(link)

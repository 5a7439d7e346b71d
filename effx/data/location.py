"""Which rows an artifact was made with, and where they are on this machine.

Manifests name rows by the name and the digest of their files, so that an artifact which is given to others
says nothing about folders. Where the files are is remembered per user and machine (:mod:`effx.host.state`).
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

from effx import files, progress
from effx.data import layouts
from effx.errors import DataError, UsageError
from effx.host import state
from effx.specs.data import OF_LABELS, DataLocation, DataRecord, DataSettings, DataSource
from effx.specs.tasks import Task

_KIND = "data"


def recorded(task: Task, source: DataLocation) -> DataRecord | None:
    """Return what a manifest states of rows, and remember where they are; None: the hub or the demo corpus.

    Raises:
        DataError, UsageError: the folder has no files of validation rows.
    """
    known = DataSource.of(source)
    if known is None:
        return None
    path = Path(known.path).expanduser().resolve()
    record = DataRecord(path.name, path.is_dir(), known.settings, _digest(task, known))
    state.remember(_KIND, _key(record), str(path))
    return record


def locate(given: DataLocation, task: Task, record: DataRecord | None) -> DataSource | None:
    """Return where the rows of an artifact are: where the user says, or where they were when it was made.

    Settings of how files are read that the user does not give are those of the artifact.

    Args:
        given: file or folder that the user names; None: as recorded.
        task: the artifact's.
        record: the artifact's.

    Raises:
        DataError: the user names none, and where the recorded rows are is not known on this machine; or the
            user names another file than the one that was divided into training and validation rows.
    """
    source = DataSource.of(given)
    if record is None:
        return source
    if source is not None:
        return _read_as(task, record, source)
    path = state.recall(_KIND, _key(record))
    if path is None:
        kind = "folder" if record.folder else "file"
        raise DataError(
            f"the rows are those of the {kind} '{record.name}', but effx does not know where it is on this "
            "machine: give its path",
            settings="data",
        )
    source = DataSource(path, record.settings, record.digest if record.settings.split else None)
    with contextlib.suppress(DataError, UsageError, OSError):  # reading the rows reports these
        if _digest(task, source) != record.digest:
            progress.say_once(f"{path} has changed since it was recorded; its current rows are used")
    return source


def digest_of(paths: Iterable[Path]) -> str:
    """Return the SHA-256 of the contents of files, in order, whatever their names are."""
    return files.json_digest({str(number): files.sha256(path) for number, path in enumerate(paths)})


def _read_as(task: Task, record: DataRecord, source: DataSource) -> DataSource:
    before = {name: value for name, value in record.settings.given().items() if name != "unlabelled"}
    if source.settings.unlabelled:
        before = {name: value for name, value in before.items() if name not in OF_LABELS}
    if source.settings.split is None and "split" in before and not record.folder:
        undivided = {name: value for name, value in before.items() if not name.startswith("split")}
        if Path(source.path).is_dir():
            before = undivided
        elif _is_another_file(task, record, replace(source, settings=record.settings)):
            raise DataError(
                f"{source.path} is not {record.name}, of which a part was trained on: training rows could be "
                "among its rows. If there are none, put it into a folder as validation"
                f"{''.join(Path(source.path).suffixes)} and give the folder: then all its rows are used.",
                settings="data",
            )
    settings = DataSettings.of(**{**before, **source.settings.given()})
    return replace(source, settings=settings, digest=record.digest if settings.split else None)


def _is_another_file(task: Task, record: DataRecord, source: DataSource) -> bool:
    """Return whether a file has neither the name nor the content of the recorded one."""
    if Path(source.path).expanduser().resolve().name == record.name:
        return False
    with contextlib.suppress(DataError, UsageError, OSError):  # reading the rows reports these
        return _digest(task, source) != record.digest
    return False


def _digest(task: Task, source: DataSource) -> str:
    paths: tuple[Path, ...] = ()
    with contextlib.suppress(DataError, UsageError):  # an imported model needs no training rows
        paths = layouts.files_of(source, "train", task.name).paths
    paths += layouts.files_of(source, "validation", task.name).paths
    return digest_of(dict.fromkeys(paths))


def _key(record: DataRecord) -> str:
    return files.json_digest({"name": record.name, "folder": record.folder, "digest": record.digest})

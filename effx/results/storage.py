"""Result files on disk: written once, checked when they are read.

A file that cannot be trusted is an :class:`effx.errors.ArtifactError`, one line that names the file and the
part that is wrong: not a regular file, not strict JSON, of another schema, a missing or unknown key, a value
of another type, or a statement that contradicts samples or predictions (:mod:`effx.results.checks`).
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from effx import files, progress, records
from effx.errors import ArtifactError, UsageError, printable
from effx.host import memory
from effx.results import checks
from effx.results.records import SCHEMA, Failure, Run
from effx.specs.measurement import MeasurementPlan

_OF_RESULT = {"engine", "workloads", "quality"}
"""Keys by which a damaged result is distinguished from other JSON."""
_ADVICE = "Remove it, or profile the engine again."


def save(result: Run | Failure, folder: str | Path) -> Path:
    """Write ``folder/ID.json`` completely or not at all, never over another file.

    Raises:
        ArtifactError: the result contradicts itself; nothing is written.
        UsageError: the folder cannot be written to.
    """
    path = Path(folder) / f"{result.id}.json"
    try:
        text = json.dumps(
            records.printable_json(result.to_json()), indent=1, ensure_ascii=False, allow_nan=False
        )
        _check_text(records.parse_json(text.encode(), path))
    except (ValueError, ArtifactError) as error:  # it could not be read
        raise ArtifactError(f"{result.name}: the measurement cannot be saved: {_reason(error)}.") from error
    files.write_atomic(path, f"{text}\n".encode(), replace=False)
    return path


def open_run(path: str | Path) -> Run:
    """Read one result.

    Raises:
        ArtifactError: the file is missing, damaged, of another schema or a recorded failure.
    """
    result = _read(Path(path))
    if not isinstance(result, Run):
        raise ArtifactError(f"{path} is a recorded failure, not a measurement.")
    return result


def failures(folders: Sequence[Path]) -> list[Failure]:
    """Return the recorded failures in the folders, oldest first; see :func:`read`."""
    return read(folders)[1]


def find(folders: Sequence[Path]) -> list[Run]:
    """Return every result in the folders, oldest first, without recorded failures; see :func:`read`."""
    return read(folders)[0]


def read(folders: Sequence[Path]) -> tuple[list[Run], list[Failure]]:
    """Read every file of the folders once: results and recorded failures, each oldest first.

    Other JSON in a folder, such as a report's frontier.json, is skipped with a message.

    Raises:
        ArtifactError: a folder is missing or has no results, a result is damaged, or two have the same id.
    """
    results: dict[str, tuple[Path, Run | Failure]] = {}
    with memory.collector_paused():
        for folder in folders:
            is_folder = folder.is_dir()
            paths = sorted(folder.glob("*.json")) if is_folder else [folder] if folder.exists() else []
            known = 0
            for path in paths:
                result = _read(path, skip_others=is_folder)
                if result is None:
                    progress.say(f"{path} is not a result: skipped")
                    continue
                known += 1
                first_path, first = results.setdefault(result.id, (path, result))
                if first != result:
                    raise ArtifactError(
                        f"{path}: duplicate id {result.id!r}, also in {first_path}. Remove one."
                    )
            if not known:
                raise ArtifactError(
                    f"{folder} contains no results. Measure engines with: effx profile engines/"
                )
    ordered = sorted(
        (result for _, result in results.values()), key=lambda result: (result.started, result.id)
    )
    return (
        [result for result in ordered if isinstance(result, Run)],
        [result for result in ordered if isinstance(result, Failure)],
    )


def _read(path: Path, *, skip_others: bool = False) -> Run | Failure | None:
    """Return what a file holds; None: JSON of another kind, where that is to be skipped."""
    try:
        value = records.read_json(path)
    except ArtifactError as error:
        raise ArtifactError(f"{error} {_ADVICE}") from error
    if skip_others and "failure" not in value and not _OF_RESULT & value.keys():
        return None
    try:
        return _check_text(value)
    except ValueError as error:
        raise ArtifactError(f"{path} is not a valid result ({_reason(error)}). {_ADVICE}") from error


def _check_text(value: Mapping[str, Any]) -> Run | Failure:
    """Return the result of a file's JSON.

    Raises:
        ValueError: it is not a result, or the result contradicts itself.
    """
    if "schema" not in value:
        raise ValueError("schema is missing")
    if type(value["schema"]) is not int or value["schema"] != SCHEMA:
        raise ValueError(f"expected schema {SCHEMA}, got {str(value['schema'])[:20]}")
    text = json.dumps(value)
    records.check_texts(value)
    if "failure" in value:
        failure = Failure.from_json(text.encode())
        checks.check_failure(failure)
        return failure
    run = Run.from_json(text.encode())
    try:
        MeasurementPlan.from_json(value["settings"]["plan"])
    except UsageError as error:
        raise ValueError(f"settings.plan.{error.settings[0]}: {error}") from error
    checks.check(run)
    return run


def _reason(error: Exception) -> str:
    text = records.problems(error) if isinstance(error, ValidationError) else str(error)
    return printable(text).removesuffix(".")

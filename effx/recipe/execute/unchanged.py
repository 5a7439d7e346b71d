"""Whether the rows and the model of a cell are still those that the run was planned with.

A cell may begin hours after the plan, and its key has the digests of then. Files are hashed again only if
their size or time has changed.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

from effx import data
from effx.errors import EffxError
from effx.recipe.execute.protocol import CellSpec
from effx.recipe.graph.digests import Digests
from effx.specs.data import DataSource


def check(spec: CellSpec, digests: Digests) -> None:
    """Check the files before the cell is done.

    Raises:
        EffxError: one that the cell's key has the digest of is missing or another one, or there is a new one.
    """
    for path, planned in _planned(spec, digests):
        try:
            now = None if path is None else digests.file(path)
        except OSError:
            now = None
        if now != planned:
            raise _changed(spec, "the list of files of its rows or model" if path is None else str(path))


def check_after(spec: CellSpec, digests: Digests) -> None:
    """Check the files after the cell was done; those that are new or gone by now had no effect on it.

    Args:
        spec: the cell.
        digests: others than before, as these are taken once.

    Raises:
        EffxError: a file that the cell's key has the digest of is another one.
    """
    files: list[tuple[Path | None, str]] = []
    with contextlib.suppress(EffxError, OSError):  # a folder that is gone
        files = [*_planned(spec, digests)]
    for path, planned in files:
        if path is not None and planned and path.is_file() and digests.file(path) != planned:
            raise _changed(spec, str(path))


def _changed(spec: CellSpec, what: str) -> EffxError:
    return EffxError(f"{spec.id}: {what} has changed since the run was planned: begin it again.")


def _planned(spec: CellSpec, digests: Digests) -> Iterator[tuple[Path | None, str]]:
    """Yield the files of rows and of the model with their digests; None, or no digest: missing, or new."""
    rows, model, paths = spec.inputs.rows or {}, spec.inputs.model or {}, spec.local_paths
    of_tasks: dict[str, DataSource | None] = {**paths.data_of_tasks}
    if paths.data is not None and "task" in rows:
        of_tasks, rows = {rows["task"]["name"]: paths.data}, {rows["task"]["name"]: rows}
    for task, source in of_tasks.items():
        for split in ("train", "validation"):
            wanted = rows.get(task, {}).get(split)
            if wanted is not None and source is not None:
                found: list[Path | None] = [*data.paths(task, split, source)]
                found += [None] * (len(wanted) - len(found))
                yield from zip(found, [*wanted, *[""] * (len(found) - len(wanted))], strict=True)
    if paths.model is not None and Path(paths.model).is_dir() and "hub" not in model:
        yield from ((Path(paths.model) / name, digest) for name, digest in model.items())
        if model and digests.model(paths.model).keys() - model.keys():
            yield None, ""

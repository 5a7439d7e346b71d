"""Names and rows of several tasks on the command line."""

from __future__ import annotations

from pathlib import Path

import click

from effx.errors import UsageError

data = click.option(
    "--data",
    "sources",
    multiple=True,
    metavar="DIR|TASK=PATH",
    help="DIR: a folder with a file or folder of rows for each task, with the name of the task. TASK=PATH: "
    "the rows of one task; repeatable. Default: the hub.",
)


def names(text: str) -> list[str]:
    """Return the tasks of ``TASK,TASK,...``."""
    return [task.strip() for task in text.split(",") if task.strip()]


def folders(sources: tuple[str, ...], tasks: list[str]) -> dict[str, Path]:
    """Return task -> file or folder of its rows.

    Raises:
        UsageError: a folder has nothing of a task, or a task has two sources.
    """
    result: dict[str, Path] = {}
    for source in sources:
        task, separator, path = source.partition("=")
        parts = {task: Path(path)} if separator else {name: _within(Path(source), name) for name in tasks}
        if twice := sorted(set(parts) & set(result)):
            raise UsageError(f"data of task '{twice[0]}' given twice: expected one source.", settings="data")
        result |= parts
    return result


def _within(folder: Path, task: str) -> Path:
    """Return the folder, or the only file, of a task in a folder of several tasks."""
    if (folder / task).is_dir():
        return folder / task
    files = sorted(folder.glob(f"{task}.*")) if folder.is_dir() else []
    if len(files) != 1:
        problem = "is not a folder" if not folder.is_dir() else f"has no folder or file of rows named {task}"
        raise UsageError(f"data {folder}: it {problem}; write TASK=PATH for single tasks.", settings="data")
    return files[0]

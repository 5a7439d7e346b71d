"""Where a new checkpoint is written."""

from __future__ import annotations

from pathlib import Path

from effx import files
from effx.artifacts import Checkpoint
from effx.errors import UsageError


def new_folder(out: str | Path, name: str, overwrite: bool) -> Path:
    """Return the folder of a new checkpoint.

    Raises:
        UsageError: the name is not a folder name, the folder exists, or it cannot be written.
    """
    if Path(name).name != name or name == "..":
        raise UsageError(f"name '{name}': expected a name without folders", settings="name")
    folder = Path(out) / name
    if folder.exists() and not overwrite:
        raise UsageError(
            f"{folder} exists already: choose another name, or overwrite it", settings=("name", "overwrite")
        )
    if folder.exists() and not Checkpoint.is_at(folder):
        raise UsageError(
            f"{folder} exists already and is not a checkpoint: move it, or choose another name",
            settings="name",
        )
    files.check_writable(Path(out))
    return folder

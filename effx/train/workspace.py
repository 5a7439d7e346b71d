"""Folders that hold many training runs of one kind: what all of them share is written down first."""

from __future__ import annotations

import hashlib
import json
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

from effx import files, progress
from effx.data import Rows
from effx.errors import ArtifactError, UsageError
from effx.host import locks
from effx.models import huggingface

_SCHEMA = 1


def claim(path: Path, shared: dict[str, Any]) -> None:
    """Write ``shared`` to ``path``, or compare it with what is there.

    Settings with which nothing was made yet, as those that training diverged with, are replaced.

    Raises:
        UsageError: the folder was made, or is being made, with other settings.
        ArtifactError: the file cannot be read.
    """
    with alone(path.parent, path.name):
        _claim(path, {"schema": _SCHEMA, **shared})


def _claim(path: Path, now: dict[str, Any]) -> None:
    if not path.is_file():
        files.write_json(path, now)
        return
    try:
        before = json.loads(path.read_bytes())
        changed = [key for key, value in now.items() if before.get(key) != value]
    except (OSError, ValueError, AttributeError) as error:
        raise ArtifactError(f"{path} cannot be read ({error}). Choose another -o.") from error
    if changed and not _in_use(path):
        files.write_json(path, now)
    elif changed:
        key = changed[0]
        raise UsageError(
            f"{path.parent} was made with other settings: {key} was {before.get(key)}, is {now[key]}. "
            "Give the same ones, or choose another -o."
        )


def _in_use(path: Path) -> bool:
    """Whether anything lies beside a claim, or somebody works on it."""
    own = lock(path.parent, path.name)
    others = [one for one in path.parent.rglob("*") if one.is_file() and one not in (path, own)]
    return any(one.parent != own.parent or locks.holder(one) for one in others)


def alone(folder: Path, what: str) -> AbstractContextManager[locks.Lock]:
    """Work alone on ``what`` of a workspace; waits, and says so, while another process works on it."""
    return locks.hold(lock(folder, what), lambda by: progress.say(f"{by} works on {what}: waiting"))


def lock(folder: Path, what: str) -> Path:
    """Return where the lock on ``what`` is."""
    return folder / locks.FOLDER / what


def model_of(name: str) -> dict[str, str]:
    """Return what tells a model from others: its name, and its weights' digest where they lie in a folder."""
    weights = Path(name) / "model.safetensors"
    return {
        "model": huggingface.name_of(name),
        "weights": files.sha256(weights) if weights.is_file() else name,
    }


def digest(rows: Rows) -> str:
    """Return what tells these rows from others, wherever they lie."""
    found = hashlib.sha256()
    for text, label in zip(rows.texts, rows.labels.tolist(), strict=True):
        found.update(repr((text, label)).encode())
    return found.hexdigest()


def stem(task_name: str, model_name: str) -> str:
    """Return TASK-MODEL, as the names of checkpoints begin."""
    return f"{task_name}-{files.safe_name(huggingface.name_of(model_name))}"

"""Which engines were built here: their digests, in the state folder of the user who built them.

    $XDG_STATE_HOME/effx/built/DIGEST      default ~/.local/state/effx; an empty file for each engine

Formats that can run code when they are opened are opened only if they are listed here, or on request. An
engine's digest covers all its files, so a changed engine is not the one that was built.
"""

from __future__ import annotations

import contextlib
import os
import re
from pathlib import Path

_DIGEST = re.compile(r"[0-9a-f]{64}")


def remember(digest: str) -> None:
    """Record that an engine was built here; where the state folder cannot be written, nothing is recorded."""
    folder = _folder()
    if folder is None:
        return
    with contextlib.suppress(OSError):
        folder.mkdir(parents=True, exist_ok=True)
        (folder / digest).touch(mode=0o600)


def is_known(digest: str) -> bool:
    """Whether an engine with this digest was built here."""
    folder = _folder()
    return folder is not None and _DIGEST.fullmatch(digest) is not None and (folder / digest).is_file()


def _folder() -> Path | None:
    state = os.environ.get("XDG_STATE_HOME")
    try:
        base = Path(state) if state else Path.home() / ".local" / "state"
    except RuntimeError:  # no home
        return None
    return base / "effx" / "built"

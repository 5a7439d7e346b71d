"""Facts about this machine that effx remembers for its user, so that artifacts need not hold them.

    $XDG_STATE_HOME/effx/KIND/KEY      default ~/.local/state/effx; a small file for each fact

Nothing depends on them but convenience: where the state folder cannot be written, nothing is remembered.
"""

from __future__ import annotations

import contextlib
import os
import re
from pathlib import Path

from effx import files
from effx.errors import UsageError

_KEY = re.compile(r"[0-9a-f]{64}")
_MAX_BYTES = 1 << 16


def remember(kind: str, key: str, text: str = "") -> None:
    """Record a text under a key, a SHA-256, in place of what was recorded under it before."""
    path = _path(kind, key)
    if path is not None:
        with contextlib.suppress(UsageError):
            files.write_atomic(path, os.fsencode(text))


def recall(kind: str, key: str) -> str | None:
    """Return the text that was recorded under a key; None: nothing was."""
    path = _path(kind, key)
    try:
        if path is None or not path.is_file() or path.stat().st_size > _MAX_BYTES:
            return None
        return os.fsdecode(path.read_bytes())
    except OSError:
        return None


def _path(kind: str, key: str) -> Path | None:
    if _KEY.fullmatch(key) is None:
        return None
    state = os.environ.get("XDG_STATE_HOME")
    try:
        base = Path(state) if state else Path.home() / ".local" / "state"
    except RuntimeError:  # no home
        return None
    return base / "effx" / kind / key

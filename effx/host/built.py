"""Which engines were built here: their digests, in the state folder of the user who built them.

Formats that can run code when they are opened are opened only if they are listed here, or on request. An
engine's digest covers all its files, so a changed engine is not the one that was built.
"""

from __future__ import annotations

from effx.host import state

_KIND = "built"


def remember(digest: str) -> None:
    """Record that an engine was built here; where the state folder cannot be written, nothing is recorded."""
    state.remember(_KIND, digest)


def is_known(digest: str) -> bool:
    """Whether an engine with this digest was built here."""
    return state.recall(_KIND, digest) is not None

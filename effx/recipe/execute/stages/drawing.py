"""What the functions of stages share that draw figures."""

from __future__ import annotations

import importlib.util

from effx import progress


def can_draw(what: str) -> bool:
    """Return whether matplotlib is installed; if not, say that there is no ``what``."""
    if importlib.util.find_spec("matplotlib") is not None:
        return True
    progress.say(f"no {what}: matplotlib is not installed. Run: pip install 'effx[report]'")
    return False

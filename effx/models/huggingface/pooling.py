"""The pooling that an encoder was trained with, from the files of sentence-transformers."""

from __future__ import annotations

from pathlib import Path

from effx import records
from effx.errors import ArtifactError

FILE = "1_Pooling/config.json"
"""Within a model's folder: ``pooling_mode``, or one switch ``pooling_mode_KIND`` per kind."""
_SWITCHES = {"pooling_mode_cls_token": "cls", "pooling_mode_mean_tokens": "mean"}


def own_pooling(folder: Path) -> str | None:
    """Return ``mean`` or ``cls`` as a model's pooling config says; None: there is none, or it is another."""
    try:
        config = records.read_foreign_json(folder / FILE)
    except ArtifactError:  # no such file, usually
        return None
    mode = config.get("pooling_mode")
    if isinstance(mode, str):
        return mode if mode in _SWITCHES.values() else None
    active = [key for key, value in config.items() if key.startswith("pooling_mode_") and value is True]
    return _SWITCHES.get(active[0]) if len(active) == 1 else None

"""Short engine names for labels, without the parts that all engines share."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

from effx.results import Run

_PART = re.compile(r"[-.][^-.]*|^[^-.]+")
_SEED = re.compile(r"-s\d+")


def short_names(runs: Sequence[Run]) -> Mapping[str, str]:
    """Return a short form of each engine's name, different for different names.

    The common first parts, the backend if it is the same for all, and the seed if it is the same for
    all are left out.
    """
    names = list(dict.fromkeys(run.name for run in runs))
    parts = {name: _PART.findall(name) for name in names}
    parts = {name: pieces if "".join(pieces) == name else [name] for name, pieces in parts.items()}
    if len(names) > 1:
        while _can_shorten(parts, 0):
            parts = {name: pieces[1:] for name, pieces in parts.items()}
        while _can_shorten(parts, -1):
            parts = {name: pieces[:-1] for name, pieces in parts.items()}
        seeds = {name: {part for part in pieces if _SEED.fullmatch(part)} for name, pieces in parts.items()}
        if len({frozenset(seed) for seed in seeds.values()}) == 1:
            parts = {
                name: [part for part in pieces if part not in seeds[name]] or pieces
                for name, pieces in parts.items()
            }
    short = {name: "".join(pieces).lstrip("-.") for name, pieces in parts.items()}
    return short if len(set(short.values())) == len(names) else {name: name for name in names}


def _can_shorten(parts: Mapping[str, Sequence[str]], index: int) -> bool:
    """Return whether all names share the part at ``index`` and have others."""
    return len({pieces[index] for pieces in parts.values()}) == 1 and all(
        len(pieces) > 1 for pieces in parts.values()
    )

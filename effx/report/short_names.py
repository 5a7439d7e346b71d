"""Short names for labels: what all engines have in common says nothing between them."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

from effx.results import Run

_PARTS = re.compile(r"[-.][^-.]*|^[^-.]+")
_SEED = re.compile(r"-s\d+")


def short_names(runs: Sequence[Run]) -> Mapping[str, str]:
    """Return a short form of each engine's name, different for different names.

    The parts that all names begin with, the backend if all have the same, and the seed if all have the
    same are left out.
    """
    names = list(dict.fromkeys(run.name for run in runs))
    parts = {name: _PARTS.findall(name) for name in names}
    parts = {name: own if "".join(own) == name else [name] for name, own in parts.items()}
    if len(names) > 1:
        while len({own[0] for own in parts.values()}) == 1 and all(len(own) > 1 for own in parts.values()):
            parts = {name: own[1:] for name, own in parts.items()}
        while len({own[-1] for own in parts.values()}) == 1 and all(len(own) > 1 for own in parts.values()):
            parts = {name: own[:-1] for name, own in parts.items()}
        seeds = {name: {part for part in own if _SEED.fullmatch(part)} for name, own in parts.items()}
        if len({frozenset(found) for found in seeds.values()}) == 1:
            parts = {
                name: [part for part in own if part not in seeds[name]] or own for name, own in parts.items()
            }
    found = {name: "".join(own).lstrip("-.") for name, own in parts.items()}
    return found if len(set(found.values())) == len(names) else {name: name for name in names}

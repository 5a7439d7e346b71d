"""Documents that the queries of a task are compared with (:mod:`effx.specs.kinds.retrieval`)."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass


@dataclass(frozen=True)
class Documents:
    """A corpus: what every query of the rows is compared with, in file order."""

    ids: tuple[str, ...]
    texts: tuple[str, ...]
    """Title and text of each document."""

    def __len__(self) -> int:
        return len(self.ids)

    def part(self, n: int, needed: Collection[str]) -> Documents:
        """Return about ``n`` documents: those with the ids ``needed``, and the first of the others."""
        others = max(0, n - len(needed))
        kept: list[int] = []
        for number, name in enumerate(self.ids):
            if name in needed:
                kept.append(number)
            elif others:
                kept.append(number)
                others -= 1
        return Documents(
            tuple(self.ids[number] for number in kept), tuple(self.texts[number] for number in kept)
        )

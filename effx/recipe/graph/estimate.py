"""How long cells will take, from those that are done: seconds per unit of work, by kind and group."""

from __future__ import annotations

import statistics
from collections.abc import Iterable

from effx.recipe.execute.store import Record
from effx.recipe.graph.cells import Cell


class Estimates:
    """Times of past cells of one workspace."""

    def __init__(self, records: Iterable[Record]) -> None:
        self._rates: dict[tuple[str, str | None], list[float]] = {}
        for record in records:
            self.learn(record.kind, record.group, record.seconds, record.work)

    def learn(self, kind: str, group: str, seconds: float, work: float) -> None:
        """Add a cell that is done."""
        if seconds > 0 and work > 0:
            for key in ((kind, group), (kind, None)):
                self._rates.setdefault(key, []).append(seconds / work)

    def seconds(self, cell: Cell) -> float | None:
        """Return the time that a cell will take by the median of its like; None: no like was done yet."""
        rates = self._rates.get((cell.kind, cell.group)) or self._rates.get((cell.kind, None))
        return statistics.median(rates) * cell.work if rates else None

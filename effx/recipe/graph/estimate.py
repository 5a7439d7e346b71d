"""How long cells will take, from those that are done: seconds per unit of work, by stage and group."""

from __future__ import annotations

import statistics
from collections.abc import Iterable

from effx.recipe.execute.store import CellRecord
from effx.recipe.graph.cells import Cell


class Estimates:
    """Times of past cells of one workspace."""

    def __init__(self, records: Iterable[CellRecord]) -> None:
        self._rates: dict[tuple[str, str | None], list[float]] = {}
        for record in records:
            self.learn(record.stage, record.group, record.seconds, record.work)

    def learn(self, stage: str, group: str, seconds: float, work: float) -> None:
        """Add a cell that is done."""
        if seconds > 0 and work > 0:
            for key in ((stage, group), (stage, None)):
                self._rates.setdefault(key, []).append(seconds / work)

    def seconds(self, cell: Cell) -> float | None:
        """Return the time that a cell will take, by the median of similar ones; None: none was done yet."""
        rates = self._rates.get((cell.stage, cell.group)) or self._rates.get((cell.stage, None))
        return statistics.median(rates) * cell.work if rates else None

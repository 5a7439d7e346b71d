"""A plan: the cells of a recipe, and how each of them stands.

done, gate, refused   settled, now or by an earlier run
todo -> running       -> done, gate, refused, or failed
blocked               something that it reads has not worked out
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from effx.recipe.execute.store import Record, Workspace
from effx.recipe.graph.cells import Cell
from effx.recipe.graph.estimate import Estimates

OPEN = ("todo", "running")


@dataclass
class Entry:
    """A cell and how it stands."""

    cell: Cell
    state: str = "todo"
    key: str = ""
    note: str = ""
    seconds: float | None = None
    record: Record | None = None
    before: bool = False
    """It was settled before this run, or by another one."""


class Plan:
    """The entries of a plan, in an order in which they can be done."""

    def __init__(self, cells: Sequence[Cell], workspace: Workspace) -> None:
        self.workspace = workspace
        self.entries = {cell.id: Entry(cell) for cell in cells}
        self.estimates = Estimates(workspace.records())
        self.refresh()

    def refresh(self) -> None:
        """Settle what the workspace has, and block what cannot be done any more."""
        for entry in self.entries.values():
            if entry.state != "todo":
                continue
            needs = [self.entries[need] for need in entry.cell.needs]
            if self._lost(entry, needs):
                entry.state, entry.note = "blocked", self._why(needs)
                continue
            entry.key = entry.cell.key({need.cell.id: need.key for need in needs if self._usable(need)})
            if any(need.state in OPEN for need in needs):
                continue  # the key is what it will be if all goes well
            if record := self.workspace.find(entry.key):
                self.settle(entry, record, before=True)

    def settle(self, entry: Entry, record: Record, *, before: bool = False) -> None:
        """Note that a cell is settled."""
        entry.state, entry.note, entry.record = record.outcome, record.note, record
        entry.seconds, entry.before = record.seconds, before

    def ready(self) -> list[Entry]:
        """Return the entries that can be begun."""
        return [
            entry
            for entry in self.entries.values()
            if entry.state == "todo"
            and all(self.entries[need].state not in OPEN for need in entry.cell.needs)
        ]

    def spec(self, entry: Entry, threads: int | None) -> dict[str, Any]:
        """Return what a cell's process has to know."""
        cell = entry.cell
        needs = [need for name in cell.needs if self._usable(need := self.entries[name])]
        return {
            "workspace": str(self.workspace.folder.resolve()),
            "key": entry.key,
            "kind": cell.kind,
            "name": cell.name,
            "settings": cell.settings,
            "places": cell.places,
            "inputs": cell.inputs,
            "alone": cell.alone,
            "threads": None if cell.kind == "profile" else threads,
            "work": cell.work,
            "group": cell.group,
            "needs": {need.cell.id: need.key for need in needs},
            "read": [
                str((self.workspace.cell(need.key) / need.cell.name).resolve())
                for need in needs
                if need.cell.kind != "report"
            ],
        }

    def count(self, *states: str) -> int:
        """Return how many entries are in one of these states."""
        return sum(entry.state in states for entry in self.entries.values())

    def left_s(self, at_once: int = 1) -> tuple[float, int]:
        """Return the estimated time of what is to do, and how many cells no estimate is known of."""
        times = [
            self.estimates.seconds(entry.cell) for entry in self.entries.values() if entry.state == "todo"
        ]
        return sum(time for time in times if time is not None) / at_once, sum(time is None for time in times)

    def to_json(self) -> list[dict[str, Any]]:
        """Return the plan as JSON."""
        return [
            {
                "cell": entry.cell.id,
                "kind": entry.cell.kind,
                "name": entry.cell.name,
                "key": entry.key,
                "state": entry.state,
                "note": entry.note,
                "needs": list(entry.cell.needs),
                "seconds": entry.seconds,
                "estimated_s": self.estimates.seconds(entry.cell) if entry.state == "todo" else None,
            }
            for entry in self.entries.values()
        ]

    def _usable(self, entry: Entry) -> bool:
        return entry.state == "done" or entry.state in OPEN

    def _lost(self, entry: Entry, needs: Sequence[Entry]) -> bool:
        if not needs:
            return False
        usable = [self._usable(need) for need in needs]
        return not (any(usable) if entry.cell.any_of else all(usable))

    def _why(self, needs: Sequence[Entry]) -> str:
        first = next(need for need in needs if not self._usable(need))
        return f"needs {first.cell.id}, which is {first.state}"

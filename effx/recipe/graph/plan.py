"""A plan: the cells of a recipe, and the state of each.

todo -> running -> done | gate | refused | failed
blocked: a cell that it reads was not built

Some cells depend on results: which tickets successive halving trains next is known when a rung is decided.
So a plan is given a function that returns the cells as far as they are known, and asks it again each time
a cell is done.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from effx.meters import running
from effx.recipe.execute.protocol import CellSpec, SourceCell
from effx.recipe.execute.store import CellRecord, CellStore
from effx.recipe.graph.cells import Cell
from effx.recipe.graph.estimate import Estimates
from effx.specs.stages import STAGES

OPEN = ("todo", "running")
Artifacts = Callable[[str], Path | None]
"""Id of a cell -> its output folder; None: it is not done."""
Build = Callable[[Artifacts], Sequence[Cell]]


@dataclass
class PlanEntry:
    """A cell and its state."""

    cell: Cell
    state: str = "todo"
    key: str = ""
    run_key: str = ""
    """Key of the complete training run, where the cell is its beginning; else ``key``."""
    note: str = ""
    seconds: float | None = None
    record: CellRecord | None = None
    earlier: bool = False
    """It was done before this run began, or by another one."""


class CellPlan:
    """The entries of a plan, in an order in which they can be done."""

    def __init__(self, build: Build, store: CellStore) -> None:
        """Make the plan; ``build`` returns the cells, each after those that it reads."""
        self.store = store
        self.entries: dict[str, PlanEntry] = {}
        self._build, self._outdated = build, True
        self.remember: Callable[[], None] = lambda: None
        """Writes what was computed of the cells' inputs into the workspace, once that is there."""
        self._records = store.records()
        self.estimates = Estimates(self._records)
        self.refresh()

    def refresh(self) -> None:
        """Look up what the workspace has, add the cells that are now known, block what cannot be done."""
        self._grow()
        while self._settle_known():
            self._grow()
        self._require_artifacts()

    def settle(self, entry: PlanEntry, record: CellRecord, *, earlier: bool = False) -> None:
        """Note that a cell is completed."""
        entry.state, entry.note, entry.record = record.outcome, record.note, record
        entry.seconds, entry.earlier = record.seconds, earlier
        self._outdated = True

    def ready(self) -> list[PlanEntry]:
        """Return the entries that can be begun."""
        return [
            entry
            for entry in self.entries.values()
            if entry.state == "todo" and all(need.state not in OPEN for need in self.sources(entry))
        ]

    def spec(self, entry: PlanEntry, threads: int | None) -> CellSpec:
        """Return what the process that does a cell has to know."""
        cell = entry.cell
        return CellSpec(
            workspace=str(self.store.folder.resolve()),
            key=entry.key,
            stage=cell.stage,
            name=cell.name,
            settings=cell.settings.to_json(),
            local_paths=cell.local_paths,
            inputs=cell.inputs,
            sources=tuple(
                SourceCell(
                    source.cell.stage,
                    source.cell.name,
                    source.key,
                    str(self.store.cell(source.key).resolve()),
                )
                for source in self.sources(entry)
                if self._usable(source)
            ),
            run_key=entry.run_key,
            pause_at=cell.pause_at,
            artifact_needed=cell.keep or self._is_read(entry),
            alone=cell.alone,
            threads=None if STAGES[cell.stage].measures else threads,
            meter=running.requested().meter,
            meter_required=running.requested().required,
            work=cell.work,
            group=cell.group,
        )

    def removable(self) -> Iterator[CellRecord]:
        """Yield the records of cells whose artifacts are not kept, and that no open cell reads."""
        for entry in self.entries.values():
            record = entry.record
            if entry.state != "done" or entry.cell.keep or record is None:
                continue
            if not self._is_read(entry) and self.store.has_artifact(record):
                yield record

    def abandoned(self) -> Iterator[str]:
        """Yield the keys of training runs that were paused and will not be continued by this plan."""
        if not self.count(*OPEN):
            yield from {entry.run_key for entry in self.entries.values() if entry.cell.pause_at is not None}

    def differences(self) -> list[str]:
        """Return in what cells differ from earlier ones of the same name, a line for each stage.

        A cell with other settings is another cell; the earlier one stays in the workspace.
        """
        names: dict[tuple[str, str], CellRecord] = {
            (record.stage, record.name): record
            for record in sorted(self._records, key=lambda record: record.started)
        }
        lines: dict[str, str] = {}
        for entry in self.entries.values():
            cell = entry.cell
            earlier = names.get((cell.stage, cell.name))
            if cell.stage in lines or earlier is None or entry.state != "todo" or earlier.key == entry.key:
                continue
            changed = _changes(earlier, cell)
            if changed:
                lines[cell.stage] = f"{cell.id} was done before with other settings: {'; '.join(changed)}."
        return list(lines.values())

    def count(self, *states: str) -> int:
        """Return how many entries are in one of these states."""
        return sum(entry.state in states for entry in self.entries.values())

    def remaining_s(self, at_once: int = 1) -> tuple[float, int]:
        """Return the estimated time of what is to do, and the number of cells without an estimate."""
        times = [
            self.estimates.seconds(entry.cell) for entry in self.entries.values() if entry.state == "todo"
        ]
        return sum(time for time in times if time is not None) / at_once, sum(time is None for time in times)

    def to_json(self) -> list[dict[str, Any]]:
        """Return the plan as JSON."""
        return [
            {
                "cell": entry.cell.id,
                "stage": entry.cell.stage,
                "name": entry.cell.name,
                "key": entry.key,
                "state": entry.state,
                "note": entry.note,
                "sources": list(entry.cell.sources),
                "seconds": entry.seconds,
                "estimated_s": self.estimates.seconds(entry.cell) if entry.state == "todo" else None,
            }
            for entry in self.entries.values()
        ]

    def _grow(self) -> None:
        """Ask for the cells again if results may have added some; entries keep their states."""
        if not self._outdated:
            return
        self._outdated = False
        entries = {}
        for cell in self._build(self._artifact):
            entry = self.entries.get(cell.id) or PlanEntry(cell)
            if entry.state == "todo":
                entry.cell = cell
            entries[cell.id] = entry
        self.entries = entries

    def _settle_known(self) -> bool:
        """Settle what the workspace has; return whether that was anything."""
        settled = False
        for entry in self.entries.values():
            if entry.state != "todo":
                continue
            sources = self.sources(entry)
            if sources and self._is_lost(entry, sources):
                entry.state, entry.note = "blocked", self._why_lost(sources)
                continue
            keys = [source.key for source in sources if self._usable(source)]
            entry.key = entry.cell.key(keys)
            entry.run_key = entry.cell.run_key(keys)
            if any(source.state in OPEN for source in sources):
                continue  # the key is what it will be if all of them are built
            if record := self.store.find(entry.key, artifact=entry.cell.keep):
                self.settle(entry, record, earlier=True)
                settled = True
        return settled

    def _require_artifacts(self) -> None:
        """Reopen cells whose artifacts were removed, where an open cell has to read them."""
        for entry in reversed(self.entries.values()):
            if entry.state != "todo" or not STAGES[entry.cell.stage].reads_artifacts:
                continue
            for source in self.sources(entry):
                record = source.record
                if source.state != "done" or source.cell.keep or record is None:
                    continue
                if self.store.has_artifact(record):
                    continue
                if stored := self.store.find(entry.key, artifact=entry.cell.keep):
                    self.settle(entry, stored, earlier=True)  # another run computed it and removed its input
                    break
                source.state, source.record = "todo", None

    def _artifact(self, cell: str) -> Path | None:
        """Return the output of a cell; None: it is not done."""
        entry = self.entries.get(cell)
        if entry is None or entry.state != "done":
            return None
        return self.store.cell(entry.key) / entry.cell.name

    def sources(self, entry: PlanEntry) -> list[PlanEntry]:
        """Return the entries of the cells that an entry's cell reads."""
        return [self.entries[name] for name in entry.cell.sources]

    def _is_read(self, entry: PlanEntry) -> bool:
        """Whether an open cell reads what this one makes."""
        return any(
            entry.cell.id in other.cell.sources
            for other in self.entries.values()
            if other.state in OPEN and STAGES[other.cell.stage].reads_artifacts
        )

    def _usable(self, entry: PlanEntry) -> bool:
        return entry.state == "done" or entry.state in OPEN

    def _is_lost(self, entry: PlanEntry, sources: Sequence[PlanEntry]) -> bool:
        usable = [self._usable(source) for source in sources]
        return not (any(usable) if STAGES[entry.cell.stage].any_source else all(usable))

    def _why_lost(self, sources: Sequence[PlanEntry]) -> str:
        first = next(source for source in sources if not self._usable(source))
        return f"needs {first.cell.id}, which is {first.state}"


_LONGEST_CHANGE = 200
"""Characters of a setting before and after, in a message."""


def _changes(earlier: CellRecord, cell: Cell) -> list[str]:
    """Return what differs between an earlier cell and one of the same name, in words."""
    now, changes = cell.settings.to_json(), []
    for name, value in now.items():
        before = earlier.settings.get(name)
        if before != value:
            text = f"{name} was {before}, is {value}"
            changes.append(text if len(text) <= _LONGEST_CHANGE else f"{name} has changed")
    inputs = earlier.inputs
    if inputs.rows != cell.inputs.rows:
        changes.append("the rows have changed")
    if inputs.model != cell.inputs.model:
        changes.append("the model has changed")
    for name, version in cell.inputs.versions.items():
        if (before := inputs.versions.get(name)) != version:
            changes.append(f"{name} was {before or 'not installed'}, is {version}")
    if inputs.code != cell.inputs.code:
        changes.append("the code of effx has changed")
    return changes

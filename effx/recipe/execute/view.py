"""A plan while it runs: a live table in a terminal, a line per event elsewhere; all on stderr."""

from __future__ import annotations

import sys
import time
from collections.abc import Mapping
from typing import Any, Protocol

from effx import progress
from effx.recipe.execute.process import last_line
from effx.recipe.graph.plan import OPEN, CellPlan, PlanEntry

_STATES = ("done", "gate", "refused", "failed", "blocked")
_NOTE = 70


class View(Protocol):
    """Is notified of what happens to a plan."""

    def began(self, entry: PlanEntry) -> None: ...

    def ended(self, entry: PlanEntry) -> None: ...

    def tick(self, running: Mapping[str, float], waiting: str) -> None: ...

    def close(self) -> None: ...


def view(plan: CellPlan, at_once: int, *, lines: bool = False) -> View:
    """Return a live table where stderr is a terminal; else, or with ``lines``, a line per event."""
    return _Live(plan, at_once) if sys.stderr.isatty() and not lines else _Plain(plan)


def duration(seconds: float) -> str:
    """Return a time in readable units: 42 s, 12 min, 3 h 05 min."""
    if seconds < 100:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 100 else f"{minutes // 60} h {minutes % 60:02d} min"


def summary(entry: PlanEntry) -> str:
    """Return one line about a cell that has ended."""
    state = {"gate": "did not pass", "refused": "cannot be built"}.get(entry.state, entry.state)
    seconds = "" if entry.seconds is None or entry.earlier else f" in {duration(entry.seconds)}"
    return f"{entry.cell.id}: {state}{seconds}{': ' + entry.note if entry.note else ''}"


class _Plain:
    def __init__(self, plan: CellPlan) -> None:
        self._plan, self._waiting = plan, ""

    def began(self, entry: PlanEntry) -> None:
        estimate = self._plan.estimates.seconds(entry.cell)
        about = f", about {duration(estimate)}" if estimate else ""
        progress.say(f"{entry.cell.id}: started{about}")

    def ended(self, entry: PlanEntry) -> None:
        total = len(self._plan.entries)
        progress.say(f"[{total - self._plan.count(*OPEN)}/{total}] {summary(entry)}")

    def tick(self, running: Mapping[str, float], waiting: str) -> None:
        if waiting and waiting != self._waiting:
            progress.say(waiting)
        self._waiting = waiting

    def close(self) -> None:
        pass


class _Live:
    def __init__(self, plan: CellPlan, at_once: int) -> None:
        from rich.console import Console
        from rich.live import Live

        self._plan, self._at_once = plan, at_once
        self._running: Mapping[str, float] = {}
        self._waiting, self._drawn = "", 0.0
        self._live = Live(console=Console(stderr=True), auto_refresh=False, transient=False)
        self._live.start()
        self._draw()

    def began(self, entry: PlanEntry) -> None:
        self._draw()

    def ended(self, entry: PlanEntry) -> None:
        if entry.state != "done":
            self._live.console.print(summary(entry), markup=False, highlight=False)
        self._draw()

    def tick(self, running: Mapping[str, float], waiting: str) -> None:
        self._running, self._waiting = running, waiting
        if time.monotonic() - self._drawn > 0.5:
            self._draw()

    def close(self) -> None:
        self._draw()
        self._live.stop()

    def _draw(self) -> None:
        self._drawn = time.monotonic()
        self._live.update(self._table(), refresh=True)

    def _table(self) -> Any:
        from rich.console import Group
        from rich.progress_bar import ProgressBar
        from rich.table import Table
        from rich.text import Text

        plan = self._plan
        entries = list(plan.entries.values())
        table = Table(box=None, padding=(0, 2, 0, 0))
        for column in ("", *_STATES, "running", "to do"):
            table.add_column(column, justify="left" if not column else "right")
        for stage in dict.fromkeys(entry.cell.stage for entry in entries):
            states = [entry.state for entry in entries if entry.cell.stage == stage]
            counts = [states.count(state) for state in (*_STATES, *reversed(OPEN))]
            table.add_row(stage, *(str(count) if count else "" for count in counts))
        bar = Table.grid(expand=True)  # by itself a bar without colours does not end its line
        bar.add_row(ProgressBar(total=len(entries), completed=len(entries) - plan.count(*OPEN)))
        lines: list[Any] = [table, bar]
        for name, seconds in self._running.items():
            note = last_line(plan.store.log(plan.entries[name].key))
            lines.append(
                Text(f"{name}  {duration(seconds)}  {note[:_NOTE]}", overflow="ellipsis", no_wrap=True)
            )
        if self._waiting:
            lines.append(Text(self._waiting))
        left, unknown = plan.remaining_s(self._at_once)
        if left or unknown:
            more = f", and {unknown} cells without an estimate yet" if unknown else ""
            lines.append(Text(f"about {duration(left)} remaining{more}"))
        return Group(*lines)

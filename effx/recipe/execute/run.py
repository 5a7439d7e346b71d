"""Work through a plan: begin what can be begun, keep what is done, stop in order.

ready cells ── executor (this machine, or Ray) ── outcomes ── plan, view, links
"""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import yaml

from effx import progress
from effx.errors import EffxError
from effx.host import identity, locks
from effx.recipe.execute.child import Child
from effx.recipe.execute.store import SETTLED, Workspace
from effx.recipe.execute.view import View, view
from effx.recipe.graph.cells import cells
from effx.recipe.graph.digests import Digests
from effx.recipe.graph.plan import OPEN, Plan
from effx.recipe.language.recipe import Budgets, Recipe

_POLL_S = 0.1


class StoppedError(EffxError):
    """The run was stopped with Ctrl-C or SIGTERM; what was done is kept."""

    exit_code = 130


class Executor(Protocol):
    """Where cells run."""

    host: str
    """Id of the machine that measures; see :func:`effx.host.identity.host`."""
    slots: int
    """Cells at once."""
    threads: int
    """Compute threads of a cell."""

    def start(self, spec: dict[str, Any]) -> None:
        """Begin a cell."""

    def poll(self) -> dict[str, dict[str, Any]]:
        """Return the outcomes of cells that have ended since, by key."""

    def stop(self, key: str | None = None) -> None:
        """End a cell, or all of them."""

    def close(self) -> None:
        """Let go of what the executor holds."""


class Local:
    """Cells on this machine, each in a process of its own."""

    def __init__(self, budgets: Budgets) -> None:
        self.slots = budgets.at_once
        processors = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
        self.threads = budgets.threads or max(1, processors // budgets.at_once)
        self.host = str(identity.host()["id"])
        self._children: dict[str, Child] = {}

    def start(self, spec: dict[str, Any]) -> None:
        self._children[spec["key"]] = Child(spec)

    def poll(self) -> dict[str, dict[str, Any]]:
        ended = {key: outcome for key, child in self._children.items() if (outcome := child.poll())}
        for key in ended:
            del self._children[key]
        return ended

    def stop(self, key: str | None = None) -> None:
        for name in [key] if key else list(self._children):
            if child := self._children.pop(name, None):
                child.stop()

    def close(self) -> None:
        self.stop()


@dataclass(frozen=True)
class Result:
    """How a run ended."""

    plan: Plan
    seconds: float
    unbegun: int
    """Cells left because the budget was spent."""

    @property
    def exit_code(self) -> int:
        """0: all done; 1: something did not pass its gate, or the budget was spent; 2: something failed."""
        if self.plan.count("failed"):
            return 2
        return 1 if self.plan.count("gate", *OPEN) else 0

    @property
    def report(self) -> Path | None:
        """The report's folder."""
        link = self.plan.workspace.folder / "report"
        entry = next((e for e in self.plan.entries.values() if e.cell.kind == "report"), None)
        return link if entry and entry.state == "done" else None


def plan(recipe: Recipe, host: str) -> Plan:
    """Return the plan of a recipe in its workspace; nothing is made or changed but remembered digests.

    Raises:
        DataError: a task's files are missing, or its rows do not fit.
    """
    workspace = Workspace(recipe.folder)
    digests = Digests(workspace.digests)
    made = cells(recipe, digests, host)
    if workspace.folder.is_dir():
        digests.save()
    return Plan(made, workspace)


def run(recipe: Recipe, *, executor: Executor | None = None) -> Result:
    """Work through a recipe's plan.

    Args:
        recipe: from :func:`effx.recipe.language.schema.load`.
        executor: where cells run; None: on this machine.

    Raises:
        StoppedError: by Ctrl-C or SIGTERM.
        UsageError: the workspace cannot be written to.
        DataError: a task's files are missing, or its rows do not fit.
    """
    where = executor or Local(recipe.budgets)
    try:
        workspace = Workspace(recipe.folder)
        made = plan(recipe, where.host)
        if made.count(*OPEN):
            workspace.make()
            workspace.clean()
        return _Run(recipe, made, where).work()
    finally:
        where.close()


class _Run:
    def __init__(self, recipe: Recipe, made: Plan, where: Executor) -> None:
        self._recipe, self._plan, self._where = recipe, made, where
        self._began: dict[str, float] = {}
        self._start = time.monotonic()

    def work(self) -> Result:
        made = self._plan
        if made.count(*OPEN):
            shown = view(made, self._where.slots)
            try:
                with _interruptible():
                    self._loop(shown)
            except KeyboardInterrupt:
                self._where.stop()
                raise StoppedError(self._stopped()) from None
            finally:
                shown.close()
                self._links()
        else:
            self._links()
        return Result(made, time.monotonic() - self._start, made.count(*OPEN))

    def _loop(self, shown: View) -> None:
        plan_, budgets = self._plan, self._recipe.budgets
        while True:
            spent = budgets.total_s is not None and time.monotonic() - self._start >= budgets.total_s
            waiting = "" if spent else self._begin(shown)
            if not self._began and (spent or not plan_.ready()):
                if plan_.count(*OPEN):
                    progress.say(f"budgets.total_s = {budgets.total_s:g} is spent.")
                return
            time.sleep(_POLL_S)
            for key, outcome in self._where.poll().items():
                self._end(key, outcome, shown)
            now = time.monotonic()
            names = {entry.key: entry.cell.id for entry in plan_.entries.values()}
            shown.tick({names[key]: now - began for key, began in self._began.items()}, waiting)
            for key, began in list(self._began.items()):
                if budgets.cell_s is not None and now - began > budgets.cell_s:
                    self._where.stop(key)
                    note = f"took longer than budgets.cell_s = {budgets.cell_s:g}"
                    self._end(key, {"outcome": "failed", "note": note, "seconds": now - began}, shown)

    def _begin(self, shown: View) -> str:
        """Begin what there is room for; return whom the run waits for."""
        if len(self._began) >= self._where.slots:
            return ""
        ready = self._plan.ready()
        self._plan.refresh()  # another run may have done some, and keys follow what has worked out
        waiting = ""
        for entry in ready:
            if entry.state != "todo":
                shown.ended(entry)
            elif held := locks.holder(self._plan.workspace.lock(entry.key)):
                waiting = f"{entry.cell.id} is being done by {held}: waiting"
            elif len(self._began) < self._where.slots:
                entry.state = "running"
                self._began[entry.key] = time.monotonic()
                self._where.start(self._plan.spec(entry, self._where.threads))
                shown.began(entry)
        return "" if self._began else waiting

    def _end(self, key: str, outcome: dict[str, Any], shown: View) -> None:
        del self._began[key]
        entry = next(entry for entry in self._plan.entries.values() if entry.key == key)
        record = self._plan.workspace.find(key) if outcome["outcome"] in SETTLED else None
        if record:
            self._plan.settle(entry, record, before=bool(outcome.get("found")))
            self._plan.estimates.learn(entry.cell.kind, entry.cell.group, record.seconds, record.work)
        else:
            entry.state, entry.note, entry.seconds = "failed", outcome["note"], outcome.get("seconds")
            self._plan.workspace.note("failed", key, entry.cell.id, why=entry.note)
        self._plan.refresh()
        shown.ended(entry)

    def _links(self) -> None:
        records = {entry.cell.id: entry.record for entry in self._plan.entries.values() if entry.record}
        if records:
            resolved = yaml.safe_dump(self._recipe.resolved(), sort_keys=False, allow_unicode=True)
            self._plan.workspace.show(records, self._recipe.name, resolved)

    def _stopped(self) -> str:
        total = len(self._plan.entries)
        kept = self._plan.count(*SETTLED)
        return f"stopped; {kept} of {total} cells are done and kept."


@contextmanager
def _interruptible() -> Iterator[None]:
    """Take SIGTERM for Ctrl-C."""

    def stop(*_: Any) -> None:
        raise KeyboardInterrupt

    try:
        previous = signal.signal(signal.SIGTERM, stop)
    except ValueError:  # not the main thread
        yield
        return
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, previous)

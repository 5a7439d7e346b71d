"""Do the cells of a plan: begin those that can be begun, keep what is done, stop in order.

ready cells ── executor (worker processes, this process, or Ray) ── outcomes ── plan, view, links
"""

from __future__ import annotations

import contextlib
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from effx import progress, signals
from effx.errors import StoppedError, UsageError
from effx.host import locks
from effx.meters import running
from effx.recipe.execute.executors import Executor, LocalExecutor
from effx.recipe.execute.protocol import CellOutcome
from effx.recipe.execute.store import SETTLED, CellStore
from effx.recipe.execute.view import View, view
from effx.recipe.graph import build
from effx.recipe.graph.cells import Cell
from effx.recipe.graph.digests import Digests
from effx.recipe.graph.plan import OPEN, Artifacts, CellPlan, PlanEntry
from effx.recipe.language import document
from effx.recipe.language.recipe import Budgets, Recipe
from effx.specs.stages import STAGES

_POLL_S = 0.1
_JOURNAL_S = 1.0
"""Between two looks into the journal for cells that wait in a queue."""


@dataclass(frozen=True)
class RunResult:
    """How a run ended."""

    plan: CellPlan
    seconds: float
    not_begun: int
    """Cells left because the time budget was spent."""

    @property
    def exit_code(self) -> int:
        """0: all is done that can be built; 1: something did not pass its gate, a cell was not begun because
        what it reads was not built, or the budget was spent; 2: something failed.
        """
        if self.plan.count("failed"):
            return 2
        return 1 if self.plan.count("gate", "blocked", *OPEN) else 0

    @property
    def report(self) -> Path | None:
        """The report's folder."""
        entry = next((e for e in self.plan.entries.values() if e.cell.stage == "report"), None)
        return self.plan.store.folder / "report" if entry and entry.state == "done" else None


def plan(recipe: Recipe, host: str) -> CellPlan:
    """Return the plan of a recipe in its workspace; nothing changes except remembered digests.

    Raises:
        DataError: a task's files are missing, or its rows do not fit.
    """

    def cells(digests: Digests, artifacts: Artifacts) -> list[Cell]:
        return build.cells(recipe, digests, host, artifacts)

    return make_plan(CellStore(recipe.folder), cells)


def make_plan(store: CellStore, cells: Callable[[Digests, Artifacts], list[Cell]]) -> CellPlan:
    """Return the plan of cells in a workspace.

    Args:
        store: the workspace.
        cells: returns the cells as far as they are known.
    """
    digests = Digests(store.digests)
    plan_ = CellPlan(lambda artifacts: cells(digests, artifacts), store)
    plan_.remember = digests.save
    if store.folder.is_dir():
        with contextlib.suppress(UsageError):  # they are computed again; a run tells what cannot be written
            digests.save()
    return plan_


def run(recipe: Recipe, *, executor: Executor | None = None) -> RunResult:
    """Do the cells of a recipe's plan.

    Args:
        recipe: from :func:`effx.recipe.language.schema.load`.
        executor: where cells run; None: in worker processes of this machine.

    Raises:
        StoppedError: by Ctrl-C or SIGTERM.
        UsageError: the workspace cannot be written to.
        DataError: a task's files are missing, or its rows do not fit.
    """
    where: Executor = executor or LocalExecutor(recipe.budgets)
    try:
        plan_ = plan(recipe, where.host)
        try:
            with running.using(running.Requested(recipe.workloads.meter)):
                return run_plan(plan_, where, recipe.budgets)
        finally:
            if any(entry.record for entry in plan_.entries.values()):
                write_recipe(plan_.store, recipe)
    finally:
        where.close()


def write_recipe(store: CellStore, recipe: Recipe) -> None:
    """Write the recipe with every default filled in into its workspace."""
    text = document.dump(recipe.resolved())
    store.write_recipe(recipe.name, text)


def run_plan(plan: CellPlan, where: Executor, budgets: Budgets) -> RunResult:
    """Do the cells of a plan; see :func:`run` for what is raised."""
    start = time.monotonic()
    if plan.count(*OPEN):
        plan.store.create()
        plan.store.clean()
        plan.remember()
        for line in plan.differences():
            progress.say(line)
        shown = view(plan, where.slots, lines=where.shows_progress)
        try:
            with signals.handled():
                _Loop(plan, where, budgets, shown, start).work()
        except KeyboardInterrupt as error:
            with signals.shielded():
                where.stop()
            raise StoppedError(_stopped(plan), signals.exit_code(error)) from None
        finally:
            shown.close()
            _tidy(plan)
    else:
        _tidy(plan)
    return RunResult(plan, time.monotonic() - start, plan.count(*OPEN))


class _Loop:
    """Begins cells and waits for them, until nothing is left that can be begun."""

    def __init__(self, plan: CellPlan, where: Executor, budgets: Budgets, shown: View, start: float) -> None:
        self._plan, self._where, self._budgets, self._shown = plan, where, budgets, shown
        self._running: dict[str, tuple[PlanEntry, float]] = {}
        """Key -> its entry, and when it was started; a cell in a queue has not begun then."""
        self._begun: dict[str, float] = {}
        """Key -> when the journal had that a cell began, if the executor queues cells."""
        self._earlier: Counter[str] = Counter()
        """Key -> how often the journal had that before the cell was started."""
        self._looked = start
        self._start = start

    def work(self) -> None:
        budget_s = self._budgets.total_s
        while True:
            spent = budget_s is not None and time.monotonic() - self._start >= budget_s
            waiting = "" if spent else self._begin()
            if not self._running and (spent or not self._plan.ready()):
                if spent and self._plan.count(*OPEN):
                    progress.say(f"the time budget is spent (budgets.total_s = {budget_s:g}).")
                return
            ended = self._where.poll()
            for key, outcome in ended.items():
                self._end(key, outcome)
            with signals.interruptible():
                if not ended:
                    time.sleep(_POLL_S)
            self._check_limit()
            now = time.monotonic()
            running = {entry.cell.id: now - began for entry, began in self._running.values()}
            self._shown.tick(running, waiting)

    def _begin(self) -> str:
        """Begin the cells that there are slots for; return what the run waits for."""
        if len(self._running) >= self._where.slots:
            return ""
        ready = self._plan.ready()
        self._plan.refresh()  # another run may have done some, and keys depend on what was built
        waiting = ""
        for entry in ready:
            if entry.state != "todo":
                self._shown.ended(entry)
            elif any(need.state in OPEN for need in self._plan.sources(entry)):
                continue  # its input was removed and has to be computed again
            elif holder := locks.holder(self._plan.store.lock(entry.run_key)):
                waiting = waiting or f"waiting for {entry.cell.id}, which is run by {holder}"
            elif len(self._running) < self._where.slots:
                entry.state = "running"
                self._running[entry.key] = entry, time.monotonic()
                if self._counts_from_journal():
                    self._earlier[entry.key] = self._begins()[entry.key]
                self._shown.began(entry)
                self._where.start(self._plan.spec(entry, self._where.threads))
        return "" if self._running else waiting

    def _end(self, key: str, outcome: CellOutcome) -> None:
        entry, began = self._running.pop(key)
        began = self._begun.pop(key, began)
        plan = self._plan
        record = plan.store.find(key, artifact=False) if outcome.outcome in SETTLED else None
        if record:
            plan.settle(entry, record, earlier=outcome.already_done)
            plan.estimates.learn(entry.cell.stage, entry.cell.group, record.seconds, record.work)
        else:
            entry.state, entry.note, entry.seconds = (
                "failed",
                outcome.note,
                outcome.seconds or time.monotonic() - began,
            )
            plan.store.note("failed", key, entry.cell.id, why=entry.note)
        plan.refresh()
        self._shown.ended(entry)
        for removable in plan.removable():
            plan.store.remove_artifact(removable)

    def _check_limit(self) -> None:
        """Stop the cells that take longer than their budget."""
        limit_s = self._budgets.cell_s
        if limit_s is None:
            return
        queued = self._counts_from_journal()
        if queued:
            self._note_begun()
        for key, (_, started) in list(self._running.items()):
            began = self._begun.get(key) if queued else started
            seconds = 0.0 if began is None else time.monotonic() - began
            if seconds > limit_s:
                self._where.stop(key)
                note = f"took longer than budgets.cell_s = {limit_s:g}"
                self._end(key, CellOutcome("failed", note, seconds))

    def _counts_from_journal(self) -> bool:
        return self._where.queues and self._budgets.cell_s is not None

    def _begins(self) -> Counter[str]:
        """Return how often the journal has that a cell began, by key."""
        lines = self._plan.store.journal()
        return Counter(str(line.get("key")) for line in lines if line.get("event") == "begun")

    def _note_begun(self) -> None:
        """Note which cells have left the queue since the last look."""
        now = time.monotonic()
        if now - self._looked < _JOURNAL_S or self._running.keys() <= self._begun.keys():
            return
        self._looked, begins = now, self._begins()
        for key in self._running:
            if begins[key] > self._earlier[key]:
                self._begun.setdefault(key, now)


def _tidy(plan: CellPlan) -> None:
    """Remove artifacts that are not to be kept, and link the others under readable names."""
    for record in plan.removable():
        plan.store.remove_artifact(record)
    for run_key in plan.abandoned():
        with locks.hold(plan.store.lock(run_key)):
            plan.store.remove_paused(run_key)
    if any(entry.record for entry in plan.entries.values()):
        plan.store.link(_links(plan))


def _links(plan: CellPlan) -> dict[str, Path]:
    """Return the links of a workspace: path -> target."""
    links: dict[str, Path] = {}
    for entry in plan.entries.values():
        view_ = entry.cell.view or STAGES[entry.cell.stage].view
        if entry.state != "done" or view_ is None:
            continue
        target = plan.store.cell(entry.key) / entry.cell.name
        path = view_.format(name=entry.cell.name)
        if not target.is_dir():
            continue  # its checkpoint was removed, as ``keep`` requires
        if path.endswith("*"):
            links |= {f"{path[:-1]}{child.name}": child for child in sorted(target.iterdir())}
        else:
            links[path] = target
    return links


def _stopped(plan: CellPlan) -> str:
    total = len(plan.entries)
    return f"stopped; {plan.count(*SETTLED)} of {total} cells are done."

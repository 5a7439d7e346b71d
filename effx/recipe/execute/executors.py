"""Where cells run: in worker processes of this machine, in this process, or on Ray.

LocalExecutor    worker processes, several at once; a crash or a time limit ends one cell only
InlineExecutor   this process, one cell at a time; an error is raised to the caller
RayExecutor      nodes of a Ray cluster, see :mod:`effx.recipe.execute.on_ray`
"""

from __future__ import annotations

import os
from typing import Protocol

from effx.errors import EffxError, UsageError, nearest
from effx.host import cpu, identity
from effx.recipe.execute.process import WorkerProcess
from effx.recipe.execute.protocol import CellOutcome, CellSpec
from effx.recipe.execute.settle import settle
from effx.recipe.execute.store import CellStore
from effx.recipe.language.recipe import Budgets, Recipe
from effx.specs.stages import STAGES


class Executor(Protocol):
    """Where cells run."""

    host: str
    """Id of the machine that measures; see :func:`effx.host.identity.host`."""
    slots: int
    """Cells at once."""
    threads: int | None
    """Compute threads of a cell; None: as the process has them."""
    shows_progress: bool
    """Whether cells write their progress to this process's stderr."""
    queues: bool
    """Whether a cell that was started may wait for processors, so that its time counts from the journal."""

    def start(self, spec: CellSpec) -> None:
        """Begin a cell."""

    def poll(self) -> dict[str, CellOutcome]:
        """Return the outcomes of cells that have ended since, by key."""

    def stop(self, key: str | None = None) -> None:
        """End a cell, or all of them."""

    def close(self) -> None:
        """Free what the executor holds."""


class LocalExecutor:
    """Cells in worker processes of this machine."""

    shows_progress, queues = False, False

    def __init__(self, budgets: Budgets) -> None:
        self.slots = budgets.at_once
        self.threads: int | None = budgets.threads or _default_threads(budgets.at_once)
        self.host = identity.host().id
        self._busy: dict[str, tuple[CellSpec, WorkerProcess]] = {}
        self._idle: list[WorkerProcess] = []

    def start(self, spec: CellSpec) -> None:
        if spec.alone or not STAGES[spec.stage].shares_process:
            self._stop_idle()  # a process that is done with training still has memory, also on the GPU
            self._busy[spec.key] = spec, WorkerProcess(spec)
            return
        while self._idle:
            worker = self._idle.pop()
            if worker.alive and worker.threads == spec.threads:
                worker.give(spec)
                self._busy[spec.key] = spec, worker
                return
            worker.stop()
        self._busy[spec.key] = spec, WorkerProcess(spec)

    def poll(self) -> dict[str, CellOutcome]:
        ended = {}
        for key, (spec, worker) in list(self._busy.items()):
            if (outcome := worker.poll()) is None:
                continue
            ended[key] = outcome
            del self._busy[key]
            if STAGES[spec.stage].shares_process and not any(other.alone for other, _ in self._busy.values()):
                self._idle.append(worker)
            else:
                worker.stop()
        return ended

    def stop(self, key: str | None = None) -> None:
        keys = [key] if key else list(self._busy)
        for name in keys:
            if name in self._busy:
                self._busy[name][1].terminate()
        for name in keys:
            if busy := self._busy.pop(name, None):
                busy[1].stop()

    def close(self) -> None:
        self.stop()
        self._stop_idle()

    def _stop_idle(self) -> None:
        while self._idle:
            self._idle.pop().stop()


class InlineExecutor:
    """Cells in this process, one at a time; an error ends the run and is raised to the caller.

    A search for tickets that is called from Python, or by ``effx train``, uses it: PyTorch is imported
    once, before the search to check its settings against the model and then to train; progress is that of
    the trainings themselves; and the first error, as a diverged run, is raised as what it is. Locks, records
    and resuming are the same as with worker processes, also after SIGKILL.
    """

    slots = 1
    threads: int | None = None
    shows_progress, queues = True, False

    def __init__(self) -> None:
        self.host = identity.host().id
        self._next: list[CellSpec] = []

    def start(self, spec: CellSpec) -> None:
        self._next.append(spec)

    def poll(self) -> dict[str, CellOutcome]:
        ended = {}
        while self._next:
            spec = self._next.pop(0)
            try:
                ended[spec.key] = settle(spec)
            except EffxError as error:
                CellStore(spec.workspace).note("failed", spec.key, spec.id, why=str(error))
                raise
        return ended

    def stop(self, key: str | None = None) -> None:
        self._next.clear()

    def close(self) -> None:
        self._next.clear()


def _default_threads(at_once: int) -> int:
    """Return the compute threads of a cell: OMP_NUM_THREADS, or the usable processors shared by all."""
    given = os.environ.get("OMP_NUM_THREADS", "")
    if given.isdigit() and int(given) > 0:
        return int(given)
    return max(1, cpu.usable_processors() // at_once)


def executor(where: str, recipe: Recipe) -> Executor:
    """Return the executor for ``local`` or ``ray[:ADDRESS]``.

    Raises:
        UsageError: the name is unknown, or the cluster cannot be used.
        MissingExtraError: Ray is not installed.
    """
    check_executor(where)
    name, _, address = where.partition(":")
    if name == "local":
        return LocalExecutor(recipe.budgets)
    from effx.recipe.execute.on_ray import RayExecutor

    return RayExecutor(recipe, address or None)


def check_executor(where: str) -> None:
    """Raise :class:`UsageError` unless ``where`` is ``local`` or ``ray[:ADDRESS]``; nothing is started."""
    name = where.partition(":")[0]
    if where != "local" and name != "ray":
        hint = nearest(name, ("local", "ray"))
        raise UsageError(f"unknown executor '{where}'.{hint} Known: local, ray, ray:ADDRESS.", settings="on")

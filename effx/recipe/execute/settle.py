"""Do one cell under its lock and write its record, in whatever process this is.

lock -> another run has done it? -> the host's turnstile -> the stage's function -> record -> one rename
"""

from __future__ import annotations

import importlib
import socket
import time
from pathlib import Path
from typing import Protocol, cast

from effx import files
from effx.artifacts import now
from effx.errors import EffxError, GateError
from effx.host import locks
from effx.meters import running
from effx.recipe.execute import unchanged
from effx.recipe.execute.protocol import CellOutcome, CellSpec, RefusedError, StageOutput
from effx.recipe.execute.store import RECORD, SETTLED, CellRecord, CellStore, sizes
from effx.recipe.graph.digests import Digests


class StageFunction(Protocol):
    """``run`` of a module in :mod:`effx.recipe.execute.stages`."""

    def __call__(self, cell: CellSpec, out: Path) -> StageOutput:
        """Make ``out/NAME``, where NAME is the cell's.

        Raises:
            GateError: the artifact was built, and did not pass its gate; a result, like success.
            RefusedError: the combination cannot be built; likewise.
        """


def function(stage: str) -> StageFunction:
    """Return the function of a stage: ``run`` in the module of its name."""
    module = importlib.import_module(f"effx.recipe.execute.stages.{stage.replace('-', '_')}")
    return cast(StageFunction, module.run)


def settle(spec: CellSpec) -> CellOutcome:
    """Do a cell and write its record, unless another run has.

    Raises:
        EffxError: the cell failed, or its rows or model changed since the run was planned; nothing is
            written, and it will be tried again.
    """
    store = CellStore(spec.workspace)
    with locks.hold(store.lock(spec.run_key)) as lock:
        if record := store.find(spec.key, artifact=spec.artifact_needed):
            return CellOutcome(record.outcome, record.note, already_done=True)
        with locks.on_this_host(alone=spec.alone):
            return _do(store, spec, lock)


def _do(store: CellStore, spec: CellSpec, lock: locks.Lock) -> CellOutcome:
    started, clock = now(), time.perf_counter()
    unchanged.check(spec, Digests(store.digests))
    store.note("begun", spec.key, spec.id)
    with store.settle(spec.key) as folder:
        output, outcome = StageOutput(None), "done"
        try:
            with running.using(running.Requested(spec.meter, spec.meter_required)):
                output = function(spec.stage)(spec, folder)
        except GateError as error:
            output, outcome = StageOutput(None, str(error)), "gate"
        except RefusedError as error:
            output, outcome = StageOutput(None, str(error)), "refused"
        unchanged.check_after(spec, Digests(store.digests))
        seconds = round(time.perf_counter() - clock, 3)
        record = CellRecord(
            key=spec.key, stage=spec.stage, name=spec.name, outcome=outcome, note=output.note,
            digest=output.digest, seconds=seconds, work=spec.work, group=spec.group, started=started,
            host=socket.gethostname(), threads=spec.threads, settings=spec.settings, inputs=spec.inputs,
            sources={source.id: source.key for source in spec.sources},
            sizes=sizes(folder / spec.name) if outcome == "done" else None,
        )  # fmt: skip
        assert outcome in SETTLED
        files.write_json(folder / RECORD, record.to_json())
        if not lock.held:
            raise EffxError(f"{spec.id}: another run took the cell over; was this process suspended?")
    # the states that this part of a training run continued from, or all of them at its end
    store.remove_paused(spec.run_key, spec.pause_at)
    store.note(outcome, spec.key, spec.id, seconds=seconds)
    return CellOutcome(outcome, output.note, seconds)

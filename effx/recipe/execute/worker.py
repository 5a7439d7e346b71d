"""A cell's own process: ``python -m effx.recipe.execute.work``, driven by :mod:`effx.recipe.execute.child`.

    stdin    the cell as one line of JSON; then open for as long as the parent lives
    stdout   the outcome as one line of JSON; what libraries print there goes to the log
    stderr   the log

When stdin ends, the parent is gone: the process stops and leaves nothing half-made. SIGTERM does the
same. The cell's lock is held by this process, not by its parent, so that it is free when this is gone.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import sys
import threading
import time
import traceback
from typing import Any

from effx import files, progress
from effx.artifacts import now
from effx.errors import EffxError, GateError
from effx.host import locks
from effx.recipe.execute.kinds import KINDS, RefusedError
from effx.recipe.execute.store import RECORD, SETTLED, Record, Workspace

_GRACE_S = 10.0


def main() -> int:
    """Do the cell on stdin."""
    answer = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    spec = json.loads(sys.stdin.readline())
    signal.signal(signal.SIGTERM, _stop)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # of a terminal's whole group; the parent decides
    threading.Thread(target=_follow_parent, daemon=True).start()
    try:
        outcome = do(spec)
    except SystemExit:
        outcome = {"outcome": "stopped", "note": "stopped"}
    except EffxError as error:
        outcome = {"outcome": "failed", "note": str(error)}
    except MemoryError:
        outcome = {"outcome": "failed", "note": "memory ran out"}
    except Exception as error:  # libraries raise many kinds; the other cells are to be done
        traceback.print_exc()
        told = " ".join(str(error).split())[:200]
        outcome = {"outcome": "failed", "note": f"{type(error).__name__}: {told}"}
    with contextlib.suppress(OSError):
        answer.write(json.dumps(outcome) + "\n")
        answer.flush()
    return 0


def do(spec: dict[str, Any]) -> dict[str, Any]:
    """Settle a cell, unless another run has; return outcome, note and seconds."""
    workspace, key = Workspace(spec["workspace"]), spec["key"]
    with locks.hold(workspace.lock(key)) as lock:
        if found := workspace.find(key):
            return {"outcome": found.outcome, "note": found.note, "found": True, "seconds": 0.0}
        with locks.on_this_host(alone=spec["alone"]):
            return _settle(workspace, spec, lock)


def _settle(workspace: Workspace, spec: dict[str, Any], lock: locks.Lock) -> dict[str, Any]:
    key, name = spec["key"], f"{spec['kind']} {spec['name']}"
    started, clock = now(), time.perf_counter()
    workspace.note("begun", key, name)
    with workspace.settle(key) as folder:
        digest, outcome = None, "done"
        try:
            digest, note = KINDS[spec["kind"]](spec, folder)
        except GateError as error:
            outcome, note = "gate", str(error)
        except RefusedError as error:
            outcome, note = "refused", str(error)
        seconds = round(time.perf_counter() - clock, 3)
        record = Record(
            key=key, kind=spec["kind"], name=spec["name"], outcome=outcome, note=note, digest=digest,
            seconds=seconds, work=spec["work"], group=spec["group"], started=started,
            host=socket.gethostname(), threads=spec["threads"], settings=spec["settings"],
            inputs=spec["inputs"], needs=spec["needs"],
        )  # fmt: skip
        assert outcome in SETTLED
        files.write_json(folder / RECORD, vars(record))
        if not lock.held:
            raise EffxError(f"{name}: another run took the cell over; was this process suspended?")
    workspace.note(outcome, key, name, seconds=seconds)
    return {"outcome": outcome, "note": note, "seconds": seconds}


def _follow_parent() -> None:
    while sys.stdin.readline():
        pass
    progress.say("the run has ended: stopping")
    os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(_GRACE_S)  # a library that does not come back to Python
    os._exit(1)


def _stop(*_: Any) -> None:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    raise SystemExit(1)


if __name__ == "__main__":
    sys.exit(main())

"""A/A: the same engine twice under two names, in repeated sessions.

    python benchmarks/aa.py engines/NAME [--sessions 20]

The true ratio of an engine and its copy is 1. The 95 % interval of the paired ratio should include 1.0
in about 19 of 20 sessions. Prints JSON.
"""

from __future__ import annotations

import argparse
import json
import shutil
import tempfile
from pathlib import Path

import numpy as np

from effx import engines
from effx.artifacts import Engine, now
from effx.host import identity
from effx.profile import profile
from effx.specs.measurement import MeasurementPlan
from effx.stats.intervals import paired_ratio


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("engine", type=Path)
    parser.add_argument("--sessions", type=int, default=20)
    parser.add_argument("--limit", type=int, default=200, help="validation rows")
    options = parser.parse_args()
    engine = Engine.open(options.engine)
    sessions = []
    with tempfile.TemporaryDirectory(prefix="effx-aa-") as scratch:
        folders = [Path(shutil.copytree(engine.folder, Path(scratch) / name)) for name in "ab"]
        for number in range(options.sessions):
            plan = MeasurementPlan(grid=(), limit=options.limit, seed=number)
            runs, failures = profile(folders, out=Path(scratch) / "results", plan=plan, meter="none")
            if failures:
                raise failures[0]
            a, b = (run.workloads[0] for run in sorted(runs, key=lambda run: run.name))
            ratio = paired_ratio(a.blocks_s, a.rounds, b.blocks_s, b.rounds)
            assert ratio is not None
            low, high = ratio.interval
            sessions.append({"ratio": ratio.value, "interval": [low, high], "covers": bool(low <= 1 <= high),
                          "flags": runs[0].flags})  # fmt: skip
    facts = {
        "command": f"python benchmarks/aa.py {engine.name} --sessions {options.sessions}",
        "date": now(), "host": identity.host().to_json(), "versions": engines.versions(engine.backend),
        "covered": sum(session["covers"] for session in sessions), "sessions": sessions,
        "median_width": float(np.median([s["interval"][1] - s["interval"][0] for s in sessions])),
    }  # fmt: skip
    print(json.dumps(facts, indent=1))


if __name__ == "__main__":
    main()

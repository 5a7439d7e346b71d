"""Engines without padding beside padded ones: time by how the rows of a batch are chosen.

    effx export CHECKPOINT --variant fp32 --variant unpadded --variant int8 --variant int8+unpadded
    python benchmarks/padding.py engines/NAME.fp32.onnxruntime engines/NAME.unpadded.onnxruntime > out.json

The first engine is the one that the others are compared with. Every engine runs in its own process; they take
turns in random order, on the same batches of validation rows: 1 row, 8 and 32 random rows, and 32 rows of
similar length. Prints JSON: milliseconds per row, and ratios with their 95 % intervals.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
from peers import THREADS, EngineProcess

from effx import data, engines
from effx.artifacts import Engine, now
from effx.encoding import Encoder
from effx.host import identity
from effx.stats import intervals


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("engines", type=Path, nargs="+")
    parser.add_argument("--data", type=Path, help="default: where the checkpoint had them")
    parser.add_argument("--rounds", type=int, default=12)
    options = parser.parse_args()
    opened = [Engine.open(folder) for folder in options.engines]
    first = opened[0]
    rows = data.load(first.task, "validation", options.data)
    encoded = Encoder(first.folder, first.max_length)(rows.texts)
    rng = np.random.default_rng(0)
    order = np.argsort(encoded.lengths, kind="stable")
    starts = np.linspace(0, len(order) - 32, 6).astype(int)
    batches = {
        "1 row": [rng.choice(len(encoded), 1) for _ in range(40)],
        "8 random rows": [rng.choice(len(encoded), 8, replace=False) for _ in range(10)],
        "32 random rows": [rng.choice(len(encoded), 32, replace=False) for _ in range(4)],
        "32 rows of similar length": [order[start : start + 32] for start in starts],
    }
    processes = {engine.name: EngineProcess("effx", str(engine.folder)) for engine in opened}
    found: dict[str, Any] = {}
    for name, parts in batches.items():
        queries = [encoded.batch(part) for part in parts]
        count = sum(len(part) for part in parts)
        taken: dict[str, list[float]] = {engine: [] for engine in processes}
        for turn in range(options.rounds + 1):
            for engine in rng.permutation(list(processes)):
                seconds = sum(processes[engine].request(queries, 1))
                if turn:  # the first warms up
                    taken[engine].append(seconds / count)
        rounds = range(options.rounds)
        base = [[each] for each in taken[first.name]]
        found[name] = {
            "share_of_padding": round(1 - sum(int(query["attention_mask"].sum()) for query in queries)
                                      / sum(query["attention_mask"].size for query in queries), 3),
            "ms_per_row": {engine: round(1e3 * float(np.median(each)), 4) for engine, each in taken.items()},
            "ratio_to_first": {
                engine: None if ratio is None else {"value": ratio.value, "interval": ratio.interval}
                for engine, each in taken.items() if engine != first.name
                for ratio in [intervals.paired_ratio(base, rounds, [[one] for one in each], rounds)]
            },
        }  # fmt: skip
        print(json.dumps({name: found[name]}), file=sys.stderr, flush=True)
    result = {
        "results": found, "compared_with": first.name, "rounds": options.rounds, "threads": THREADS,
        "date": now(),
        "command": " ".join(["python benchmarks/padding.py", *(engine.name for engine in opened)]),
        "host": identity.host().to_json(), "versions": engines.versions(first.manifest.backend),
    }  # fmt: skip
    json.dump(result, sys.stdout, indent=1)


if __name__ == "__main__":
    main()

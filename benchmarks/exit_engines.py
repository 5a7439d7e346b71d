"""Early-exit engines against the reference and against the full engine, on a task's validation rows.

    effx export CHECKPOINT-exits --variant fp32 --variant exit --variant exit-if
    python benchmarks/exit_engines.py CHECKPOINT-exits [--engines engines --backend onnxruntime]

Labels and exit layers are compared row by row at batch 1, 8 and 32; then the engines run all rows
at batch 1 and real lengths in turns. Prints JSON.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from pathlib import Path
from typing import Any

import numpy as np

from effx import data, engines
from effx.artifacts import Checkpoint, Engine, now
from effx.encoding import Encoder, length_sorted
from effx.host import cpu, identity
from effx.models import evaluate, load
from effx.models.exits import rule_of


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("checkpoint", type=Path)
    parser.add_argument("--engines", type=Path, default=Path("engines"))
    parser.add_argument("--backend", default="onnxruntime")
    parser.add_argument("--data", type=Path)
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    checkpoint = Checkpoint.open(options.checkpoint)
    source = data.locate(options.data, checkpoint.task, checkpoint.data)
    rows = data.load(checkpoint.task, "validation", source)
    encoded = Encoder(checkpoint.folder, checkpoint.max_length)(rows.texts)
    expected, depth, _ = evaluate.reduced(load(checkpoint), encoded, rule=rule_of(checkpoint))
    sessions, result = {}, {}
    for variant in ("fp32", "exit", "exit-if"):
        folder = options.engines / f"{checkpoint.name}.{variant}.{options.backend}"
        sessions[variant] = engines.open(Engine.open(folder))
        entry: dict[str, Any] = {}
        if variant != "fp32":
            for batch in (1, 8, 32):
                outputs = np.empty_like(depth), np.empty_like(expected)
                for part in length_sorted(encoded.lengths, batch):
                    out = sessions[variant].infer(encoded.batch(part))
                    outputs[0][part], outputs[1][part] = out["depth"], out["logits"]
                entry[f"batch_{batch}"] = {
                    "rows_with_another_exit": int((outputs[0] != depth).sum()),
                    "rows_with_another_label": int((outputs[1].argmax(1) != expected.argmax(1)).sum()),
                    "max_abs_diff": float(np.abs(outputs[1] - expected).max()),
                }
        result[variant] = entry
    queries = [encoded.batch([row]) for row in range(len(encoded))]
    taken: dict[str, list[float]] = {variant: [] for variant in sessions}
    rng = np.random.default_rng(0)
    for turn in range(options.rounds + 1):
        for variant in rng.permutation(list(sessions)):
            cpu.rest()  # threads of the engine before wait busily for work
            started = time.perf_counter()
            for query in queries:
                sessions[variant].infer(query)
            if turn:
                taken[variant].append(time.perf_counter() - started)
    for variant, seconds in taken.items():
        result[variant]["seconds_for_all_rows_batch_1"] = statistics.median(seconds)
        result[variant]["time_ratio"] = statistics.median(seconds) / statistics.median(taken["fp32"])
    facts = {
        "rule": rule_of(checkpoint).to_json(), "mean_depth": float(depth.mean()), "rows": len(encoded),
        "backend": options.backend, "date": now(), "host": identity.host().to_json(),
        "command": f"python benchmarks/exit_engines.py {checkpoint.name} --backend {options.backend}",
        "versions": engines.versions(options.backend), "rounds": options.rounds,
    }  # fmt: skip
    print(json.dumps({"engines": result, **facts}, indent=1))


if __name__ == "__main__":
    main()

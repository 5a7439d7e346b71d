"""One engine with the heads of several tasks, beside an engine for each task.

    effx train multitask mrpc,rte,stsb --model ./minilm --data ./glue
    effx export checkpoints/multitask-* --variant fp32 --variant multi
    python benchmarks/multi_engine.py checkpoints/multitask-* --engines engines > multi.json

For every task: do both engines answer all validation rows as PyTorch does? Then the same texts run through
the engine of all tasks, and through one engine after another, in turns, at batch 1 and real lengths: the time
for the answers of all tasks. Prints JSON.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np

from effx import data, engines
from effx.artifacts import Checkpoint, Engine, now
from effx.encoding import Encoder, length_sorted
from effx.engines import Session
from effx.host import cpu, identity
from effx.manifests import head_output
from effx.models import evaluate, load
from effx.stats import intervals


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("checkpoints", type=Path, nargs="+", help="of one multi-task training")
    parser.add_argument("--engines", type=Path, default=Path("engines"))
    parser.add_argument("--backend", default="onnxruntime")
    parser.add_argument("--precision", default="fp32")
    parser.add_argument("--rows", type=int, default=200, help="texts of each task that are timed")
    parser.add_argument("--rounds", type=int, default=15)
    options = parser.parse_args()
    checkpoints = [Checkpoint.open(folder) for folder in options.checkpoints]
    multi_variant = "multi" if options.precision == "fp32" else f"{options.precision}+multi"
    multi = _open(options, checkpoints[0], multi_variant)
    single = {each.task.name: _open(options, each, options.precision) for each in checkpoints}
    tasks: dict[str, Any] = {}
    queries = []
    for checkpoint in checkpoints:
        task = checkpoint.task
        rows = data.load(task, "validation", data.locate(None, task, checkpoint.data))
        encoded = Encoder(checkpoint.folder, checkpoint.max_length)(rows.texts)
        expected = evaluate.logits(load(checkpoint), encoded)
        output = "logits" if task.name == checkpoints[0].task.name else head_output(task.name)
        tasks[task.name] = {"rows": len(rows), "metric": task.metric, "pytorch": _score(task, rows, expected)}
        for name, session, key in (
            ("multi", multi, output), ("own_engine", single[task.name], "logits"),
        ):  # fmt: skip
            answers = np.empty_like(expected)
            for part in length_sorted(encoded.lengths, 32):
                answers[part] = session.infer(encoded.batch(part))[key]
            same = [list(task.predict(each)) for each in (answers, expected)]
            tasks[task.name][name] = {
                "score": _score(task, rows, answers),
                "max_abs_diff": float(np.abs(answers - expected).max()),
                "rows_with_another_answer": (None if task.behavior.of_numbers else sum(map(_differs, *same))),
            }
        chosen = np.random.default_rng(0).permutation(len(encoded))[: options.rows]
        queries += [encoded.batch([int(row)]) for row in chosen]
    times: dict[str, list[float]] = {"multi": [], "one_after_another": [], "one_engine": []}
    singles = [*single.values()]
    candidates: dict[str, list[Session]] = {
        "multi": [multi], "one_after_another": singles, "one_engine": singles[:1]
    }  # fmt: skip
    rng = np.random.default_rng(0)
    for turn in range(options.rounds + 1):
        for name in rng.permutation(list(candidates)):
            cpu.rest()  # threads of the engines before wait busily for work
            started = time.perf_counter()
            for query in queries:
                for session in candidates[name]:
                    session.infer(query)
            if turn:
                times[name].append((time.perf_counter() - started) / len(queries))
    result = {
        "tasks": tasks,
        "queries": len(queries),
        "median_ms_per_text": {name: 1000 * float(np.median(each)) for name, each in times.items()},
        "ratios_of_time": {
            f"multi / {other}": _ratio(times["multi"], times[other])
            for other in ("one_after_another", "one_engine")
        },
        "backend": options.backend,
        "precision": options.precision,
        "rounds": options.rounds,
        "date": now(),
        "host": identity.host().to_json(),
        "versions": engines.versions(options.backend),
        "command": " ".join(["python benchmarks/multi_engine.py", *(each.name for each in checkpoints)]),
    }
    json.dump(result, sys.stdout, indent=1)


def _open(options: argparse.Namespace, checkpoint: Checkpoint, variant: str) -> Session:
    return engines.open(Engine.open(options.engines / f"{checkpoint.name}.{variant}.{options.backend}"))


def _score(task: Any, rows: data.Rows, logits: np.ndarray) -> float:
    return float(task.score(rows.labels, task.predict(logits))[task.metric])


def _differs(one: Any, other: Any) -> bool:
    return not np.array_equal(one, other)


def _ratio(times: list[float], others: list[float]) -> dict[str, Any]:
    """Return the ratio of the times with its 95 % interval, paired by round."""
    rounds = range(len(times))
    found = intervals.paired_ratio([[each] for each in others], rounds, [[each] for each in times], rounds)
    return {} if found is None else {"ratio": found.value, "interval": found.interval}


if __name__ == "__main__":
    main()

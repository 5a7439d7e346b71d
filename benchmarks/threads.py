"""Wall and CPU time of an engine's graph by threads, spinning and instances.

    effx export CHECKPOINT --variant int8 --backend onnxruntime --backend openvino
    python benchmarks/threads.py engines/NAME.int8.onnxruntime engines/NAME.int8.openvino > threads.json

Single rows at their real lengths and batches of 32 rows of 128 tokens. Every setting runs in its own process;
they take turns in random order. With several instances, each is a process with its own threads, all run at
the same time, and what is shown is the time per query of all of them together. CPU time is the operating
system's, of the process and its threads. ``no spinning`` is ONNX Runtime's session.intra_op.allow_spinning 0:
threads sleep between the parts of a query instead of waiting busily. Prints JSON: milliseconds per query, and
ratios to the first setting with their 95 % intervals.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np

from effx import data, engines
from effx.artifacts import Engine, now
from effx.encoding import Encoder
from effx.host import cpu, identity
from effx.stats import intervals

SETTINGS = {
    "onnxruntime": (("1 thread", 1, 1, True), ("2 threads", 1, 2, True),
                    ("2 threads, no spinning", 1, 2, False), ("2 instances of 1 thread", 2, 1, True)),
    "openvino": (("1 thread", 1, 1, True), ("2 threads", 1, 2, True),
                 ("2 instances of 1 thread", 2, 1, True)),
}  # fmt: skip
"""Backend -> label, instances, threads of each, and whether they spin."""


def worker(pipe: Any, folder: str, threads: int, spins: bool) -> None:
    """Answer queries with the seconds and CPU seconds that they took together."""
    if spins:
        session = engines.open(folder, threads=threads)
        infer: Any = session.infer
    else:
        import onnxruntime

        engine = Engine.open(folder)
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        plain = onnxruntime.InferenceSession(
            str(engine.folder / engine.runtime.files[0]), options, providers=["CPUExecutionProvider"],
            disabled_optimizers=[*engine.runtime.disabled_optimizers],
        )  # fmt: skip
        names = [entry.name for entry in plain.get_inputs()]
        infer = lambda query: plain.run(None, {name: query[name] for name in names})  # noqa: E731
    pipe.send("ready")
    while True:
        try:
            queries = pipe.recv()
        except EOFError:
            return
        for query in queries[-10:]:  # threads wake up, and caches hold what another setting left there
            infer(query)
        wall, worked = time.perf_counter(), time.process_time()
        for query in queries:
            infer(query)
        taken = time.perf_counter() - wall, time.process_time() - worked
        cpu.rest()  # threads that wait busily for work would slow the next setting
        pipe.send(taken)


class Setting:
    """The instances of one setting."""

    def __init__(self, folder: Path, instances: int, threads: int, spins: bool) -> None:
        context = multiprocessing.get_context("spawn")
        self._pipes = []
        for _ in range(instances):
            pipe, other = context.Pipe()
            context.Process(target=worker, args=(other, str(folder), threads, spins), daemon=True).start()
            assert pipe.recv() == "ready"
            self._pipes.append(pipe)

    def run(self, queries: list[dict[str, np.ndarray]]) -> tuple[float, float]:
        """Return wall and CPU seconds per query; every instance answers all queries."""
        for pipe in self._pipes:
            pipe.send(queries)
        answers = [pipe.recv() for pipe in self._pipes]
        count = len(queries) * len(self._pipes)
        return max(wall for wall, _ in answers) / count, sum(cpu for _, cpu in answers) / count


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("engines", type=Path, nargs="+")
    parser.add_argument("--data", type=Path, help="default: where the checkpoint had them")
    parser.add_argument("--rounds", type=int, default=12)
    options = parser.parse_args()
    first = Engine.open(options.engines[0])
    rows = data.load(first.task, "validation", options.data)
    encoded = Encoder(first.folder, first.max_length)(rows.texts)
    rng = np.random.default_rng(0)
    ids = np.resize(encoded.ids, (32, min(128, first.manifest.longest_input))).astype(np.int64)
    batch = {"input_ids": ids, "attention_mask": np.ones_like(ids), "token_type_ids": np.zeros_like(ids)}
    single = [encoded.batch([int(row)]) for row in rng.choice(len(encoded), 40, replace=False)]
    workloads = {"single rows": single, f"32x{ids.shape[1]}": [batch, batch]}
    settings = {
        f"{engine.name}, {label}": Setting(engine.folder, instances, threads, spins)
        for engine in map(Engine.open, options.engines)
        for label, instances, threads, spins in SETTINGS[engine.backend]
    }
    found: dict[str, Any] = {}
    for workload, queries in workloads.items():
        taken: dict[str, list[tuple[float, float]]] = {name: [] for name in settings}
        for turn in range(options.rounds + 1):
            for name in rng.permutation(list(settings)):
                each = settings[name].run(queries)
                if turn:  # the first warms up
                    taken[name].append(each)
        base = next(iter(taken.values()))
        found[workload] = {
            name: {
                "wall_ms": round(1e3 * float(np.median([wall for wall, _ in values])), 4),
                "cpu_ms": round(1e3 * float(np.median([cpu for _, cpu in values])), 4),
                "wall_ratio": _ratio(base, values, 0),
                "cpu_ratio": _ratio(base, values, 1),
            }
            for name, values in taken.items()
        }
        print(workload, file=sys.stderr, flush=True)
    command = " ".join(["python", "benchmarks/threads.py", *sys.argv[1:]])
    versions = {
        name: engines.versions(name) for name in {Engine.open(each).backend for each in options.engines}
    }
    facts = {"command": command, "date": now(), "host": identity.host().to_json(), "versions": versions,
             "rounds": options.rounds}  # fmt: skip
    print(json.dumps({**facts, "workloads": found}, indent=1))


def _ratio(base: list[tuple[float, float]], values: list[tuple[float, float]], part: int) -> Any:
    """Return the ratio of two settings' times in the same rounds, with its 95 % interval."""
    rounds = range(len(base))
    before, after = ([[each[part]] for each in group] for group in (base, values))
    ratio = intervals.paired_ratio(before, rounds, after, rounds)
    return None if ratio is None else {"value": ratio.value, "interval": ratio.interval}


if __name__ == "__main__":
    main()

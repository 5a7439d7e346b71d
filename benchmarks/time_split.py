"""Where the time of single queries goes: tokenizer, kinds of kernels, and what is between kernels.

    python benchmarks/time_split.py engines/NAME.int8.onnxruntime engines/NAME.int8.openvino --data sst2

Validation rows run one by one through each engine, for ONNX Runtime or OpenVINO on the CPU: first as they are
served, then with the runtime's profiler, which slows them down a little. Prints JSON: microseconds per row
of the tokenizer, of a whole query, and of a query with the profiler; the microseconds and number of nodes of
each kind of kernel; and the rest, which is between kernels (the runtime's scheduling, shapes, copies of
inputs and outputs, Python).
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from effx import data, engines
from effx.artifacts import Engine, now
from effx.encoding import Encoder
from effx.host import identity

Rows = list[dict[str, np.ndarray]]
Profile = tuple[float, dict[str, float], dict[str, float]]
"""Seconds of all rows; seconds and number of each kind of node; each of a round."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("engines", type=Path, nargs="+")
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--rows", type=int, default=100)
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--threads", type=int, default=2)
    options = parser.parse_args()
    found = {}
    for folder in options.engines:
        engine = Engine.open(folder)
        texts = data.load(engine.task, "validation", options.data).texts
        chosen = np.random.default_rng(0).permutation(len(texts))[: options.rows]
        found[str(folder)] = split(engine, [texts[row] for row in chosen], options)
    facts = {
        "command": " ".join(["python", "benchmarks/time_split.py", *sys.argv[1:]]), "date": now(),
        "host": identity.host().to_json(),
        "versions": engines.versions("onnxruntime") | engines.versions("openvino"),
    }  # fmt: skip
    print(json.dumps({"microseconds_per_row": found, **facts}, indent=1))


def split(engine: Engine, texts: Sequence[tuple[str, ...]], options: argparse.Namespace) -> dict[str, Any]:
    """Return the microseconds per row of one engine."""
    encoder = Encoder(engine.folder, engine.max_length)
    encoded = encoder(texts)
    rows = [encoded.batch([row]) for row in range(len(encoded))]
    tokenizer = []
    for _ in range(options.rounds):
        started = time.perf_counter()
        for text in texts:
            encoder([text]).batch([0])
        tokenizer.append(time.perf_counter() - started)
    profiled = {"onnxruntime": of_onnxruntime, "openvino": of_openvino}[engine.backend]
    with engines.open(engine, threads=options.threads) as session:
        served = [timed(session, rows) for _ in range(options.rounds + 1)][1:]
    with_profiler, kernels, nodes = profiled(engine, rows, options.rounds, options.threads)
    per_row = 1e6 / len(rows)
    ordered = sorted(kernels, key=lambda name: -kernels[name])
    total = sum(kernels.values())
    return {
        "tokenizer": round(float(np.median(tokenizer)) * per_row, 1),
        "query": round(float(np.median(served)) * per_row, 1),
        "query with profiler": round(with_profiler * per_row, 1),
        "kernels": {name: round(kernels[name] * per_row, 1) for name in ordered},
        "nodes": {name: round(nodes[name] / len(rows), 1) for name in ordered},
        "between kernels": round((with_profiler - total) * per_row, 1),
    }


def timed(session: Any, rows: Rows) -> float:
    """Return the seconds of all rows, one by one."""
    started = time.perf_counter()
    for row in rows:
        session.infer(row)
    return time.perf_counter() - started


def of_onnxruntime(engine: Engine, rows: Rows, rounds: int, threads: int) -> Profile:
    """Profile an engine of ONNX Runtime."""
    import onnxruntime

    runtime = engine.runtime
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.log_severity_level = threads, 3
    kernels: dict[str, float] = defaultdict(float)
    nodes: dict[str, float] = defaultdict(float)
    seconds = []
    with tempfile.TemporaryDirectory() as folder:
        options.enable_profiling, options.profile_file_prefix = True, str(Path(folder) / "profile")
        session = onnxruntime.InferenceSession(
            engine.folder / runtime.files[0], options, providers=["CPUExecutionProvider"],
            disabled_optimizers=[*runtime.disabled_optimizers],
        )  # fmt: skip
        names = [entry.name for entry in session.get_inputs()]
        for _ in range(rounds):
            started = time.perf_counter()
            for row in rows:
                session.run(None, {name: row[name] for name in names})
            seconds.append(time.perf_counter() - started)
        events = json.loads(Path(session.end_profiling()).read_text())
    for event in events:
        if event.get("cat") == "Node" and event["name"].endswith("_kernel_time"):
            kernels[event["args"]["op_name"]] += event["dur"] / 1e6 / rounds
            nodes[event["args"]["op_name"]] += 1 / rounds
    return float(np.mean(seconds)), kernels, nodes


def of_openvino(engine: Engine, rows: Rows, rounds: int, threads: int) -> Profile:
    """Profile an engine of OpenVINO."""
    from effx.engines.openvino import OpenVinoGraph

    runtime = engine.runtime
    graph = OpenVinoGraph(engine.folder / runtime.files[0], runtime, threads)
    graph._config["PERF_COUNT"] = True
    graph._compiled.clear()
    kernels: dict[str, float] = defaultdict(float)
    nodes: dict[str, float] = defaultdict(float)
    seconds = 0.0
    padded = [padded_row(row, runtime.lengths, runtime.pad_id) for row in rows]
    for turn in range(rounds + 1):
        for row in padded:
            started = time.perf_counter()
            graph.run(row)
            spent = time.perf_counter() - started
            if turn == 0:  # compiles
                continue
            seconds += spent / rounds
            _, request = graph._request(*graph._shape_of(*row["attention_mask"].shape))
            for node in request.profiling_info:
                if node.real_time.total_seconds() > 0:
                    kernels[node.node_type] += node.real_time.total_seconds() / rounds
                    nodes[node.node_type] += 1 / rounds
    graph.close()
    return seconds, kernels, nodes


def padded_row(
    row: dict[str, np.ndarray], lengths: Sequence[int] | None, pad_id: int
) -> dict[str, np.ndarray]:
    """Return a row padded to the next of the lengths; None: as it is."""
    length = row["input_ids"].shape[1]
    target = length if lengths is None else next(each for each in lengths if each >= length)
    fill = {"input_ids": pad_id}
    return {
        name: np.pad(array, ((0, 0), (0, target - length)), constant_values=fill.get(name, 0))
        for name, array in row.items()
    }


if __name__ == "__main__":
    main()

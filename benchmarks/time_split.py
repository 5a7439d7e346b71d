"""Where the time of single queries goes: tokenizer, kinds of kernels, and what is between kernels.

    python benchmarks/time_split.py engines/NAME.int8.onnxruntime engines/NAME.int8.openvino --data sst2

Validation rows run one by one through each engine, for ONNX Runtime or OpenVINO on the CPU: as they are
served, and with the runtime's profiler, which slows them down a little. Engines take turns in random order.
Prints JSON: microseconds per row of the tokenizer, of a whole query, and of a query with the profiler; the
microseconds and number of nodes of each kind of kernel; and the rest, which is between kernels (the runtime's
scheduling, shapes, copies of inputs and outputs, Python).
"""

from __future__ import annotations

import argparse
import bisect
import json
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from effx import data, engines
from effx.artifacts import Engine, now
from effx.encoding import Encoder
from effx.engines import sessions
from effx.host import cpu, identity


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("engines", type=Path, nargs="+")
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--rows", type=int, default=100)
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--threads", type=int, default=2)
    options = parser.parse_args()
    timed = [TimedEngine(Engine.open(folder), options) for folder in options.engines]
    rng = np.random.default_rng(1)
    for turn in range(options.rounds + 1):
        for engine in rng.permutation(np.array(timed, dtype=object)):
            engine.take_turn(counts=turn > 0)  # the first warms up
    facts = {
        "command": " ".join(["python", "benchmarks/time_split.py", *sys.argv[1:]]), "date": now(),
        "host": identity.host().to_json(),
        "versions": engines.versions("onnxruntime") | engines.versions("openvino"),
    }  # fmt: skip
    found = {str(each.folder): each.microseconds() for each in timed}
    print(json.dumps({"microseconds_per_row": found, **facts}, indent=1))


class TimedEngine:
    """An engine with its rows, as it is served and with the runtime's profiler."""

    def __init__(self, engine: Engine, options: argparse.Namespace) -> None:
        texts = data.load(engine.task, "validation", options.data).texts
        chosen = np.random.default_rng(0).permutation(len(texts))[: options.rows]
        self.folder = engine.folder
        self._texts = [texts[row] for row in chosen]
        self._encoder = Encoder(engine.folder, engine.max_length)
        encoded = self._encoder(self._texts)
        self._rows = [encoded.batch([row]) for row in range(len(encoded))]
        self._session = engines.open(engine, threads=options.threads)
        of_onnxruntime = engine.backend == "onnxruntime"
        self._profiler = (OnnxRuntimeProfiler if of_onnxruntime else OpenVinoProfiler)(
            engine, options.threads
        )
        self._tokenizer: list[float] = []
        self._served: list[float] = []
        self._profiled: list[float] = []

    def take_turn(self, *, counts: bool) -> None:
        """Run all rows, in each of the ways."""
        tokenizer = seconds_of(lambda text: self._encoder([text]).batch([0]), self._texts)
        served = seconds_of(self._session.infer, self._rows)
        self._profiler.counts = counts
        profiled = sum(self._profiler.run(row) for row in self._rows)
        if counts:
            self._tokenizer.append(tokenizer)
            self._served.append(served)
            self._profiled.append(profiled)

    def microseconds(self) -> dict[str, Any]:
        """Return the microseconds per row: medians over rounds of whole queries, means of kernels."""
        kernels, nodes = self._profiler.kernels_and_nodes()
        per_row, runs = 1e6 / len(self._rows), len(self._rows) * len(self._served)
        ordered = sorted(kernels, key=lambda name: -kernels[name])
        mean_profiled = float(np.mean(self._profiled)) * per_row
        return {
            "tokenizer": round(float(np.median(self._tokenizer)) * per_row, 1),
            "query": round(float(np.median(self._served)) * per_row, 1),
            "query with profiler": round(mean_profiled, 1),
            "kernels": {name: round(kernels[name] / runs * 1e6, 1) for name in ordered},
            "nodes": {name: round(nodes[name] / runs, 1) for name in ordered},
            "between kernels": round(mean_profiled - sum(kernels.values()) / runs * 1e6, 1),
        }


def seconds_of(call: Callable[[Any], object], queries: Sequence[Any]) -> float:
    """Return the seconds of all queries, one by one, after what ran before has come to rest."""
    cpu.rest()
    started = time.perf_counter()
    for query in queries:
        call(query)
    return time.perf_counter() - started


class OnnxRuntimeProfiler:
    """A session of ONNX Runtime that writes the time of each node."""

    counts = False

    def __init__(self, engine: Engine, threads: int) -> None:
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads, options.log_severity_level = threads, 3
        self._folder = tempfile.TemporaryDirectory()
        options.enable_profiling = True
        options.profile_file_prefix = str(Path(self._folder.name) / "profile")
        self._session = onnxruntime.InferenceSession(
            engine.folder / engine.runtime.files[0], options, providers=["CPUExecutionProvider"],
            disabled_optimizers=[*engine.runtime.disabled_optimizers],
        )  # fmt: skip
        self._names = [entry.name for entry in self._session.get_inputs()]
        self._counted: list[bool] = []

    def run(self, row: dict[str, np.ndarray]) -> float:
        """Run a row and return its seconds."""
        started = time.perf_counter()
        self._session.run(None, {name: row[name] for name in self._names})
        self._counted.append(self.counts)
        return time.perf_counter() - started

    def kernels_and_nodes(self) -> tuple[dict[str, float], dict[str, float]]:
        """Return the seconds and the number of each kind of node, of all rows that count."""
        kernels: dict[str, float] = defaultdict(float)
        nodes: dict[str, float] = defaultdict(float)
        events = json.loads(Path(self._session.end_profiling()).read_text())
        runs = sorted(event["ts"] for event in events if event["name"] == "model_run")
        for event in sorted(events, key=lambda event: event["ts"]):
            if event.get("cat") != "Node" or not event["name"].endswith("_kernel_time"):
                continue
            run = bisect.bisect_right(runs, event["ts"]) - 1
            if self._counted[run]:
                kernels[event["args"]["op_name"]] += event["dur"] / 1e6
                nodes[event["args"]["op_name"]] += 1
        return kernels, nodes


class OpenVinoProfiler:
    """The engine's OpenVINO graph, compiled so that it reports the time of each node."""

    counts = False

    def __init__(self, engine: Engine, threads: int) -> None:
        from effx.engines.openvino import OpenVinoGraph

        self._runtime = engine.runtime
        self._graph = OpenVinoGraph(engine.folder / engine.runtime.files[0], engine.runtime, threads)
        self._graph._config["PERF_COUNT"] = True
        self._graph._compiled.clear()
        self._kernels: dict[str, float] = defaultdict(float)
        self._nodes: dict[str, float] = defaultdict(float)

    def run(self, row: dict[str, np.ndarray]) -> float:
        """Run a row and return its seconds."""
        length = row["input_ids"].shape[1]
        target = next((known for known in self._runtime.lengths or () if known >= length), length)
        row = sessions.pad(row, target, self._runtime.pad_id)
        started = time.perf_counter()
        self._graph.run(row)
        spent = time.perf_counter() - started
        if self.counts:
            _, request = self._graph._request(*self._graph._shape_of(*row["attention_mask"].shape))
            for node in request.profiling_info:
                if node.real_time.total_seconds() > 0:
                    self._kernels[node.node_type] += node.real_time.total_seconds()
                    self._nodes[node.node_type] += 1
        return spent

    def kernels_and_nodes(self) -> tuple[dict[str, float], dict[str, float]]:
        """Return the seconds and the number of each kind of node, of all rows that count."""
        return self._kernels, self._nodes


if __name__ == "__main__":
    main()

"""Local attention in blocks and with masks: time and memory of ModernBERT's shape by input length.

    python benchmarks/long_inputs.py > long-inputs.json

The encoder has ModernBERT-base's widths, six of its layers (two global, four local) and random weights. Each
graph runs in its own process on each runtime; the processes take turns, one row at a time, at each length.
Prints JSON: median milliseconds, the ratio of the times with its 95 % interval, and the largest resident
memory of the process so far.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import resource
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import AutoConfig, AutoModelForSequenceClassification

from effx import engines
from effx.artifacts import now
from effx.export import graph
from effx.host import cpu, identity
from effx.stats import intervals

LENGTHS = (32, 128, 512, 1024, 2048, 4096)
LAYERS = 6
VOCABULARY = 1000
RUNTIMES = ("onnxruntime", "openvino")


def worker(pipe: Any, runtime: str, path: str, threads: int) -> None:
    """Answer input ids [1, length] with seconds, and None with the largest resident memory, MiB."""
    infer: Any
    if runtime == "onnxruntime":
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        session = onnxruntime.InferenceSession(path, options)

        def infer(inputs: dict[str, np.ndarray]) -> object:
            return session.run(None, inputs)
    else:
        import openvino

        settings = {"INFERENCE_PRECISION_HINT": "f32", "INFERENCE_NUM_THREADS": threads}
        infer = openvino.Core().compile_model(path, "CPU", settings)
    pipe.send("ready")
    while True:
        try:
            ids = pipe.recv()
        except EOFError:  # the parent has finished
            return
        if ids is None:
            pipe.send(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)
            continue
        started = time.perf_counter()
        infer({"input_ids": ids, "attention_mask": np.ones_like(ids)})
        taken = time.perf_counter() - started
        cpu.rest()  # threads that wait busily for work would slow the next process
        pipe.send(taken)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--lengths", type=int, nargs="+", default=LENGTHS)
    parser.add_argument("--threads", type=int, default=2)
    options = parser.parse_args()
    config = AutoConfig.for_model(
        "modernbert", vocab_size=VOCABULARY, num_hidden_layers=LAYERS, pad_token_id=0,
        cls_token_id=1, sep_token_id=2, bos_token_id=1, eos_token_id=2,
    )  # fmt: skip
    torch.manual_seed(0)
    model = AutoModelForSequenceClassification.from_config(config).eval()
    context = multiprocessing.get_context("spawn")
    found = []
    with tempfile.TemporaryDirectory() as scratch:
        pipes: dict[tuple[str, str], Any] = {}
        for name, blocks in (("masks", False), ("blocks", True)):
            path = Path(scratch) / f"{name}.onnx"
            graph.write(model, path, graph.TraceShape(blocks=blocks))
            for runtime in RUNTIMES:
                pipe, other = context.Pipe()
                arguments = (other, runtime, str(path), options.threads)
                context.Process(target=worker, args=arguments, daemon=True).start()
                assert pipe.recv() == "ready"
                pipes[runtime, name] = pipe
        for length in options.lengths:
            found += measured(pipes, length)
            print(json.dumps(found[-len(RUNTIMES) :]), file=sys.stderr, flush=True)
    result = {
        "results": found, "layers": LAYERS, "threads": options.threads, "date": now(),
        "command": " ".join(["python benchmarks/long_inputs.py", *sys.argv[1:]]),
        "host": identity.host().to_json(),
        "versions": {runtime: engines.versions(runtime) for runtime in RUNTIMES},
    }  # fmt: skip
    json.dump(result, sys.stdout, indent=1)


def measured(pipes: dict[tuple[str, str], Any], length: int) -> list[dict[str, Any]]:
    """Return times and memory of every process at one length."""
    rng = np.random.default_rng(length)
    taken: dict[tuple[str, str], list[float]] = {key: [] for key in pipes}
    for turn in range(max(5, min(40, 8192 // length)) + 1):
        for index in rng.permutation(len(pipes)):
            key = list(pipes)[index]
            pipes[key].send(rng.integers(3, VOCABULARY, (1, length)))
            seconds = pipes[key].recv()
            if turn:  # the first warms up
                taken[key].append(seconds)
    memory = {}
    for key, pipe in pipes.items():
        pipe.send(None)
        memory[key] = round(pipe.recv())
    rows = []
    for runtime in RUNTIMES:
        masks, blocks = taken[runtime, "masks"], taken[runtime, "blocks"]
        rounds = range(len(masks))
        ratio = intervals.paired_ratio(
            [[each] for each in masks], rounds, [[each] for each in blocks], rounds
        )
        rows.append(
            {
                "length": length,
                "runtime": runtime,
                "ms": {
                    name: round(1e3 * float(np.median(taken[runtime, name])), 2)
                    for name in ("masks", "blocks")
                },
                "ratio": None
                if ratio is None
                else {"blocks / masks": ratio.value, "interval": ratio.interval},
                "peak_memory_mib": {name: memory[runtime, name] for name in ("masks", "blocks")},
            }  # fmt: skip
        )
    return rows


if __name__ == "__main__":
    main()

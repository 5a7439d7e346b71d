"""Time and accuracy of reductions in the PyTorch reference, compared with the full encoder.

    python benchmarks/reductions.py surgery CHECKPOINT            half the heads, half the FFNs
    python benchmarks/reductions.py exits CHECKPOINT-exits        thresholds, depth, accuracy, time
    python benchmarks/reductions.py tokens CHECKPOINT TOKENS...   retention, accuracy, time

All variants are timed in turns in one process, in a new random order every round; times are medians over
the rounds. Prints JSON.
"""

from __future__ import annotations

import argparse
import copy
import json
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers
from torch.utils.flop_counter import FlopCounterMode
from transformers import PreTrainedModel

from effx import data
from effx.artifacts import Checkpoint, now
from effx.encoding import Encoded, Encoder
from effx.host import identity
from effx.models import checkpoints, evaluate, exits, infer, load, prune, structure
from effx.models.structure import parameters
from effx.specs import exit_rules
from effx.train import source as sources

BATCH = 32


def in_turns(jobs: dict[str, Callable[[], Any]], rounds: int) -> dict[str, float]:
    """Return the median seconds of each job."""
    rng = np.random.default_rng(0)
    taken: dict[str, list[float]] = {name: [] for name in jobs}
    for job in jobs.values():
        job()  # warm-up
    for _ in range(rounds):
        for name in rng.permutation(list(jobs)):
            started = time.perf_counter()
            jobs[name]()
            taken[name].append(time.perf_counter() - started)
    return {name: statistics.median(values) for name, values in taken.items()}


def of_length(encoded: Encoded, length: int, model: PreTrainedModel) -> dict[str, torch.Tensor]:
    """A batch of real ids without padding: sentences concatenated to ``length`` tokens."""
    ids = np.resize(encoded.ids, BATCH * length).reshape(BATCH, length).astype(np.int64)
    arrays = {"input_ids": ids, "attention_mask": np.ones_like(ids), "token_type_ids": np.zeros_like(ids)}
    return {name: torch.from_numpy(arrays[name]) for name in checkpoints.input_names(model)}


def surgery(options: argparse.Namespace) -> dict[str, Any]:
    checkpoint, rows = opened(options.checkpoint, options.data)
    model = load(checkpoint)
    half = copy.deepcopy(model)
    shape = structure(model)
    heads = {layer.index: layer.heads[: len(layer.heads) // 2] for layer in shape.layers}
    prune(half, heads=heads, ffns=[layer.index for layer in shape.layers[1::2]])
    inputs = of_length(encode(checkpoint, rows), 128, model)

    def plain(of: PreTrainedModel) -> Callable[[], Any]:
        return lambda: of(**inputs)

    flops = {}
    for name, of in (("full", model), ("half", half)):
        counter = FlopCounterMode(display=False)
        with counter, torch.nn.attention.sdpa_kernel(torch.nn.attention.SDPBackend.MATH):
            of(**inputs)
        flops[name] = counter.get_total_flops()
    seconds = in_turns({"full": plain(model), "half": plain(half)}, options.rounds)
    return {
        "batch": BATCH,
        "length": 128,
        "seconds": seconds,
        "time_ratio": seconds["half"] / seconds["full"],
        "flop_ratio": flops["half"] / flops["full"],
        "parameter_ratio": parameters(half) / parameters(model),
        "flops": flops,
    }


def exits_table(options: argparse.Namespace) -> dict[str, Any]:
    source = sources.open_source(options.checkpoint, options.data, None, 0)
    model, depths = source.model, np.array(exits.depths(source.model))
    held = evaluate.head_logits(model, source.encode(source.held_out))
    encoded = source.encode(source.validation)

    def run(rule: exit_rules.ExitRule | None, batch: int) -> Any:
        return evaluate.reduced(model, encoded, rule=rule, batch_size=batch)

    points = [
        exit_rules.calibrate(
            options.rule, held, depths, lambda logits: source.score(logits, source.held_out), depth=depth
        )
        for depth in options.depths
    ]
    rules = {"full": None, **{f"{point.mean_depth:.2f}": point.rule for point in points}}
    seconds = {
        batch: in_turns(
            {name: (lambda rule=rule, batch=batch: run(rule, batch)) for name, rule in rules.items()},
            options.rounds,
        )
        for batch in (1, BATCH)
    }
    table = []
    for name, rule in rules.items():
        single, depth, _ = run(rule, 1)
        many, depth_many, _ = run(rule, BATCH)
        table.append(
            {
                "rule": None if rule is None else rule.to_json(),
                "held_out_depth": None if rule is None else float(name),
                "mean_depth": float(depth.mean()),
                source.task.metric: source.score(single, source.validation),
                "seconds_batch_1": seconds[1][name],
                "seconds_batch_32": seconds[BATCH][name],
                "time_ratio_batch_1": seconds[1][name] / seconds[1]["full"],
                "time_ratio_batch_32": seconds[BATCH][name] / seconds[BATCH]["full"],
                "same_depth_in_both_batches": bool((depth == depth_many).all()),
                "same_predictions_in_both_batches": bool((single.argmax(-1) == many.argmax(-1)).all()),
            }
        )
    return {"layers": int(depths[-1]), "held_out_rows": len(source.held_out),
            "held_out_rows_seen_in_training": source.seen, "rows": len(encoded), "table": table}  # fmt: skip


def tokens_table(options: argparse.Namespace) -> dict[str, Any]:
    checkpoint, rows = opened(options.checkpoint, options.data)
    encoded = encode(checkpoint, rows)
    models = {"full": load(checkpoint), **{path.name: load(path) for path in options.tokens}}
    jobs = {}
    for length in (64, 128):
        for name, model in models.items():
            inputs = of_length(encoded, length, model)
            jobs[f"{name} {length}"] = lambda model=model, inputs=inputs: infer(model, inputs)
    seconds = in_turns(jobs, options.rounds)
    table = []
    for name, model in models.items():
        answers, _, remaining = evaluate.reduced(model, encoded)
        shares = (remaining / encoded.lengths[:, None]).mean(0)
        entry: dict[str, Any] = {
            "checkpoint": name,
            "schedule": structure(model).tokens or structure(model).token_thresholds,
            "kept_by_layer": [float(share) for share in shares],
            "mean_kept": float(shares.mean()),
            checkpoint.task.metric: checkpoint.task.score(rows.labels, checkpoint.task.predict(answers))[
                checkpoint.task.metric
            ],
        }
        for length in (64, 128):
            entry[f"seconds_{length}"] = seconds[f"{name} {length}"]
            entry[f"time_ratio_{length}"] = seconds[f"{name} {length}"] / seconds[f"full {length}"]
        table.append(entry)
    return {
        "batch": BATCH,
        "rows": len(encoded),
        "mean_length": float(encoded.lengths.mean()),
        "table": table,
    }


def opened(folder: Path, rows_folder: Path | None) -> tuple[Checkpoint, data.Rows]:
    checkpoint = Checkpoint.open(folder)
    source = data.locate(rows_folder, checkpoint.task, checkpoint.data)
    return checkpoint, data.load(checkpoint.task, "validation", source)


def encode(checkpoint: Checkpoint, rows: data.Rows) -> Encoded:
    return Encoder(checkpoint.folder, checkpoint.max_length)(rows.texts)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    what = parser.add_subparsers(dest="what", required=True)
    for name, function in (("surgery", surgery), ("exits", exits_table), ("tokens", tokens_table)):
        command = what.add_parser(name)
        command.set_defaults(function=function)
        command.add_argument("checkpoint", type=Path)
        if name == "tokens":
            command.add_argument("tokens", type=Path, nargs="+")
        if name == "exits":
            command.add_argument("--rule", default="entropy")
            command.add_argument("--depths", type=float, nargs="+", default=[2, 2.5, 3, 3.5, 4, 5])
        command.add_argument("--data", type=Path)
        command.add_argument("--rounds", type=int, default=10)
    options = parser.parse_args()
    with torch.inference_mode():
        result = options.function(options)
    arguments = ["data" if word == str(options.data) else word for word in sys.argv[1:]]
    facts = {
        "command": " ".join(["python", "benchmarks/reductions.py", *arguments]),
        "date": now(),
        "host": identity.host().to_json(),
        "torch": torch.__version__,
        "transformers": transformers.__version__,
        "rounds": options.rounds,
    }
    print(json.dumps({**result, **facts}, indent=1))


if __name__ == "__main__":
    main()

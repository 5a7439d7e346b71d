"""The shapes of ModernBERT-base and DeBERTa-v3-small with random weights, through a recipe with every stage.

    python benchmarks/large_shapes.py -o large-shapes           # encoders and recipes
    effx run large-shapes/deberta-v3-small.yaml
    effx run large-shapes/modernbert-base.yaml
    python benchmarks/large_shapes.py -o large-shapes --table   # of the results

Layers, widths, heads and attention are those of the published encoders; the vocabulary is cut to BERT's size,
with the tokenizer of the generated demo corpus, whose rows are the task. A few steps of training do not teach
an encoder of random weights anything, so accuracies mean nothing: what is measured is whether each stage
works at this size, and the time. Nothing is downloaded. --table writes large-shapes.json and large-shapes.md:
the median latency of each engine, and its ratio to fp32 on the same backend in the same rounds. A latency for
which a gate failed is shown as unsteady.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

import torch
from transformers import AutoConfig, AutoModel
from variant_table import OF_FAMILY, VOCABULARY

from effx import corpus, results
from effx.analysis.comparison import compare
from effx.artifacts import now
from effx.demo.pretraining import tokenizer
from effx.results import Run
from effx.specs.gates import GATES
from effx.specs.tasks import TASKS

SHAPES: dict[str, dict[str, Any]] = {
    "deberta-v3-small": {
        "model_type": "deberta-v2", "num_hidden_layers": 6, "intermediate_size": 3072,
        **OF_FAMILY["deberta-v2"],
    },
    "modernbert-base": {
        "model_type": "modernbert", "num_hidden_layers": 22, "intermediate_size": 1152,
        "local_attention": 128, "global_attn_every_n_layers": 3,
    },
}  # fmt: skip
RECIPE = """\
# The shape of {shape} with random weights: a few steps of each training, so accuracies mean nothing.
tasks:
  demo: {{data: {rows}}}
models: {{{model}: {encoder}}}
training: {{max_steps: 12, batch_size: 16, lr: 1.0e-4}}
regimes:
  full: {{max_length: 128}}
pruned:
  ticket50: {{of: full, level: 50}}
tokens:
  tokens60: {{of: full, keep: 0.6}}
exits:
  exits: {{of: full, depth: {depth}}} # half of the layers
variants:
  - {{variant: fp32, of: [full, ticket50]}}
  - {{variant: int8, of: [full, ticket50]}}
  - exit
  - tokens
backends: [onnxruntime, openvino]
workloads: {{grid: [1x32, 1x128], threads: 2}}
workspace: {workspace}
"""


ROWS = {"train": 192, "validation": 200}


def write_rows(folder: Path) -> Path:
    """Write the first rows of the demo corpus into a folder, and return it."""
    folder.mkdir(parents=True, exist_ok=True)
    for split, count in ROWS.items():
        texts, labels = corpus.split(split)
        rows = [
            {"text": text, "label": TASKS["demo"].labels[label]}
            for text, label in zip(texts[:count], labels[:count], strict=True)
        ]
        (folder / f"{split}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return folder


def prepare(shape: str, out: Path) -> Path:
    """Write the encoder of a shape, the rows and the recipe; return the path of the recipe."""
    encoder = out / "encoders" / shape
    if not encoder.is_dir():
        torch.manual_seed(0)
        sizes = {name: value for name, value in SHAPES[shape].items() if name != "model_type"}
        config = AutoConfig.for_model(
            SHAPES[shape]["model_type"], hidden_size=768, num_attention_heads=12, vocab_size=VOCABULARY,
            max_position_embeddings=512, pad_token_id=0, **sizes,
        )  # fmt: skip
        AutoModel.from_config(config).save_pretrained(encoder)
        tokenizer(corpus.texts("pretraining")).save_pretrained(encoder)
    path = out / f"{shape}.yaml"
    path.write_text(
        RECIPE.format(
            shape=shape, model=shape.split("-")[0], encoder=encoder, workspace=out / shape,
            rows=write_rows(out / "rows"), depth=SHAPES[shape]["num_hidden_layers"] / 2,
        )
    )  # fmt: skip
    return path


def unsteady(run: Run) -> list[str]:
    """Return the workloads whose latency is in doubt: a gate of it failed, for them or the whole run."""
    failed = [gate.workload for gate in run.failed_gates if GATES[gate.name].concerns == "latency"]
    names = [one.workload.name for one in run.workloads]
    return [name for name in names if name in failed or None in failed]


def measured(runs: list[Run]) -> list[dict[str, Any]]:
    """Return a row for each engine of a session: milliseconds, the ratio to fp32, and gates that failed."""
    baselines = {
        run.engine.backend: run
        for run in runs
        if run.engine.variant == "fp32" and run.engine.weight_remaining == 1
    }
    rows = []
    for run in sorted(runs, key=lambda run: (run.engine.backend, run.name)):
        engine, parity = run.engine, run.engine.parity
        row: dict[str, Any] = {
            "engine": run.name, "scheme": engine.scheme, "weight_remaining": engine.weight_remaining,
            "size_bytes": engine.size_bytes, "max_abs_diff": parity and parity.max_abs_diff,
            "label_agreement": parity and parity.label_agreement, "mean_depth": run.settings.mean_depth,
            "mean_tokens": run.settings.mean_tokens, "milliseconds": {}, "ratio_to_fp32": {},
            "failed_gates": [f"{gate.label}: {gate.detail}" for gate in run.failed_gates],
            "unsteady": unsteady(run),
        }  # fmt: skip
        for workload in run.workloads:
            median_s = workload.latency_s["p50"]
            row["milliseconds"][workload.workload.name] = median_s and median_s * 1e3
        baseline = baselines[engine.backend]
        if run is not baseline:
            shared = [one.workload.name for one in baseline.workloads]
            ratios = [ratio for ratio in compare(baseline, run).latency if ratio.statistic == "p50"]
            for name, ratio in zip(shared, ratios, strict=True):
                row["ratio_to_fp32"][name] = [ratio.value, *(ratio.interval or ())]
        rows.append(row)
    return rows


def write_table(out: Path) -> None:
    """Write the rows of every shape that was measured."""
    shapes: dict[str, Any] = {}
    lines: list[str] = []
    for shape in SHAPES:
        folder = out / shape / "results" / "demo"
        if not folder.is_dir():
            continue
        runs = results.find([folder])
        rows = measured(runs)
        shapes[shape] = {
            "host": runs[0].host.to_json(), "started": min(run.started for run in runs), "engines": rows,
            "versions": {run.engine.backend: dict(run.settings.runtime.versions) for run in runs},
        }  # fmt: skip
        workloads = list(rows[0]["milliseconds"])
        lines += [
            f"| {shape} | weights | {' | '.join(f'{name}, ms | to fp32' for name in workloads)} |",
            "|---" * (2 + 2 * len(workloads)) + "|",
        ]
        for row in rows:
            cells = [row["engine"], f"{row['weight_remaining']:.2f}"]
            for name in workloads:
                value, *interval = row["ratio_to_fp32"].get(name, [1.0])
                bounds = f" [{interval[0]:.2f}, {interval[1]:.2f}]" if interval else ""
                latency = "unsteady" if name in row["unsteady"] else f"{row['milliseconds'][name]:.1f}"
                cells += [latency, f"{value:.2f}{bounds}"]
            lines.append(f"| {' | '.join(cells)} |")
        lines.append("")
    facts = {
        "command": " ".join(["python", "benchmarks/large_shapes.py", *sys.argv[1:]]), "date": now(),
        "shapes": shapes,
    }  # fmt: skip
    (out / "large-shapes.json").write_text(json.dumps(facts, indent=1) + "\n")
    (out / "large-shapes.md").write_text("\n".join(lines))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("-o", "--out", type=Path, default=Path("large-shapes"))
    parser.add_argument("--shape", action="append", choices=SHAPES, help="default: all of them")
    parser.add_argument("--table", action="store_true", help="of the results of finished recipes")
    options = parser.parse_args()
    if options.table:
        if not any((options.out / shape / "results" / "demo").is_dir() for shape in SHAPES):
            parser.error(f"{options.out} has no finished recipe: effx run {options.out}/SHAPE.yaml first")
        write_table(options.out)
        return
    for shape in options.shape or SHAPES:
        print(prepare(shape, options.out))


if __name__ == "__main__":
    main()

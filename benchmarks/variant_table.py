"""Every variant on every installed backend: families, each unpruned and with a ticket, or kinds of tasks.

    python benchmarks/variant_table.py -o variants            # layers and width of BERT-mini
    python benchmarks/variant_table.py -o variants --size base --variant fp32 --variant int8
    python benchmarks/variant_table.py -o kinds --kinds       # the first family with each kind of task

Encoders have the architecture of their family and random weights; they are fine-tuned on the generated demo
corpus, then get a token schedule and exits. In the ticket, 40 % of the heads and of the FFNs, chosen at
random, are pruned. With --kinds, rows of each kind are made from the corpus (benchmarks/kind_rows.py), and
there is no ticket. Nothing is downloaded. Writes variants.json and variants.md: parity, audit, size and
build time of each engine, or the reason why it was not built.
"""

from __future__ import annotations

import argparse
import json
import shutil
import sys
from pathlib import Path
from typing import Any

import kind_rows
import numpy as np
import torch
from transformers import AutoConfig, AutoModel

from effx import corpus, engines
from effx.artifacts import Checkpoint, Engine, now
from effx.demo.pretraining import tokenizer
from effx.engines import check_backend
from effx.errors import EffxError
from effx.export import export_all
from effx.host import identity
from effx.models import checkpoints, load, prune, save, structure
from effx.specs.backends import BUILDABLE, get
from effx.specs.data import DataSettings, DataSource
from effx.specs.exits import EarlyExitSettings
from effx.specs.tokens import TokenPruningSettings
from effx.specs.training import FinetuneSettings
from effx.specs.variants import parse
from effx.train import exits, finetune, tokens
from effx.train.importing import import_model

FAMILIES = ("bert", "distilbert", "roberta", "modernbert", "deberta-v2", "nomic_bert")
SIZES = {
    "mini": {name: (4, 256) for name in FAMILIES},
    "base": {
        "bert": (12, 768),
        "distilbert": (6, 768),
        "roberta": (12, 768),
        "modernbert": (22, 768),
        "deberta-v2": (12, 768),
        "nomic_bert": (12, 768),
    },
    "large": {"bert": (24, 1024)},
}
"""Layers and width; heads of 64, FFNs four times the width. Mini is BERT-mini of Turc et al. (2019)."""
OF_FAMILY: dict[str, dict[str, Any]] = {
    "deberta-v2": {
        "relative_attention": True, "share_att_key": True, "pos_att_type": "p2c|c2p", "position_buckets": 256,
        "norm_rel_ebd": "layer_norm", "position_biased_input": False, "type_vocab_size": 0,
    }
}  # fmt: skip
VOCABULARY = 30_522
POSITIONS = 514  # RoBERTa's positions start at 2
LEVEL = 0.4
ROWS = 2000  # of the corpus, for each training
PRECISIONS = ("fp32", "fp16", "bf16", "fp8", "int8-dynamic", "int8-static", "int8")
VARIANTS = (
    *PRECISIONS, "seq32", "int8+seq32", "buckets", "int8+buckets",
    "exit", "exit-if", "int8+exit", "int8+exit-if", "exit+seq32", "exit+buckets",
    "unpadded", "int8+unpadded",
    "tokens", "int8+tokens", "tokens+seq32", "exit+tokens", "exit-if+tokens", "int8+exit+tokens",
)  # fmt: skip
KIND_VARIANTS = (
    "fp32", "bf16", "int8-dynamic", "int8-static", "int8", "seq32", "int8+seq32", "buckets", "unpadded",
    "stride8", "exit", "exit-if", "tokens", "int8+exit+tokens",
)  # fmt: skip
SHAPES = ((1, 1), (1, 512), (7, 33), (32, 512))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("-o", "--out", type=Path, default=Path("variants"))
    parser.add_argument("--size", choices=SIZES, default="mini")
    parser.add_argument("--family", action="append", choices=FAMILIES)
    parser.add_argument("--kinds", action="store_true", help="kinds of tasks instead of families")
    parser.add_argument("--kind", action="append", choices=kind_rows.NAMES, help="default: all; with --kinds")
    parser.add_argument("--variant", action="append", help="default: all of them")
    parser.add_argument("--backend", action="append", choices=BUILDABLE)
    parser.add_argument("--jobs", type=int, default=1)
    options = parser.parse_args()
    backends = options.backend or [name for name in BUILDABLE if installed(name)]
    variants = options.variant or list(KIND_VARIANTS if options.kinds else VARIANTS)
    rows: list[dict[str, Any]] = []
    if options.kinds:
        for kind in options.kind or kind_rows.NAMES:
            folder = of_kind(kind, (options.family or FAMILIES)[0], options.size, options.out)
            rows += built(folder, variants, backends, options.out / "engines", options.jobs)
            write(options, backends, rows)
        return
    for family in options.family or SIZES[options.size]:
        full = checkpoint(family, options.size, options.out)
        for folder in (full, ticket(full)):
            rows += built(folder, variants, backends, options.out / "engines", options.jobs)
            write(options, backends, rows)


def write(options: argparse.Namespace, backends: list[str], rows: list[dict[str, Any]]) -> None:
    """Write the rows so far; an interrupted run resumes with the engines that were built."""
    facts = {
        "command": " ".join(["python", "benchmarks/variant_table.py", *sys.argv[1:]]),
        "date": now(), "host": identity.host().to_json(),
        "versions": {name: engines.versions(name) for name in backends} | {"export": checkpoints.versions()},
        "level": LEVEL, "sizes": SIZES[options.size], "engines": rows,
    }  # fmt: skip
    (options.out / "variants.json").write_text(json.dumps(facts, indent=1) + "\n")
    (options.out / "variants.md").write_text(table(rows))


def installed(backend: str) -> bool:
    """Return whether the backend is installed and runs on the CPU."""
    try:
        check_backend(backend)
    except EffxError:
        return False
    return "cpu" in get(backend).devices


def checkpoint(family: str, size: str, out: Path) -> Path:
    """Return a fine-tuned checkpoint with a token schedule and exits."""
    folder = out / "checkpoints" / f"{family}-{size}"
    if Checkpoint.find(folder):
        return folder
    return reduced(random_encoder(family, size, out), folder, lr=3e-4 if size == "mini" else 1e-4)


def of_kind(kind: str, family: str, size: str, out: Path) -> Path:
    """Return a checkpoint of a kind of task, with a token schedule and exits where the kind has them."""
    folder = out / "checkpoints" / f"{family}-{size}-{kind}"
    if Checkpoint.find(folder):
        return folder
    if kind == "retrieval":  # trained on pairs
        embedder = of_kind("embedding", family, size, out)
        rows = kind_rows.write(kind, out / "rows" / kind)
        return import_model(embedder, out=folder.parent, checkpoint_name=folder.name, data_folder=rows).folder
    source = DataSource(str(kind_rows.write(kind, out / "rows" / kind)), DataSettings(task_kind=kind))
    return reduced(random_encoder(family, size, out), folder, lr=3e-4, task=kind, rows=source)


def random_encoder(family: str, size: str, out: Path) -> Path:
    """Return the folder of an encoder with random weights and the tokenizer of the demo corpus."""
    layers, width = SIZES[size][family]
    encoder = out / "encoders" / f"{family}-{size}"
    heads = width // 64
    sizes = {"hidden_size": width, "num_hidden_layers": layers, "num_attention_heads": heads,
             "intermediate_size": 4 * width}  # fmt: skip
    if family == "distilbert":
        sizes = {"dim": width, "n_layers": layers, "n_heads": heads, "hidden_dim": 4 * width}
    sizes |= OF_FAMILY.get(family, {})
    if family == "modernbert":
        sizes["intermediate_size"] = 3 * width // 2  # of each half of its gated FFNs
    torch.manual_seed(0)
    config = AutoConfig.for_model(
        family, vocab_size=VOCABULARY, max_position_embeddings=POSITIONS, pad_token_id=0, **sizes
    )
    AutoModel.from_config(config).save_pretrained(encoder)
    tokenizer(corpus.texts("pretraining")).save_pretrained(encoder)
    return encoder


def ticket(full: Path) -> Path:
    """Return a checkpoint with 60 % of the heads and FFNs, fine-tuned again."""
    folder = full.parent / f"{full.name}-ticket40"
    if Checkpoint.find(folder):
        return folder
    before = Checkpoint.open(full.parent / f".{full.name}" / "finetuned")
    model = load(before)
    rng = np.random.default_rng(0)
    everything = [(layer.index, head) for layer in structure(model).layers for head in layer.heads]
    pruned_heads: dict[int, list[int]] = {}
    for index in rng.permutation(len(everything))[: round(LEVEL * len(everything))]:
        pruned_heads.setdefault(everything[index][0], []).append(everything[index][1])
    layers = len(structure(model).layers)
    prune(model, heads=pruned_heads, ffns=rng.permutation(layers)[: round(LEVEL * layers)].tolist())
    cut = save(model, full.parent / f".{full.name}" / "cut", tokenizer=checkpoints.tokenizer(before.folder),
               task=before.task, max_length=before.max_length, overwrite=True)  # fmt: skip
    return reduced(cut.folder, folder, lr=1e-4)


def reduced(
    encoder: Path, folder: Path, lr: float, *, task: str = "demo", rows: DataSource | None = None
) -> Path:
    """Fine-tune, then add a token schedule and exits, as far as the kind of task has them."""
    scratch, out = folder.parent / f".{folder.name}", folder.parent
    settings = FinetuneSettings.of(epochs=2, lr=lr, max_length=64, limit=ROWS)
    last = finetune(
        task, encoder, out=scratch, name="finetuned", data_folder=rows, settings=settings, overwrite=True
    )
    behavior, layers = last.task.behavior, len(structure(load(last)).layers)
    if "tokens" not in behavior.refused:
        schedule = tuple(np.linspace(1, 0.4, layers + 1)[1:].round(2).tolist())
        shorter = TokenPruningSettings.of(schedule=schedule, epochs=1, lr=lr, limit=ROWS)
        last = tokens.train(last.folder, out=scratch, name="tokens", settings=shorter, overwrite=True)
    if "exits" not in behavior.refused:
        # patience compares neighbouring ramps, so no row leaves before the second
        share, rule = (0.5, {}) if behavior.has_classes else (0.75, {"rule": "patience"})
        early = EarlyExitSettings.of(epochs=1, depth=share * layers, limit=ROWS, **rule)
        last = exits.train(last.folder, out=scratch, name="exits", settings=early, overwrite=True)
    shutil.copytree(last.folder, out / folder.name)
    return folder


def built(
    folder: Path, variants: list[str], backends: list[str], out: Path, jobs: int
) -> list[dict[str, Any]]:
    """Build the engines of a checkpoint; return a row for each, or for the reason why it was not built."""
    refused = Checkpoint.open(folder).task.behavior.refused
    reasons = {
        variant: refused[part]
        for variant in variants
        for part in sorted(parse(variant).reductions)
        if part in refused
    }
    wanted = [variant for variant in variants if variant not in reasons]
    exported, failures = export_all([folder], wanted, backends, out, jobs=jobs, keep_failed=True)
    known = {engine.name: engine for engine in exported}
    rows = []
    for variant in variants:
        for backend in backends:
            name = f"{folder.name}.{variant}.{backend}"
            row: dict[str, Any] = {"checkpoint": folder.name, "variant": variant, "backend": backend}
            if variant in reasons:
                rows.append({**row, "refused": f"{reasons[variant]}."})
                continue
            if name in known:
                rows.append({**row, **measured(known[name], folder)})
                continue
            starts = (f"{name}: ", f"variant '{variant}': ")
            reason = next(str(failure) for failure in failures if str(failure).startswith(starts))
            rows.append({**row, "refused": reason.removeprefix(starts[0]).removeprefix(starts[1])})
    return rows


def measured(engine: Engine, folder: Path) -> dict[str, Any]:
    """Return the row of an engine."""
    manifest = engine.manifest
    parity, audit = manifest.parity, manifest.audit
    row = {
        "scheme": manifest.scheme, "passed": parity.passed, "max_abs_diff": parity.max_abs_diff,
        "label_agreement": parity.label_agreement, "depth_agreement": parity.depth_agreement,
        "accuracy": parity.accuracy, "accuracy_lost": parity.accuracy_lost,
        "accuracy_lost_interval": parity.accuracy_lost_interval, "metric": parity.metric,
        "metric_lost": parity.metric_lost, "metric_lost_interval": parity.metric_lost_interval,
        "examples": parity.examples,
        "integer_weight_products": audit.integer_weight_products,
        "weight_products": audit.weight_products, "nodes": sum(audit.nodes.values()),
        "parameters": manifest.parameters, "parameters_removed": manifest.parameters_removed,
        "size_bytes": engine.size_bytes, "build_s": manifest.build_s,
    }  # fmt: skip
    if engine.variant in ("fp32", "buckets") and engine.task.kind == "classification":
        row["max_abs_diff_by_shape"] = at_shapes(engine, folder)
    return row


def at_shapes(engine: Engine, folder: Path) -> dict[str, float]:
    """Return the largest difference from PyTorch at shapes from (1, 1) to (32, 512), with padding."""
    model, differences, rng = load(folder), {}, np.random.default_rng(0)
    with engines.open(engine) as session:
        for batch, length in SHAPES:
            ids = rng.integers(5, VOCABULARY, (batch, length))
            lengths = np.append(length, rng.integers(1, length + 1, batch - 1))
            mask = (np.arange(length) < lengths[:, None]).astype(np.int64)
            inputs = {"input_ids": ids, "attention_mask": mask, "token_type_ids": np.zeros_like(ids)}
            logits = session.infer(inputs)["logits"]
            worst = 0.0
            for row in range(batch):  # alone and without padding, which must not change logits
                alone = {name: torch.from_numpy(inputs[name][row : row + 1, : lengths[row]])
                         for name in checkpoints.input_names(model)}  # fmt: skip
                with torch.inference_mode():
                    expected = model(**alone).logits[0].numpy()
                worst = max(worst, float(np.abs(logits[row] - expected).max()))
            differences[f"{batch}x{length}"] = worst
    return differences


def table(rows: list[dict[str, Any]]) -> str:
    """Return the rows as Markdown."""
    lines = [
        "| checkpoint | variant | backend | scheme | max. difference | label agreement "
        "| accuracy, or the metric named, lost [95 %] | int8 products | nodes | size, MiB | build, s |",
        "|---|---|---|---|---|---|---|---|---|---|---|",
    ]
    for row in rows:
        start = f"| {row['checkpoint']} | {row['variant']} | {row['backend']} |"
        if "refused" in row:
            lines.append(f"{start} none: {row['refused']} | | | | | | | |")
            continue
        lost = []
        for name, of in (("", "accuracy_lost"), (f"{row['metric']} ", "metric_lost")):
            if row[of] is not None and (name or not row["metric"]):
                low, high = row[f"{of}_interval"]
                lost.append(f"{name}{row[of]:+.3f} [{low:+.3f}, {high:+.3f}]")
        failed = "" if row["passed"] else " FAILED"
        lines.append(
            f"{start} {row['scheme']}{failed} | {row['max_abs_diff']:.1e} | {row['label_agreement']:.1%} "
            f"| {', '.join(lost)} | {row['integer_weight_products']}/{row['weight_products']} "
            f"| {row['nodes']} | {row['size_bytes'] / 2**20:.1f} | {row['build_s']:.1f} |"
        )
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    main()

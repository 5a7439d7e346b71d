"""Small encoders of several families, pretrained and fine-tuned on the demo corpus, then reduced.

    python benchmarks/small_families.py -o small-families

Each encoder has 4 layers of width 128 and is pretrained for some minutes by masked language modelling, as the
demo's is. Then: fine-tuning, a winning ticket at level 20, early exits, token pruning, and fp32 and int8
engines on each installed CPU backend. Nothing is downloaded. Accuracies are on the corpus' validation rows.
Writes families.json and families.md; finished parts are skipped when it is started again.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
from transformers import AutoConfig, PretrainedConfig
from variant_table import OF_FAMILY, installed

from effx import data, engines
from effx.artifacts import Checkpoint, Engine, now
from effx.demo.pretraining import pretrain
from effx.encoding import Encoder
from effx.export import export_all
from effx.host import identity
from effx.specs.exits import EarlyExitSettings
from effx.specs.tasks import TASKS
from effx.specs.tickets import TicketSettings
from effx.specs.tokens import TokenPruningSettings
from effx.specs.training import FinetuneSettings
from effx.train import exits, finetune, tokens
from effx.train.tickets.draw import draw

FAMILIES = ("bert", "modernbert", "deberta-v2")
TRAINING = {"epochs": 2, "lr": 5e-4, "max_length": 64}
VARIANTS = {"full": ("fp32", "int8"), "ticket20": ("fp32", "int8"), "exits": ("exit",), "tokens": ("tokens",)}


def config_of(family: str) -> PretrainedConfig:
    """Return the architecture: MiniBERT's size, in ModernBERT with windows that are shorter than the rows."""
    sizes: dict[str, Any] = {
        "hidden_size": 128, "num_hidden_layers": 4, "num_attention_heads": 4, "intermediate_size": 512,
        "max_position_embeddings": 128,
    }  # fmt: skip
    sizes |= OF_FAMILY.get(family, {})
    if family == "modernbert":
        sizes |= {"intermediate_size": 192, "local_attention": 16}
    return AutoConfig.for_model(family, **sizes)


def checkpoints_of(family: str, out: Path, epochs: float) -> dict[str, Checkpoint]:
    """Pretrain, fine-tune and reduce; return the checkpoints by name."""
    encoder = pretrain(out / "encoders" / family, epochs=epochs, config=config_of(family))
    folder = out / "checkpoints"

    def once(name: str, make: Any) -> Checkpoint:
        path = folder / f"{family}-{name}"
        return Checkpoint.open(path) if Checkpoint.find(path) else make(path.name)

    full = once("full", lambda name: finetune("demo", encoder, out=folder, name=name,
                                              settings=FinetuneSettings.of(**TRAINING)))  # fmt: skip
    ticket = TicketSettings.of(level=20, min_heads=0, **TRAINING)
    return {
        "full": full,
        "ticket20": once("ticket20", lambda name: draw(full.folder, encoder, out=folder, name=name,
                                                       settings=ticket)),
        "exits": once("exits", lambda name: exits.train(full.folder, out=folder, name=name,
                                                        settings=EarlyExitSettings.of(
                                                            epochs=1, depth=2.5, lr=TRAINING["lr"]))),
        "tokens": once("tokens", lambda name: tokens.train(full.folder, out=folder, name=name,
                                                           settings=TokenPruningSettings.of(
                                                               keep=0.6, lr=TRAINING["lr"]))),
    }  # fmt: skip


def accuracy(engine: Engine, checkpoint: Checkpoint) -> float:
    """Return the accuracy of an engine on the validation rows, one by one."""
    rows = data.load(TASKS["demo"], "validation", None)
    encoded = Encoder(checkpoint.folder, checkpoint.max_length)(rows.texts)
    with engines.open(engine) as session:
        answers = [session.infer(encoded.batch([row]))["logits"].argmax() for row in range(len(encoded))]
    return float((np.array(answers) == rows.labels).mean())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("-o", "--out", type=Path, default=Path("small-families"))
    parser.add_argument("--family", action="append", choices=FAMILIES)
    parser.add_argument("--pretraining-epochs", type=float, default=9)
    options = parser.parse_args()
    backends = [name for name in ("onnxruntime", "openvino") if installed(name)]
    found: list[dict[str, Any]] = []
    for family in options.family or FAMILIES:
        for name, checkpoint in checkpoints_of(family, options.out, options.pretraining_epochs).items():
            manifest = checkpoint.manifest
            row: dict[str, Any] = {
                "family": family, "checkpoint": name, "rows": manifest.validation_rows,
                "pytorch": manifest.metrics["accuracy"], "weight_remaining": manifest.weight_remaining,
                "engines": {},
            }  # fmt: skip
            for backend in backends:
                for variant in VARIANTS[name]:
                    exported, failures = export_all(
                        [checkpoint.folder], [variant], [backend], options.out / "engines", keep_failed=True
                    )
                    score: float | str = str(failures[0]) if failures else accuracy(exported[0], checkpoint)
                    if exported and not exported[0].manifest.parity.passed:
                        score = f"{score:.4f} FAILED its gate"
                    row["engines"][f"{variant} {backend}"] = score
            found.append(row)
            write(options.out, found)


def write(out: Path, found: list[dict[str, Any]]) -> None:
    """Write the rows so far."""
    facts = {
        "command": " ".join(["python", "benchmarks/small_families.py", *sys.argv[1:]]), "date": now(),
        "host": identity.host().to_json(), "versions": engines.versions("onnxruntime"), "encoders": found,
    }  # fmt: skip
    (out / "families.json").write_text(json.dumps(facts, indent=1) + "\n")
    lines = ["| family | checkpoint | weights | PyTorch | engines |", "|---|---|---|---|---|"]
    for row in found:
        scores = ", ".join(
            f"{name} {score if isinstance(score, str) else format(score, '.4f')}"
            for name, score in row["engines"].items()
        )
        lines.append(
            f"| {row['family']} | {row['checkpoint']} | {row['weight_remaining']:.2f} | {row['pytorch']:.4f} "
            f"| {scores} |"
        )
    (out / "families.md").write_text("\n".join(lines) + "\n")


if __name__ == "__main__":
    main()

"""Speed of fine-tuning compared with a plain training loop, in one run on one machine.

The plain loop is that of tutorials: every row padded to 128 tokens, random batches, fp32, AdamW. Both
train the same rows from the same weights with the same learning rate, schedule and seed, and both are
scored on the same validation rows.

    python benchmarks/finetune_speed.py --model MODEL --data DATA [--rows 8000 --epochs 2]

The plain loop's seconds per step are measured over --plain-steps; with --full it trains to the
end, so that its accuracy can be compared as well. Prints JSON with the ratio.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from pathlib import Path

import numpy as np
import torch
import transformers

from effx import data
from effx.artifacts import Checkpoint, now
from effx.encoding import Encoder
from effx.host import identity
from effx.models import evaluate, pretrained
from effx.specs.tasks import TASKS
from effx.specs.training import FinetuneSettings
from effx.train import finetune

LR, BATCH, LENGTH = 5e-5, 32, 128


def plain(model_name: str, folder: Path, limit: int, epochs: int, steps: int | None) -> dict[str, float]:
    """Train by the plain loop; return seconds per step and, if it ran to the end, accuracy."""
    task = TASKS["sst2"]
    rows = data.load(task, "train", folder).limit(limit)
    transformers.set_seed(0)
    model, tokenizer = pretrained(model_name, task)
    encoded = tokenizer(
        [text for (text,) in rows.texts],
        padding="max_length",
        truncation=True,
        max_length=LENGTH,
        return_tensors="pt",
    )
    labels = torch.as_tensor(rows.labels)
    total = epochs * -(-len(rows) // BATCH)
    optimizer = torch.optim.AdamW(model.parameters(), lr=LR, weight_decay=0.01)
    schedule = transformers.get_linear_schedule_with_warmup(optimizer, int(0.1 * total), total)
    model.train()
    done, started = 0, time.perf_counter()
    for _ in range(epochs):
        for batch in torch.randperm(len(rows)).split(BATCH):
            loss = model(**{key: value[batch] for key, value in encoded.items()}, labels=labels[batch]).loss
            loss.backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            schedule.step()
            optimizer.zero_grad()
            done += 1
            if done == steps:
                break
        if done == steps:
            break
    result = {"s_per_step": (time.perf_counter() - started) / done, "steps": done}
    if done == total:
        validation = data.load(task, "validation", folder)
        with tempfile.TemporaryDirectory() as scratch:
            tokenizer.save_pretrained(scratch)
            model.config.save_pretrained(scratch)
            logits = evaluate.logits(model, Encoder(scratch, LENGTH)(validation.texts))
        result["accuracy"] = float(np.mean(np.argmax(logits, 1) == validation.labels))
    return result


def main() -> None:
    """Measure both, the plain loop half before and half after, and print the ratio."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", required=True)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--rows", type=int, default=8000)
    parser.add_argument("--epochs", type=int, default=2)
    parser.add_argument("--plain-steps", type=int, default=20)
    parser.add_argument("--full", action="store_true")
    options = parser.parse_args()
    arguments = (options.model, options.data, options.rows, options.epochs)
    before = plain(*arguments, None if options.full else options.plain_steps)
    with tempfile.TemporaryDirectory() as scratch:
        settings = FinetuneSettings.of(
            limit=options.rows, epochs=options.epochs, lr=LR, batch_size=BATCH, max_length=LENGTH
        )
        checkpoint: Checkpoint = finetune(
            "sst2", options.model, out=scratch, data_folder=options.data, settings=settings
        )
        training, metrics = checkpoint.manifest.training, checkpoint.manifest.metrics
    after = plain(*arguments, options.plain_steps)
    ours = training.seconds / training.steps
    theirs = (before["s_per_step"] + after["s_per_step"]) / 2
    print(
        json.dumps(
            {
                "ratio": theirs / ours,
                "plain": before,
                "plain_after": after,
                "effx": {
                    "s_per_step": ours,
                    "accuracy": metrics["accuracy"],
                    "precision": training["precision"],
                },
                "rows": options.rows,
                "epochs": options.epochs,
                "date": now(),
                "host": identity.host().to_json(),
                "torch": torch.__version__,
                "transformers": transformers.__version__,
            },
            indent=1,
        )
    )


if __name__ == "__main__":
    main()

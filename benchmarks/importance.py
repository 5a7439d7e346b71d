"""Time of importance scoring compared with an epoch of training, in one run on one machine.

Both use the same rows, by default 8000 SST-2 training sentences, in batches grouped by length, in the
precision that training chooses on this machine. Passes and epochs alternate; the ratio is that of their
medians. Scores are also computed in fp32, to check that the faster ones rank heads in the same order.

    python benchmarks/importance.py --model MODEL --data DATA [--rows 8000 --turns 3]

Prints JSON.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from pathlib import Path
from statistics import median

import numpy as np
import torch
import transformers
from scipy.stats import spearmanr

from effx import data
from effx.artifacts import now
from effx.encoding import Encoder
from effx.host import identity
from effx.models import checkpoints, pretrained
from effx.specs.tasks import TASKS
from effx.specs.training import LR_ENCODER, TrainingSettings
from effx.tickets.scores import Importance
from effx.train import importance, loop

LENGTH, BATCH = 128, 32
_WARM_UP = 50  # steps


def main() -> None:
    """Fine-tune a few steps, then time passes and epochs alternately."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", required=True)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--rows", type=int, default=8000)
    parser.add_argument("--turns", type=int, default=3)
    options = parser.parse_args()
    task = TASKS["sst2"]
    rows = data.load(task, "train", options.data).limit(options.rows)
    transformers.set_seed(0)
    model, tokenizer = pretrained(options.model, task)
    with tempfile.TemporaryDirectory() as scratch:
        tokenizer.save_pretrained(scratch)
        model.config.save_pretrained(scratch)
        encoded = Encoder(scratch, LENGTH)(rows.texts)
    names = checkpoints.input_names(model)
    collate = loop.labelled(encoded, rows.labels, names)
    settings = TrainingSettings(batch_size=BATCH)
    how = {"epochs": 1, "lr": LR_ENCODER}

    def epoch() -> float:
        started = time.perf_counter()
        loop.fit(model, encoded.lengths, collate, settings, **how, description="epoch")
        return time.perf_counter() - started

    def score(precision: str) -> tuple[float, Importance]:
        batches = importance.batches_of(encoded, rows.labels, names, BATCH, 0)
        started = time.perf_counter()
        scores = importance.measure(model, batches, precision=precision)
        return time.perf_counter() - started, scores

    loop.fit(
        model, encoded.lengths, collate, settings.replace(max_steps=_WARM_UP), **how, description="warm up"
    )  # so that the task head is not random
    exact_s, exact = score("fp32")
    epochs, passes, fast = [], [], None
    for _ in range(options.turns):
        seconds, scores = score("auto")
        fast = fast or scores  # with the same weights as the exact ones
        passes.append(seconds)
        epochs.append(epoch())
    assert fast is not None
    print(
        json.dumps(
            {
                "ratio": median(passes) / median(epochs),
                "ratio_fp32": exact_s / median(epochs),
                "pass_s": passes,
                "pass_fp32_s": exact_s,
                "epoch_s": epochs,
                "precision": loop.choose_precision("auto"),
                "heads_spearman": float(spearmanr(fast.heads.ravel(), exact.heads.ravel()).statistic),
                "heads_max_abs_diff": float(np.abs(fast.heads - exact.heads).max()),
                "ffns_max_abs_diff": float(np.abs(fast.ffns - exact.ffns).max()),
                "rows": len(rows),
                "batch_size": BATCH,
                "model": options.model.rstrip("/").rsplit("/", 1)[-1],
                "date": now(),
                "host": identity.host().to_json(),
                "threads": torch.get_num_threads(),
                "torch": torch.__version__,
                "transformers": transformers.__version__,
            },
            indent=1,
        )
    )


if __name__ == "__main__":
    main()

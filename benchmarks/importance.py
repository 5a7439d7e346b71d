"""What scoring a model's structures costs beside an epoch of training it, in one run on one machine.

Both see the same rows, by default 8000 SST-2 training sentences, in batches of like length, in the
precision that training chooses here. Passes and epochs take turns, and the ratio is that of their
medians. Scores are computed in fp32 too: how far the faster ones stray says whether they rank alike.

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
from effx.models import checkpoints
from effx.specs.tasks import TASKS
from effx.specs.training import LR_ENCODER, TrainingSettings
from effx.train import importance, loop

LENGTH, BATCH = 128, 32
_WARM_UP = 50  # steps


def main() -> None:
    """Fine-tune a little, then time passes and epochs in turns."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", required=True)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--rows", type=int, default=8000)
    parser.add_argument("--turns", type=int, default=3)
    options = parser.parse_args()
    task = TASKS["sst2"]
    rows = data.load(task, "train", options.data).limit(options.rows)
    transformers.set_seed(0)
    model, tokenizer = checkpoints.pretrained(options.model, task)
    with tempfile.TemporaryDirectory() as place:
        tokenizer.save_pretrained(place)
        model.config.save_pretrained(place)
        encoded = Encoder(place, LENGTH)(rows.texts)
    names = checkpoints.input_names(model)
    collate = loop.labelled(encoded, rows.labels, names)
    settings = TrainingSettings(batch_size=BATCH)
    how = {"epochs": 1, "lr": LR_ENCODER}

    def epoch() -> float:
        started = time.perf_counter()
        loop.fit(model, encoded.lengths, collate, settings, **how, description="epoch")
        return time.perf_counter() - started

    def score(precision: str) -> tuple[float, importance.Importance]:
        batches = importance.batches_of(encoded, rows.labels, names, BATCH, 0)
        started = time.perf_counter()
        found = importance.measure(model, batches, precision=precision)
        return time.perf_counter() - started, found

    loop.fit(
        model, encoded.lengths, collate, settings.replace(max_steps=_WARM_UP), **how, description="warm up"
    )  # so that the task head knows something
    exact_s, exact = score("fp32")
    epochs, passes, fast = [], [], None
    for _ in range(options.turns):
        seconds, found = score("auto")
        fast = fast or found  # of the weights that the exact ones are of
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
                "host": identity.host(),
                "threads": torch.get_num_threads(),
                "torch": torch.__version__,
                "transformers": transformers.__version__,
            },
            indent=1,
        )
    )


if __name__ == "__main__":
    main()

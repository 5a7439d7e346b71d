"""Check that Optimum can open an effx engine folder; run in the environment that peers.sh creates.

    ENVIRONMENT/bin/python benchmarks/interop.py ENGINE

Prints the largest difference between the logits of Optimum's session and effx's on a padded batch.
"""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

import numpy as np
import torch
from optimum.onnxruntime import ORTModelForSequenceClassification
from transformers import AutoTokenizer

from effx import engines

TEXTS = ["a charming and often affecting journey", "dull", "it is what it is, and then some more of it"]


def main() -> None:
    folder = sys.argv[1]
    tokenizer = AutoTokenizer.from_pretrained(folder)
    batch = dict(tokenizer(TEXTS, padding=True, return_tensors="pt"))
    theirs = ORTModelForSequenceClassification.from_pretrained(folder)(**batch).logits
    with engines.open(folder) as session:
        ours = session.infer({name: array.numpy() for name, array in batch.items()})["logits"]
    difference = float(np.abs(torch.as_tensor(theirs).numpy() - ours).max())
    print(f"{folder}: Optimum's logits differ from effx's by {difference:.2g} at most")
    sys.exit(difference > 1e-4)


if __name__ == "__main__":
    main()

"""Entity F1 of engines against PyTorch and seqeval, row by row.

    python benchmarks/entities.py CHECKPOINTS ENGINES --data FOLDER --out FILE.json

For every engine, the tags of all validation rows are compared with those of its checkpoint in PyTorch, and
entity F1 with that of seqeval on the names of the tags. An unreduced checkpoint is also opened by
transformers alone, whose word ids align the pieces.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import numpy as np
import torch
from seqeval.metrics import f1_score
from transformers import AutoModelForTokenClassification, AutoTokenizer

from effx import data, engines, files
from effx.artifacts import Checkpoint, Engine
from effx.data import Rows
from effx.encoding import Encoder
from effx.host import identity
from effx.models import checkpoints, evaluate
from effx.profile.worker import Worker
from effx.specs.workloads import offline


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("checkpoints", type=Path)
    parser.add_argument("engines", type=Path)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    options = parser.parse_args()
    rows: dict[str, Any] = {}
    for path in sorted(options.checkpoints.iterdir()):
        if Checkpoint.is_at(path):
            opened = Checkpoint.open(path)
            scored = data.load(opened.task, "validation", options.data)
            rows[opened.name] = compared(opened, scored, options.engines)
    files.write_json(options.out, {"host": identity.host().to_json(), "checkpoints": rows})


def compared(opened: Checkpoint, rows: Rows, folder: Path) -> dict[str, Any]:
    """Return the scores of a checkpoint and of its engines, and how many words have other tags."""
    labels = opened.task.labels
    encoded = Encoder(opened.folder, opened.max_length, form="words")(rows.texts)
    reference = evaluate.predictions(checkpoints.load(opened), encoded, opened.task)
    true = names(rows.labels, labels)
    answer: dict[str, Any] = {
        "words": int((rows.labels >= 0).sum()),
        "pytorch": opened.task.score(rows.labels, reference)["entity_f1"],
        "seqeval": float(f1_score(true, names(reference, labels))),
        "engines": {},
    }
    if opened.manifest.weight_remaining == 1:
        plain = plain_predictions(opened, rows)
        answer["transformers_differing_words"] = int((plain != reference).sum())
    for path in Engine.find_all([folder]):
        engine = Engine.open(path)
        if engine.manifest.checkpoint.digest != opened.digest:
            continue
        with engines.open(engine, threads=1) as session:
            worker = Worker(session, encoded, opened.task, longest=engine.manifest.longest_input)
            scored = worker.score(offline(32), first_batch=0)
        ordered = [scored.predictions[number] for number in np.argsort(scored.rows)]
        tags = opened.task.behavior.restore(ordered, labels)
        answer["engines"][engine.name] = {
            "entity_f1": opened.task.score(rows.labels, tags)["entity_f1"],
            "seqeval": float(f1_score(true, names(tags, labels))),
            "differing_words": int((tags != reference).sum()),
            "entity_agreement": opened.task.behavior.agreement(reference, tags),
        }
    return answer


def names(tags: np.ndarray, labels: tuple[str, ...]) -> list[list[str]]:
    """Return the names of the tags of each row."""
    return [[labels[tag] for tag in row if tag >= 0] for row in tags]


@torch.inference_mode()
def plain_predictions(opened: Checkpoint, rows: Rows) -> np.ndarray:
    """Return the tags that transformers gives alone, row by row; O for words that were cut off."""
    model = AutoModelForTokenClassification.from_pretrained(opened.folder).eval()
    tokenizer = AutoTokenizer.from_pretrained(opened.folder)
    result = np.where(rows.labels < 0, -1, 0)
    for row, words in enumerate(rows.texts):
        inputs = tokenizer(list(words), is_split_into_words=True, return_tensors="pt", truncation=True,
                           max_length=opened.max_length)  # fmt: skip
        classes = model(**inputs).logits[0].argmax(-1).tolist()
        numbers = inputs.word_ids(0)
        for token in reversed(range(len(numbers))):  # the first piece is the last to be written
            if numbers[token] is not None:
                result[row, numbers[token]] = classes[token]
    return result


if __name__ == "__main__":
    main()

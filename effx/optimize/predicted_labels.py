"""Rows without labels, with what a checkpoint predicts for them as their labels.

Whatever is scored on them is scored by its agreement with the checkpoint: how many answers of a reduced model
are the same, not how many are right.

Rows with equal texts are all trained on, or none is. Those that prove would not be independent then, so that
each of their texts is there once: engines are compared on different texts, however often they occur.
"""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np

from effx import data, files, progress
from effx.artifacts import Checkpoint
from effx.encoding import Encoder
from effx.errors import DataError, UsageError
from effx.models import checkpoints, evaluate
from effx.specs.data import DataSettings, DataSource
from effx.specs.tasks import TASKS

TRAINING_SHARE = 0.8
"""Of the rows; the others are validation rows."""
_LEAST_ROWS = 20


def label(opened: Checkpoint, source: DataSource, folder: Path, seed: int) -> DataSource:
    """Write train and validation rows with predicted labels, and return where they are.

    Args:
        opened: the checkpoint that predicts.
        source: rows without labels.
        folder: for the two files; they are replaced.
        seed: of the division; rows with equal texts are in the same part, as validation rows once.

    Raises:
        UsageError: the kind of the task has no single label for a row.
        DataError: the rows do not fit the task, or are too few.
    """
    task = opened.task
    if task.behavior.form != "texts" or not task.behavior.one_value:
        raise UsageError(
            f"rows without labels: tasks of the kind {task.kind} need labels.", settings="unlabelled"
        )
    texts = data.load_to_measure(task, source).texts
    distinct = sorted({*texts})
    if len(distinct) < _LEAST_ROWS:
        raise DataError(
            f"{source.path}: expected at least {_LEAST_ROWS} different rows, got {len(distinct)}."
        )
    progress.say(f"{opened.name}: predict {len(texts)} rows without labels")
    encoder = Encoder(opened.folder, opened.max_length, form=task.behavior.form)
    predicted = evaluate.predictions(checkpoints.load(opened), encoder(texts), task)
    names = [task.labels[int(value)] if task.labels else float(value) for value in predicted]
    order = np.random.default_rng((seed, 12)).permutation(len(distinct))
    training = {distinct[index] for index in order[: int(TRAINING_SHARE * len(distinct))]}
    label_of = dict(zip(texts, names, strict=True))
    parts = {
        "train": [row for row in texts if row in training],
        "validation": [row for row in label_of if row not in training],
    }
    progress.say(
        f"{opened.name}: {len(parts['train'])} rows train, {len(parts['validation'])} different texts prove"
    )
    for split, rows in parts.items():
        lines = [
            json.dumps(
                {**dict(zip(task.columns, row, strict=True)), "label": label_of[row]}, ensure_ascii=False
            )
            for row in rows
        ]
        folder.mkdir(parents=True, exist_ok=True)
        files.write_atomic(folder / f"{split}.jsonl", ("\n".join(lines) + "\n").encode())
    of_user = task.name not in TASKS and task.labels
    return DataSource(str(folder), DataSettings(class_names=task.labels) if of_user else DataSettings())

"""Predictions of a checkpoint on the rows of any split, as a table or as a submission file of GLUE."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from effx import data, files, progress
from effx.artifacts import Checkpoint
from effx.data import Rows
from effx.data.layouts import SPLITS
from effx.encoding import Encoded, Encoder
from effx.errors import DataError, UsageError
from effx.formatting import not_a_formula
from effx.models import checkpoints, evaluate, exits, structure
from effx.specs.data import OF_LABELS, DataLocation, DataSettings, DataSource
from effx.specs.kinds.values import is_float, short
from effx.specs.tasks import Task

FORMATS = (".csv", ".tsv", ".jsonl")
GLUE_FILES: Mapping[str, str] = {
    "cola": "CoLA.tsv", "sst2": "SST-2.tsv", "mrpc": "MRPC.tsv", "stsb": "STS-B.tsv", "qqp": "QQP.tsv",
    "mnli": "MNLI-m.tsv", "qnli": "QNLI.tsv", "rte": "RTE.tsv",
}  # fmt: skip
"""Task -> name of its file in a submission to GLUE."""
_MISMATCHED_FILE = "MNLI-mm.tsv"
_AS_NUMBERS = ("cola", "sst2", "mrpc", "qqp")
"""Tasks of GLUE whose submissions have class numbers; those of the others have names of classes."""
_LARGEST_SCORE = 5.0  # of STS-B


@dataclass(frozen=True)
class Predicted:
    """A file of predictions."""

    path: Path
    rows: int
    scores: Mapping[str, float] | None
    """Of the task's metrics; None: the rows have no labels."""


def predict(
    checkpoint: str | Path,
    *,
    out: str | Path,
    data_folder: DataLocation = None,
    split: str = "test",
    glue: bool = False,
    overwrite: bool = False,
) -> Predicted:
    """Predict the rows of a split with a checkpoint in PyTorch, and write a line for each, in their order.

    Exits and token pruning are run as calibrated. Labels are not needed; where the rows have them, the
    predictions are scored too.

    Args:
        checkpoint: folder of the checkpoint.
        out: the file to write: .csv, .tsv or .jsonl with ``index`` (from 0) and ``prediction``; with ``glue``
            the folder that the submission file is written into.
        data_folder: a file, all of whose rows are predicted, or a folder with a file of the split; default:
            where the checkpoint's rows came from.
        split: one of :data:`effx.data.PREDICTED_SPLITS`.
        glue: write the file that gluebenchmark.com takes for the task.
        overwrite: replace a file that exists.

    Raises:
        ArtifactError: the checkpoint is missing or damaged.
        DataError: there are no such rows, they do not fit the task, or, with ``glue``, their index says that
            some are missing or in another order.
        UsageError: the file exists, has another format, or cannot be written; the task is not one of GLUE.
    """
    opened = Checkpoint.open(checkpoint)
    task = opened.task
    path = _target(Path(out), task, split, glue)
    if task.behavior.form == "documents" and path.suffix != ".jsonl":
        raise UsageError(f"{path}: documents found are written to a .jsonl file.", settings="out")
    if path.exists() and not overwrite:
        raise UsageError(f"{path} exists: choose another file, or overwrite it.", settings="overwrite")
    source = data.locate(data_folder, task, opened.data)
    if source is not None and data_folder is not None:  # all rows of a file that the user names
        source = DataSource(source.path, source.settings.replace(split=None, split_seed=None))
    _check_division(source, split)
    rows = _unlabelled(task, source, split)
    if glue and any("left out" in note for note in (rows.origin.notes if rows.origin else ())):
        raise DataError(f"{rows.source}: rows were left out, and a submission needs all of them.")
    if glue and source is not None:
        _check_order(data.published_numbers(task, split, _without_labels(source)), rows.source)
    encoder = Encoder(opened.folder, opened.max_length, form=task.behavior.form)
    predicted = _predictions(opened, encoder(rows.texts, rows.documents))
    scores = None if glue else _scores(task, source, split, rows.texts, predicted)
    shown = _for_glue(task, predicted) if glue else _named(task, predicted)
    queries = [row[0] for row in rows.texts] if task.behavior.form == "documents" else None
    files.write_atomic(path, _content(path, shown, glue=glue, queries=queries).encode())
    return Predicted(path, len(rows), scores)


def _target(out: Path, task: Task, split: str, glue: bool) -> Path:
    if not glue:
        if out.suffix not in FORMATS:
            raise UsageError(f"{out}: unknown format; known: {', '.join(FORMATS)}.", settings="out")
        return out
    if task.name not in GLUE_FILES:
        raise UsageError(
            f"task '{task.name}' is not one of GLUE. Known: {', '.join(GLUE_FILES)}.", settings="glue"
        )
    if not split.startswith("test"):
        raise UsageError(f"split {split}: GLUE takes predictions of test rows.", settings=("split", "glue"))
    if split.endswith("_mismatched") and task.name != "mnli":
        raise UsageError(f"split {split}: only mnli has mismatched rows.", settings="split")
    return out / (_MISMATCHED_FILE if split.endswith("_mismatched") else GLUE_FILES[task.name])


def _check_order(numbers: Sequence[str] | None, source: str) -> None:
    """Refuse rows of a submission that are not all, or not in the published order, by their numbers."""
    for row, number in enumerate(numbers or ()):
        if number.strip() != str(row):
            raise DataError(
                f"{source}: row {row + 1} has the index {short(number)}, expected {row}: a submission to "
                "GLUE needs all test rows in their published order."
            )


def _check_division(source: DataSource | None, split: str) -> None:
    """Refuse a split that the checkpoint's rows do not have, where training divided one file."""
    if source is not None and source.settings.split is not None and split not in SPLITS:
        raise UsageError(
            f"{source.path}, the checkpoint's rows, were divided into train and validation rows, without "
            f"{split} rows: choose one of these splits, or another file.",
            settings=("split", "data"),
        )


def _unlabelled(task: Task, source: DataSource | None, split: str) -> data.Rows | data.UnlabelledRows:
    """Return all rows of the split, those without a label too."""
    if source is None:
        return data.load_to_measure(task, None, split)
    if source.settings.split is not None:  # the checkpoint's rows: without labels they cannot be divided
        return data.load(task, split, source)
    if task.behavior.collect is not None or task.behavior.form == "documents":  # a query needs its labels
        return data.load(task, split, source)
    return data.load_to_measure(task, _without_labels(source), split)


def _without_labels(source: DataSource) -> DataSource:
    given = {name: value for name, value in source.settings.given().items() if name not in OF_LABELS}
    return DataSource(source.path, DataSettings.of(**{**given, "unlabelled": True}))


def _predictions(opened: Checkpoint, encoded: Encoded) -> np.ndarray:
    model = checkpoints.load(opened)
    remaining = structure(model)
    if not remaining.exits and not remaining.prunes_tokens:
        return evaluate.predictions(model, encoded, opened.task)
    rule = exits.rule_of(opened) if remaining.exits else None
    logits, _, _ = evaluate.reduced(model, encoded, rule=rule)
    return opened.task.predict(logits, encoded)


def _scores(
    task: Task,
    source: DataSource | None,
    split: str,
    texts: Sequence[tuple[str, ...]],
    predicted: np.ndarray,
) -> dict[str, float] | None:
    """Return the metrics of the predictions; None if a row has no label."""
    if source is not None and source.settings.unlabelled:
        return None
    try:
        rows = data.load(task, split, source)
    except (DataError, UsageError) as error:
        progress.say(f"the predictions are not scored: {error}")
        return None
    if task.behavior.of_numbers and task.behavior.one_value and len(np.unique(rows.labels)) < 2:
        progress.say("the predictions are not scored: all labels are equal")
        return None
    if not isinstance(rows, Rows) or rows.texts != list(texts):
        progress.say(f"the predictions are not scored: {len(rows)} of {len(texts)} rows have a label")
        return None
    return task.score(rows.labels, predicted)


def _named(task: Task, predicted: np.ndarray) -> list[Any]:
    """Return predictions as results store them, with names of classes, labels and tags for their numbers."""

    def name(value: Any) -> Any:
        if isinstance(value, list | tuple):
            return [name(each) for each in value]
        return task.labels[value] if isinstance(value, int) else value

    stored = task.behavior.store(predicted)
    return [name(value) for value in stored] if task.labels else stored


def _for_glue(task: Task, predicted: np.ndarray) -> list[Any]:
    if task.name == "stsb":
        return [f"{value:.3f}" for value in np.clip(predicted.astype(float), 0.0, _LARGEST_SCORE)]
    return predicted.tolist() if task.name in _AS_NUMBERS else _named(task, predicted)


def _content(
    path: Path, predictions: Sequence[Any], *, glue: bool, queries: Sequence[str] | None = None
) -> str:
    rows = list(enumerate(predictions))
    if queries is not None:
        return "".join(
            _json({"index": index, "query": query, "prediction": value}) + "\n"
            for (index, value), query in zip(rows, queries, strict=True)
        )
    if path.suffix == ".jsonl":
        return "".join(_json({"index": index, "prediction": value}) + "\n" for index, value in rows)
    text = io.StringIO()
    tab = path.suffix == ".tsv"
    writer = csv.writer(text, delimiter="\t" if tab else ",", lineterminator="\n" if glue else "\r\n")
    writer.writerow(("index", "prediction"))
    writer.writerows(_cells(rows, path))
    return text.getvalue()


def _cells(rows: Sequence[tuple[int, Any]], path: Path) -> Iterator[tuple[int, Any]]:
    """Yield the cells of a table, unchanged.

    Raises:
        UsageError: a spreadsheet would run a text as a formula.
    """
    for index, value in rows:
        cell = _json(value) if isinstance(value, list | tuple) else value
        if not is_float(str(cell)) and not_a_formula(cell) != cell:
            raise UsageError(
                f"{path}: the prediction of row {index}, '{short(str(cell))}', would be a formula in a "
                "spreadsheet: write a .jsonl file",
                settings="out",
            )
        yield index, cell


def _json(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, allow_nan=False)

"""Rows of a task: from a local folder, the Hugging Face hub, or the embedded demo corpus.

A local folder holds ``train`` and ``validation`` as .jsonl, .jsonl.gz, .csv, .tsv or .parquet,
with the task's columns (``sentence``, or ``sentence1`` and ``sentence2``) and ``label``: a class
number, a class name, or a float for regression. SQuAD is also read from its nested .json files, or
from rows of ``question``, ``context`` and ``answers``. Does not need PyTorch.
"""

from __future__ import annotations

import csv
import gzip
import json
import math
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from effx import corpus, progress
from effx.errors import DataError, UsageError, nearest, need
from effx.specs.tasks import NAME, NAMING, TASKS, Task, get

_SUFFIXES = (".jsonl", ".jsonl.gz", ".csv", ".tsv", ".parquet")
_SPLIT_NAMES = {
    "train": ("train",),
    "validation": ("validation", "dev", "val", "validation_matched"),
}
_COLUMN_NAMES = {
    "sentence": ("sentence", "text"),
    "sentence1": ("sentence1", "question1", "premise", "text1"),
    "sentence2": ("sentence2", "question2", "hypothesis", "text2"),
}
_SUBSET_SEED = 0  # a subset is the same for every training seed, so that runs stay comparable
_MAX_INFERRED_CLASSES = 100
_MISTYPED = 0.75  # similarity to a task of the table from which a name is taken for a typing error


@dataclass(frozen=True)
class Rows:
    """Texts and labels of one split, in file order."""

    texts: list[tuple[str, ...]]
    """One tuple per example: one text, or two for a pair."""
    labels: np.ndarray
    """int64 [n] classes, float64 [n] values for regression, or object [n] tuples of accepted answers."""
    source: str
    """Where they came from: a file, a dataset on the hub, or the demo corpus."""

    def __len__(self) -> int:
        return len(self.texts)

    def take(self, indices: np.ndarray) -> Rows:
        """Return the rows at ``indices``, in that order."""
        return Rows([self.texts[i] for i in indices], self.labels[indices], self.source)

    def limit(self, n: int | None) -> Rows:
        """Return ``n`` rows drawn without replacement, the same rows every time, in file order."""
        return self if n is None or n >= len(self) else self.take(self.subset(n))

    def subset(self, n: int | None) -> np.ndarray:
        """Return the indices of the rows that :meth:`limit` takes, ascending."""
        if n is None or n >= len(self):
            return np.arange(len(self))
        if n < 1:
            raise UsageError(f"limit {n}: expected at least 1 row", settings="limit")
        return np.sort(np.random.default_rng(_SUBSET_SEED).permutation(len(self))[:n])


def load(task: Task, split: str, folder: str | Path | None = None) -> Rows:
    """Return the rows of ``split`` (``train`` or ``validation``).

    Raises:
        DataError: files, columns or labels are missing or do not fit the task.
    """
    if folder is not None:
        return _from_folder(task, split, Path(folder))
    if task.name == "demo":
        texts, labels = corpus.split(split)
        return Rows([(text,) for text in texts], np.array(labels), f"demo corpus, {split}")
    if task.hub is None:
        raise DataError(
            f"task '{task.name}' is not on the Hugging Face hub: give the folder with its files",
            settings="data",
        )
    return _from_hub(task, split)


def resolve(name: str, folder: str | Path | None) -> Task:
    """Return the task called ``name``; a task that is not in the table is inferred from its files.

    Raises:
        UsageError: the name is unknown and there is no folder, the name is close to that of a task in the
            table, or it cannot be part of a folder's name.
    """
    if name in TASKS or folder is None:
        return get(name)
    if hint := nearest(name, TASKS, cutoff=_MISTYPED):
        raise UsageError(
            f"unknown task '{name}'.{hint} If this is a new task, choose a name that differs more."
        )
    if not NAME.fullmatch(name):
        raise UsageError(f"the task's name '{name}' becomes part of folder names: {NAMING} Choose another.")
    return _infer(name, Path(folder))


def _infer(name: str, folder: Path) -> Task:
    """Describe a user's task from its training file: columns, kind and label names."""
    path = find(folder, "train", name)
    rows = list(_read(path))
    if not rows:
        raise DataError(f"{path} has no rows.")
    pair = _column(rows[0], "sentence1") is not None
    columns: tuple[str, ...] = ("sentence1", "sentence2") if pair else ("sentence",)
    values = {_label_text(row, f"{path}, row {number}") for number, row in enumerate(rows, 1)}
    if len(values) == 1:
        raise DataError(f"{path}: every row has the label '{values.pop()}'; at least 2 labels are needed.")
    if all(_is_integer(value) for value in values):
        highest = max(int(value) for value in values)
        if min(int(value) for value in values) < 0 or highest >= _MAX_INFERRED_CLASSES:
            raise DataError(
                f"{path}: expected class numbers from 0 to {_MAX_INFERRED_CLASSES - 1}. For more classes "
                "write their names; for regression write floats (2.0)."
            )
        labels = tuple(str(number) for number in range(highest + 1))
        if unused := [label for label in labels if label not in values]:
            progress.say(f"{path}: no row has the label {', '.join(unused)}; classes are numbered from 0")
        return Task(name, "classification", columns, labels, ("accuracy", "macro_f1"))
    if all(_is_float(value) for value in values):
        return Task(name, "regression", columns, (), ("pearson", "spearman"))
    labels = tuple(sorted(values))
    if len(labels) > _MAX_INFERRED_CLASSES:
        raise DataError(f"{path}: {len(labels)} different labels; is 'label' the right column?")
    return Task(name, "classification", columns, labels, ("accuracy", "macro_f1"))


def _from_folder(task: Task, split: str, folder: Path) -> Rows:
    path = find(folder, split, task.name, nested=task.kind == "answer-span")
    names = {name: number for number, name in enumerate(task.labels)}
    texts: list[tuple[str, ...]] = []
    labels: list[Any] = []
    for number, row in enumerate(_read(path), 1):
        where = f"{path}, row {number}"
        texts.append(_texts(task, row, where))
        labels.append(_label(task, names, row, where))
    if not texts:
        raise DataError(f"{path} has no rows.")
    return Rows(texts, _as_array(task, labels), str(path))


def _from_hub(task: Task, split: str) -> Rows:
    need("hub", "datasets")
    from datasets import load_dataset

    hub = task.hub
    assert hub is not None
    hub_split = hub.validation if split == "validation" else split
    where = f"{hub.path}{'/' + hub.config if hub.config else ''}, {hub_split}"
    try:
        table = load_dataset(hub.path, hub.config, split=hub_split)
    except Exception as error:  # the hub client raises many kinds, without a common base
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise DataError(
            f"cannot load {where} from the Hugging Face hub ({reason}). Give a folder with local files",
            settings="data",
        ) from error
    names = {name: number for number, name in enumerate(task.labels)}
    renamed = dict(zip(hub.columns, task.columns, strict=True))
    texts, labels = [], []
    for number, raw in enumerate(table):
        row = {renamed.get(key, key): value for key, value in raw.items()}
        if str(row.get(hub.label)) == "-1":
            continue  # SNLI marks examples without a majority label with -1
        texts.append(_texts(task, row, f"{where}, row {number}"))
        labels.append(_label(task, names, row, f"{where}, row {number}"))
    return Rows(texts, _as_array(task, labels), where)


def find(folder: Path, split: str, task: str, *, nested: bool = False) -> Path:
    """Return the file of ``split`` in ``folder``, or in its subfolder named after the task.

    Args:
        folder: where to look.
        split: ``train`` or ``validation``.
        task: the task's name.
        nested: also accept SQuAD's original files, such as dev-v1.1.json.

    Raises:
        DataError: there is no such file.
    """
    if not folder.is_dir():
        raise DataError(f"the data folder {folder} does not exist", settings="data")
    for parent in (folder, folder / task):
        for name in _SPLIT_NAMES[split]:
            for suffix in _SUFFIXES:
                path = parent / f"{name}{suffix}"
                if path.is_file():
                    return path
            for path in sorted(parent.glob(f"{name}*.json*")) if nested else ():
                return path
    expected = ", ".join(f"{split}{suffix}" for suffix in _SUFFIXES)
    raise DataError(f"the data folder {folder} has none of the files {expected}", settings="data")


def _read(path: Path) -> Iterator[dict[str, Any]]:
    try:
        if path.suffix == ".parquet":
            yield from _read_parquet(path)
            return
        opener = gzip.open if path.suffix == ".gz" else open
        with opener(path, "rt", encoding="utf-8-sig", newline="") as file:  # Excel writes a byte-order mark
            if ".jsonl" in path.name:
                yield from _read_jsonl(path, file)
            elif ".json" in path.name:
                yield from _read_squad(path, file.read())
            else:
                # Tab-separated text (GLUE's own files) has no quoting; a quote is a character.
                if path.suffix == ".tsv":
                    yield from csv.DictReader(file, delimiter="\t", quoting=csv.QUOTE_NONE)
                else:
                    yield from _read_csv(path, file)
    except (OSError, EOFError, UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"{path} cannot be read: {error}") from error


def _read_csv(path: Path, lines: Iterable[str]) -> Iterator[dict[str, Any]]:
    for number, row in enumerate(csv.DictReader(lines), 1):
        if None in row:
            raise DataError(
                f'{path}, row {number}: more fields than the header; quote ("...") texts with commas.'
            )
        yield row


def _read_jsonl(path: Path, lines: Iterable[str]) -> Iterator[dict[str, Any]]:
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except ValueError as error:
            raise DataError(f"{path}, line {number}: not JSON ({error}).") from error
        if not isinstance(row, dict):
            raise DataError(f'{path}, line {number}: expected an object, e.g. {{"sentence": ...}}.')
        yield row


def _read_squad(path: Path, text: str) -> Iterator[dict[str, Any]]:
    """Yield the questions of all articles and paragraphs in SQuAD v1.1's JSON."""
    try:
        for article in json.loads(text)["data"]:
            for paragraph in article["paragraphs"]:
                for entry in paragraph["qas"]:
                    answers = {"text": [answer["text"] for answer in entry["answers"]]}
                    yield {"context": paragraph["context"], "question": entry["question"], "answers": answers}
    except (ValueError, KeyError, TypeError) as error:
        raise DataError(f"{path} does not have SQuAD's layout ({error!r}).") from error


def _read_parquet(path: Path) -> Iterator[dict[str, Any]]:
    need("hub", "pyarrow")
    import pyarrow
    import pyarrow.parquet

    try:
        yield from pyarrow.parquet.read_table(path).to_pylist()
    except pyarrow.ArrowException as error:
        raise DataError(f"{path} cannot be read: {error}") from error


def _column(row: dict[str, Any], column: str) -> str | None:
    return next((name for name in _COLUMN_NAMES.get(column, (column,)) if name in row), None)


def _texts(task: Task, row: dict[str, Any], where: str) -> tuple[str, ...]:
    texts = []
    for column in task.columns:
        name = _column(row, column)
        if name is None:
            columns = ", ".join(map(str, row)) or "none"
            raise DataError(f"{where}: column '{column}' is missing (columns: {columns}).")
        value = row[name]
        if not isinstance(value, str):
            raise DataError(f"{where}: column '{name}': expected text, got {type(value).__name__}.")
        texts.append(value)
    return tuple(texts)


def _label(task: Task, names: dict[str, int], row: dict[str, Any], where: str) -> Any:
    if task.kind == "answer-span":
        answers = row.get("answers")
        texts = answers.get("text") if isinstance(answers, dict) else None
        if not texts or not all(isinstance(text, str) for text in texts):
            raise DataError(
                f"{where}: column 'answers': expected {{\"text\": [...]}} with at least one answer."
            )
        return tuple(texts)
    value = _label_text(row, where)
    if task.kind == "regression":
        if not _is_float(value):
            raise DataError(f"{where}: label '{value}' is not a number.")
        return float(value)
    if value in names:
        return names[value]
    numbered = not any(map(_is_integer, names))  # otherwise 0 is a class name
    if numbered and _is_integer(value) and 0 <= int(value) < len(names):
        return int(value)
    known = ", ".join(f"{number}={name}" for name, number in names.items())
    raise DataError(f"{where}: label '{value}' is not one of {known}.{nearest(value, names)}")


def _label_text(row: dict[str, Any], where: str) -> str:
    if "label" not in row:
        columns = ", ".join(map(str, row)) or "none"
        raise DataError(f"{where}: column 'label' is missing (columns: {columns}).")
    value = row["label"]
    missing = value is None or (isinstance(value, float) and math.isnan(value))  # json.dumps writes NaN
    if missing or not str(value).strip():
        raise DataError(f"{where}: the label is empty.")
    return str(value).strip()


def _as_array(task: Task, labels: list[Any]) -> np.ndarray:
    if task.kind == "answer-span":
        answers = np.empty(len(labels), dtype=object)
        answers[:] = labels
        return answers
    return np.array(labels, dtype=np.float64 if task.kind == "regression" else np.int64)


def _is_integer(value: str) -> bool:
    return re.fullmatch(r"-?[0-9]+", value) is not None


def _is_float(value: str) -> bool:
    try:
        return value.isascii() and math.isfinite(float(value))
    except ValueError:
        return False

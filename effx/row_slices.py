"""Parts of the rows that may lose more than others: slices.

Rows of a class, of a length, with a negation, with a rare word, with much overlap between their texts, or
with a value in a column of the user's; :mod:`effx.analysis.slices` tests what engines lose on them.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from effx.specs.tasks import Task

LEAST_ROWS = 20
"""Of a slice, and of the other rows; smaller ones are left out."""
WORDS = "words"
"""Group of the quartiles of the rows by their number of words."""
_MOST_VALUES = 20
"""Of a column; the most frequent ones are slices. Numbers with more values are divided at their quartiles."""
_RARE = 3
_NEGATION = re.compile(
    r"\b(?:no|not|never|none|nobody|nothing|neither|nor|nowhere|without|cannot|hardly)\b|n['’]t\b",
    re.IGNORECASE,
)
_WORD = re.compile(r"\w+")


@dataclass(frozen=True)
class Slice:
    """Some of the rows."""

    group: str
    """``label``, :data:`WORDS`, ``negation``, ``rare words``, ``overlap``, or the name of a column."""
    name: str
    rows: np.ndarray
    """Row numbers, rising."""

    @property
    def title(self) -> str:
        """Group and name."""
        return f"{self.group}: {self.name}"


def of_texts(
    texts: Sequence[tuple[str, ...]], training_texts: Sequence[tuple[str, ...]], *, pairs: bool
) -> list[Slice]:
    """Return the slices that follow from texts: length, negation, rare words, overlap.

    Args:
        texts: of the scored rows.
        training_texts: of the training rows, which say which words are rare; empty: unknown.
        pairs: whether a row has two texts, whose words are compared.
    """
    words = [[word.lower() for text in row for word in _WORD.findall(text)] for row in texts]
    found = quartiles(WORDS, np.array([len(row) for row in words], dtype=float))
    negated = [any(_NEGATION.search(text) for text in row) for row in texts]
    found.append(Slice("negation", "yes", np.flatnonzero(negated)))
    if training_texts:
        known = Counter(
            word.lower() for row in training_texts for text in row for word in _WORD.findall(text)
        )
        rare = [any(known[word] < _RARE for word in row) for row in words]
        name = f"fewer than {_RARE} times in the training rows"
        found.append(Slice("rare words", name, np.flatnonzero(rare)))
    if pairs:
        found += quartiles("overlap", np.array([_overlap(row) for row in texts]))
    return found


def of_task(texts: Sequence[tuple[str, ...]], labels: np.ndarray | None, task: Task) -> list[Slice]:
    """Return the slices that are known of every task's rows: its classes, and what follows from texts.

    Args:
        texts: of the rows.
        labels: of the rows, as the kind of task has them; None: there are none.
        task: of the rows.
    """
    classes = labels is not None and task.kind == "classification"
    found = of_labels(labels.tolist(), task.labels) if classes and labels is not None else []
    pairs = len(task.columns) == 2 and task.behavior.form == "texts"
    return [*found, *of_texts(texts, (), pairs=pairs)]


def of_labels(labels: Sequence[object], names: Sequence[str]) -> list[Slice]:
    """Return a slice for each class of rows with one class each.

    Args:
        labels: class numbers.
        names: of the classes; empty: the labels are no classes.
    """
    numbers = np.asarray(labels, dtype=float)
    return [Slice("label", name, np.flatnonzero(numbers == number)) for number, name in enumerate(names)]


def of_column(name: str, values: Sequence[str]) -> list[Slice]:
    """Return the slices of a column: one for each frequent value, or quartiles of numbers."""
    array = np.array(values, dtype=object)
    missing = np.array([not value.strip() for value in values])
    counts = Counter(array[~missing].tolist())
    found = [Slice(name, "missing", np.flatnonzero(missing))] if missing.any() else []
    if len(counts) > _MOST_VALUES and (numbers := _numbers(array[~missing].tolist())) is not None:
        known = np.flatnonzero(~missing)
        return [replace(each, rows=known[each.rows]) for each in quartiles(name, numbers)] + found
    frequent = [value for value, _ in counts.most_common(_MOST_VALUES)]
    return [Slice(name, value, np.flatnonzero(array == value)) for value in sorted(frequent)] + found


def is_large_enough(part: Slice, rows: int) -> bool:
    """Whether a slice has :data:`LEAST_ROWS` of the rows, and leaves as many."""
    return LEAST_ROWS <= len(part.rows) <= rows - LEAST_ROWS


def quartiles(group: str, values: np.ndarray) -> list[Slice]:
    """Return the rows between quartiles of a value; equal values are in one slice.

    Args:
        group: name of the value.
        values: float64 [n].
    """
    edges = np.unique(np.quantile(values, [0.25, 0.5, 0.75]))
    part = np.searchsorted(edges, values, side="left")
    of_parts = [np.flatnonzero(part == number) for number in np.unique(part)]
    ends = [(float(values[rows].min()), float(values[rows].max())) for rows in of_parts]
    names = _distinct(ends)
    return [Slice(group, " to ".join(pair), rows) for pair, rows in zip(names, of_parts, strict=True)]


def _distinct(ends: Sequence[tuple[float, float]]) -> list[tuple[str, str]]:
    """Return numbers as texts: integers whole, others with as many digits as tell the pairs apart."""
    if all(value.is_integer() for pair in ends for value in pair):
        return [(f"{low:.0f}", f"{high:.0f}") for low, high in ends]
    for digits in range(3, 17):
        texts = [(f"{low:.{digits}g}", f"{high:.{digits}g}") for low, high in ends]
        if len(set(texts)) == len(texts):
            break
    return texts


def _overlap(row: tuple[str, ...]) -> float:
    """Return the share of the second text's words that the first has."""
    first, second = ({word.lower() for word in _WORD.findall(text)} for text in row[:2])
    return len(first & second) / len(second) if second else 0.0


def _numbers(values: Sequence[str]) -> np.ndarray | None:
    try:
        numbers = np.array([float(value) for value in values])
    except ValueError:
        return None
    return numbers if bool(np.isfinite(numbers).all()) else None

"""Labels of rows: parsed for a built-in task, and used to infer the task of a user's data.

A label is a class name, a class number, or a number to predict. ``-1`` and ``-`` mark rows without a label,
as in SNLI and in the hub's test splits; such rows are left out, and counted.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from effx.errors import DataError, nearest
from effx.specs.data import DataSettings
from effx.specs.tasks import Task

UNLABELLED = ("-1", "-")
_USUAL_CLASSES = 100
_FEW_VALUES = 20
_MOST_UNLABELLED = 0.05
"""Largest share of rows with -1 or - for which these are taken for missing labels of an inferred task."""
_MOST_NAMES_SHOWN = 12
Where = Callable[[int], str]
"""Row -> file and number, for messages."""


class ClassNamesError(DataError):
    """The names that a file has for its class numbers are not those of the task."""


def texts_of(values: Sequence[Any], where: Where) -> list[str]:
    """Return labels as texts without outer spaces.

    Raises:
        DataError: a label is empty, a list or an object.
    """
    return [_text(value, index, where) for index, value in enumerate(values)]


def _text(value: Any, index: int, where: Where) -> str:
    if isinstance(value, list | tuple):
        raise DataError(
            f"{where(index)}: the label is a list, {_short(value)}: several labels per row are not "
            "supported; expected one class name or number."
        )
    if isinstance(value, dict):
        raise DataError(
            f"{where(index)}: the label is an object, {_short(value)}: expected one class or number."
        )
    missing = value is None or (isinstance(value, float) and math.isnan(value))  # json.dumps writes NaN
    if missing or not str(value).strip():
        raise DataError(f"{where(index)}: the label is empty.")
    text = str(value).strip()
    if re.fullmatch(r"\[.*\]|\{.*\}", text, re.DOTALL):
        raise DataError(
            f"{where(index)}: the label is written like a list, {_short(text)}: several labels per row are "
            "not supported; expected one class name or number."
        )
    return text


def _short(value: Any) -> str:
    text = str(value)
    return text if len(text) <= 40 else f"{text[:40]}..."


def infer(
    name: str, columns: tuple[str, ...], texts: Sequence[str], settings: DataSettings, source: str
) -> Task:
    """Return the user's task: its kind and its labels.

    Args:
        name: the task's.
        columns: ``sentence``, or ``sentence1`` and ``sentence2``.
        texts: the labels of all training rows.
        settings: kind and names of the labels, where the user gives them.
        source: the file, for messages.

    Raises:
        DataError: the labels fit neither classes nor numbers, or both.
    """
    classes = ("accuracy", "macro_f1")
    if settings.class_names is not None:
        return Task(name, "classification", columns, settings.class_names, classes)
    values = _labelled_values(texts, settings, source)
    if settings.label_type == "number" or (settings.label_type is None and _are_numbers(values, source)):
        return Task(name, "regression", columns, (), ("pearson", "spearman"))
    if len(values) == 1:
        raise DataError(
            f"{source}: every row has the label '{next(iter(values))}'; at least 2 labels are needed."
        )
    return Task(name, "classification", columns, _class_names(values, len(texts), settings, source), classes)


def _labelled_values(texts: Sequence[str], settings: DataSettings, source: str) -> Counter[str]:
    """Return every label with its number of rows, without those that mark a missing one."""
    values = Counter(texts)
    marks = [mark for mark in UNLABELLED if mark in values]
    if (
        not marks
        or settings.label_type == "number"
        or all(map(is_float, values))
        and not all(map(is_integer, values))
    ):
        return values
    for mark in marks:
        share = values[mark] / len(texts)
        if share > _MOST_UNLABELLED:
            others = ",".join(sorted(set(values) - {mark})[:3])
            raise DataError(
                f"{source}: {values[mark]} of {len(texts)} rows have the label {mark}: remove them if they "
                f"have no label; if {mark} is a class, name all classes, as class_names {mark},{others}",
                settings="class_names",
            )
        del values[mark]
    return values


def _are_numbers(values: Mapping[str, int], source: str) -> bool:
    """Whether labels are numbers to predict: all are, and some have a decimal point."""
    if not all(map(is_float, values)) or all(map(is_integer, values)):
        return False
    if len(values) <= _FEW_VALUES and all(float(value).is_integer() for value in values):
        shown = ", ".join(sorted(values)[:5]) + (", ..." if len(values) > 5 else "")
        raise DataError(
            f"{source}: the labels are {shown}: classes, "
            "or numbers to predict? Set label_type to class or number",
            settings="label_type",
        )
    return True


def _class_names(
    values: Mapping[str, int], rows: int, settings: DataSettings, source: str
) -> tuple[str, ...]:
    if len(values) > max(_FEW_VALUES, rows // 2) and settings.label_type is None:
        raise DataError(
            f"{source}: {len(values)} different labels in {rows} rows: is this the label's column? For "
            "classes, set label_type to class; for numbers to predict, to number",
            settings=("label_column", "label_type"),
        )
    if not all(map(is_integer, values)):
        if settings.label_type == "class" and all(
            is_float(value) and float(value).is_integer() for value in values
        ):
            return _numbered({str(int(float(value))) for value in values})
        return tuple(sorted(values))
    return _numbered(values)


def _numbered(values: Mapping[str, int] | set[str]) -> tuple[str, ...]:
    """Return class numbers from 0 to the highest; or, where they are codes with large gaps, the codes."""
    numbers = sorted({int(value) for value in values})
    if numbers[0] < 0 or numbers[-1] >= max(_USUAL_CLASSES, 2 * len(numbers)):
        return tuple(sorted(values, key=int))
    return tuple(str(number) for number in range(numbers[-1] + 1))


def encode(
    task: Task, texts: Sequence[str], where: Where, class_names: Sequence[str] | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """Return which rows have a label, and the labels of these.

    Args:
        task: the task.
        texts: labels as the file has them.
        where: of a row, for messages.
        class_names: names of the file's class numbers, where it has them.

    Returns:
        Indices of the rows, and int64 classes or float64 numbers.

    Raises:
        DataError: a label does not fit the task.
    """
    if task.kind == "regression":
        for index, text in enumerate(texts):
            if not is_float(text):
                raise DataError(f"{where(index)}: label '{text}' is not a number.")
        return np.arange(len(texts)), np.array([float(text) for text in texts], dtype=np.float64)
    numbers = _numbers(task, texts, where, class_names)
    indices = np.flatnonzero(numbers >= 0)
    return indices, numbers[indices]


def _numbers(task: Task, texts: Sequence[str], where: Where, class_names: Sequence[str] | None) -> np.ndarray:
    """Return each row's class; -1 where it has none."""
    names = {name: number for number, name in enumerate(task.labels)}
    numbered = not any(map(is_integer, names))  # otherwise 0 is a class name
    known = {mark: -1 for mark in UNLABELLED} | names
    by_number = _class_order(task, class_names)
    numbers = np.empty(len(texts), dtype=np.int64)
    for index, text in enumerate(texts):
        if text not in known:
            known[text] = _number(task, text, index, where, numbered, by_number)
        numbers[index] = known[text]
    return numbers


def _class_order(task: Task, class_names: Sequence[str] | None) -> list[int] | None:
    """Return the task's class for each class number of the file; None: the same numbers.

    Raises:
        ClassNamesError: the file has names for them, and they are not the task's.
    """
    if class_names is None or tuple(class_names) == task.labels:
        return None
    simple = {re.sub(r"[\W_]+", "", label).casefold(): number for number, label in enumerate(task.labels)}
    order = [simple.get(re.sub(r"[\W_]+", "", name).casefold(), -1) for name in class_names]
    if sorted(order) == list(range(len(task.labels))):
        return order
    if task.labels == tuple(str(number) for number in range(len(task.labels))):
        return None
    raise ClassNamesError(f"the classes are {_listed(class_names)}; expected {_listed(task.labels)}")


def _number(
    task: Task, text: str, index: int, where: Where, numbered: bool, by_number: Sequence[int] | None
) -> int:
    number = int(float(text)) if is_float(text) and float(text).is_integer() else None
    if number is not None and str(number) in task.labels and not is_integer(text):
        return task.labels.index(str(number))  # 1.0, as pandas writes a column of integers with gaps
    if number is not None and is_integer(text) and str(number) in task.labels:
        return task.labels.index(str(number))  # 01
    if numbered and number is not None and 0 <= number < len(task.labels):
        return number if by_number is None else by_number[number]
    raise DataError(
        f"{where(index)}: label '{_short(text)}' is not one of {_listed(task.labels)}."
        f"{nearest(text, task.labels)}"
    )


def _listed(labels: Sequence[str]) -> str:
    shown = ", ".join(f"{number}={name}" for number, name in enumerate(labels[:_MOST_NAMES_SHOWN]))
    return shown + (f", ... ({len(labels)} labels)" if len(labels) > _MOST_NAMES_SHOWN else "")


def is_integer(value: str) -> bool:
    """Whether a label is an integer in ASCII digits."""
    return re.fullmatch(r"-?[0-9]+", value) is not None


def is_float(value: str) -> bool:
    """Whether a label is a finite number in ASCII characters."""
    try:
        return value.isascii() and "_" not in value and math.isfinite(float(value))
    except ValueError:
        return False

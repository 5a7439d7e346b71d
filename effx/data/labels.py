"""The task of a user's data, inferred from the labels of its rows.

A label is a class name, a class number, a number to predict, a list of labels, or a list of tags. ``-1``
and ``-`` mark rows without a label, as in SNLI and in the hub's test splits; such rows are left out, and
counted. The kinds of tasks (:mod:`effx.specs.kinds`) read the labels.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from effx.errors import DataError
from effx.specs.data import DataSettings
from effx.specs.kinds import KINDS, multi_label, token_classification
from effx.specs.kinds.kind import Texts, Where
from effx.specs.kinds.values import UNLABELLED, is_float, is_integer, short
from effx.specs.tasks import Task

_DECIMAL_COMMA = re.compile(r"-?[0-9]+,[0-9]+")
_MISSING = ("na", "n/a", "nan", "null", "none", "?", "missing", "unknown")
"""What a missing number is written as, in lower case."""
_TRUTH_VALUES = {"true": "true", "1": "true", "1.0": "true", "false": "false", "0": "false", "0.0": "false"}
"""A label in lower case -> its truth value, where other labels are true or false."""
_USUAL_CLASSES = 100
_FEW_VALUES = 20
_MOST_UNLABELLED = 0.05
"""Largest share of rows with -1 or - for which these are taken for missing labels of an inferred task."""


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
    kind = None if settings.task_kind is None else KINDS[settings.task_kind]
    of_classes = kind or KINDS["classification"]
    if settings.class_names is not None:
        return Task(name, of_classes.name, columns, settings.class_names, of_classes.metrics)
    if kind is not None and kind.pair_example is not None and len(columns) != 2:
        raise DataError(
            f"{source}: rows of {kind.name} have two texts, as {kind.pair_example}: name both columns",
            settings=("text_column", "text_pair_column"),
        )
    if kind is not None and kind.of_numbers:
        return Task(name, kind.name, columns, (), kind.metrics)
    values = _labelled_values(texts, source)
    if kind is None:
        _check_numbers(values, source)
    if kind is None and _are_numbers(values, source):
        return Task(name, "regression", columns, (), KINDS["regression"].metrics)
    if len(values) == 1:
        raise DataError(
            f"{source}: every row has the label '{next(iter(values))}'; at least 2 labels are needed."
        )
    _check_truth_values(values, source)
    names = _class_names(values, len(texts), settings, source)
    return Task(name, of_classes.name, columns, names, of_classes.metrics)


def infer_sets(
    name: str,
    columns: tuple[str, ...],
    values: Sequence[Any],
    settings: DataSettings,
    where: Where,
    class_names: tuple[str, ...] | None,
) -> Task:
    """Return the user's task whose rows have any number of labels.

    Args:
        name: the task's.
        columns: ``sentence``, or ``sentence1`` and ``sentence2``.
        values: the labels of all training rows, as lists.
        settings: names of the labels, where the user gives them.
        where: position of a row, for messages.
        class_names: names of the file's label numbers; None: it has none.

    Raises:
        DataError: a row has no list, or the labels are not clear.
    """
    kind = KINDS["multi-label"]
    lists = multi_label.lists_of(values, where)
    names = settings.class_names or settings.label_columns or class_names
    if multi_label.has_bits(lists, len(lists[0]), where):
        names = names or tuple(map(str, range(len(lists[0]))))
        if len(names) != len(lists[0]):
            raise DataError(
                f"{where(0)}: expected a 0 or 1 for each of {len(names)} labels, got {len(lists[0])}",
                settings="class_names",
            )
    if names is None:
        different = set().union(*lists)
        names = _numbered(different) if different and all(map(is_integer, different)) else ()
        names = names or tuple(sorted(different))
    if len(names) < 2:
        shown = f"the only label is '{names[0]}'" if names else "no row has a label"
        raise DataError(f"{where(0)}: {shown}; expected at least 2 different labels in all rows.")
    return Task(name, kind.name, columns, tuple(names), kind.metrics)


def infer_tags(
    name: str, texts: Texts, values: Sequence[Any], where: Where, class_names: tuple[str, ...] | None
) -> Task:
    """Return the user's task whose rows are lists of words with a tag for each.

    Args:
        name: the task's.
        texts: the words of all training rows.
        values: their tags, as lists.
        where: position of a row, for messages.
        class_names: names of the file's tag numbers; None: it has none.

    Raises:
        DataError: words and tags differ in number, or a tag is not in the scheme IOB2.
    """
    kind = KINDS["token-classification"]
    assert kind.check_rows is not None
    kind.check_rows(texts, values, where)
    rows = token_classification.names_of(values, where, class_names)
    labels = token_classification.labels_of(list(set().union(*rows)))
    if len(labels) < 3:
        raise DataError(f"{where(0)}: no row has an entity: expected a tag such as B-TYPE in some rows.")
    return Task(name, kind.name, ("tokens",), labels, kind.metrics)


def _labelled_values(texts: Sequence[str], source: str) -> Counter[str]:
    """Return every label with its number of rows, without those that mark a missing one."""
    values = Counter(texts)
    marks = [mark for mark in UNLABELLED if mark in values]
    if not marks or all(map(is_float, values)) and not all(map(is_integer, values)):
        return values
    for mark in marks:
        share = values[mark] / len(texts)
        if share > _MOST_UNLABELLED:
            others = ",".join(sorted(set(values) - {mark})[:3])
            raise DataError(
                f"{source}: {values[mark]} of {len(texts)} rows have the label {mark}: if it means that the "
                f"label is missing, remove these rows; if {mark} is a class, name all classes, as "
                f"class_names {mark},{others}",
                settings="class_names",
            )
        del values[mark]
    return values


def _check_numbers(values: Mapping[str, int], source: str) -> None:
    """Raise :class:`DataError` for numbers of which some are written so that all would become classes."""
    commas = [value for value in values if _DECIMAL_COMMA.fullmatch(value)]
    present = [value for value in values if value.casefold() not in _MISSING]
    if commas and all(value in commas or is_integer(value) for value in present):
        raise DataError(
            f"{source}: the labels are numbers with a decimal comma, such as {commas[0]}: write them with a "
            "point; or, if they are classes, set task_kind to classification",
            settings="task_kind",
        )
    numbers = [value for value in values if is_float(value)]
    others = [value for value in values if not is_float(value)]
    decimals = not all(map(is_integer, numbers))
    missing = all(value.casefold() in _MISSING for value in others)
    if len(numbers) > 1 and others and (missing or (decimals and len(numbers) > len(others))):
        rows = sum(values[value] for value in others)
        raise DataError(
            f"{source}: the labels are numbers, except in {rows} rows, e.g. '{short(others[0])}': remove "
            "these rows; or, if all labels are classes, set task_kind to classification",
            settings="task_kind",
        )


def _check_truth_values(values: Mapping[str, int], source: str) -> None:
    """Raise :class:`DataError` where true or false is written in two ways, which would become two classes."""
    written: dict[str, str] = {}
    if not any(value.casefold() in ("true", "false") for value in values):
        return
    for value in values:
        truth = _TRUTH_VALUES.get(value.casefold())
        if truth is not None and written.setdefault(truth, value) != value:
            raise DataError(
                f"{source}: the labels {written[truth]} and {value} are the same truth value: "
                "write both alike"
            )


def _are_numbers(values: Mapping[str, int], source: str) -> bool:
    """Whether labels are numbers to predict: all are, and some have a decimal point."""
    if not all(map(is_float, values)) or all(map(is_integer, values)):
        return False
    if len(values) <= _FEW_VALUES and all(float(value).is_integer() for value in values):
        shown = ", ".join(sorted(values)[:5]) + (", ..." if len(values) > 5 else "")
        raise DataError(
            f"{source}: the labels are {shown}: classes, "
            "or numbers to predict? Set task_kind to classification or regression",
            settings="task_kind",
        )
    return True


def _class_names(
    values: Mapping[str, int], rows: int, settings: DataSettings, source: str
) -> tuple[str, ...]:
    if len(values) > max(_FEW_VALUES, rows // 2) and settings.task_kind is None:
        raise DataError(
            f"{source}: {len(values)} different labels in {rows} rows: is this the label's column? For "
            "classes, set task_kind to classification; for numbers to predict, to regression",
            settings=("label_column", "task_kind"),
        )
    if not all(map(is_integer, values)):
        if settings.task_kind is not None and all(
            is_float(value) and float(value).is_integer() for value in values
        ):
            return _numbered({str(int(float(value))) for value in values})
        return tuple(sorted(values))
    padded = [value for value in values if value != str(int(value))]
    if twice := [value for value in padded if str(int(value)) in values]:
        raise DataError(
            f"{source}: the labels {twice[0]} and {int(twice[0])} are the same number: write both alike"
        )
    return tuple(sorted(values)) if padded else _numbered(values)


def _numbered(values: Mapping[str, int] | set[str]) -> tuple[str, ...]:
    """Return class numbers from 0 to the highest; or, where they are codes with large gaps, the codes."""
    numbers = sorted({int(value) for value in values})
    if numbers[0] < 0 or numbers[-1] >= max(_USUAL_CLASSES, 2 * len(numbers)):
        return tuple(sorted(values, key=int))
    return tuple(str(number) for number in range(numbers[-1] + 1))

"""One class per row."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

import numpy as np

from effx.errors import DataError, nearest
from effx.specs import head_labels
from effx.specs.heads import Head, HeadPlan, HeadSettings, OtherHeadError
from effx.specs.kinds.kind import Constant, Labels, TaskKind, Where
from effx.specs.kinds.values import (
    UNLABELLED,
    ClassNamesError,
    is_float,
    is_integer,
    listed,
    short,
    texts_of,
)

_MOST_LABELS_SHOWN = 10


def _check_labels(labels: Labels) -> None:
    if len(labels) < 2:
        raise ValueError(f"labels: expected at least 2, got {len(labels)}")


def _describe(texts: str, labels: Labels) -> str:
    why = "class numbers" if all(label.isdigit() for label in labels) else "names of classes"
    return f"classification of {texts} into {len(labels)} classes (the labels are {why})"


# labels of rows


def _encode(
    labels: Labels, values: Sequence[Any], where: Where, class_names: Sequence[str] | None
) -> tuple[np.ndarray, np.ndarray]:
    classes = ClassReader(labels, class_names)
    numbers = np.empty(len(values), dtype=np.int64)
    for index, text in enumerate(texts_of(values, where)):
        numbers[index] = -1 if classes.is_missing(text) else classes.number(text, index, where)
    indices = np.flatnonzero(numbers >= 0)
    return indices, numbers[indices]


class ClassReader:
    """Reads labels that are names or numbers of classes."""

    def __init__(self, labels: Labels, class_names: Sequence[str] | None) -> None:
        """Args:
        labels: of the task.
        class_names: of the file's class numbers, in their order; None: nothing states it, and numbers are
            refused unless they are the names.

        Raises:
            ClassNamesError: the file's names are not those of the task.
        """
        self._labels = labels
        self._known = {name: number for number, name in enumerate(labels)}
        named = not any(map(is_integer, labels))  # otherwise 0 is a class name
        self._numbered = named and class_names is not None
        self._unordered = named and class_names is None
        self._order = _class_order(labels, class_names)

    def is_missing(self, text: str) -> bool:
        """Whether a text marks a row without a label."""
        return text in UNLABELLED and text not in self._labels

    def number(self, text: str, index: int, where: Where) -> int:
        """Return the class of a text.

        Raises:
            DataError: it is not one of the labels.
        """
        if text not in self._known:
            self._known[text] = self._number(text, index, where)
        return self._known[text]

    def _number(self, text: str, index: int, where: Where) -> int:
        labels = self._labels
        number = int(float(text)) if is_float(text) and float(text).is_integer() else None
        if number is not None and str(number) in labels and not is_integer(text):
            return labels.index(str(number))  # 1.0, as pandas writes a column of integers with gaps
        if number is not None and is_integer(text) and str(number) in labels:
            return labels.index(str(number))  # 01
        if self._numbered and number is not None and 0 <= number < len(labels):
            return number if self._order is None else self._order[number]
        if self._unordered and number is not None:
            raise DataError(
                f"{where(index)}: label '{short(text)}' is a number, but the classes are {listed(labels)}, "
                "and nothing says which number is which: name the classes in the order of their numbers",
                settings="class_names",
            )
        raise DataError(
            f"{where(index)}: label '{short(text)}' is not one of {listed(labels)}.{nearest(text, labels)}"
        )


def _class_order(labels: Labels, class_names: Sequence[str] | None) -> list[int] | None:
    """Return the task's class for each class number of the file; None: the same numbers.

    Raises:
        ClassNamesError: the file has names for them, and they are not the task's.
    """
    if class_names is None or tuple(class_names) == labels:
        return None
    simple = {re.sub(r"[\W_]+", "", label).casefold(): number for number, label in enumerate(labels)}
    order = [simple.get(re.sub(r"[\W_]+", "", name).casefold(), -1) for name in class_names]
    if sorted(order) == list(range(len(labels))):
        return order
    if labels == tuple(str(number) for number in range(len(labels))):
        return None
    raise ClassNamesError(f"the classes are {listed(class_names)}; expected {listed(labels)}")


def _restore(values: Sequence[Any], labels: Labels) -> np.ndarray:
    if not all(value in range(len(labels)) for value in values):
        raise ValueError(f"expected classes from 0 to {len(labels) - 1}")
    return np.array(values)


def _summarize(labels: Labels, splits: Sequence[np.ndarray]) -> str:
    return counted(labels, [np.bincount(rows, minlength=len(labels)) for rows in splits])


def counted(labels: Labels, splits: Sequence[np.ndarray]) -> str:
    """Return labels with their number of rows in each split, the most frequent first: ``spam 80+20``.

    Args:
        labels: names.
        splits: rows per label [labels] of each split.
    """
    first = splits[0]
    order = sorted(range(len(labels)), key=lambda label: -first[label])
    shown = [
        f"{labels[label]} {'+'.join(str(int(count[label])) for count in splits)}"
        for label in order[:_MOST_LABELS_SHOWN]
    ]
    if rest := order[_MOST_LABELS_SHOWN:]:
        shown.append(f"{len(rest)} more with {first[rest[-1]]} to {first[rest[0]]} rows each")
    if empty := sum(1 for label in order if not first[label]):
        shown.append(f"{empty} without rows" if len(splits) == 1 else f"{empty} without training rows")
    return ", ".join(shown)


def _constant(train: np.ndarray, labels: Labels) -> Constant:
    label = int(np.bincount(train, minlength=len(labels)).argmax())
    return Constant(np.array(label), f"'{labels[label]}'")


# the task head


def _match_head(head: Head, labels: Labels, settings: HeadSettings) -> HeadPlan:
    if head.kind not in ("classification", "regression"):
        raise OtherHeadError(f"the task head ({head.reason}) is not one for classification")
    single = len(head.outputs) == 1 and len(labels) == 2
    if single and settings.labels:
        order = head_labels.given_order(settings.labels, labels, 2)
        return HeadPlan(_given(settings.labels), True, order, two_logits=True)
    if single and head.of_numbers:
        raise OtherHeadError(f"the task head ({head.reason}) is not one for classification")
    if single:
        if head_labels.numbered(labels):
            return HeadPlan("kept: one output, the logit of class 1 against class 0", True, two_logits=True)
        raise OtherHeadError(
            "its single output is a score between two classes, and nothing says which of "
            f"{' and '.join(labels)} has the high scores: set labels to the class of a low "
            f"score and that of a high one, e.g. {','.join(labels)}"
        )
    if head.kind == "regression" and all(map(is_float, labels)):
        raise OtherHeadError(
            "its single output is a number, and the labels of the rows were read as classes: if they are "
            "numbers to predict, set task_kind to regression"
        )
    return match_names(head, labels, settings)


def match_names(head: Head, labels: Labels, settings: HeadSettings) -> HeadPlan:
    """Return how a head with an output per label serves a task: outputs are matched by name.

    Raises:
        OtherHeadError: the names differ, or do not say which output is which label.
        UsageError: the setting ``labels`` does not name the task's labels.
    """
    outputs = head.outputs
    if settings.labels:
        order = head_labels.given_order(settings.labels, labels, len(outputs))
        return HeadPlan(_given(settings.labels), True, order)
    matched = head_labels.order(outputs, labels)
    if settings.keep_head and len(outputs) == len(labels) and matched is None:
        return HeadPlan(f"kept as requested: {', '.join(outputs)} as {', '.join(labels)}", True)
    if head_labels.unclear(outputs, labels):
        raise OtherHeadError(
            f"its outputs are called {outputs[0]} to {outputs[-1]}, which does not say which of them is "
            f"which of {', '.join(labels)}: set labels to the names in the order of the outputs"
        )
    if matched is None:
        raise OtherHeadError(f"its labels are {', '.join(outputs)}, those of the task {', '.join(labels)}")
    same = matched == list(range(len(matched)))
    words = f"kept: {', '.join(outputs)}" + ("" if same else f", permuted to {', '.join(labels)}")
    return HeadPlan(words, True, tuple(matched))


def _given(outputs: Sequence[str]) -> str:
    return f"kept, its outputs in the given order: {', '.join(outputs)}"


CLASSIFICATION = TaskKind(
    name="classification",
    pipeline="text-classification",
    gates=frozenset({"classes", "metric", "recall"}),
    head="sequence",
    output_names=("logits",),
    loss="cross-entropy",
    problem_type="single_label_classification",
    metrics=("accuracy", "macro_f1"),
    agreement_metrics=("agreement",),
    outputs=len,
    check_labels=_check_labels,
    describe=_describe,
    encode=_encode,
    summarize=_summarize,
    match_head=_match_head,
    restore=_restore,
    predict=lambda logits: np.asarray(np.argmax(logits, axis=-1)),
    agreement=lambda expected, classes: float(np.mean(expected == classes)),
    agreement_words="the share of rows with the checkpoint's class",
    constant=_constant,
)

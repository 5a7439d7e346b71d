"""Any number of labels per row, each of them set if its probability (the sigmoid of its logit) is above 0.5.

Labels of rows and predictions are bool [n, labels]. Files have them as lists, of one of three forms:

    ["joy", "fear"]    names of labels
    [0, 4]             numbers of labels
    [1, 0, 0, 0, 1]    0 or 1 for each label

The form is that of all rows of a file. JSON stores the numbers of a row's labels: ``[[0, 4], [], [2]]``.
"""

from __future__ import annotations

import ast
import io
import itertools
import json
import tokenize
from collections.abc import Sequence
from typing import Any

import numpy as np

from effx.errors import DataError
from effx.specs.heads import Head, HeadPlan, HeadSettings, OtherHeadError
from effx.specs.kinds.classification import ClassReader, counted, match_names
from effx.specs.kinds.kind import Constant, Labels, TaskKind, Where
from effx.specs.kinds.values import short
from effx.stats.metrics import METRICS, label_f1

_BITS = {"0", "1"}


def _check_labels(labels: Labels) -> None:
    if len(labels) < 2:
        raise ValueError(f"labels: expected at least 2, got {len(labels)}")


# labels of rows


def is_list(value: Any) -> bool:
    """Whether a value is a list, or a text that is written like one."""
    if isinstance(value, str):
        text = value.strip()
        return text.startswith("[") and text.endswith("]")
    return isinstance(value, list | tuple)


def lists_of(values: Sequence[Any], where: Where) -> list[list[str]]:
    """Return lists of labels as texts.

    Raises:
        DataError: a value is not a list, has something else than names, numbers, 0 and 1, or names without
            commas between them.
    """
    return [_list(value, index, where) for index, value in enumerate(values)]


def _list(value: Any, index: int, where: Where) -> list[str]:
    entries = _parsed(value, index, where) if isinstance(value, str) else value
    if not isinstance(entries, list | tuple):
        raise DataError(
            f"{where(index)}: the label is {short(value) or 'empty'}: expected a list of labels, as in the "
            'other rows, e.g. ["a", "b"], [0, 2], or [] for none.'
        )
    return [_entry(entry, value, index, where) for entry in entries]


def _parsed(text: str, index: int, where: Where) -> Any:
    """Return what a text is as JSON, or as Python writes it; None: neither.

    Raises:
        DataError: names without commas between them, which Python joins to one name.
    """
    text = text.strip()
    try:
        return json.loads(text)
    except (RecursionError, MemoryError):
        return None
    except ValueError:
        pass
    try:
        value = ast.literal_eval(text)
    except (ValueError, SyntaxError, RecursionError, MemoryError):
        return None
    if _lacks_commas(text):
        shown = short(" ".join(text.split()))
        raise DataError(
            f"{where(index)}: the label is {shown}: names of labels need commas between them, as in "
            '["a", "b"]. NumPy writes arrays without commas: write lists (array.tolist()).'
        )
    return value


def _lacks_commas(text: str) -> bool:
    """Return whether texts of a list that Python can read follow each other without a comma."""
    ignored = (tokenize.NL, tokenize.COMMENT)
    tokens = tokenize.generate_tokens(io.StringIO(text).readline)
    kinds = [token.type for token in tokens if token.type not in ignored]
    return any(pair == (tokenize.STRING, tokenize.STRING) for pair in itertools.pairwise(kinds))


def _entry(entry: Any, value: Any, index: int, where: Where) -> str:
    if isinstance(entry, bool):
        return str(int(entry))
    if isinstance(entry, int) or (isinstance(entry, float) and entry.is_integer()):
        return str(int(entry))
    if isinstance(entry, str) and entry.strip():
        return entry.strip()
    raise DataError(
        f"{where(index)}: the label is {short(value)}: expected names or numbers of labels in the list."
    )


def has_bits(lists: Sequence[Sequence[str]], labels: int, where: Where) -> bool:
    """Return whether lists are 0 or 1 for each label, not names or numbers of labels.

    Args:
        lists: of all rows.
        labels: number of labels; a list of bits has as many entries.
        where: position of a row, for messages.

    Raises:
        DataError: they may be both: of two labels [0, 1] is the second one, or both.
    """
    if labels < 2 or not all(len(entries) == labels and set(entries) <= _BITS for entries in lists):
        return False
    if labels == 2 and all(len(set(entries)) == 2 for entries in lists):
        raise DataError(
            f"{where(0)}: every row's labels are [0, 1] or [1, 0]: numbers of two labels, or 0 and 1 for "
            "each label? Write names of labels."
        )
    return True


def _encode(
    labels: Labels, values: Sequence[Any], where: Where, class_names: Sequence[str] | None
) -> tuple[np.ndarray, np.ndarray]:
    lists = lists_of(values, where)
    if has_bits(lists, len(labels), where):
        return np.arange(len(lists)), np.array(lists) == "1"
    reader = ClassReader(labels, class_names)
    result = np.zeros((len(lists), len(labels)), dtype=bool)
    for index, entries in enumerate(lists):
        for entry in entries:
            number = reader.number(entry, index, where)
            if result[index, number]:
                raise DataError(f"{where(index)}: label '{labels[number]}' occurs twice in the row.")
            result[index, number] = True
    return np.arange(len(lists)), result


def _summarize(labels: Labels, splits: Sequence[np.ndarray]) -> str:
    empty = "+".join(str(int((~rows.any(axis=1)).sum())) for rows in splits)
    per_row = float(np.concatenate(splits).sum(axis=1).mean())
    counts = counted(labels, [rows.sum(axis=0) for rows in splits])
    return f"{counts}; {per_row:.2g} per row, rows with none {empty}"


# predictions


def _store(sets: np.ndarray) -> list[Any]:
    return [np.flatnonzero(row).tolist() for row in sets]


def _restore(values: Sequence[Any], labels: Labels) -> np.ndarray:
    result = np.zeros((len(values), len(labels)), dtype=bool)
    known = range(len(labels))
    for row, numbers in enumerate(values):
        if not isinstance(numbers, list | tuple) or not all(number in known for number in numbers):
            raise ValueError(f"expected lists of label numbers from 0 to {len(labels) - 1}")
        if list(numbers) != sorted(set(numbers)):
            raise ValueError("expected rising label numbers, each once")
        result[row, list(numbers)] = True
    return result


def _agreement(expected: np.ndarray, sets: np.ndarray) -> float:
    """Return the micro F1 of one against the other: pairs of row and label that neither sets do not count."""
    return METRICS["micro_f1"](expected, sets) if expected.any() or sets.any() else 1.0


def _constant(train: np.ndarray, labels: Labels) -> Constant:
    """Return the most frequent labels, as many as give the best micro F1."""
    counts = train.sum(axis=0)
    order = np.argsort(-counts, kind="stable")
    sizes = np.arange(1, len(labels) + 1)
    scores = 2 * np.cumsum(counts[order]) / (sizes * len(train) + counts.sum())
    chosen = order[: int(np.argmax(scores)) + 1]
    answer = np.zeros(len(labels), dtype=bool)
    answer[chosen] = True
    return Constant(answer, ", ".join(f"'{labels[label]}'" for label in sorted(chosen)))


def _match_head(head: Head, labels: Labels, settings: HeadSettings) -> HeadPlan:
    requested = settings.keep_head or settings.labels
    # transformers writes problem_type only if it computed the loss
    if head.kind != "multi-label" and not (head.kind == "classification" and requested):
        advice = (
            ": if it was trained on several labels per row, set keep_head, or labels to those of its outputs"
        )
        of_classes = head.kind == "classification"
        raise OtherHeadError(
            f"the task head ({head.reason}) is not one for multi-label{advice if of_classes else ''}"
        )
    return match_names(head, labels, settings)


MULTI_LABEL = TaskKind(
    name="multi-label",
    one_value=False,
    pipeline="text-classification",
    head="sequence",
    output_names=("logits",),
    loss="binary-cross-entropy",
    problem_type="multi_label_classification",
    metrics=("micro_f1", "macro_f1", "accuracy"),
    agreement_metrics=("agreement",),
    outputs=len,
    check_labels=_check_labels,
    describe=lambda texts, labels: f"any of {len(labels)} labels for {texts} (the labels are lists)",
    encode=_encode,
    summarize=_summarize,
    match_head=_match_head,
    store=_store,
    restore=_restore,
    predict=lambda logits: np.asarray(logits > 0),
    agreement=_agreement,
    agreement_words="the F1 of the engine's pairs of row and label against the checkpoint's",
    constant=_constant,
    label_scores=lambda labels, predictions, names: dict(
        zip(names, label_f1(labels, predictions), strict=True)
    ),
    refused={
        "exits": "exit rules decide on one prediction per row, and a row of this task may have several labels"
    },
)

"""A tag for each word of a row, in the scheme IOB2; the tags say where entities are, and of which type.

    words   Empire      State       Building    =   ESB
    tags    B-location  I-location  I-location  O   B-location

Files have two lists of the same length per row. Labels of rows and predictions are int64 [n, words]: numbers
of tags, -1 after the last word of a row. The labels of a task are O and, for each type, B-TYPE and I-TYPE, in
this order, so that the metrics know entities by the numbers of the tags (:mod:`effx.stats.metrics`).

A word has the logits of its first piece; the other pieces, and special tokens, count neither in the loss nor
in the predictions. A word without a piece, because the row was cut at its maximum length, is predicted as O.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any

import numpy as np

from effx.errors import DataError, nearest
from effx.specs.heads import Head, HeadPlan, HeadSettings, OtherHeadError
from effx.specs.kinds.classification import match_names
from effx.specs.kinds.kind import Constant, Labels, RowTokens, TaskKind, Texts, Where
from effx.specs.kinds.values import listed, short
from effx.stats.metrics import METRICS, entity_type_f1

OUTSIDE = "O"
ABSENT = -1
"""Tag of the columns in which a row has no word."""
EXAMPLE = '{"tokens": ["in", "New", "York"], "tags": ["O", "B-place", "I-place"]}'
_PREFIXES = ("B-", "I-")


# labels of the task


def labels_of(tags: Sequence[str]) -> Labels:
    """Return the labels of a task whose rows have these tags: O first, then B and I of each type, sorted.

    Raises:
        ValueError: a tag is not O, B-TYPE or I-TYPE.
    """
    return _labels_of_types(sorted({_type(tag) for tag in tags if tag != OUTSIDE}))


def _labels_of_types(types: Sequence[str]) -> Labels:
    return (OUTSIDE, *(f"{prefix}{name}" for name in types for prefix in _PREFIXES))


def _type(tag: str) -> str:
    if tag[:2] not in _PREFIXES or not tag[2:].strip():
        raise ValueError(f"tag '{short(tag)}' is not in the scheme IOB2: expected O, B-TYPE or I-TYPE")
    return tag[2:]


def _types(labels: Labels) -> tuple[str, ...]:
    return tuple(label[2:] for label in labels[1::2])


def _check_labels(labels: Labels) -> None:
    if len(labels) < 3:
        raise ValueError(f"labels: expected O and at least one type of entities, got {len(labels)} labels")
    if labels != _labels_of_types([_type(label) for label in labels[1::2]]):
        raise ValueError("labels: expected O, then B-TYPE and I-TYPE of each type")


def _task_labels(outputs: Labels) -> Labels:
    """Return the labels of a task for a model with these outputs; the outputs, if they are not its tags."""
    try:
        types = dict.fromkeys(_type(name) for name in outputs if name != OUTSIDE)
    except ValueError:
        return outputs
    labels = _labels_of_types(list(types))
    return labels if set(labels) == set(outputs) else outputs


# labels of rows


def _check_rows(texts: Texts, values: Sequence[Any], where: Where) -> None:
    for index, (words, tags) in enumerate(zip(texts, values, strict=True)):
        if not isinstance(tags, list | tuple):
            raise DataError(
                f"{where(index)}: the tags are {short(tags)}: expected a tag for each word, as {EXAMPLE}."
            )
        if len(words) != len(tags):
            raise DataError(
                f"{where(index)}: {len(words)} words and {len(tags)} tags: expected a tag for each word."
            )


def names_of(values: Sequence[Any], where: Where, class_names: Sequence[str] | None) -> list[list[str]]:
    """Return the tags of rows as names.

    Args:
        values: lists of names, or of numbers where the file names them.
        where: position of a row, for messages.
        class_names: of the file's tag numbers; None: it has none.

    Raises:
        DataError: a tag is neither, or not in the scheme IOB2.
    """
    return [[_name(tag, index, where, class_names) for tag in tags] for index, tags in enumerate(values)]


def _name(tag: Any, index: int, where: Where, class_names: Sequence[str] | None) -> str:
    if isinstance(tag, int) and not isinstance(tag, bool):
        if class_names is None:
            raise DataError(
                f"{where(index)}: the tags are numbers, and the file does not name them: write names."
            )
        if not 0 <= tag < len(class_names):
            raise DataError(f"{where(index)}: tag {tag} is not one of {listed(class_names)}.")
        tag = class_names[tag]
    if not isinstance(tag, str):
        raise DataError(f"{where(index)}: the tag is {short(tag)}: expected text, as in {EXAMPLE}.")
    name = tag.strip()
    try:
        return name if name == OUTSIDE else name[:2] + _type(name)
    except ValueError as error:
        raise DataError(f"{where(index)}: {error}.") from error


def _encode(
    labels: Labels, values: Sequence[Any], where: Where, class_names: Sequence[str] | None
) -> tuple[np.ndarray, np.ndarray]:
    numbers = {label: number for number, label in enumerate(labels)}
    rows = names_of(values, where, class_names)
    tags = np.full((len(rows), max(map(len, rows), default=0)), ABSENT, dtype=np.int64)
    for index, names in enumerate(rows):
        if unknown := next((name for name in names if name not in numbers), None):
            raise DataError(
                f"{where(index)}: tag '{unknown}' is not one of {listed(labels)}.{nearest(unknown, labels)}"
            )
        tags[index, : len(names)] = [numbers[name] for name in names]
    return np.arange(len(rows)), tags


def _summarize(labels: Labels, splits: Sequence[np.ndarray]) -> str:
    counts = [[int((rows == number).sum()) for number in range(1, len(labels), 2)] for rows in splits]
    shown = [
        f"{name} {'+'.join(str(count[number]) for count in counts)}"
        for number, name in enumerate(_types(labels))
    ]
    words = "+".join(f"{int((rows >= 0).sum()):,}" for rows in splits)
    return f"entities {', '.join(shown)}, in {words} words"


# predictions


def _predict(logits: np.ndarray, rows: RowTokens) -> np.ndarray:
    """Return the tag of each word, int64 [n, words of the longest row]."""
    words = rows.words
    assert words is not None, "the rows are texts, not lists of words"
    tags = np.where(np.arange(words.width) < words.counts[:, None], 0, ABSENT).astype(np.int64)
    first = np.flatnonzero(words.starts >= 0)
    row = np.searchsorted(rows.offsets, first, side="right") - 1
    tags[row, words.starts[first]] = logits[first].argmax(axis=-1)
    return tags


def _deciding(logits: np.ndarray, rows: RowTokens) -> list[np.ndarray]:
    """Return the logits of the first pieces of each row's words, one word after the other."""
    assert rows.words is not None
    first = rows.words.starts >= 0
    return [logits[start:end][first[start:end]].ravel() for start, end in itertools.pairwise(rows.offsets)]


def _store(tags: np.ndarray) -> list[Any]:
    return [row[row != ABSENT].tolist() for row in tags]


def _restore(values: Sequence[Any], labels: Labels) -> np.ndarray:
    known = range(len(labels))
    if not all(isinstance(tags, list | tuple) and all(tag in known for tag in tags) for tags in values):
        raise ValueError(f"expected lists of tag numbers from 0 to {len(labels) - 1}")
    result = np.full((len(values), max(map(len, values), default=0)), ABSENT, dtype=np.int64)
    for row, tags in enumerate(values):
        result[row, : len(tags)] = tags
    return result


def _agreement(expected: np.ndarray, tags: np.ndarray) -> float:
    """Return the F1 of one's entities against the other's: words that are O in both do not count."""
    if np.array_equal(expected, tags):
        return 1.0
    return METRICS["entity_f1"](expected, tags)


def _label_scores(labels: np.ndarray, predictions: np.ndarray, names: Labels) -> dict[str, float | None]:
    types = _types(names)
    return dict(zip(types, entity_type_f1(labels, predictions, len(types)), strict=True))


def _match_head(head: Head, labels: Labels, settings: HeadSettings) -> HeadPlan:
    if head.kind != "token-classification":
        raise OtherHeadError(f"the task head ({head.reason}) is not one for token-classification")
    return match_names(head, labels, settings)


TOKEN_CLASSIFICATION = TaskKind(
    name="token-classification",
    head="token",
    output_names=("logits",),
    loss="token-cross-entropy",
    metrics=("entity_f1", "entity_macro_f1", "tag_accuracy", "accuracy"),
    outputs=len,
    check_labels=_check_labels,
    describe=lambda texts, labels: f"tags of words, entities of {len(_types(labels))} types",
    encode=_encode,
    summarize=_summarize,
    match_head=_match_head,
    store=_store,
    restore=_restore,
    predict_rows=_predict,
    of_tokens=True,
    form="words",
    one_value=False,
    deciding=_deciding,
    pipeline="token-classification",
    gates=frozenset({"classes", "metric"}),  # not recall: the words of a row are not independent
    check_rows=_check_rows,
    agreement=_agreement,
    agreement_words="the F1 of the engine's entities against the checkpoint's",
    agreement_metrics=("agreement",),
    label_scores=_label_scores,
    task_labels=_task_labels,
    constant=lambda train, labels: Constant(np.array(0), "'O'", absent=ABSENT),
    refused={
        "exits": "exit rules decide on one prediction per row, and a row of this task has a tag per word",
        "tokens": "token pruning drops tokens, and each word needs the output of its first piece",
        "import-engine": "graphs for token classification cannot be imported: import the model they were "
        "exported from",
    },
)

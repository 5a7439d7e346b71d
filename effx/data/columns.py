"""Which columns hold the texts and the label: those that the user names, or the usual names.

Names are compared without case and outer spaces. If several are possible, the user has to name one.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from effx.errors import DataError, nearest
from effx.specs.data import DataSettings
from effx.specs.tasks import Task

_PAIRS = (
    ("sentence1", "sentence2"),
    ("question1", "question2"),
    ("premise", "hypothesis"),
    ("text1", "text2"),
    ("text_a", "text_b"),
    ("question", "sentence"),
    ("question", "context"),
    ("query", "passage"),
    ("query", "document"),
    ("query", "candidate"),
)
_TEXTS = ("sentence", "text")
WORDS = ("tokens", "words")
"""Usual names of a column of lists of words."""
_OTHER_TEXTS = ("content", "body", "message", "utterance", "review", "comment", "tweet", "query", "document")
_LABELS = ("label",)
_OTHER_LABELS = (
    "labels",
    "class",
    "category",
    "intent",
    "target",
    "sentiment",
    "gold_label",
    "topic",
    "score",
    "relevance",
    "tags",
    "ner_tags",
)


@dataclass(frozen=True)
class Columns:
    """Positions of the columns in a file."""

    texts: tuple[int, ...]
    label: int | None
    """None: the rows have no labels. The first one, if there are several columns of labels."""
    labels: tuple[int, ...] = ()
    """Columns of 0 and 1, one for each label; empty: one column has the labels."""


class NoTextError(DataError):
    """No column is the text's."""


class NoLabelError(DataError):
    """No column is the label's."""


def choose(
    header: Sequence[str], where: str, settings: DataSettings, task: Task | None, *, labelled: bool = True
) -> Columns:
    """Return which columns of a file hold the texts and the label.

    Args:
        header: the file's columns.
        where: the file, for messages.
        settings: names that the user gives.
        task: what the columns are for; None: it is inferred from them.
        labelled: whether a label is needed. Otherwise there is none if ``settings`` say so, or if the texts
            are the only columns.

    Raises:
        NoLabelError: the texts are known, the label is not.
        DataError: a column is missing, occurs twice, or several would do.
    """
    names = _Names(header, where)
    if task is not None and (label_column := task.behavior.label_column) is not None:
        given, label = settings.label_column, None
        if not settings.unlabelled:
            label = names.index(given or label_column, "label_column" if given else None)
        if settings.text_column is not None:
            return Columns(_texts(names, settings, task), label)
        return Columns(tuple(names.index(column, None) for column in task.columns), label)
    try:
        texts = _texts(names, settings, task)
    except NoTextError as error:
        label_named = settings.label_column is not None or settings.label_columns is not None
        if labelled and not label_named and not names.among((*_LABELS, *_OTHER_LABELS)):
            raise NoTextError(
                f"{where}: no column is called sentence or text, and no column is called label (columns: "
                f"{names.listed}): name the columns of text and label",
                settings=("text_column", "label_column"),
            ) from error
        raise
    if settings.unlabelled:
        return Columns(texts, None)
    if settings.label_columns is not None:
        indices = tuple(names.index(name, "label_columns") for name in settings.label_columns)
        if set(indices) & set(texts):
            raise DataError(
                f"{names.where}: the same column would be text and label: name the columns of both",
                settings=("text_column", "label_columns"),
            )
        return Columns(texts, indices[0], indices)
    try:
        return Columns(texts, _label(names, settings, texts))
    except NoLabelError as error:
        if labelled:
            raise NoLabelError(
                f"{error} Name the column of the label; rows without labels cannot be trained on",
                settings="label_column",
            ) from error
        if len(header) == len(texts):
            return Columns(texts, None)
        raise NoLabelError(
            f"{error} Name the column of the label, or, if the rows have none, set unlabelled",
            settings=("label_column", "unlabelled"),
        ) from error


class _Names:
    """Column names of a file, as they are compared."""

    def __init__(self, header: Sequence[str], where: str) -> None:
        self._header, self.where = list(header), where
        self._normal = [str(name).strip().casefold() for name in header]

    def has(self, name: str) -> bool:
        return name.casefold() in self._normal

    def index(self, name: str, setting: str | None) -> int:
        """Return a column's position."""
        if setting is not None and self._header.count(name) == 1:
            return self._header.index(name)  # as written, where two differ in case only
        count = self._normal.count(name.strip().casefold())
        if count > 1:
            raise DataError(f"{self.where}: {count} columns are called '{name}': rename all but one of them.")
        if count == 0:
            raise self.missing(name, setting)
        return self._normal.index(name.strip().casefold())

    def missing(self, name: str, setting: str | None, kind: type[DataError] = DataError) -> DataError:
        hint = nearest(name, self._header) if setting is not None else ""
        return kind(
            f"{self.where}: column '{name}' is missing (columns: {self.listed}).{hint}",
            settings=() if setting is None else setting,
        )

    def among(self, candidates: Sequence[str]) -> list[str]:
        return [name for name in candidates if self.has(name)]

    @property
    def listed(self) -> str:
        shown = [name if len(name) <= 40 else f"{name[:40]}..." for name in self._header[:12]]
        return ", ".join(shown) + (", ..." if len(self._header) > 12 else "") or "none"


def _texts(names: _Names, settings: DataSettings, task: Task | None) -> tuple[int, ...]:
    if settings.text_column is not None:
        texts: tuple[int, ...] = (names.index(settings.text_column, "text_column"),)
        if settings.text_pair_column is not None:
            texts += (names.index(settings.text_pair_column, "text_pair_column"),)
        if task is not None and len(texts) != len(task.columns):
            raise DataError(
                f"{names.where}: task '{task.name}' has {len(task.columns)} texts per row: expected as many "
                f"text columns, got {len(texts)}",
                settings=("text_column", "text_pair_column"),
            )
        return texts
    chosen = _usual_texts(names, task)
    return tuple(names.index(name, None) for name in chosen)


def _usual_texts(names: _Names, task: Task | None) -> tuple[str, ...]:
    pairs = [pair for pair in _PAIRS if all(map(names.has, pair))]
    if task is not None and task.hub is not None and task.hub.columns in pairs:
        return task.hub.columns
    if task is not None and task.columns in pairs:
        return task.columns
    singles = names.among(_TEXTS) or names.among(_OTHER_TEXTS) or names.among(WORDS)
    if task is not None and task.behavior.of_words:
        singles = names.among(WORDS) or singles
    if task is not None:
        pairs = pairs if len(task.columns) == 2 else []
        singles = singles if len(task.columns) == 1 else []
    elif pairs:
        singles = [name for name in names.among(_TEXTS) if not any(name in pair for pair in pairs)]
    candidates = [*pairs, *((name,) for name in singles)]
    if len(candidates) == 1:
        return candidates[0]
    if candidates:
        options = " or ".join(" and ".join(candidate) for candidate in candidates)
        raise DataError(
            f"{names.where}: several columns may be the text ({options}): name it",
            settings=("text_column", "text_pair_column"),
        )
    expected = "sentence" if task is None or len(task.columns) == 1 else "sentence1"
    error = names.missing(expected, None)
    raise NoTextError(f"{error} Name the column of the text", settings="text_column")


def _label(names: _Names, settings: DataSettings, texts: tuple[int, ...]) -> int:
    if settings.label_column is not None:
        index = names.index(settings.label_column, "label_column")
    else:
        candidates = names.among(_LABELS) or names.among(_OTHER_LABELS)
        if len(candidates) > 1:
            raise DataError(
                f"{names.where}: several columns may be the label ({', '.join(candidates)}): name it",
                settings="label_column",
            )
        if not candidates:
            raise names.missing("label", None, NoLabelError)
        index = names.index(candidates[0], None)
    if index in texts:
        raise DataError(
            f"{names.where}: the same column would be text and label: name the columns of both",
            settings=("text_column", "label_column"),
        )
    return index

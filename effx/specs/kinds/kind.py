"""What distinguishes a kind of task from others: the fields of :class:`TaskKind`."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np

from effx.errors import UsageError
from effx.specs.heads import Head, HeadPlan, HeadSettings

Labels = tuple[str, ...]
"""Names of a task's labels, in the order of the logits; empty where the kind has none."""
Where = Callable[[int], str]
"""Row -> file and number, for messages."""


Texts = Sequence[tuple[str, ...]]
"""Of each row: one text, a pair, or its words."""


class RowWords(Protocol):
    """Which tokens begin a word, see :class:`effx.encoding.Words`."""

    @property
    def starts(self) -> np.ndarray: ...

    @property
    def counts(self) -> np.ndarray: ...

    @property
    def width(self) -> int: ...


class RowWindows(Protocol):
    """Which part of a context each sequence of tokens has, see :class:`effx.encoding.Windows`."""

    @property
    def begins(self) -> np.ndarray: ...

    @property
    def ends(self) -> np.ndarray: ...

    @property
    def contexts(self) -> tuple[str, ...]: ...


class RowDocuments(Protocol):
    """Documents that rows are compared with, see :class:`effx.encoding.EncodedDocuments`."""

    @property
    def ids(self) -> tuple[str, ...]: ...

    @property
    def vectors(self) -> np.ndarray | None: ...


class RowTokens(Protocol):
    """Tokens of rows, see :class:`effx.encoding.Encoded`."""

    @property
    def offsets(self) -> np.ndarray: ...

    @property
    def words(self) -> RowWords | None: ...

    @property
    def windows(self) -> RowWindows | None: ...

    @property
    def row_of(self) -> np.ndarray | None: ...

    @property
    def documents(self) -> RowDocuments | None: ...

    @property
    def own_documents(self) -> np.ndarray | None: ...


def _unchanged(labels: np.ndarray, predictions: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    return labels, predictions


def _restored(values: Sequence[Any], labels: Labels) -> np.ndarray:
    if any(isinstance(value, str | list | tuple) for value in values):
        raise ValueError("expected numbers")
    return np.array(values)


def _all_logits(logits: np.ndarray, rows: RowTokens) -> list[np.ndarray]:
    return list(logits)


@dataclass(frozen=True)
class Constant:
    """The best answer that is the same for every row, or for every word."""

    prediction: np.ndarray
    """Like the prediction of one row, or of one word."""
    words: str
    absent: int | None = None
    """Label of the columns in which a row has no word; None: rows are not lists of words."""
    of_each: bool = False
    """Whether a row has this prediction for each of its candidates."""

    def answers(self, labels: np.ndarray) -> np.ndarray:
        """Return this answer for every row of ``labels``."""
        if self.absent is not None:
            return np.where(labels == self.absent, self.absent, self.prediction)
        if self.of_each:
            answers = np.empty(len(labels), dtype=object)
            answers[:] = [(float(self.prediction),) * len(row) for row in labels]
            return answers
        return np.broadcast_to(self.prediction, (len(labels), *self.prediction.shape))


@dataclass(frozen=True)
class TaskKind:
    """A kind of task: a row of :data:`effx.specs.kinds.KINDS`."""

    name: str
    head: str
    """Type of the task head, a key of :data:`effx.models.heads.HEADS`."""
    output_names: tuple[str, ...]
    """Names of an engine's outputs: ``logits`` per row, several per token, or a vector per text."""
    metrics: tuple[str, ...]
    """Metrics of a user's task, the primary one first."""
    outputs: Callable[[Labels], int]
    """Labels -> width of the logits; 0: that of the encoder."""
    check_labels: Callable[[Labels], None]
    """Raises :class:`ValueError` for labels that no task of the kind has; called when a manifest is read."""
    describe: Callable[[str, Labels], str]
    """What a row holds, as ``one text``, and labels -> the kind in words, for the summary of the rows."""
    encode: Callable[[Labels, Sequence[Any], Where, Sequence[str] | None], tuple[np.ndarray, np.ndarray]]
    """Labels, values of the label's column, position of a row, names of the file's class numbers (None: it
    has none) -> indices of the rows with a label, and their labels: an array whose first axis is the rows.
    Raises :class:`DataError`."""
    summarize: Callable[[Labels, Sequence[np.ndarray]], str] | None
    """Labels, and those of the rows of each split -> the labels in a line; None: not summarised."""
    match_head: Callable[[Head, Labels, HeadSettings], HeadPlan]
    """A model's task head, labels, and what the user wants -> how the head serves a task. Raises
    :class:`effx.specs.heads.OtherHeadError`, or :class:`UsageError` for a wrong setting."""
    agreement: Callable[[np.ndarray, np.ndarray], float]
    """Predictions of a checkpoint and of its engine -> how far they agree, 1: the same; compared with the
    parity gate's ``label_agreement``."""
    agreement_words: str
    """What ``agreement`` is, in words, for readers of a model card."""
    least_agreement_of_int8: float | None = None
    """Agreement of an int8 or fp8 engine that is enough, where the limit for classes is too strict and the
    metric's loss is limited too; None: that of classes."""
    store: Callable[[np.ndarray], list[Any]] = lambda values: list(values.tolist())
    """Predictions or labels -> JSON, an entry per row."""
    restore: Callable[[Sequence[Any], Labels], np.ndarray] = _restored
    """The reverse of ``store``; raises :class:`ValueError` for what no task with these labels has."""
    predict: Callable[[np.ndarray], np.ndarray] | None = None
    """Logits [n, outputs] -> predictions, first axis n; None: predictions need the tokens of the rows."""
    predict_rows: Callable[[np.ndarray, RowTokens], np.ndarray] | None = None
    """Logits of all sequences [sequences, outputs], or of all their tokens [tokens, outputs], and the rows
    they belong to -> predictions, first axis n; None: ``predict`` needs the logits alone."""
    of_tokens: bool = False
    """Whether every token has logits."""
    form: str = "texts"
    """What a row is, one of :data:`effx.encoding.FORMS`: ``texts``, one or a pair; ``words``, a list with a
    label for each; ``windows``, a question with a context that is divided into windows; ``separate``, texts
    that are encoded apart; ``candidates``, a query and texts that are encoded with it; or ``documents``, a
    query that is compared with documents which all rows share."""
    query_is_text: bool = False
    """Whether a query is one text of a row: latency and energy are then per text."""
    of_numbers: bool = False
    """Whether a label is a number: then class names are refused."""
    pair_example: str | None = None
    """A row as JSON, for messages, of a kind whose rows need two texts; None: one text is enough."""
    one_value: bool = True
    """Whether a label or prediction is one class or number; otherwise results record the kind."""
    numbers: Callable[[np.ndarray, np.ndarray], tuple[np.ndarray, np.ndarray]] = _unchanged
    """Labels and predictions -> both as the arrays of numbers that metrics take, first axis n."""
    deciding: Callable[[np.ndarray, RowTokens], list[np.ndarray]] = _all_logits
    """Logits [n, outputs], or of all tokens [tokens, outputs], and the rows they belong to -> those of each
    row that decide its prediction. They are compared between batches and single queries."""
    group: Callable[[tuple[str, ...]], Hashable] = lambda texts: texts
    """Texts of a row -> what it has in common with rows that must not be divided from it."""
    columns: tuple[str, ...] = ()
    """Names of the texts' columns, by which rows of the kind are recognised together with ``label_column``;
    empty: usual names, or those that the user gives."""
    is_label: Callable[[Any], bool] | None = None
    """Whether a value is a label as only this kind has them, where the user names the columns."""
    max_length: int = 128
    """Tokens of a sequence at most, in training, if the user does not set it."""
    pipeline: str | None = None
    """``pipeline_tag`` of a model card on the hub; None: it has none."""
    gates: frozenset[str] = frozenset()
    """What the parity gate compares besides accuracy: ``classes``, that none is lost; ``metric``, the primary
    one; ``recall``, that of each class; ``cosine``, of the checkpoint's and the engine's vector of a text."""
    check_rows: Callable[[Texts, Sequence[Any], Where], None] | None = None
    """Texts of rows, values of the label's column, position of a row; raises :class:`DataError` where a label
    does not fit its text."""
    collect: Callable[[Texts, np.ndarray, Where], tuple[list[tuple[str, ...]], np.ndarray]] | None = None
    """Texts and labels of a file's rows, and their position -> those of the task's rows; None: they are the
    same. Raises :class:`DataError`."""
    same: Callable[[np.ndarray, np.ndarray, np.ndarray], np.ndarray] | None = None
    """Predictions, earlier ones for the same rows, and earlier ones for every row -> which rows have the same
    but for rounding, bool [n]; None: equal classes, or numbers within 1 % of their range."""
    label_scores: Callable[[np.ndarray, np.ndarray, Labels], dict[str, float | None]] | None = None
    """Labels, predictions and label names -> F1 of each label, None for one that neither has; None: a row has
    one class or number."""
    task_labels: Callable[[Labels], Labels] = lambda outputs: outputs
    """Names of a model's outputs -> the labels of its task, in the order that the kind needs."""
    label_column: str | None = None
    """Name of the label's column, unless the user gives another; those of the texts are then called as the
    task's columns. None: usual names, or those that the user gives."""
    agreement_metrics: tuple[str, ...] = ()
    """Metrics by which predictions are compared with those of a reference engine where the rows have no
    labels, the primary one first; empty: engines are not measured without labels."""
    constant: Callable[[np.ndarray, Labels], Constant] | None = None
    """Labels of the training rows, and label names -> the best constant answer; None: there is none."""
    has_classes: bool = True
    """Whether a prediction is right or wrong, so that engines are gated by the rows they get right."""
    loss: str | None = None
    """Training loss, a key of :data:`effx.models.losses.LOSSES`; None: not trained."""
    problem_type: str | None = None
    """``problem_type`` of a model's config in transformers; None: left as it is."""
    refused: Mapping[str, str] = field(default_factory=dict)
    """What is not supported -> why: ``training``, ``exits``, ``tokens``, ``profiling``, ``import-engine``."""

    @property
    def of_words(self) -> bool:
        """Whether a row is a list of words with a label for each."""
        return self.form == "words"

    @property
    def one_sequence_per_row(self) -> bool:
        """Whether the sequences of a training are its rows, and not the windows or candidates of a row."""
        return self.form not in ("windows", "candidates")

    def logits(self, outputs: Mapping[str, np.ndarray]) -> np.ndarray:
        """Return the logits of an engine: [batch, outputs], or of tokens [batch, length, outputs]."""
        arrays = [outputs[name] for name in self.output_names]
        return arrays[0] if len(arrays) == 1 else np.stack(arrays, axis=-1)

    def check_supported(self, what: str, task: str) -> None:
        """Raise :class:`UsageError` if the kind does not support ``what``.

        Args:
            what: a key of :attr:`refused`.
            task: name of the task, for the message.
        """
        if reason := self.refused.get(what):
            raise UsageError(f"task '{task}': {reason}.")

"""What was understood of a task's rows: kind, columns, labels, duplicates, overlap, baseline."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from effx import formatting
from effx.data.rows import Rows, UnlabelledRows
from effx.specs.tasks import Task


@dataclass(frozen=True)
class Baseline:
    """The score of a model that gives the same answer to every row."""

    answer: str
    """The most frequent class of the training rows, or their mean."""
    score: float
    """The task's primary metric on the validation rows."""


@dataclass(frozen=True)
class DataSummary:
    """What was understood of the rows of a task."""

    task: Task
    train: Rows
    validation: Rows
    duplicates: int
    """Training rows whose text occurs in an earlier training row."""
    contradictions: int
    """Those of them that have another label than the first row with that text."""
    overlap: int
    """Validation rows whose text is also a training row's."""
    baseline: Baseline
    truncation: list[str] = field(default_factory=list)
    """How many training rows are truncated, see :func:`truncation`."""

    def lines(self) -> list[str]:
        """Return the summary as a block of lines; the first is its title."""
        task, counts = (
            self.task,
            f"{len(self.train):,} training rows, {len(self.validation):,} validation rows",
        )
        lines = [f"data: task '{task.name}', {_kind(task)}; {counts}"]
        lines += _origin(self.train)
        if (origin := self.validation.origin) is not None and self.validation.source != self.train.source:
            lines += [f"  {self.validation.source}: {note}" for note in origin.notes]
        which = " (training + validation)" if task.behavior.has_classes else ""
        lines.append(f"  labels{which}: {_labels(task, self.train, self.validation)}")
        if self.duplicates:
            other = f", {self.contradictions} of them with another label" if self.contradictions else ""
            lines.append(f"  {self.duplicates:,} training rows repeat the text of another one{other}")
        if self.overlap:
            share = formatting.percent(self.overlap / len(self.validation))
            lines.append(
                f"  warning: {self.overlap:,} of {len(self.validation):,} validation rows ({share}) are also "
                "training rows: scores on them do not show how the model does on new texts"
            )
        lines += self.truncation
        lines.append(f"  baseline: always {self.baseline.answer}: {task.metric} {self.baseline.score:.4f}")
        return lines


def scored(task: Task, rows: Rows | UnlabelledRows) -> list[str]:
    """Return what was understood of rows that a model is scored on, as a block of lines."""
    lines = [f"data: task '{task.name}', {_kind(task)}; {len(rows):,} rows of {rows.source}"]
    if isinstance(rows, UnlabelledRows):
        return [*lines, *_origin(rows), "  the rows have no labels: accuracy is unknown"]
    if rows.origin is not None:
        lines += _origin(rows)
    if task.behavior.summarize is not None:
        lines.append(f"  labels: {_labels(task, rows)}")
    if task.behavior.has_classes:
        answer = baseline(task, rows.labels, rows.labels)
        lines.append(f"  baseline: always {answer.answer}: {task.metric} {answer.score:.4f}")
    return lines


def summarize(
    task: Task,
    train: Rows,
    validation: Rows,
    *,
    lengths: np.ndarray | None = None,
    max_length: int | None = None,
) -> DataSummary:
    """Return what was understood of the rows.

    Args:
        task: a task with classes or numbers.
        train: training rows, at least one.
        validation: validation rows, at least one.
        lengths: tokens of each training row, int64 [n], after truncation.
        max_length: maximum tokens of a row.
    """
    first: dict[tuple[str, ...], int] = {}
    duplicates = contradictions = 0
    for index, text in enumerate(train.texts):
        before = first.setdefault(text, index)
        if before != index:
            duplicates += 1
            contradictions += bool(np.any(train.labels[before] != train.labels[index]))
    return DataSummary(
        task,
        train,
        validation,
        duplicates,
        contradictions,
        sum(text in first for text in validation.texts),
        baseline(task, train.labels, validation.labels),
        [] if lengths is None or max_length is None else truncation("training rows", lengths, max_length),
    )


def truncation(rows: str, lengths: np.ndarray, max_length: int) -> list[str]:
    """Return how many rows reach the maximum length, as a line; an empty list: none does.

    Args:
        rows: what the rows are, as ``training rows``.
        lengths: tokens of each row, int64 [n], after truncation; empty: rows are not truncated.
        max_length: maximum tokens of a row.
    """
    share = float((lengths >= max_length).mean()) if len(lengths) else 0.0
    if not share:
        return []
    return [
        f"  {formatting.percent(share, 1)} of the {rows} reach {max_length} tokens, the maximum length; "
        "longer texts are truncated"
    ]


def baseline(task: Task, train: np.ndarray, validation: np.ndarray) -> Baseline:
    """Return the best single answer for the training labels, and its score on the validation labels."""
    constant = task.behavior.constant
    assert constant is not None, f"{task.kind} has no constant answer"
    answer = constant(train, task.labels)
    return Baseline(answer.words, task.score(validation, answer.answers(validation))[task.metric])


def _kind(task: Task) -> str:
    return task.behavior.describe("one text" if len(task.columns) == 1 else "a pair of texts", task.labels)


def _origin(rows: Rows | UnlabelledRows) -> list[str]:
    """Return columns, format and notes of files; an empty list for the demo corpus."""
    origin = rows.origin
    if origin is None:
        return []
    texts = " and ".join(f"'{name}'" for name in origin.columns)
    label = "" if origin.label_column is None else f", label '{origin.label_column}'"
    return [
        f"  columns: text {texts}{label}; {origin.format}",
        *(f"  {rows.source}: {note}" for note in origin.notes),
    ]


def _labels(task: Task, *splits: Rows) -> str:
    assert task.behavior.summarize is not None, f"the labels of {task.kind} are not summarised"
    return task.behavior.summarize(task.labels, [rows.labels for rows in splits])

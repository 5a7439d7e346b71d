"""The task table: columns, labels, metrics and where the rows come from, as data.

A new task is one line in ``TASKS``. The first metric is the primary one, the accuracy axis of
the frontiers; MRPC's and QQP's is accuracy, because its intervals and paired tests are exact, and F1 is
their second.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Annotated, Any

import numpy as np

from effx.errors import UsageError, unknown
from effx.specs.kinds import KINDS, TaskKind
from effx.specs.kinds.kind import RowTokens
from effx.specs.settings import OneOf
from effx.stats.metrics import METRICS

NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")
"""Names that users give; they become parts of folder names."""
NAMING = "names are letters, digits, '.', '_' and '-', at most 100, and begin with a letter or a digit."


@dataclass(frozen=True)
class Hub:
    """Where the Hugging Face hub keeps a task."""

    path: str
    config: str | None = None
    validation: str = "validation"
    columns: tuple[str, ...] = ()
    """The hub's names for the task's text columns, where they differ."""
    label: str = "label"


@dataclass(frozen=True)
class Task:
    """What is predicted and how it is scored."""

    name: str
    kind: Annotated[str, OneOf("task kind", tuple(KINDS))]
    columns: tuple[str, ...]
    """One text column, or two for a pair."""
    labels: tuple[str, ...]
    """Names in the order of the logits; empty where the kind has none."""
    metrics: tuple[str, ...]
    """The primary metric first."""
    hub: Hub | None = None

    @property
    def metric(self) -> str:
        """The primary metric's name."""
        return self.metrics[0]

    @property
    def behavior(self) -> TaskKind:
        """What distinguishes the task's kind."""
        return KINDS[self.kind]

    @property
    def outputs(self) -> int:
        """Width of the logits."""
        return self.behavior.outputs(self.labels)

    def predict(self, logits: np.ndarray, rows: RowTokens | None = None) -> np.ndarray:
        """Return what logits predict; the first axis is the rows.

        Args:
            logits: [n, outputs]; or of all sequences or tokens of the rows, where the kind needs ``rows``.
            rows: the tokens of the rows.
        """
        kind = self.behavior
        if kind.predict_rows is not None:
            assert rows is not None, f"predictions of {self.kind} need the tokens of the rows"
            return kind.predict_rows(logits, rows)
        assert kind.predict is not None, f"{self.kind} has no predictions"
        return kind.predict(logits)

    def score(self, labels: np.ndarray, predictions: np.ndarray) -> dict[str, float]:
        """Return every metric of the task, the primary one first."""
        arrays = self.behavior.numbers(labels, predictions)
        return {name: METRICS[name](*arrays) for name in self.metrics}

    def to_json(self) -> dict[str, Any]:
        """Return the task as manifests have it, without its location on the hub."""
        value = asdict(self)
        del value["hub"]
        return value

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> Task:
        """Rebuild a task from a manifest; a known task gets its location on the hub again."""
        known = TASKS.get(value["name"])
        return cls(
            name=value["name"],
            kind=value["kind"],
            columns=tuple(value["columns"]),
            labels=tuple(value["labels"]),
            metrics=tuple(value["metrics"]),
            hub=known.hub if known else None,
        )


def _glue(name: str, columns: tuple[str, ...], **more: Any) -> Hub:
    return Hub("nyu-mll/glue", name, columns=columns, **more)


_SENTENCE = ("sentence",)
_PAIR = ("sentence1", "sentence2")
_NLI = ("entailment", "neutral", "contradiction")
_ENTAILS = ("entailment", "not_entailment")
_QUESTIONS = ("question1", "question2")
_PREMISE = ("premise", "hypothesis")

TASKS: dict[str, Task] = {
    task.name: task
    for task in (
        Task("demo", "classification", _SENTENCE, ("negative", "positive"), ("accuracy",)),
        Task("sst2", "classification", _SENTENCE, ("negative", "positive"), ("accuracy",),
             _glue("sst2", _SENTENCE)),
        Task("cola", "classification", _SENTENCE, ("unacceptable", "acceptable"),
             ("matthews", "accuracy"), _glue("cola", _SENTENCE)),
        Task("mrpc", "classification", _PAIR, ("not_equivalent", "equivalent"),
             ("accuracy", "f1"), _glue("mrpc", _PAIR)),
        Task("qqp", "classification", _PAIR, ("not_duplicate", "duplicate"),
             ("accuracy", "f1"), _glue("qqp", _QUESTIONS)),
        Task("stsb", "regression", _PAIR, (), ("pearson", "spearman"), _glue("stsb", _PAIR)),
        Task("mnli", "classification", _PAIR, _NLI, ("accuracy",),
             _glue("mnli", _PREMISE, validation="validation_matched")),
        Task("qnli", "classification", _PAIR, _ENTAILS, ("accuracy",),
             _glue("qnli", ("question", "sentence"))),
        Task("rte", "classification", _PAIR, _ENTAILS, ("accuracy",), _glue("rte", _PAIR)),
        Task("snli", "classification", _PAIR, _NLI, ("accuracy",),
             Hub("stanfordnlp/snli", columns=_PREMISE)),
        Task("scitail", "classification", _PAIR, ("entails", "neutral"), ("accuracy",),
             Hub("allenai/scitail", "tsv_format", columns=_PREMISE)),
        Task("squad", "answer-span", ("question", "context"), (), ("answer_f1", "exact_match"),
             Hub("rajpurkar/squad", label="answers")),
    )
}  # fmt: skip


MISSING_NUMBERS: Mapping[str, float] = {"stsb": -1.0}
"""Task -> the number that marks a row without a label, as in the hub's test rows; its labels are 0 to 5."""


def get(name: str) -> Task:
    """Return a task of the table.

    Raises:
        UsageError: there is no such task; the message names the nearest one.
    """
    if name not in TASKS:
        error = unknown("task", name, TASKS)
        raise UsageError(f"{error} Any other task needs a folder with its rows.", settings="data")
    return TASKS[name]

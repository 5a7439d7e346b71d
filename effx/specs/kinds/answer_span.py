"""An answer in a text: start and end logits of every token. Exported and verified only."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any

import numpy as np

from effx.errors import DataError
from effx.specs.heads import Head, HeadPlan, HeadSettings, OtherHeadError
from effx.specs.kinds.kind import Labels, RowTokens, TaskKind, Where


def _check_labels(labels: Labels) -> None:
    if labels:
        raise ValueError(f"labels: expected none for answer-span, got {len(labels)}")


def _encode(
    labels: Labels, values: Sequence[Any], where: Where, class_names: Sequence[str] | None
) -> tuple[np.ndarray, np.ndarray]:
    """Return all rows, and object [n] tuples of accepted answers."""
    answers = np.empty(len(values), dtype=object)
    answers[:] = [_answers(value, where(index)) for index, value in enumerate(values)]
    return np.arange(len(values)), answers


def _answers(value: Any, where: str) -> tuple[str, ...]:
    texts = value.get("text") if isinstance(value, dict) else None
    if not texts or not all(isinstance(text, str) for text in texts):
        raise DataError(f"{where}: column 'answers': expected {{\"text\": [...]}} with at least one answer.")
    return tuple(texts)


def _match_head(head: Head, labels: Labels, settings: HeadSettings) -> HeadPlan:
    if head.kind != "answer-span":
        raise OtherHeadError(f"{head.reason} is not a head for answer-span")
    return HeadPlan("kept: start and end logits", keep=True)


def _predict(logits: np.ndarray, rows: RowTokens) -> np.ndarray:
    """Return the most likely start and end of each row, as a complex number."""
    pairs = itertools.pairwise(rows.offsets)
    return np.array([complex(*logits[start:end].argmax(0)) for start, end in pairs])


ANSWER_SPAN = TaskKind(
    name="answer-span",
    head="span",
    output_names=("start_logits", "end_logits"),
    metrics=("f1", "exact_match"),
    outputs=lambda labels: 2,
    check_labels=_check_labels,
    describe=lambda texts, labels: "answers in a text",
    encode=_encode,
    label_column="answers",
    file_patterns={"train": "train-v*.json*", "validation": "dev-v*.json*"},
    summarize=None,
    match_head=_match_head,
    predict_tokens=_predict,
    agreement=lambda expected, spans: float(np.mean(expected == spans)),
    has_classes=False,
    refused={
        "training": "question answering models can be exported, but not trained",
        "profiling": "question answering cannot be profiled yet; effx verify checks it",
        "exits": "exits are for classification and regression, not for question answering",
        "tokens": "token pruning drops tokens that may begin or end the answer",
    },
)

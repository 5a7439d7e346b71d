"""One number per row."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from effx.errors import DataError
from effx.specs.heads import Head, HeadPlan, HeadSettings, OtherHeadError
from effx.specs.kinds.kind import Constant, Labels, TaskKind, Where
from effx.specs.kinds.values import is_float, texts_of


def _check_labels(labels: Labels) -> None:
    if labels:
        raise ValueError(f"labels: expected none for regression, got {len(labels)}")


def _encode(
    labels: Labels, values: Sequence[Any], where: Where, class_names: Sequence[str] | None
) -> tuple[np.ndarray, np.ndarray]:
    texts = texts_of(values, where)
    for index, text in enumerate(texts):
        if not is_float(text):
            raise DataError(f"{where(index)}: label '{text}' is not a number.")
    return np.arange(len(texts)), np.array([float(text) for text in texts], dtype=np.float64)


def _summarize(labels: Labels, splits: Sequence[np.ndarray]) -> str:
    values = np.concatenate(splits)
    return f"numbers from {values.min():g} to {values.max():g}, mean {values.mean():g}"


def _match_head(head: Head, labels: Labels, settings: HeadSettings) -> HeadPlan:
    if head.kind != "regression":
        raise OtherHeadError(f"the task head ({head.reason}) is not one for regression")
    sigmoid = "; its score is the one before the sigmoid that sentence-transformers applies"
    return HeadPlan("kept: one value" + sigmoid * head.sigmoid, keep=True)


def _agreement(expected: np.ndarray, values: np.ndarray) -> float:
    """Return 1 - mean |difference| / spread."""
    spread = float(np.std(expected)) or 1.0
    return 1.0 - float(np.mean(np.abs(expected - values))) / spread


def _constant(train: np.ndarray, labels: Labels) -> Constant:
    mean = float(train.mean())
    return Constant(np.array(mean), f"{mean:.4g}")


REGRESSION = TaskKind(
    name="regression",
    head="sequence",
    output_names=("logits",),
    loss="mean-squared-error",
    problem_type="regression",
    metrics=("pearson", "spearman"),
    outputs=lambda labels: 1,
    check_labels=_check_labels,
    describe=lambda texts, labels: f"regression of {texts} (the labels are numbers to predict)",
    encode=_encode,
    summarize=_summarize,
    match_head=_match_head,
    predict=lambda logits: np.asarray(logits[:, 0], dtype=np.float64),
    agreement=_agreement,
    agreement_words="1 - the mean difference from the checkpoint's numbers, in standard deviations",
    constant=_constant,
    agreement_metrics=("agreement_pearson", "agreement_spearman"),
    has_classes=False,
    of_numbers=True,
)

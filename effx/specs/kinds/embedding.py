"""A vector per text (bi-encoder): pairs of texts with a score, which the cosine of their vectors predicts.

    sentence1  a plane takes off    sentence2  a jet starts    score  4.2    prediction  0.83

The two texts of a row are encoded separately, so a query is one text. The vector is the pooled output of the
last layer, divided by its norm (Reimers and Gurevych 2019, Sentence-BERT, section 3); there is no task head.
Labels and predictions are float64 [n]. They are compared by correlation, so scores may have any range.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from effx.errors import DataError
from effx.specs.heads import Head, HeadPlan, HeadSettings, OtherHeadError
from effx.specs.kinds.kind import Constant, Labels, RowTokens, TaskKind, Texts, Where
from effx.specs.kinds.regression import REGRESSION

EXAMPLE = '{"sentence1": "a plane takes off", "sentence2": "a jet starts", "label": 4.2}'


def _check_labels(labels: Labels) -> None:
    if labels:
        raise ValueError(f"labels: expected none for embedding, got {len(labels)}")


def _check_rows(texts: Texts, values: Sequence[Any], where: Where) -> None:
    for index, row in enumerate(texts):
        for number, text in enumerate(row, 1):
            if not text.strip():
                raise DataError(
                    f"{where(index)}: text {number} of the pair is empty: expected a row such as {EXAMPLE}."
                )


def cosines(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Return the cosine of each pair of vectors [n, width], float64 [n]; 0 for a vector of zeros."""
    first, second = first.astype(np.float64), second.astype(np.float64)
    norms = np.linalg.norm(first, axis=1) * np.linalg.norm(second, axis=1)
    return np.asarray((first * second).sum(axis=1) / np.where(norms > 0, norms, 1.0))


def _predict(vectors: np.ndarray, rows: RowTokens) -> np.ndarray:
    """Return the cosine of each row's two vectors, which follow each other in ``vectors`` [2 n, width]."""
    assert rows.row_of is not None and np.array_equal(rows.row_of, np.arange(len(vectors)) // 2)
    return cosines(vectors[0::2], vectors[1::2])


def _deciding(vectors: np.ndarray, rows: RowTokens) -> list[np.ndarray]:
    return list(_predict(vectors, rows)[:, None])


def _match_head(head: Head, labels: Labels, settings: HeadSettings) -> HeadPlan:
    if head.kind not in ("none", "embedding", "retrieval"):
        raise OtherHeadError(f"{head.reason} is a task head, and a model that embeds texts has none")
    return HeadPlan("none: the vector is the pooled output of the last layer", keep=True)


def _agreement(expected: np.ndarray, predicted: np.ndarray) -> float:
    """Return 1 - mean |difference| of the cosines."""
    return 1.0 - float(np.mean(np.abs(expected - predicted)))


EMBEDDING = TaskKind(
    name="embedding",
    head="embedding",
    output_names=("sentence_embedding",),
    loss="cosine-order",
    metrics=("spearman", "pearson"),
    outputs=lambda labels: 0,
    check_labels=_check_labels,
    describe=lambda texts, labels: "embedding of texts (the labels are scores of pairs)",
    encode=REGRESSION.encode,
    summarize=REGRESSION.summarize,
    match_head=_match_head,
    predict_rows=_predict,
    deciding=_deciding,
    form="separate",
    query_is_text=True,
    pair_example=EXAMPLE,
    check_rows=_check_rows,
    agreement=_agreement,
    agreement_words="1 - the mean difference of the cosines of pairs",
    constant=lambda train, labels: Constant(np.array(0.0), "the same cosine"),
    agreement_metrics=("agreement_spearman", "agreement_pearson"),
    has_classes=False,
    of_numbers=True,
    pipeline="sentence-similarity",
    gates=frozenset({"metric", "cosine"}),
    refused={
        "exits": "exit rules decide on a prediction, and a vector alone predicts nothing",
        "tokens": "mean pooling needs the outputs of all tokens, and token pruning drops some of them",
    },
)

"""Whether a model is better than the same answer for every row."""

from __future__ import annotations

from collections import Counter

import numpy as np

from effx.results import Run
from effx.stats.metrics import METRICS


def majority_score(run: Run) -> float | None:
    """Return the primary metric of always answering the most frequent class of the scored rows.

    None: the labels are numbers, for which a constant has no correlation, or the result has no labels.
    """
    accuracy = run.quality
    metric = METRICS[accuracy.metric]
    if not metric.of_classes or not accuracy.labels:
        return None
    label, _ = Counter(accuracy.labels).most_common(1)[0]
    labels = np.array(accuracy.labels)
    return metric(labels, np.full(len(labels), label))


def remark(run: Run) -> str | None:
    """Return that an engine is not better than the most frequent class; None: it is, or this is unknown."""
    score = majority_score(run)
    if score is None or run.quality.value > score:
        return None
    return (
        f"{run.name} is not better than always answering the most frequent class: {run.quality.metric} "
        f"{run.quality.value:.4f}, {score:.4f} without a model"
    )

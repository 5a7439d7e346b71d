"""Whether a model is better than the same answer for every row."""

from __future__ import annotations

import numpy as np

from effx.results import Run
from effx.specs.kinds import KINDS
from effx.stats.metrics import METRICS


def constant_predictions(run: Run) -> np.ndarray | None:
    """Return the predictions of always answering the most frequent class, or labels, of the scored rows.

    Shaped as :attr:`effx.results.Quality.prediction_array`. Of rows without labels, those that the reference
    engine predicts. None: the labels are numbers, for which a constant has no correlation, or answers to
    different questions, or the result has no predictions.
    """
    quality = run.quality
    metric = METRICS[quality.metric]
    if not metric.of_classes or metric.of_scores or not quality.labels:
        return None
    labels = quality.label_array
    constant = None if quality.kind is None else KINDS[quality.kind].constant
    if quality.label_names is not None and constant is not None:
        return np.asarray(constant(labels, tuple(quality.label_names)).answers(labels))
    classes, counts = np.unique(labels, return_counts=True)
    return np.full(len(labels), classes[counts.argmax()])


def majority_score(run: Run) -> float | None:
    """Return the primary metric of :func:`constant_predictions`; None: there are none."""
    predictions = constant_predictions(run)
    return None if predictions is None else METRICS[run.quality.metric](run.quality.label_array, predictions)


def remark(run: Run) -> str | None:
    """Return that an engine is not better than the most frequent class; None: it is, or this is unknown."""
    if run.withdrawn("quality"):
        return None
    score = majority_score(run)
    if score is None or run.quality.value > score:
        return None
    frequent = "class" if run.quality.label_names is None else "labels"
    if run.quality.reference is not None:
        return (
            f"{run.name}: {run.quality.metric} with {run.quality.reference.name} is {run.quality.value:.4f}; "
            f"always predicting the most frequent {frequent} of {run.quality.reference.name} has {score:.4f}"
        )
    return (
        f"{run.name} is not better than always predicting the most frequent {frequent}: {run.quality.metric} "
        f"{run.quality.value:.4f}, constant prediction {score:.4f}"
    )

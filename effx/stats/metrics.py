"""Metric functions: labels and predictions in, one number out.

Classification metrics take integer labels and predicted classes, regression metrics take
floats. Undefined cases (a constant prediction has no correlation) give 0.0, as GLUE scores them.
"""

from __future__ import annotations

import collections
import re
import string
import warnings
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

Metric = Callable[[np.ndarray, np.ndarray], float]


def accuracy(labels: np.ndarray, predictions: np.ndarray) -> float:
    """Return the share of equal entries, 0 to 1."""
    return float(np.mean(labels == predictions))


def f1(labels: np.ndarray, predictions: np.ndarray) -> float:
    """Return F1 of class 1, as GLUE scores MRPC and QQP."""
    from sklearn.metrics import f1_score

    return float(f1_score(labels, predictions, zero_division=0.0))


def macro_f1(labels: np.ndarray, predictions: np.ndarray) -> float:
    """Return the unweighted mean of the classes' F1."""
    from sklearn.metrics import f1_score

    return float(f1_score(labels, predictions, average="macro", zero_division=0.0))


def matthews(labels: np.ndarray, predictions: np.ndarray) -> float:
    """Return Matthews' correlation coefficient, -1 to 1."""
    from sklearn.metrics import matthews_corrcoef

    return float(matthews_corrcoef(labels, predictions))


def pearson(labels: np.ndarray, predictions: np.ndarray) -> float:
    """Return Pearson's correlation, -1 to 1."""
    from scipy.stats import pearsonr

    return _correlation(pearsonr, labels, predictions)


def spearman(labels: np.ndarray, predictions: np.ndarray) -> float:
    """Return Spearman's rank correlation, -1 to 1."""
    from scipy.stats import spearmanr

    return _correlation(spearmanr, labels, predictions)


METRICS: dict[str, Metric] = {
    "accuracy": accuracy,
    "f1": f1,
    "macro_f1": macro_f1,
    "matthews": matthews,
    "pearson": pearson,
    "spearman": spearman,
}


def exact_match(answers: Sequence[str], prediction: str) -> float:
    """Return 1.0 if the normalised prediction equals any normalised answer (SQuAD v1.1)."""
    return float(any(_normalise(answer) == _normalise(prediction) for answer in answers))


def token_f1(answers: Sequence[str], prediction: str) -> float:
    """Return the best bag-of-words F1 of the prediction against the answers (SQuAD v1.1)."""
    return max(_token_f1(_normalise(answer), _normalise(prediction)) for answer in answers)


ANSWER_METRICS: dict[str, Callable[[Sequence[str], str], float]] = {
    "f1": token_f1,
    "exact_match": exact_match,
}


def _correlation(function: Any, labels: np.ndarray, predictions: np.ndarray) -> float:
    if len(labels) < 2:
        return 0.0
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # constant input: nan, which is 0.0 by GLUE's rule
        value = float(function(labels, predictions).statistic)
    return 0.0 if np.isnan(value) else value


def _normalise(text: str) -> str:
    """Lower case, no punctuation, no articles, single spaces: the official SQuAD rule."""
    text = "".join(char for char in text.lower() if char not in string.punctuation)
    return " ".join(re.sub(r"\b(a|an|the)\b", " ", text).split())


def _token_f1(answer: str, prediction: str) -> float:
    answer_tokens, predicted_tokens = answer.split(), prediction.split()
    shared = sum((collections.Counter(answer_tokens) & collections.Counter(predicted_tokens)).values())
    if not shared:
        return 0.0
    precision, recall = shared / len(predicted_tokens), shared / len(answer_tokens)
    return 2 * precision * recall / (precision + recall)

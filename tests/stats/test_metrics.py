"""Metrics against hand-worked values and the definitions."""

from __future__ import annotations

import numpy as np
import pytest

from effx.stats import metrics


def test_classification_by_hand() -> None:
    labels, predictions = np.array([1, 1, 1, 0, 0, 0]), np.array([1, 1, 0, 0, 0, 1])
    assert metrics.accuracy(labels, predictions) == pytest.approx(4 / 6)
    assert metrics.f1(labels, predictions) == pytest.approx(2 / 3)
    # tp tn fp fn = 2 2 1 1: (4 - 1) / sqrt(3 * 3 * 3 * 3)
    assert metrics.matthews(labels, predictions) == pytest.approx(1 / 3)


def test_correlations_by_definition() -> None:
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=50), rng.normal(size=50)
    assert metrics.pearson(x, y) == pytest.approx(np.corrcoef(x, y)[0, 1])
    ranks = [np.argsort(np.argsort(values)) for values in (x, y)]
    assert metrics.spearman(x, y) == pytest.approx(np.corrcoef(*ranks)[0, 1])
    assert metrics.pearson(x, np.ones(50)) == 0.0
    assert metrics.pearson(x[:1], y[:1]) == metrics.spearman(x[:1], y[:1]) == 0.0  # one row has none


def test_answers_are_normalised_as_squad_does() -> None:
    assert metrics.exact_match(["the Eiffel Tower."], "eiffel tower") == 1.0
    assert metrics.exact_match(["Paris", "Lyon"], "Nice") == 0.0
    # {tower} shared; precision 1/2, recall 1/2
    assert metrics.token_f1(["Eiffel Tower"], "a tower block") == pytest.approx(0.5)

"""Resampling of examples against resampling one at a time, and its coverage."""

from __future__ import annotations

import numpy as np
import pytest

from effx.stats import bootstrap
from effx.stats.metrics import METRICS
from tests.stats.simulated import holds


@pytest.mark.parametrize(
    "name", [name for name in METRICS if not METRICS[name].of_tags and not METRICS[name].of_scores]
)
def test_interval_is_that_of_resamplings_one_at_a_time(name: str) -> None:
    metric = METRICS[name]
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 3 if name in ("macro_f1", "matthews") else 2, 40)
    a, b = (np.where(rng.random(40) < 0.7, labels, rng.permutation(labels)) for _ in range(2))
    if not metric.of_classes:
        labels, a, b = (np.round(rng.normal(size=40) + labels, 1) for _ in range(3))  # with ties
    rows = np.random.default_rng(0).integers(0, 40, (100, 40))
    of_a = np.array([metric(labels[drawn], a[drawn]) for drawn in rows])
    of_b = np.array([metric(labels[drawn], b[drawn]) for drawn in rows])
    expected = np.quantile(of_b - of_a, [0.025, 0.975])
    low, high = bootstrap.paired_difference(metric, labels, a, b, resamples=100)
    assert (low, high) == pytest.approx(expected) and low < high
    expected = np.quantile(of_a, [0.025, 0.975])
    assert bootstrap.metric_interval(metric, labels, a, resamples=100) == pytest.approx(expected)


def test_interval_does_not_depend_on_the_memory_it_may_use(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(0)
    labels, a, b = (rng.integers(0, 2, 60) for _ in range(3))
    at_once = bootstrap.paired_difference(METRICS["f1"], labels, a, b, resamples=100)
    monkeypatch.setattr(bootstrap, "_MOST_WEIGHTS", 7 * 60)
    assert bootstrap.paired_difference(METRICS["f1"], labels, a, b, resamples=100) == at_once


def test_metric_of_constant_predictions_is_zero() -> None:
    labels, right, constant = np.array([0, 1] * 20), np.array([0, 1] * 20), np.zeros(40, dtype=int)
    for name in ("matthews", "pearson", "f1"):
        interval = bootstrap.paired_difference(METRICS[name], labels, right, constant, resamples=50)
        assert interval == pytest.approx((-1.0, -1.0))


def test_paired_bootstrap_covers_a_difference_of_f1() -> None:
    f1, rng = METRICS["f1"], np.random.default_rng(0)

    def draw(n: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        labels = rng.integers(0, 2, n)
        a = np.where(rng.random(n) < 0.85, labels, 1 - labels)
        return labels, a, np.where(rng.random(n) < 0.1, 1 - a, a)

    labels, a, b = draw(2_000_000)
    truth = f1(labels, b) - f1(labels, a)
    intervals = [bootstrap.paired_difference(f1, *draw(400), resamples=250) for _ in range(600)]
    assert holds(sum(low <= truth <= high for low, high in intervals), 600)  # unpaired: 100 %


def test_interval_holds_the_value() -> None:
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 2, 300)
    predictions = np.where(rng.random(300) < 0.8, labels, 1 - labels)
    low, high = bootstrap.metric_interval(METRICS["matthews"], labels, predictions, resamples=200)
    assert low < METRICS["matthews"](labels, predictions) < high

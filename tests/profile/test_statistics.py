from __future__ import annotations

import numpy as np
import pytest

from effx import metrics
from effx.profile import statistics
from effx.results import latency_summary


def test_wilson_by_formula() -> None:
    n, k, z = 872, 752, 1.959963984540054
    p = k / n
    centre = (p + z * z / (2 * n)) / (1 + z * z / n)
    half = z / (1 + z * z / n) * np.sqrt(p * (1 - p) / n + z * z / (4 * n * n))
    assert statistics.wilson(k, n) == pytest.approx((centre - half, centre + half))


def test_block_interval_covers_the_median_of_correlated_blocks() -> None:
    """Samples inside a block share a level; resampling single samples would cover far less."""
    rng = np.random.default_rng(0)
    covered = 0
    for trial in range(100):
        levels = rng.normal(10, 1, 20)
        low, high = statistics.block_interval(
            [level + rng.normal(0, 0.1, 20) for level in levels], seed=trial
        )
        covered += low <= 10 <= high
    assert covered >= 88


def test_too_few_blocks_have_no_interval() -> None:
    assert statistics.block_interval([[1.0], [2.0]]) is None
    assert statistics.mean_interval([1.0]) is None


def test_bootstrap_metric_brackets_the_value() -> None:
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 2, 300)
    predictions = np.where(rng.random(300) < 0.8, labels, 1 - labels)
    low, high = statistics.bootstrap_metric(metrics.matthews, labels, predictions, resamples=200)
    assert low < metrics.matthews(labels, predictions) < high


def test_percentiles_are_refused_below_their_counts() -> None:
    assert latency_summary([[0.1] * 63])["p90"] is None
    assert latency_summary([[0.1] * 64])["p90"] == 0.1
    assert latency_summary([[0.1] * 661])["p99"] is None
    assert latency_summary([list(np.arange(662) / 1000)])["p99"] == 0.655

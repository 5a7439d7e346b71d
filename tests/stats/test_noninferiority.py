"""One-sided tests of a loss, against their intervals, exact sums and repetition."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from scipy import stats

from effx.stats import intervals, noninferiority, tests
from effx.stats.metrics import METRICS


@pytest.mark.parametrize("name", ["micro_f1", "macro_f1"])
def test_the_worst_case_of_label_sets_is_that_of_all_changes(name: str) -> None:
    labels = np.random.default_rng(3).random((9, 2)) < [0.6, 0.3]
    low, high = intervals.few_differing_interval(METRICS[name], labels, labels, labels, 0.9)
    unseen = math.ceil(float(stats.beta.ppf(0.9, 1, 9)) * 9)
    worst = 0.0
    for rows in itertools.combinations(range(9), unseen):
        for sets in itertools.product(itertools.product((False, True), repeat=2), repeat=unseen):
            changed = labels.copy()
            changed[list(rows)] = sets
            worst = min(worst, METRICS[name](labels, changed) - METRICS[name](labels, labels))
    assert (low, high) == (pytest.approx(worst), 0.0)
    bounds = noninferiority.bounds(METRICS[name], labels, labels, labels, 0.9)
    assert bounds == (low, high)
    assert noninferiority.p_value(METRICS[name], labels, labels, labels, -low) <= 0.11


@pytest.mark.parametrize("name", ["entity_f1", "entity_macro_f1", "tag_accuracy"])
def test_the_worst_case_of_tags_is_that_of_all_changes(name: str) -> None:
    labels = np.array([[1, 2], [0, 3], [3, 0], [0, 0], [1, 3], [0, -1]])
    low, high = intervals.few_differing_interval(METRICS[name], labels, labels, labels, 0.9)
    assert math.ceil(float(stats.beta.ppf(0.9, 1, 6)) * 6) == 2
    worst = 0.0
    for rows in itertools.combinations(range(6), 2):
        for tags in itertools.product(range(5), repeat=4):
            changed = labels.copy()
            changed[list(rows)] = np.reshape(tags, (2, 2))
            changed[labels < 0] = -1
            worst = min(worst, METRICS[name](labels, changed) - METRICS[name](labels, labels))
    assert (low, high) == (pytest.approx(worst), 0.0)


def test_p_values_of_accuracy_are_those_of_tangos_interval() -> None:
    rng = np.random.default_rng(0)
    for n, margin, level in ((300, 0.0, 0.05), (872, 0.01, 0.05), (872, 0.01, 0.00625), (9815, 0.005, 0.05)):
        only_a, only_b = rng.integers(0, n // 20, (2, 50))
        p_values = noninferiority.accuracy_p_values(only_a, only_b, n, margin)
        for a, b, p in zip(only_a.tolist(), only_b.tolist(), p_values, strict=True):
            low, _ = intervals.tango(a, b, n, confidence=1 - 2 * level)
            assert abs(low + margin) < 1e-6 or (p <= level) == (low >= -margin)


@pytest.mark.parametrize(("n", "margin"), [(300, 0.02), (872, 0.01), (9815, 0.005)])
def test_a_loss_of_the_margin_is_called_less_as_often_as_the_level_says(n: int, margin: float) -> None:
    """Summed over all likely counts: nothing is drawn."""
    for only_b in (0.0005, 0.005, 0.04):
        only_a = only_b + margin
        a = np.arange(stats.binom.ppf(1e-8, n, only_a), stats.binom.ppf(1 - 1e-8, n, only_a) + 1)[:, None]
        b = np.arange(stats.binom.ppf(1e-8, n, only_b), stats.binom.ppf(1 - 1e-8, n, only_b) + 1)[None]
        weights = stats.binom.pmf(a, n, only_a) * stats.binom.pmf(b, n - a, only_b / (1 - only_a))
        p_values = noninferiority.accuracy_p_values(a, b, n, margin)
        for level in (0.05, 0.05 / 8):
            assert weights[p_values <= level].sum() <= 1.1 * level


def test_other_metrics_use_the_bootstrap_or_the_worst_case() -> None:
    rng = np.random.default_rng(1)
    labels = rng.integers(0, 2, 600)
    a = np.where(rng.random(600) < 0.9, labels, 1 - labels)
    metric = METRICS["matthews"]
    few, many = a.copy(), a.copy()
    few[:4] = 1 - labels[:4]
    many[:60] = np.where(rng.random(60) < 0.6, labels[:60], 1 - labels[:60])
    for b in (few, many):
        for level in (0.05, 0.01):
            bounds = noninferiority.bounds(metric, labels, a, b, 1 - level)
            assert bounds is not None
            for margin, holds in ((-bounds[0] * 1.05 + 1e-4, True), (-bounds[0] * 0.9 - 1e-4, False)):
                assert (
                    noninferiority.p_value(metric, labels, a, b, max(margin, 0.0)) <= level * 1.1
                ) == holds
    assert noninferiority.p_value(METRICS["pearson"], labels, labels + 0.5, labels + 0.5, 0.01) == 1.0


def test_levels_of_several_tests() -> None:
    p_values = np.array([[0.001, 0.2], [0.02, 0.01], [0.03, 0.0001], [0.04, 0.5]])
    fallback = tests.fallback_levels(p_values, 0.05)
    assert fallback[:, 0] == pytest.approx([0.0125, 0.025, 0.0375, 0.05])  # each passes its level on
    assert fallback[:, 1] == pytest.approx([0.0125, 0.0125, 0.025, 0.0375])  # the first does not
    holm = tests.holm_levels(p_values, 0.05)
    for column, levels in zip(p_values.T, holm.T, strict=True):
        assert (column <= levels).tolist() == [p <= 0.05 for p in tests.holm(column)]


def test_few_true_hypotheses_are_rejected_by_either_rule() -> None:
    rng = np.random.default_rng(2)
    z = rng.standard_normal((8, 20000)) * np.sqrt(0.5) + np.sqrt(0.5) * rng.standard_normal(20000)
    z[:4] += 3.0  # four false hypotheses, the costliest; the others are true at the margin
    p_values = stats.norm.sf(z)
    for levels in (tests.fallback_levels(p_values, 0.05), tests.holm_levels(p_values, 0.05)):
        wrong = np.any((p_values <= levels)[4:], axis=0).mean()
        assert wrong <= 0.05
    right = [np.mean((p_values <= levels(p_values, 0.05))[3]) for levels in (tests.fallback_levels,
                                                                             tests.holm_levels)]  # fmt: skip
    assert right[0] > right[1]  # in order of cost, the cheapest good one is proven more often


@pytest.mark.parametrize("seed", range(12))
@pytest.mark.parametrize("name", ["macro_f1", "matthews", "f1"])
def test_one_unseen_difference_is_the_worst_and_the_best_of_all_changes(name: str, seed: int) -> None:
    rng = np.random.default_rng(seed)
    classes = 2 if name == "f1" else 3
    labels, before = rng.integers(0, classes, 9), rng.integers(0, classes, 9)
    after = before.copy()
    metric = METRICS[name]
    confidence = 0.1  # at which one of nine rows may differ
    low, high = intervals.few_differing_interval(metric, labels, before, after, confidence)
    changed = []
    for row in range(9):
        for target in set(labels.tolist()) | set(before.tolist()):
            other = after.copy()
            other[row] = target
            changed.append(metric(labels, other) - metric(labels, before))
    assert (low, high) == pytest.approx((min(changed), max(changed)))

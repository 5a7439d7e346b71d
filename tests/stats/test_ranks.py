"""Agreement of orders: Kendall's tau, and an interval that holds the truth although noise breaks orders."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from effx.stats import ranks


@pytest.mark.parametrize("seed", range(8))
def test_tau_is_that_of_scipy_with_and_without_ties(seed: int) -> None:
    rng = np.random.default_rng(seed)
    a, b = rng.integers(0, 3 + 4 * seed, (2, 12))
    assert ranks.kendall(a, b) == pytest.approx(stats.kendalltau(a, b).statistic)


def test_equal_values_have_no_order() -> None:
    assert ranks.kendall(np.ones(4), np.arange(4)) is None


@pytest.mark.parametrize("order", [[0, 1, 2, 3, 4, 5], [5, 4, 3, 2, 1, 0], [2, 0, 1, 5, 4, 3]])
@pytest.mark.parametrize("spacing", [0.3, 2.0, 8.0])
def test_interval_holds_the_true_tau(order: list[int], spacing: float) -> None:
    rng, studies, held = np.random.default_rng(0), 100, 0
    true_a, true_b = spacing * np.arange(6.0), spacing * np.array(order, dtype=float)
    truth = stats.kendalltau(true_a, true_b).statistic
    for _ in range(studies):
        measured = [true + rng.standard_normal(6) for true in (true_a, true_b)]
        draws = [each[:, None] + rng.standard_normal((6, 400)) for each in measured]
        interval = ranks.kendall_interval((measured[0], draws[0]), (measured[1], draws[1]))
        assert interval is not None
        held += interval[0] - 1e-9 <= truth <= interval[1] + 1e-9
    assert held / studies >= 0.95 - 2 * np.sqrt(0.95 * 0.05 / studies)


def test_interval_is_a_point_where_all_pairs_are_surely_ordered() -> None:
    values = np.arange(4.0)
    draws = values[:, None] + 1e-3 * np.random.default_rng(0).standard_normal((4, 200))
    other = draws[[1, 0, 2, 3]]
    expected = stats.kendalltau(values, values[[1, 0, 2, 3]]).statistic
    interval = ranks.kendall_interval((values, draws), (values[[1, 0, 2, 3]], other))
    assert interval == pytest.approx((expected, expected))


def test_single_readings_have_no_interval_and_exact_values_are_sure() -> None:
    values = np.array([3.0, 1.0, 2.0])
    draws = np.repeat(values[:, None], 10, axis=1)
    assert ranks.kendall_interval((values, draws), (values, draws)) is None
    assert ranks.kendall_interval((values, draws), (values, draws), exact=True) == (1.0, 1.0)


def test_equal_values_that_do_not_vary_are_open() -> None:
    """Such as losses of two techniques that changed no prediction."""
    values = np.array([0.0, 0.0, 5.0])
    draws = values[:, None] + np.array([0.0, 0.0, 1e-3])[:, None] * np.random.default_rng(0).normal(
        size=(3, 50)
    )
    assert ranks.kendall_interval((values, draws), (values, draws)) == pytest.approx((1 / 3, 1.0))

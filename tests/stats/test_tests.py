"""Tests of hypotheses against statsmodels and by hand."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats
from statsmodels.stats import contingency_tables, multitest

from effx.stats import tests
from tests.stats.simulated import paired_right


@pytest.mark.parametrize(("only_a", "only_b"), [(0, 0), (0, 5), (6, 16), (16, 6), (40, 41), (120, 3)])
def test_mcnemar_as_statsmodels_and_binomial_test(only_a: int, only_b: int) -> None:
    value = tests.mcnemar(*paired_right(872, only_a, only_b))
    expected = contingency_tables.mcnemar([[700, only_a], [only_b, 10]], exact=True).pvalue
    assert value == pytest.approx(expected, rel=1e-9)
    tail = stats.binom.cdf(min(only_a, only_b), only_a + only_b, 0.5)
    assert value == pytest.approx(min(1.0, 2 * tail), rel=1e-9)


def test_mcnemar_refuses_other_examples() -> None:
    with pytest.raises(ValueError, match="same examples"):
        tests.mcnemar(np.array([True]), np.array([True, False]))


def test_holm_of_what_is_known_does_not_count_the_others() -> None:
    found = tests.holm_of_known([None, 0.01, None, 0.04, 0.03])
    assert [found[0], found[2]] == [None, None]
    assert [found[1], found[3], found[4]] == pytest.approx([0.03, 0.06, 0.06])
    assert tests.holm_of_known([None]) == [None]


def test_holm_as_statsmodels_and_by_hand() -> None:
    assert tests.holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert tests.holm([]) == []
    rng = np.random.default_rng(0)
    for n in range(1, 20):
        values = rng.random(n) ** 3
        values[rng.integers(n)] = values[0]  # a tie
        expected = multitest.multipletests(values, method="holm")[1]
        assert tests.holm(values.tolist()) == pytest.approx(expected)


def test_normal_two_sided_as_scipy() -> None:
    assert tests.normal_two_sided(0.0, 1.0) == 1.0
    for z in (-2.5, 0.7, 4.0):
        assert tests.normal_two_sided(0.3 * z, 0.3) == pytest.approx(2 * stats.norm.cdf(-abs(z)))


def test_student_two_sided_is_that_of_scipy() -> None:
    values = np.array([0.3, 1.4, 0.9, -0.2, 0.8])
    error = values.std(ddof=1) / np.sqrt(len(values))
    expected = stats.ttest_1samp(values, 0.0).pvalue
    assert tests.student_two_sided(values.mean(), error, 4) == pytest.approx(expected)
    assert tests.student_two_sided(1.0, 0.5, np.inf) == pytest.approx(tests.normal_two_sided(1.0, 0.5))

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from effx.stats.runs import Spread, paired_test, spread_ratio


def test_spread_and_paired_test_equal_the_textbook_formulas() -> None:
    full, other = [0.80, 0.82, 0.79, 0.81], [0.83, 0.82, 0.82, 0.83]
    spread = Spread.of(full)
    assert (spread.mean, spread.low, spread.high, spread.n) == (pytest.approx(0.805), 0.79, 0.82, 4)
    assert spread.std == pytest.approx(np.sqrt(sum((x - 0.805) ** 2 for x in full) / 3))
    differences = np.subtract(other, full)
    t = differences.mean() / (differences.std(ddof=1) / 2)
    result = paired_test(full, other)
    assert result.p == pytest.approx(2 * stats.t.sf(abs(t), 3))
    assert result.difference == pytest.approx(0.02)
    assert paired_test([0.8], [0.9]).p is None
    assert "same for every seed" in str(paired_test([0.5, 0.6], [0.6, 0.7]).reason)
    assert Spread.of([0.5]).std is None


def test_the_interval_of_the_ratio_of_spreads_covers_the_truth() -> None:
    rng, covered, p_values, trials = np.random.default_rng(1), 0, [], 2000
    for _ in range(trials):
        ratio = spread_ratio(Spread.of(rng.normal(0, 2, 5).tolist()), Spread.of(rng.normal(0, 1, 5).tolist()))
        assert ratio is not None and ratio.low is not None and ratio.high is not None
        covered += ratio.low <= 2 <= ratio.high
        same = spread_ratio(Spread.of(rng.normal(0, 1, 5).tolist()), Spread.of(rng.normal(0, 1, 5).tolist()))
        assert same is not None and same.p is not None
        p_values.append(same.p)
    assert covered / trials == pytest.approx(0.95, abs=0.015)
    assert stats.kstest(p_values, "uniform").pvalue > 0.001


def test_one_seed_and_equal_scores_have_no_ratio() -> None:
    assert spread_ratio(Spread.of([0.8]), Spread.of([0.9])) is None
    ratio = spread_ratio(Spread.of([0.8, 0.9]), Spread.of([0.7, 0.7]))
    assert ratio is not None and ratio.ratio is None

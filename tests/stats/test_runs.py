from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from effx.stats.runs import Spread, paired_test


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

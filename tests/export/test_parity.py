from __future__ import annotations

import numpy as np
import pytest

from effx.export import parity
from effx.export.parity import Reference
from effx.specs.tasks import Task

PRICE = Task("price", "regression", ("sentence",), (), ("pearson", "spearman"))


@pytest.mark.parametrize(
    ("magnitude", "difference", "passed"),
    [(1.0, 9e-5, True), (1.0, 2e-4, False), (20_000.0, 0.004, True), (20_000.0, 0.05, False)],
)
def test_the_tolerance_grows_with_logits_beyond_the_rounding_of_float32(
    magnitude: float, difference: float, passed: bool
) -> None:
    expected = magnitude * np.linspace(0.5, 1.0, 16, dtype=np.float64)[:, None]
    rows = parity.random_rows(16, 100, 8, 0)
    reference = Reference(rows, expected, None, None, "random")
    answers = expected + difference * np.where(np.arange(16) % 2, 1, -1)[:, None]
    assert parity.compare(reference, answers, None, PRICE, "fp32").passed is passed

"""Agreement of two rankings: the share of pairs of candidates in the same order."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from effx.specs.kinds import KINDS
from effx.specs.kinds.values import objects

AGREEMENT = KINDS["ranking"].agreement


def test_agreement_is_the_share_of_pairs_in_the_same_order() -> None:
    rng = np.random.default_rng(0)
    before = [tuple(rng.permutation(8).astype(float)) for _ in range(5)]
    after = [tuple(rng.permutation(8).astype(float)) for _ in range(5)]
    shares = [
        np.mean([(a[i] > a[j]) == (b[i] > b[j]) for i, j in itertools.combinations(range(8), 2)])
        for a, b in zip(before, after, strict=True)
    ]
    assert AGREEMENT(objects(before), objects(after)) == pytest.approx(np.mean(shares))


def test_rounding_does_not_change_the_order_of_equal_candidates() -> None:
    equal = objects([(0.5, 0.5, 2.0, 2.0 + 1e-7)])
    assert AGREEMENT(equal, objects([(0.5 + 6e-8, 0.5, 2.0, 2.0 - 2e-7)])) == 1.0
    assert AGREEMENT(equal, objects([(0.5, 0.5, 0.1, 2.0)])) == pytest.approx(4 / 6)

"""Which layers remain: lists written by hand from Sajjad et al. 2020, section 3."""

from __future__ import annotations

import pytest

from effx.specs.layer_reduction import CONTRIBUTION, STRATEGIES, remaining


@pytest.mark.parametrize(
    ("strategy", "keep", "dropped"),
    [  # layers of a 12-layer model, from 1
        ("top", 10, {11, 12}), ("top", 8, {9, 10, 11, 12}), ("top", 6, {7, 8, 9, 10, 11, 12}),
        ("bottom", 10, {1, 2}), ("bottom", 8, {1, 2, 3, 4}), ("bottom", 6, {1, 2, 3, 4, 5, 6}),
        ("odd-alternate", 10, {9, 11}), ("odd-alternate", 8, {5, 7, 9, 11}),
        ("odd-alternate", 6, {1, 3, 5, 7, 9, 11}),
        ("even-alternate", 10, {10, 12}), ("even-alternate", 8, {6, 8, 10, 12}),
        ("even-alternate", 6, {2, 4, 6, 8, 10, 12}),
        ("symmetric", 10, {6, 7}), ("symmetric", 8, {5, 6, 7, 8}), ("symmetric", 6, {4, 5, 6, 7, 8, 9}),
        # fewer than half remain: what is left is counted from 1 again
        ("odd-alternate", 3, {1, 3, 5, 7, 9, 11, 2, 6, 10}), ("odd-alternate", 4, {1, 3, 5, 7, 9, 11, 6, 10}),
        ("even-alternate", 3, {2, 4, 6, 8, 10, 12, 3, 7, 11}),
        # an odd number remains: one more at the bottom
        ("symmetric", 7, {5, 6, 7, 8, 9}), ("symmetric", 1, set(range(2, 13))),
    ],
)  # fmt: skip
def test_layers_of_a_model_of_twelve(strategy: str, keep: int, dropped: set[int]) -> None:
    assert [position + 1 for position in remaining(strategy, 12, keep)] == sorted(set(range(1, 13)) - dropped)


@pytest.mark.parametrize("strategy", [name for name in STRATEGIES if name != CONTRIBUTION])
def test_as_many_layers_remain_as_wanted(strategy: str) -> None:
    for layers in range(1, 26):
        for keep in range(1, layers + 1):
            kept = remaining(strategy, layers, keep)
            assert len(set(kept)) == keep and sorted(kept) == kept and 0 <= kept[0] <= kept[-1] < layers


def test_the_most_similar_layers_are_dropped_and_of_equal_ones_the_upper() -> None:
    similarity = [0.2, 0.9, 0.5, 0.9, 0.7, 0.9]
    assert remaining(CONTRIBUTION, 6, 5, similarity) == [0, 1, 2, 3, 4]
    assert remaining(CONTRIBUTION, 6, 4, similarity) == [0, 1, 2, 4]
    assert remaining(CONTRIBUTION, 6, 3, similarity) == [0, 2, 4]
    assert remaining(CONTRIBUTION, 6, 1, similarity) == [0]

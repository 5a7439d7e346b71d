"""Choices under a budget against exhaustive search, and the random search over coefficients."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from effx.errors import UsageError
from effx.optimize import budget

TABLES = st.integers(0, 10_000).flatmap(
    lambda seed: st.tuples(st.just(seed), st.integers(1, 5), st.integers(1, 6), st.floats(0.05, 1.1))
)


def tables(seed: int, parts: int, options: int) -> tuple[list[np.ndarray], list[np.ndarray]]:
    rng = np.random.default_rng(seed)
    sizes = rng.integers(1, options + 1, parts)
    costs = [np.round(rng.random(size), 2) for size in sizes]  # rounded, so that there are ties
    return costs, [np.round(rng.random(size), 2) for size in sizes]


def total(groups: list[np.ndarray], options: list[int] | tuple[int, ...]) -> float:
    return float(sum(group[option] for group, option in zip(groups, options, strict=True)))


@settings(max_examples=200, deadline=None)
@given(TABLES)
def test_choice_equals_exhaustive_search(case: tuple[int, int, int, float]) -> None:
    seed, parts, options, share = case
    costs, losses = tables(seed, parts, options)
    limit = share * sum(float(group.max()) for group in costs)
    every = [
        choice for choice in itertools.product(*(range(len(group)) for group in costs))
        if total(costs, choice) <= limit * (1 + 1e-9)
    ]  # fmt: skip
    chosen = budget.choose(costs, losses, limit)
    if not every:
        assert chosen is None
        return
    assert chosen is not None
    assert total(costs, chosen) <= limit * (1 + 1e-9)
    assert total(losses, chosen) == pytest.approx(min(total(losses, choice) for choice in every))


@settings(max_examples=100, deadline=None)
@given(st.integers(0, 10_000), st.integers(1, 30), st.integers(1, 40), st.floats(0.0, 1.0))
def test_no_choice_exceeds_the_budget_when_sums_are_thinned(
    seed: int, parts: int, options: int, share: float
) -> None:
    rng = np.random.default_rng(seed)
    costs = [rng.random(options) for _ in range(parts)]
    losses = [rng.random(options) for _ in range(parts)]
    least = sum(float(group.min()) for group in costs)
    limit = least + share * sum(float(group.max()) for group in costs)
    chosen = budget.choose(costs, losses, limit, max_sums=50)
    assert chosen is not None
    assert total(costs, chosen) <= limit * (1 + 1e-9)


def test_thinning_costs_little() -> None:
    rng = np.random.default_rng(3)
    costs = [np.linspace(0, 1, 30) ** rng.uniform(0.8, 1.2) for _ in range(12)]
    losses = [(1 - group) ** rng.uniform(1, 3) for group in costs]
    exact = budget.choose(costs, losses, 5.0, max_sums=10**7)
    thinned = budget.choose(costs, losses, 5.0, max_sums=1000)
    assert exact is not None and thinned is not None
    assert total(losses, thinned) <= 1.01 * total(losses, exact)


def test_search_finds_the_part_that_counts() -> None:
    """Losses look alike, but the whole model suffers from the first part alone."""
    costs = [np.array([1.0, 0.0])] * 6
    losses = [np.array([[0.0], [1.0]]), *[np.array([[0.0], [1.01]])] * 5]
    calls: list[tuple[int, ...]] = []

    def score(options: tuple[int, ...]) -> float:
        calls.append(options)
        return 100.0 * options[0] + sum(options[1:])

    found = budget.search(costs, losses, 3.0, score, candidates=200)
    assert found.options[0] == 0
    assert found.score == 3.0
    assert calls[0][0] == 1  # with equal coefficients, the first part would be removed
    assert len(calls) == len(set(calls))


def test_search_is_reproducible() -> None:
    costs, plain = tables(1, 5, 6)
    losses = [np.column_stack([loss, loss**2]) for loss in plain]
    limit = 0.6 * sum(float(group.max()) for group in costs)
    runs = [
        budget.search(costs, losses, limit, lambda options: float(sum(options) % 7), candidates=50, seed=4)
        for _ in range(2)
    ]
    assert runs[0] == runs[1]


def test_unreachable_budget_is_refused() -> None:
    with pytest.raises(UsageError, match=r"a cost of 0\.5 cannot be reached: the least possible is 1\."):
        budget.search(
            [np.array([1.0])], [np.array([[0.0]])], 0.5, lambda options: 0.0, candidates=1
        )  # fmt: skip

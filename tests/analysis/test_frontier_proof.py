"""Proofs on draws whose truth is known."""

from __future__ import annotations

import numpy as np
import pytest

from effx.analysis import frontier_proof, pareto


def measured(rng: np.random.Generator, truth: np.ndarray, error: float, resamples: int = 500) -> np.ndarray:
    """Return draws [engines, resamples, 2] around estimates, off by ``error`` in the first objective."""
    estimates = truth[:, 0] + error * rng.standard_normal(len(truth))
    gains = estimates[:, None] + error * rng.standard_normal((len(truth), resamples))
    costs = np.broadcast_to(truth[:, 1:], gains.shape)
    return np.stack([gains, costs], axis=-1)


def proofs(draws: np.ndarray) -> list[str | None]:
    best = pareto.non_dominated(draws.mean(axis=1))
    return frontier_proof.prove(draws, best, np.arange(len(draws)))  # type: ignore[return-value]


def test_clear_differences_are_proven() -> None:
    truth = np.array([[0.3, 1.0], [0.2, 2.0], [0.4, 3.0], [0.1, 4.0]])  # the third is dominated
    draws = measured(np.random.default_rng(0), truth, 0.005)
    assert proofs(draws) == ["on", "on", "dominated", "on"]


def test_nothing_is_proven_of_engines_within_the_noise_except_of_the_cheapest() -> None:
    truth = np.array([[0.2, 1.0], [0.2, 2.0], [0.2, 3.0]])
    assert proofs(measured(np.random.default_rng(1), truth, 0.01)) == ["on", None, None]


def test_equal_engines_do_not_dominate_each_other() -> None:
    draws = np.ones((2, 100, 2))
    assert frontier_proof.prove(draws, np.array([True, True]), np.arange(2)) == [None, None]
    assert frontier_proof.prove(draws[:1], np.array([True]), np.arange(1)) == ["on"]


@pytest.mark.parametrize("spread", [0.0, 0.005])
def test_at_most_five_percent_of_frontiers_have_a_wrong_proof(spread: float) -> None:
    """Eight engines that are equally good, or differ by less than the noise; cost differs."""
    rng = np.random.default_rng(2)
    wrong = 0
    for _ in range(300):
        truth = np.stack([0.2 + spread * rng.standard_normal(8), np.arange(8.0)], axis=-1)
        on = pareto.non_dominated(truth)
        given = proofs(measured(rng, truth, 0.01, 200))
        wrong += any(
            proof not in (None, "on" if true else "dominated") for proof, true in zip(given, on, strict=True)
        )
    assert wrong <= 300 * 0.05 + 2 * np.sqrt(300 * 0.05 * 0.95)

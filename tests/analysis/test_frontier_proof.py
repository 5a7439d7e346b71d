"""Proofs on draws whose truth is known."""

from __future__ import annotations

import numpy as np
import pytest

from effx.analysis import frontier_proof, pareto
from effx.analysis.frontier import frontier
from effx.analysis.frontier_proof import Evidence
from effx.results import Run
from tests.analysis.simulated_run import simulated_run


def measured(rng: np.random.Generator, truth: np.ndarray, error: float, resamples: int = 500) -> np.ndarray:
    """Return draws [engines, resamples, 2] around estimates, off by ``error`` in the first objective."""
    estimates = truth[:, 0] + error * rng.standard_normal(len(truth))
    gains = estimates[:, None] + error * rng.standard_normal((len(truth), resamples))
    costs = np.broadcast_to(truth[:, 1:], gains.shape)
    return np.stack([gains, costs], axis=-1)


def proofs(draws: np.ndarray) -> list[str | None]:
    best = pareto.non_dominated(draws.mean(axis=1))
    return frontier_proof.prove(draws, best, np.arange(len(draws)), of_rows(len(draws)))  # type: ignore[return-value]


def of_rows(engines: int) -> Evidence:
    """Return evidence of two objectives that are not of rounds, from one session."""
    return Evidence(np.full(2, np.inf), np.array([False, False]), np.zeros(engines, dtype=int))


def test_clear_differences_are_proven() -> None:
    truth = np.array([[0.3, 1.0], [0.2, 2.0], [0.4, 3.0], [0.1, 4.0]])  # the third is dominated
    draws = measured(np.random.default_rng(0), truth, 0.005)
    assert proofs(draws) == ["on", "on", "dominated", "on"]


def test_nothing_is_proven_of_engines_within_the_noise_except_of_the_cheapest() -> None:
    truth = np.array([[0.2, 1.0], [0.2, 2.0], [0.2, 3.0]])
    assert proofs(measured(np.random.default_rng(1), truth, 0.01)) == ["on", None, None]


def test_equal_engines_do_not_dominate_each_other() -> None:
    draws = np.ones((2, 100, 2))
    both = np.array([True, True])
    assert frontier_proof.prove(draws, both, np.arange(2), of_rows(2)) == [None, None]
    assert frontier_proof.prove(draws[:1], both[:1], np.arange(1), of_rows(1)) == ["on"]


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


def equally_fast(engines: int, rounds: int, rng: np.random.Generator) -> list[Run]:
    """Return results of one session whose engines are equally fast, and surely differ in accuracy."""
    order, runs = rng.permutation(engines), []
    for number in range(engines):
        run = simulated_run(f"engine{number}", wrong=range(10 * int(order[number])), rounds=rounds, queries=3)
        for workload in run.workloads:
            for block, factor in zip(workload.blocks_s, 1 + 0.02 * rng.standard_normal(rounds), strict=True):
                block[:] = [0.01 * factor] * len(block)
        runs.append(run)
    return runs


@pytest.mark.parametrize(("engines", "rounds"), [(10, 5), (20, 20)])
def test_engines_of_equal_speed_are_seldom_proven_to_be_dominated(engines: int, rounds: int) -> None:
    """The luckiest of many are on the frontier, and few rounds spread less than they should.

    Any engine may truly be the least bit faster than the others, so none is dominated.
    """
    rng, studies = np.random.default_rng(3), 60
    wrong = 0
    for _ in range(studies):
        found = frontier(equally_fast(engines, rounds, rng), ("quality", "latency_mean"))
        wrong += any(point.proven == "dominated" for point in found.points)
    assert wrong <= studies * 0.05 + 2 * np.sqrt(studies * 0.05 * 0.95)


def test_times_of_different_sessions_prove_nothing_and_scores_do() -> None:
    """An engine that is faster and more accurate in another session may only have met a faster machine."""
    slow = simulated_run("slow", wrong=range(40), seconds=0.02)
    for session, dominated in (("s", "dominated"), ("later", None)):
        fast = simulated_run("fast", seconds=0.01, session=session)
        points = {point.run.name: point.proven for point in frontier([slow, fast]).points}
        assert points == {"slow": dominated, "fast": "on"}  # of the accuracy, on the same rows

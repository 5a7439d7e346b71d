"""Tests of engines in a fixed order: order, stopping, and how often a promise is broken."""

from __future__ import annotations

import numpy as np
import pytest

from effx.analysis.fixed_sequence import Choosing, Outcome, State, prove
from effx.stats import noninferiority
from effx.stats.metrics import METRICS

ACCURACY = METRICS["accuracy"]


def predictions(labels: np.ndarray, wrong: list[int]) -> np.ndarray:
    result = labels.copy()
    result[wrong] = 1 - result[wrong]
    return result


def outcomes(
    labels: np.ndarray, engines: list[np.ndarray], costs: list[float], choosing: Choosing | None = None
) -> list[Outcome]:
    return prove(
        ACCURACY, labels, labels, engines, costs, 10.0, max_drop=0.02, confidence=0.95, choosing=choosing
    )


def test_tests_go_from_the_costliest_engine_to_the_first_that_fails() -> None:
    labels = np.arange(800) % 2
    wrong = [0, 4, 60, 4]  # the third loses 7.5 points
    engines = [predictions(labels, list(range(count))) for count in wrong]
    found = outcomes(labels, engines, [9.0, 8.0, 7.0, 6.0])
    assert [each.state for each in found] == [
        State.PROVEN, State.PROVEN, State.NOT_PROVEN, State.NOT_TESTED,
    ]  # fmt: skip
    count = noninferiority.fixed_sequence(ACCURACY, labels, labels, np.array(engines), 0.02, 0.05)
    assert count == 2
    assert [each.difference for each in found] == pytest.approx([0.0, -0.005, -0.075, -0.005])
    assert all(each.chosen_on is None for each in found)


def test_an_engine_that_costs_as_much_as_the_baseline_is_not_tested() -> None:
    labels = np.arange(800) % 2
    found = outcomes(labels, [labels, labels], [10.0, 11.0])
    assert [each.state for each in found] == [State.NOT_CHEAPER] * 2


def test_an_engine_that_a_cheaper_one_clearly_beats_on_other_rows_is_not_tested() -> None:
    """The second engine, worse and costlier than the third, would end the tests if it were tested."""
    labels, others = np.arange(800) % 2, np.arange(400) % 2
    bad = predictions(labels, list(range(60)))
    engines = [labels, bad, labels]
    assert [each.state for each in outcomes(labels, engines, [9.0, 8.0, 7.0])][2] is State.NOT_TESTED
    wrong = ([0], list(range(40)), [1, 2])
    choosing = Choosing(others, others, [predictions(others, each) for each in wrong], [True] * 3)
    found = outcomes(labels, engines, [9.0, 8.0, 7.0], choosing)
    assert [each.state for each in found] == [State.PROVEN, State.BEATEN, State.PROVEN]
    assert [each.chosen_on for each in found] == pytest.approx([-0.0025, -0.1, -0.005])


def test_an_engine_that_a_cheaper_one_beats_by_less_than_the_noise_is_tested() -> None:
    labels, others = np.arange(800) % 2, np.arange(400) % 2
    wrong = (range(10), range(6, 15))  # one row of 13 that differ
    choosing = Choosing(others, others, [predictions(others, list(each)) for each in wrong], [True] * 2)
    found = outcomes(labels, [labels, labels], [9.0, 8.0], choosing)
    assert [each.state for each in found] == [State.PROVEN, State.PROVEN]
    wrong = (range(10), range(0))
    choosing = Choosing(others, others, [predictions(others, list(each)) for each in wrong], [True] * 2)
    found = outcomes(labels, [labels, labels], [9.0, 8.0], choosing)
    assert [each.state for each in found] == [State.BEATEN, State.PROVEN]


def test_an_engine_that_may_have_been_trained_on_the_rows_beats_no_other() -> None:
    labels, others = np.arange(800) % 2, np.arange(400) % 2
    bad = predictions(labels, list(range(60)))
    on_others = [predictions(others, list(range(30))), others]  # the second looks perfect there
    for may_beat, expected in ((False, State.PROVEN), (True, State.BEATEN)):
        choosing = Choosing(others, others, on_others, [True, may_beat])
        found = outcomes(labels, [labels, bad], [9.0, 8.0], choosing)
        assert [each.state for each in found] == [expected, State.NOT_PROVEN]


def test_the_standard_error_is_that_of_the_paired_difference() -> None:
    """Of n rows, b are right for one engine alone, c for the other: sqrt((b + c - (b - c)^2 / n)) / n."""
    labels, others = np.arange(800) % 2, np.arange(1000) % 2
    beaten = []
    for extra in range(20):
        wrong = (range(20 + extra), range(20 + extra, 40 + extra))
        choosing = Choosing(others, others, [predictions(others, list(each)) for each in wrong], [True] * 2)
        found = outcomes(labels, [labels, labels], [9.0, 8.0], choosing)
        only, other = 20 + extra, 20
        error = np.sqrt(only + other - (only - other) ** 2 / 1000) / 1000
        if abs((only - other) / 1000 - error) > 0.0005:  # the error is resampled
            assert (found[0].state is State.BEATEN) == ((only - other) / 1000 > error)
            beaten.append(found[0].state is State.BEATEN)
    assert len(set(beaten)) == 2


@pytest.mark.parametrize("with_choosing", [False, True])
def test_a_promise_is_broken_in_at_most_5_percent(with_choosing: bool) -> None:
    """Six engines truly lose 2.5 points, more than the limit of 2, each on rows of its own."""
    rng = np.random.default_rng(0)
    sessions, broken = 300, 0
    costs = [9.0, 8.0, 7.0, 6.0, 5.0, 4.0]

    def drawn(n: int) -> tuple[np.ndarray, np.ndarray, list[np.ndarray]]:
        before = (rng.random(n) < 0.005).astype(int)  # only the engine is right, about
        return np.zeros(n, dtype=int), before, [(rng.random(n) < 0.03).astype(int) for _ in costs]

    for _ in range(sessions):
        labels, before, engines = drawn(700)
        choosing = Choosing(*drawn(300), [True] * len(costs)) if with_choosing else None
        found = prove(
            ACCURACY, labels, before, engines, costs, 10.0, max_drop=0.02, confidence=0.95, choosing=choosing
        )
        broken += any(each.state is State.PROVEN for each in found)
    assert broken / sessions <= 0.05 + 2 * np.sqrt(0.05 * 0.95 / sessions)

"""Testing along the frontier: order, stopping, and how often a promise is broken."""

from __future__ import annotations

import numpy as np
import pytest

from effx.analysis.pareto_testing import LEAST_CHOOSING_ROWS, Outcome, Split, State, prove
from effx.stats import noninferiority
from effx.stats.metrics import METRICS

ACCURACY = METRICS["accuracy"]


def predictions(labels: np.ndarray, wrong: list[int]) -> np.ndarray:
    result = labels.copy()
    result[wrong] = 1 - result[wrong]
    return result


def outcomes(
    labels: np.ndarray, engines: list[np.ndarray], costs: list[float], split: Split, max_drop: float = 0.02
) -> list[Outcome]:
    return prove(
        ACCURACY, labels, labels, engines, costs, 10.0, max_drop=max_drop, confidence=0.95, split=split
    )


def test_all_rows_are_used_once() -> None:
    split = Split.of(1000, 0.25, seed=3)
    assert len(split.choose) == 250
    assert np.array_equal(np.sort(np.concatenate([split.choose, split.prove])), np.arange(1000))
    assert not np.array_equal(split.choose, Split.of(1000, 0.25, seed=4).choose)


def test_with_few_rows_all_prove() -> None:
    rows = 4 * LEAST_CHOOSING_ROWS - 1
    split = Split.of(rows, 0.25, seed=0)
    assert len(split.choose) == 0
    assert len(split.prove) == rows


def test_tests_go_from_the_costliest_engine_to_the_first_that_fails() -> None:
    labels = np.arange(800) % 2
    wrong = [0, 4, 60, 4]  # the third loses 7.5 points
    engines = [predictions(labels, list(range(count))) for count in wrong]
    found = outcomes(labels, engines, [9.0, 8.0, 7.0, 6.0], Split.of(800, 0.0, 0))
    assert [each.state for each in found] == [
        State.PROVEN, State.PROVEN, State.NOT_PROVEN, State.NOT_TESTED,
    ]  # fmt: skip
    count = noninferiority.fixed_sequence(ACCURACY, labels, labels, np.array(engines), 0.02, 0.05)
    assert count == 2
    assert [each.difference for each in found] == pytest.approx([0.0, -0.005, -0.075, -0.005])
    assert all(each.chosen_on is None for each in found)


def test_an_engine_that_costs_as_much_as_the_baseline_is_not_tested() -> None:
    labels = np.arange(800) % 2
    found = outcomes(labels, [labels, labels], [10.0, 11.0], Split.of(800, 0.0, 0))
    assert [each.state for each in found] == [State.NOT_CHEAPER] * 2


def test_rows_that_choose_leave_out_dominated_engines() -> None:
    """The second engine, worse and costlier than the third, would end the tests if it were tested."""
    labels = np.arange(800) % 2
    split = Split.of(800, 0.25, 0)
    bad = predictions(labels, [*split.choose[:20], *split.prove[:60]])
    engines = [labels, bad, predictions(labels, [int(split.choose[0])])]
    found = outcomes(labels, engines, [9.0, 8.0, 7.0], split)
    assert [each.state for each in found] == [State.PROVEN, State.DOMINATED, State.PROVEN]
    assert [each.chosen_on for each in found] == pytest.approx([0.0, -0.1, -0.005])


def test_only_rows_that_prove_are_tested() -> None:
    labels = np.arange(800) % 2
    split = Split.of(800, 0.25, 0)
    on_choose, on_prove = (
        predictions(labels, [int(row) for row in rows[:60]]) for rows in (split.choose, split.prove)
    )
    assert outcomes(labels, [on_choose], [9.0], split)[0].state is State.PROVEN
    assert outcomes(labels, [on_prove], [9.0], split)[0].state is State.NOT_PROVEN


@pytest.mark.parametrize("share", [0.0, 0.25])
def test_a_promise_is_broken_in_at_most_5_percent(share: float) -> None:
    """Six engines truly lose 2.5 points, more than the limit of 2, each on rows of its own."""
    rng = np.random.default_rng(0)
    labels, sessions, broken = np.zeros(700, dtype=int), 400, 0
    costs = [9.0, 8.0, 7.0, 6.0, 5.0, 4.0]
    for session in range(sessions):
        engines = []
        for _ in costs:
            drawn = rng.random(700)
            engines.append((drawn < 0.03).astype(int))  # only the baseline is right
        before = (rng.random(700) < 0.005).astype(int)  # only the engine is right, about
        found = prove(
            ACCURACY, labels, before, engines, costs, 10.0,
            max_drop=0.02, confidence=0.95, split=Split.of(700, share, session),
        )  # fmt: skip
        broken += any(each.state is State.PROVEN for each in found)
    assert broken / sessions <= 0.05 + 2 * np.sqrt(0.05 * 0.95 / sessions)

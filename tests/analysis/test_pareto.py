"""Dominance against its definition, volumes against moocore, on sets with ties and duplicates."""

from __future__ import annotations

import time

import moocore
import numpy as np
import pytest

from effx.analysis.pareto import Region, diminishing, hypervolume, knee, non_dominated


def by_definition(points: np.ndarray) -> list[bool]:
    """No sorting, no sweep: every pair."""
    at_most = np.all(points[:, None] <= points[None], axis=2)
    less = np.any(points[:, None] < points[None], axis=2)
    return [not column.any() for column in (at_most & less).T]


@pytest.mark.parametrize("objectives", [2, 3])
def test_non_dominated_equals_its_definition(objectives: int) -> None:
    rng = np.random.default_rng(objectives)
    dominated = duplicates = 0
    for _ in range(1000):
        points = rng.integers(0, 4, (int(rng.integers(1, 24)), objectives)) / 3
        expected = by_definition(points)
        assert non_dominated(points).tolist() == expected
        dominated += expected.count(False)
        duplicates += len(points) - len(np.unique(points, axis=0))
    assert min(dominated, duplicates) > 1000  # the sets do have what they are meant to have


@pytest.mark.parametrize("objectives", [2, 3])
def test_large_sets_equal_an_independent_implementation(objectives: int) -> None:
    """Large enough for what is left out before the sweep."""
    rng = np.random.default_rng(7)
    for points in (
        rng.random((5000, objectives)),
        rng.integers(0, 40, (5000, objectives)).astype(float),
        -np.abs(rng.standard_normal((3000, objectives))),
        np.column_stack([np.arange(3000.0), np.arange(3000.0)[::-1], rng.permutation(3000)])[:, :objectives],
    ):
        assert np.array_equal(non_dominated(points), moocore.is_nondominated(points, keep_weakly=True))


@pytest.mark.parametrize("objectives", [2, 3])
def test_hypervolume_equals_moocore(objectives: int) -> None:
    rng = np.random.default_rng(10 + objectives)
    for number in range(1000):
        size = (int(rng.integers(1, 24)), objectives)
        points = rng.integers(0, 6, size).astype(float) if number % 2 else rng.random(size)
        reference = rng.integers(3, 8, objectives).astype(float) if number % 2 else np.full(objectives, 0.9)
        assert hypervolume(points, reference) == pytest.approx(
            moocore.hypervolume(points, ref=reference), rel=1e-12
        )


def test_hypervolume_by_hand() -> None:
    assert hypervolume(np.array([[1.0, 2.0], [2.0, 1.0]]), np.array([3.0, 3.0])) == 3.0
    assert hypervolume(np.array([[1.0, 1.0, 1.0]]), np.array([2.0, 3.0, 4.0])) == 6.0
    assert hypervolume(np.array([[3.0, 1.0]]), np.array([3.0, 3.0])) == 0.0
    with pytest.raises(ValueError, match="reference"):
        hypervolume(np.zeros((1, 2)), np.zeros(3))


def test_a_million_points_in_two_seconds() -> None:
    """Processor time; a random cloud, and a set of which none dominates another."""
    rng = np.random.default_rng(0)
    cloud = rng.random((1_000_000, 2))
    curve = np.column_stack([cloud[:, 0], -cloud[:, 0]])
    for points in (cloud, curve):
        clock = time.process_time()
        best = non_dominated(points)
        assert time.process_time() - clock < 2
        assert best.all() == (points is curve)


def test_a_hundred_thousand_points_of_three_objectives() -> None:
    rng = np.random.default_rng(0)
    sphere = rng.standard_normal((100_000, 3))
    sphere = -np.abs(sphere) / np.linalg.norm(sphere, axis=1, keepdims=True)
    clock = time.process_time()
    assert non_dominated(sphere).all()
    assert non_dominated(rng.random((100_000, 3))).sum() < 1000
    assert hypervolume(sphere, np.zeros(3)) == pytest.approx(np.pi / 6, rel=0.01)  # an eighth of a ball
    assert time.process_time() - clock < 5


def test_what_is_no_set_of_points_is_refused() -> None:
    for points in (np.zeros(3), np.zeros((3, 1)), np.zeros((3, 4))):
        with pytest.raises(ValueError, match="two or three objectives"):
            non_dominated(points)
    with pytest.raises(ValueError, match="NaN"):
        non_dominated(np.array([[0.0, np.nan]]))
    assert non_dominated(np.zeros((0, 2))).tolist() == []


def test_knee() -> None:
    points = np.array([[1.0, -0.5], [2.0, -0.9], [10.0, -0.95]])
    assert knee(points) == 1
    assert knee(points * [1000, 3]) == 1  # units do not matter
    assert knee(points[:2]) is None
    assert knee(np.array([[0.0, 2.0], [1.0, 1.0], [2.0, 0.0]])) is None  # a straight line has none
    assert knee(np.array([[0.0, 2.0], [1.9, 1.9], [2.0, 0.0]])) is None  # nor has a bulge the other way


def test_diminishing_returns_by_hand() -> None:
    # 0.45 over 9 s is 0.05 a second; the last two segments buy 0.004 and 0.012 a second
    gains, costs = np.array([0.5, 0.902, 0.926, 0.95]), np.array([1.0, 2.0, 8.0, 10.0])
    assert diminishing(gains, costs) == [Region(1, 3, pytest.approx(0.048 / 8 / 0.05))]
    assert diminishing(gains, costs, share=0.1) == [Region(1, 2, pytest.approx(0.08))]
    assert diminishing(gains, costs, share=0.01) == []
    assert diminishing(gains[:2], costs[:2]) == []
    twice = np.array([0, 1, 1, 2, 3])
    assert [(r.start, r.end) for r in diminishing(gains[twice], costs[twice])] == [(1, 4)]

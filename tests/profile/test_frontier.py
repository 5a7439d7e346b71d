"""Dominance against its definition, on random sets with ties and duplicates."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from effx.errors import UsageError
from effx.profile.frontier import frontier, hypervolume_of, knee_of, non_dominated, summary
from effx.results import Accuracy, Energy, Run, Workload


def by_definition(gains: np.ndarray, costs: np.ndarray) -> list[bool]:
    return [
        not any(
            gains[j] >= gains[i] and costs[j] <= costs[i] and (gains[j] > gains[i] or costs[j] < costs[i])
            for j in range(len(gains))
        )
        for i in range(len(gains))
    ]


def test_non_dominated_equals_its_definition() -> None:
    rng = np.random.default_rng(0)
    for _ in range(1000):
        n = int(rng.integers(1, 14))
        gains, costs = rng.integers(0, 6, n) / 5, rng.integers(0, 6, n) / 5
        assert non_dominated(gains, costs).tolist() == by_definition(gains, costs)


def test_hypervolume_equals_counting_cells() -> None:
    rng = np.random.default_rng(1)
    for _ in range(50):
        gains, costs = rng.random(6), rng.random(6) + 0.1
        low, corner = gains.min(), costs.max() * 1.1
        grid_g = low + (gains.max() - low) * (np.arange(400) + 0.5) / 400
        grid_c = corner * (np.arange(400) + 0.5) / 400
        covered = np.zeros((400, 400), dtype=bool)
        for gain, cost in zip(gains, costs, strict=True):
            covered |= (grid_g[:, None] <= gain) & (grid_c[None, :] >= cost)
        assert hypervolume_of(gains, costs) == pytest.approx(covered.mean(), abs=0.01)


def test_knee() -> None:
    assert knee_of(np.array([0.5, 0.9, 0.95]), np.array([1.0, 2.0, 10.0])) == 1
    assert knee_of(np.array([0.5, 0.9]), np.array([1.0, 2.0])) is None


def make(name: str, correct: int, seconds: float, joules: float | None = None, **changes: object) -> Run:
    n = 200
    labels = [1.0] * n
    predictions = [1.0] * correct + [0.0] * (n - correct)
    rng = np.random.default_rng(list(name.encode()))
    blocks = [(seconds * rng.uniform(0.98, 1.02, 30)).tolist() for _ in range(5)]
    energy = Energy("none", "none", "no meter")
    if joules is not None:
        energy = Energy("counter", "rapl", None, joules, (joules, joules), joules)
    accuracy = Accuracy("accuracy", correct / n, n, (0.0, 1.0), {}, predictions, labels, "rows")
    run = Run(
        id=name, started="2026", engine={"name": name, "task": "sst2", "precision": "fp32", "size_bytes": 1},
        host={"id": "h"}, accuracy=accuracy,
        workloads=[Workload("single-stream", 1, "real", "end-to-end", blocks, list(range(5)), energy)],
        memory={"host_peak_bytes": 1, "device_peak_bytes": None}, settings={}, session="s",
    )  # fmt: skip
    return replace(run, **changes)  # type: ignore[arg-type]


def test_a_frontier_says_how_sure_it_is() -> None:
    found = frontier(
        [make("slow", 180, 0.03), make("fast", 160, 0.01), make("bad", 120, 0.02), make("near", 179, 0.0301)]
    )
    points = {point.run.name: point for point in found.points}
    assert [point.run.name for point in found.points] == ["fast", "bad", "slow", "near"]
    assert {name for name, point in points.items() if point.non_dominated} == {"fast", "slow"}
    assert points["bad"].p_non_dominated == 0.0
    assert points["bad"].tied_with == []
    # the very same errors but one, and the same speed: it cannot be told from the winner
    assert "slow" in points["near"].tied_with
    assert 0.05 < points["near"].p_non_dominated < 1


def test_what_cannot_be_compared_is_refused() -> None:
    one = make("a", 150, 0.01)
    for other, message in (
        (make("b", 150, 0.01, host={"id": "other"}), "different hosts"),
        (make("b", 150, 0.01, engine={**one.engine, "name": "b", "task": "rte"}), "different tasks"),
    ):
        with pytest.raises(UsageError, match=message):
            frontier([one, other])
    model = make("b", 150, 0.01, 1.0)
    energy = replace(model.workloads[0].energy, source="model")
    model = replace(model, workloads=[replace(model.workloads[0], energy=energy)])
    with pytest.raises(UsageError, match="different source"):
        frontier([make("a", 150, 0.01, 1.0), model], ("accuracy", "energy"))
    with pytest.raises(UsageError, match="no run has energy"):
        frontier([one], ("accuracy", "energy"))


def test_summary_by_hand() -> None:
    runs = [
        make("base", 180, 0.03, 3.0),
        make("one", 179, 0.02, 2.0),
        make("two", 176, 0.01, 1.0),
        make("far", 150, 0.005, 0.5),
    ]
    (entry,) = summary(runs).values()
    assert entry["baseline"] == "base"
    assert entry["min_energy_within_1pct"]["engine"] == "one"
    assert entry["min_energy_within_2pct"]["engine"] == "two"
    assert entry["energy_per_correct"]["base"] == pytest.approx(3.0 / 0.9)

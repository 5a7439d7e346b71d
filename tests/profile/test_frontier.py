"""Frontiers of runs whose truth is known by hand."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from effx.errors import UsageError
from effx.profile.frontier import frontier, summary
from effx.results import Accuracy, Energy, Run, Workload


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

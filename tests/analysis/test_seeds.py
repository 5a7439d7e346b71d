"""Means over seeds: which engines differ in their seed alone, and what is said of them."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from effx.analysis import seeds
from effx.manifests import CheckpointOrigin
from effx.report.seeds import table
from effx.results import Run
from tests.analysis.simulated_run import simulated_run

SETTINGS, OTHER = "a" * 64, "b" * 64


def trained(
    method: str,
    seed: int | None,
    wrong: int,
    seconds: float = 0.01,
    *,
    settings: str = SETTINGS,
    further: bool = False,
    name: str | None = None,
) -> Run:
    rng = np.random.default_rng([len(method), seed or 0])
    run = simulated_run(
        name or f"sst2-{method}-s{seed}.int8", rng.choice(400, wrong, replace=False), seconds, joules=seconds
    )
    origin = None if seed is None else CheckpointOrigin(seed=seed, settings=settings, trained_further=further)
    return replace(run, engine=replace(run.engine, origin=origin))


RUNS = [
    trained("full", 0, 40),
    trained("full", 1, 48),
    trained("full", 2, 44),
    trained("small", 0, 60, 0.004, settings=OTHER),
    trained("small", 1, 50, 0.005, settings=OTHER),
    trained("slow", 0, 70, 0.02, settings="c" * 64),
]


def with_threads(run: Run, threads: int) -> Run:
    runtime = replace(run.settings.runtime, threads=threads)
    return replace(run, settings=replace(run.settings, runtime=runtime), session=f"threads-{threads}")


def test_costs_of_different_threads_are_no_mean() -> None:
    """0.01 s with eight threads and 0.04 s with one are not 0.025 s."""
    full = [with_threads(trained("full", seed, 40), 8) for seed in (0, 1)]
    slow = [with_threads(trained("full", seed, 40, 0.04), 1) for seed in (2, 3)]
    points = seeds.frontiers([*full, *slow])[0].points
    assert {point.technique: point.seeds for point in points} == {
        "sst2-full.int8, threads: 8": (0, 1), "sst2-full.int8, threads: 1": (2, 3)
    }  # fmt: skip
    assert seeds.frontiers([full[0], slow[0]]) == []
    own = [replace(run, engine=replace(run.engine, variant="int8+threads2")) for run in (full[0], slow[0])]
    assert seeds.frontiers(own)[0].points[0].seeds == (0, 2)


def test_other_threads_on_one_frontier_are_told() -> None:
    """Else eight threads would look like a faster model."""
    runs = [with_threads(trained("full", seed, 40), 8) for seed in (0, 1)]
    others = [with_threads(trained("small", seed, 44, 0.012, settings=OTHER), 1) for seed in (0, 1)]
    own = with_threads(trained("slow", 0, 70, 0.02, settings="c" * 64), 8)
    own = replace(own, engine=replace(own.engine, variant="int8+threads2"))
    found = seeds.frontiers([*runs, *others, own])
    names = [point.technique for point in found[0].points]
    assert names == ["sst2-full.int8, threads: 8", "sst2-small.int8, threads: 1", "sst2-slow-s0.int8"]
    assert "different numbers of threads" in table(found).note
    assert not any("threads: " in point.technique for point in seeds.frontiers([*runs, own])[0].points)


def test_means_and_spreads_are_those_of_numpy() -> None:
    latency, energy = seeds.frontiers(RUNS)
    assert (latency.cost, energy.cost, latency.n) == ("latency", "energy", 400)
    by_name = {point.technique: point for point in latency.points}
    full = by_name["sst2-full.int8"]
    scores = [1 - wrong / 400 for wrong in (40, 48, 44)]
    assert full.seeds == (0, 1, 2) and full.quality.n == 3
    assert full.quality.mean == pytest.approx(np.mean(scores))
    assert full.quality.std == pytest.approx(np.std(scores, ddof=1))
    p50 = [run.workloads[0].latency_s["p50"] for run in RUNS[:3]]
    assert full.cost.mean == pytest.approx(np.mean(np.array(p50, dtype=float)))
    assert full.cost_interval is not None and full.cost_interval[0] < full.cost.mean < full.cost_interval[1]
    assert by_name["sst2-slow-s0.int8"].quality.std is None
    assert [point.technique for point in latency.points if point.non_dominated] == [
        "sst2-small.int8", "sst2-full.int8",
    ]  # fmt: skip


def test_interval_over_rows_is_that_of_the_mean_and_not_of_the_seeds() -> None:
    """More rows narrow it; other seeds do not."""
    latency, *_ = seeds.frontiers(RUNS)
    full = next(point for point in latency.points if point.quality.n == 3)
    right = np.array([np.array(run.quality.predictions) == np.array(run.quality.labels) for run in RUNS[:3]])
    error = right.mean(axis=0).std() / np.sqrt(400)
    assert full.quality_interval is not None
    half = (full.quality_interval[1] - full.quality_interval[0]) / 2
    assert half == pytest.approx(1.96 * error, rel=0.1)


def test_one_seed_shows_nothing() -> None:
    assert seeds.frontiers([RUNS[0], RUNS[3], RUNS[5]]) == []


def test_results_without_a_recorded_seed_are_not_grouped_by_name() -> None:
    runs = [trained("full", None, wrong, name=f"sst2-full-s{wrong}.int8") for wrong in (40, 44)]
    assert [len(group) for group in seeds.groups(runs)] == [1, 1]


@pytest.mark.parametrize(
    ("change", "grouped"),
    [
        ({}, True),
        ({"settings": OTHER}, False),
        ({"name": "another-name.int8"}, True),  # the settings are the same
        ({"further": True}, False),  # the other one was not made from another checkpoint
    ],
)
def test_what_differs_in_its_seed_alone(change: dict[str, str], grouped: bool) -> None:
    runs = [trained("full", 0, 40), trained("full", 1, 44, **change)]  # type: ignore[arg-type]
    assert len(seeds.groups(runs)) == (1 if grouped else 2)


def test_checkpoints_made_from_others_are_grouped_if_their_names_say_the_same() -> None:
    alike = [trained("full-exits", seed, 40, further=True) for seed in (0, 1)]
    apart = [
        trained(f"{parent}-exits", seed, 40, further=True) for seed, parent in enumerate(("full", "small"))
    ]
    assert [len(group) for group in seeds.groups(alike)] == [2]
    assert [len(group) for group in seeds.groups(apart)] == [1, 1]


@pytest.mark.parametrize("change", [{"unrecorded": True}, {"distilled": True}])
def test_other_names_are_other_methods_where_the_settings_do_not_tell(change: dict[str, bool]) -> None:
    def changed(run: Run) -> Run:
        assert run.engine.origin is not None
        origin = run.engine.origin.model_copy(update=change)
        return replace(run, engine=replace(run.engine, origin=origin))

    alike = [changed(trained("mlm", seed, 40)) for seed in (0, 1)]
    apart = [changed(trained(f"mlm-{text}", seed, 40)) for seed, text in enumerate(("news", "books"))]
    assert [len(group) for group in seeds.groups(alike)] == [2]
    assert [len(group) for group in seeds.groups(apart)] == [1, 1]


def test_engines_with_the_same_seed_differ_in_something_else() -> None:
    runs = [trained("full", 0, 40), trained("full", 0, 44, name="copy.int8"), trained("full", 1, 42)]
    assert [len(group) for group in seeds.groups(runs)] == [1, 1, 1]

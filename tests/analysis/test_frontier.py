"""Frontiers of runs whose truth is known by hand."""

from __future__ import annotations

import json
import time
from dataclasses import replace

import numpy as np
import pytest
from scipy import stats

from effx.analysis.baseline import baseline_of
from effx.analysis.cohorts import by_task_and_host, latest
from effx.analysis.frontier import comparable, frontier
from effx.analysis.objectives import OBJECTIVES
from effx.analysis.summary import Cheapest, Summary, summary
from effx.errors import UsageError
from effx.host.identity import Host
from effx.results import Energy, PeakMemory, Quality, Run, WorkloadResult
from effx.specs.workloads import SINGLE_STREAM
from tests.analysis.simulated_run import SETTINGS, N, engine, simulated_run
from tests.stats.simulated import latencies


def make(name: str, correct: int, seconds: float, joules: float | None = None, **changes: object) -> Run:
    n = 200
    labels = [1.0] * n
    predictions = [1.0] * correct + [0.0] * (n - correct)
    rng = np.random.default_rng(list(name.encode()))
    blocks = [(seconds * rng.uniform(0.98, 1.02, 30)).tolist() for _ in range(5)]
    energy = Energy("none", "none", "no meter")
    if joules is not None:
        energy = Energy("counter", "rapl", None, joules, (joules, joules), joules)
    accuracy = Quality("accuracy", correct / n, n, (0.0, 1.0), {}, predictions, labels, "rows")
    run = Run(
        id=name, started="2026", engine=engine(name), host=Host("h"), quality=accuracy,
        workloads=[WorkloadResult(SINGLE_STREAM, blocks, list(range(5)), energy)],
        memory=PeakMemory(1, None), settings=SETTINGS, session="s",
    )  # fmt: skip
    return replace(run, **changes)  # type: ignore[arg-type]


def test_a_frontier_says_how_sure_it_is() -> None:
    result = frontier(
        [make("slow", 180, 0.03), make("fast", 160, 0.01), make("bad", 120, 0.02), make("near", 179, 0.0301)]
    )
    points = {point.run.name: point for point in result.points}
    assert [point.run.name for point in result.points] == ["fast", "bad", "slow", "near"]
    assert {name for name, point in points.items() if point.non_dominated} == {"fast", "slow"}
    assert points["bad"].p_non_dominated == 0.0
    assert points["bad"].tied_with == []
    # the same errors except one, and the same speed: statistically indistinguishable from the winner
    assert "slow" in points["near"].tied_with
    assert 0.05 < points["near"].p_non_dominated < 1


def test_what_cannot_be_compared_is_refused() -> None:
    one = make("a", 150, 0.01)
    for other, message in (
        (make("b", 150, 0.01, host=Host("other")), "different hosts"),
        (make("b", 150, 0.01, engine=engine("b", task="rte")), "different tasks"),
    ):
        with pytest.raises(UsageError, match=message):
            frontier([one, other])
    model = make("b", 150, 0.01, 1.0)
    energy = replace(model.workloads[0].energy, source="model")
    model = replace(model, workloads=[replace(model.workloads[0], energy=energy)])
    with pytest.raises(UsageError, match="different sources"):
        frontier([make("a", 150, 0.01, 1.0), model], ("quality", "energy"))
    with pytest.raises(UsageError, match="no run has energy"):
        frontier([one], ("quality", "energy"))


def chosen(entry: Summary, objective: str, percent: int) -> str | None:
    best = entry.cheapest[objective, percent]
    return None if best is None else best.engine


def test_summary_by_hand() -> None:
    runs = [
        make("base", 180, 0.03, 3.0),
        make("one", 179, 0.02, 2.0),
        make("two", 176, 0.01, 1.0),
        make("far", 150, 0.005, 0.5),
    ]
    (entry,) = summary(runs).values()
    assert entry.baseline == "base"
    assert chosen(entry, "energy", 1) == "one"
    assert chosen(entry, "energy", 2) == "two"
    assert entry.energy_per_correct["base"] == pytest.approx(3.0 / 0.9)
    seconds = runs[1].workloads[0].latency_s["p50"]
    assert entry.cheapest["latency", 1] == Cheapest("one", seconds)
    assert entry.to_json()["min_latency_within_1pct"] == {"engine": "one", "latency_s": seconds}
    assert chosen(entry, "latency", 2) == "two"


def test_summary_holds_beside_the_baseline_what_was_scored_on_its_rows() -> None:
    runs = [
        simulated_run("base", range(20), precision="fp32"),
        simulated_run("short", seconds=1e-6, n=10, precision="fp32"),
    ]
    (entry,) = summary(runs).values()
    assert entry.baseline == "base"
    assert chosen(entry, "latency", 1) == "base"


def test_the_baseline_is_unreduced() -> None:
    """A ticket may be more accurate, but it is still a reduction of the baseline."""
    full, ticket = (
        simulated_run("full", range(20), precision="fp32"),
        simulated_run("ticket", range(19), precision="fp32"),
    )
    int8 = simulated_run("int8", range(18))
    ticket = replace(ticket, engine=replace(ticket.engine, weight_remaining=0.8))
    assert baseline_of([ticket, full, int8]) is full
    assert baseline_of([ticket, int8]) is ticket
    assert baseline_of([int8]) is int8


RUNS = [
    simulated_run("base", range(20), 0.030, 3.0, memory=300, size=30),
    simulated_run("half", range(24), 0.015, 1.4, memory=200, size=15, offline_per_s=100),
    simulated_run("fast", range(60), 0.005, 2.0, memory=250, size=10, offline_per_s=300),
    simulated_run("poor", range(80), 0.031, 3.1, memory=310, size=31, offline_per_s=90),
]


@pytest.mark.parametrize(
    ("objectives", "expected"),
    [
        (("quality", "latency"), {"base", "half", "fast"}),
        (("latency", "quality"), {"base", "half", "fast"}),
        (("quality", "energy"), {"base", "half"}),
        (("f1", "size"), {"base", "half", "fast"}),
        (("correct", "latency_p90"), {"base", "half", "fast"}),
        (("latency_mean", "memory"), {"half", "fast"}),
        (("throughput", "energy"), {"half", "fast"}),
        (("quality", "throughput_offline"), {"half", "fast"}),
        (("energy_per_correct", "parameters"), {"half"}),
        (("quality", "latency", "energy"), {"base", "half", "fast"}),
        (("energy", "memory", "size"), {"half", "fast"}),
    ],
)
def test_any_pair_and_triple(objectives: tuple[str, ...], expected: set[str]) -> None:
    result = frontier(RUNS, objectives)
    assert {point.run.name for point in result.points if point.non_dominated} == expected
    values = [point.values[objectives[1]] for point in result.points]
    assert values == sorted(values, reverse=OBJECTIVES[objectives[1]].maximise)
    for point in result.points:
        for name in objectives:
            interval = point.intervals[name]
            assert interval is None or interval[0] <= point.values[name] <= interval[1]
    assert json.loads(json.dumps(result.to_json()))["objectives"] == list(objectives)


def test_every_objective_has_value_interval_and_resamplings() -> None:
    runs = [
        simulated_run(name, range(20 + i), 0.01, 1.0, offline_per_s=100, rounds=25)
        for i, name in enumerate("abc")
    ]
    for name in ("quality", "f1", "correct", "latency", "latency_p90", "latency_p99", "latency_mean",
                 "throughput", "throughput_offline", "energy", "energy_per_correct", "memory",
                 "size"):  # fmt: skip
        objective = OBJECTIVES[name]
        draws = objective.draws(runs)
        assert draws.shape == (3, 1000), name
        for run, engine_draws in zip(runs, draws, strict=True):
            value = objective.value(run)
            assert value is not None
            assert np.mean(engine_draws) == pytest.approx(value, rel=0.05), name
    assert OBJECTIVES["matthews"].value(runs[0]) is None
    assert OBJECTIVES["matthews"].missing(runs[0]) == "matthews is not a metric of sst2"


def test_intervals_are_those_of_resampled_blocks() -> None:
    """Rounds drawn all at once against blocks put together one by one."""
    from effx.stats import intervals

    run = simulated_run("a", spread=0.3, rounds=12, queries=31)
    blocks = run.workloads[0].blocks_s
    for name, statistic in (
        ("latency", lambda samples: float(np.quantile(samples, 0.5, method="inverted_cdf"))),
        ("latency_p90", lambda samples: float(np.quantile(samples, 0.9, method="inverted_cdf"))),
        ("latency_mean", intervals.mean),
    ):
        expected = intervals.block_interval(blocks, statistic)
        assert expected is not None
        interval = OBJECTIVES[name].interval(run)
        assert np.log(interval) == pytest.approx(
            np.log(expected), abs=0.1 * np.log(expected[1] / expected[0])
        )


def test_p_non_dominated_against_resampling_by_hand() -> None:
    """Rows drawn one resampling at a time; the costs are the same in each."""
    runs = [
        simulated_run("a", range(40), 0.03, 3.0),
        simulated_run("b", range(30, 72), 0.02, 2.0),
        simulated_run("c", range(45, 92), 0.01, 2.5),
    ]
    runs = [replace(run, memory=PeakMemory(cost, None)) for run, cost in zip(runs, (3, 2, 1), strict=True)]
    worse = replace(simulated_run("d", range(25, 66)), memory=PeakMemory(3, None))
    result = frontier([*runs, worse], ("quality", "memory"))
    rng = np.random.default_rng(3)
    right = np.array([np.array(r.quality.predictions) == np.array(r.quality.labels) for r in [*runs, worse]])
    memory = np.array([3, 2, 1, 3])
    counts = np.zeros(4)
    for _ in range(4000):
        drawn = right[:, rng.integers(0, N, N)].mean(axis=1)
        for engine_index in range(4):
            better = (
                (drawn >= drawn[engine_index])
                & (memory <= memory[engine_index])
                & ((drawn > drawn[engine_index]) | (memory < memory[engine_index]))
            )
            counts[engine_index] += not better.any()
    by_name = {point.run.name: point for point in result.points}
    for name, count in zip("abcd", counts, strict=True):
        assert by_name[name].p_non_dominated == pytest.approx(count / 4000, abs=0.04)
    assert not by_name["d"].non_dominated
    assert by_name["d"].tied_with == ["a"]


def test_rounds_of_one_session_are_drawn_together() -> None:
    """Both slow down by e over the session; the faster one is the faster in every round."""
    runs = [simulated_run("a", range(10)), simulated_run("b", range(10), 0.0097, spread=0.001)]
    runs = [replace(runs[0], workloads=simulated_run("a", spread=0.001).workloads), runs[1]]
    together = {p.run.name: p.p_non_dominated for p in frontier(runs).points}
    assert together == {"a": 0.0, "b": 1.0}
    apart = {p.run.name: p.p_non_dominated for p in frontier([runs[0], replace(runs[1], session="t")]).points}
    assert 0.05 < apart["a"] < 0.6


def test_hypervolume_knee_and_diminishing_returns() -> None:
    runs = [
        replace(simulated_run(name, range(wrong), 0.01), memory=PeakMemory(cost, None))
        for name, wrong, cost in (("a", 200, 10), ("b", 40, 20), ("c", 24, 80), ("d", 20, 100))
    ]
    result = frontier(runs, ("quality", "memory"))
    # corner at 110 and 0.5, box of 110 x 0.45; steps of 0.4, 0.04 and 0.01
    expected = (0.4 * 90 + 0.04 * 30 + 0.01 * 10) / (110 * 0.45)
    assert result.hypervolume == pytest.approx(expected)
    low, high = result.hypervolume_interval or (0, 0)
    assert low < expected < high
    assert result.knee == "b"
    (region,) = result.diminishing
    assert (region.start, region.end) == ("b", "d")
    assert region.share == pytest.approx((0.05 / 80) / (0.45 / 90))
    assert frontier(runs[:1], ("quality", "memory")).hypervolume is None
    assert frontier(runs, ("quality", "memory", "size")).knee is None


def test_the_best_of_many_was_lucky() -> None:
    """Forty equal engines: the measured frontier is better than the true one."""
    rng = np.random.default_rng(0)
    runs = [
        replace(
            simulated_run(f"e{number}", np.flatnonzero(rng.random(N) < 0.1)),
            memory=PeakMemory(90 + number, None),
        )
        for number in range(40)
    ]
    result = frontier(runs, ("quality", "memory"))
    assert result.hypervolume is not None and result.hypervolume_interval is not None
    assert sum(result.hypervolume_interval) / 2 < result.hypervolume


def test_more_that_cannot_be_compared_is_refused() -> None:
    one = simulated_run("a", joules=1.0)
    turned = [1 - label for label in one.quality.labels]
    other = simulated_run("b", joules=1.0)
    for two, message in (
        (replace(other, quality=replace(other.quality, metric="f1")), "different metrics"),
        (simulated_run("b", joules=1.0, rows="others"), "different evaluation sets"),
        (simulated_run("b", joules=1.0, n=10), "different evaluation sets"),
        (simulated_run("b", joules=1.0, meter="nvml"), "energies from different sources or meters"),
        (replace(other, quality=replace(other.quality, labels=turned)), "different labels"),
        (replace(other, quality=replace(other.quality, predictions=[])), "does not contain all predictions"),
    ):
        axes = ("quality", "latency", "energy")
        with pytest.raises(UsageError, match=message):
            frontier([one, two], axes)
        if two.quality.predictions:
            assert [len(frontier(group, axes).points) for group in comparable([one, two], axes)] == [1, 1]
    on_device = replace(
        other, workloads=[replace(other.workloads[0], workload=SINGLE_STREAM.timed_on_device())]
    )
    with pytest.raises(UsageError, match="no single-stream workload"):
        frontier([one, on_device], axes)
    short = simulated_run("c", n=10, joules=1.0)
    split = comparable([short, one, simulated_run("d"), other], ("quality", "energy"))
    assert [[run.name for run in group] for group in split] == [["a", "b"], ["c"]]
    assert len(frontier([one, simulated_run("b", meter="nvml", joules=2.0)]).points) == 2  # no energy in it


def test_objectives_that_make_no_frontier() -> None:
    for objectives, message in (
        (("quality",), "two or three different objectives"),
        (("quality", "quality"), "two or three different objectives"),
        (("quality", "latency", "energy", "size"), "two or three"),
        (("quality", "latncy"), "Did you mean 'latency'"),
        (("quality", "latency_p99"), "no run has p99 latency.*: p99 needs 662 queries"),
        (("quality", "throughput_offline"), "profile with scenario offline"),
    ):
        with pytest.raises(UsageError, match=message):
            frontier([simulated_run("a"), simulated_run("b")], objectives)
    with pytest.raises(UsageError, match="at least one run"):
        frontier([])


def many(n: int) -> list[Run]:
    """Engines of one session, most of them dominated."""
    rng = np.random.default_rng(0)
    runs = []
    for index in range(n):
        run = simulated_run(f"e{index}", queries=70, rounds=10, seconds=float(np.exp(rng.uniform(-6, -3))),
                   joules=float(np.exp(rng.uniform(-3, 0))), started=str(index))  # fmt: skip
        wrong = rng.random(N) < rng.uniform(0.08, 0.2)
        predictions = np.where(wrong, 1 - np.array(run.quality.labels), run.quality.labels).tolist()
        value = float(np.mean(~wrong))
        runs.append(replace(run, quality=replace(run.quality, predictions=predictions, value=value)))
    return runs


def test_leaving_out_the_surely_dominated_changes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    from effx.analysis import frontier as module

    runs = many(60)
    for axes in (("quality", "energy"), ("quality", "latency", "energy")):
        quick = frontier(runs, axes)
        with monkeypatch.context() as patch:
            patch.setattr(module, "_not_surely_dominated", lambda draws, winners: np.arange(len(draws)))
            assert quick == frontier(runs, axes)
    left = module._not_surely_dominated(
        -OBJECTIVES["quality"].draws(runs)[..., None].repeat(2, -1), np.array([0])
    )
    assert len(left) < 60


def test_thousands_of_runs_in_seconds() -> None:
    runs = many(1000)
    clock = time.process_time()
    ((_, group),) = by_task_and_host(runs).items()
    result = frontier(latest(group), ("quality", "latency"))
    summary(runs)
    assert time.process_time() - clock < 4
    assert len(result.points) == 1000


WALL_J = {"8xH200": 0.102, "L4": 0.71, "Orin": 0.084, "18xAIC100": 0.136}
AIC100_J = {"BERT-large": 0.136, "BERT-large pruned": 0.058, "DistilBERT": 0.031}


def published(name: str, joules: float, host: str, wrong: int = 40) -> Run:
    """MLPerf Inference, BERT-large at length 384: joules at the wall per query; no interval is given."""
    run = simulated_run(name, range(wrong), joules=joules, host=host, source="integrated", meter="wall")
    energy = replace(run.workloads[0].energy, interval=None)
    return replace(run, workloads=[replace(run.workloads[0], energy=energy)])


def test_published_joules_per_query() -> None:
    """Closed division: all meet one accuracy, so where they share a site only the least joules stay."""
    runs = [published("BERT-large", joules, host) for host, joules in WALL_J.items()]
    with pytest.raises(UsageError, match="different hosts"):
        frontier(runs, ("quality", "energy"))
    assert {host: len(group) for (_, host), group in by_task_and_host(runs).items()} == dict.fromkeys(
        sorted(WALL_J), 1
    )
    site = [published(host, joules, "one site") for host, joules in WALL_J.items()]
    result = frontier(site, ("quality", "energy"))
    assert [point.run.name for point in result.points] == ["Orin", "8xH200", "18xAIC100", "L4"]
    assert [point.run.name for point in result.points if point.non_dominated] == ["Orin"]
    assert [point.p_non_dominated for point in result.points] == [1, 0, 0, 0]
    assert result.energy_source == "integrated"


def test_published_reductions_on_one_host() -> None:
    """No accuracies are published with them: their order alone, the larger the better, keeps all three."""
    runs = [
        published(name, joules, "18xAIC100", wrong)
        for (name, joules), wrong in zip(AIC100_J.items(), (36, 38, 60), strict=True)
    ]
    result = frontier(runs, ("quality", "energy"))
    assert [point.run.name for point in result.points] == ["DistilBERT", "BERT-large pruned", "BERT-large"]
    assert all(point.non_dominated for point in result.points)
    assert result.knee == "BERT-large pruned"
    same = [published(name, joules, "18xAIC100") for name, joules in AIC100_J.items()]
    result = frontier(same, ("quality", "energy"))
    assert [point.run.name for point in result.points if point.non_dominated] == ["DistilBERT"]
    (entry,) = summary(runs).values()
    assert chosen(entry, "energy", 1) == "BERT-large pruned"


def test_p_non_dominated_is_calibrated() -> None:
    """Of the points to which a frontier gives about P, a share of about P is truly non-dominated."""
    rng = np.random.default_rng(0)
    reported, true = [], []
    for _ in range(35):
        accuracies, seconds = rng.uniform(0.86, 0.90, 8), np.exp(rng.uniform(-0.1, 0.1, 8))
        for point in frontier(runs_of_like_errors(rng, accuracies, seconds)).points:
            engine_index = int(point.run.name)
            reported.append(point.p_non_dominated)
            true.append(
                not ((accuracies > accuracies[engine_index]) & (seconds < seconds[engine_index])).any()
            )
    chances, truths = np.array(reported), np.array(true)
    for low, high in ((0.0, 0.1), (0.1, 0.5), (0.5, 1.0)):
        chosen = (low <= chances) & (chances <= high)
        mean = chances[chosen].mean()
        error = np.sqrt(mean * (1 - mean) / chosen.sum())
        assert abs(truths[chosen].mean() - mean) <= 0.05 + 3 * error, (low, high)


def runs_of_like_errors(rng: np.random.Generator, accuracies: np.ndarray, seconds: np.ndarray) -> list[Run]:
    """Engines that err on much the same rows and share the host's drift."""
    n, rounds = 872, 10
    hardness, drift = rng.standard_normal(n), np.cumsum(0.1 * rng.standard_normal(rounds))
    runs = []
    for index, (accuracy, median_s) in enumerate(zip(accuracies, seconds, strict=True)):
        ease = (2 * hardness + rng.standard_normal(n)) / np.sqrt(5)
        right = (ease < stats.norm.ppf(accuracy)).astype(float)
        blocks = [[median_s * sample for sample in block] for block in latencies(rng, drift)]
        single = WorkloadResult(SINGLE_STREAM, blocks, list(range(rounds)), Energy("none", "none", ""))
        scored = Quality("accuracy", right.mean(), n, (0.0, 1.0), {}, right.tolist(), [1.0] * n, "rows")
        of_engine, memory = engine(str(index)), PeakMemory(None, None)
        runs.append(Run(str(index), "0", of_engine, Host("h"), scored, [single], memory, SETTINGS, "s"))
    return runs

"""The answer of effx optimize, on results with known predictions and times."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest

from effx.analysis import comparison, optimized, optimized_text
from effx.analysis.fixed_sequence import State
from effx.analysis.optimized import OptimizedAnswer, answer
from effx.errors import UsageError
from effx.results import Energy, FailedEngineRecord, Failure, Run, WorkloadResult
from effx.specs.optimize import OptimizeSettings
from effx.specs.workloads import SINGLE_STREAM, Workload, grid
from tests.analysis.simulated_run import simulated_run

N = 1200
OFFLINE = Workload("offline", 32, "real")


def reduced(name: str, share: float, **options: object) -> Run:
    run = simulated_run(name, n=N, **options)  # type: ignore[arg-type]
    return replace(run, engine=replace(run.engine, weight_remaining=share))


def session(lost: int = 0, **options: object) -> list[Run]:
    """An unreduced engine in fp32 and int8, and two reduced ones; the smaller one loses ``lost`` rows."""
    return [
        simulated_run("fp32", n=N, seconds=0.010, precision="fp32", size=400, **options),  # type: ignore[arg-type]
        simulated_run("int8", n=N, seconds=0.005, size=100, **options),  # type: ignore[arg-type]
        reduced("half", 0.5, wrong=range(2), seconds=0.003, size=60, **options),
        reduced("third", 0.3, wrong=range(lost), seconds=0.002, size=40, **options),
    ]


def found(runs: list[Run], workload: Workload = SINGLE_STREAM, **settings: object) -> OptimizedAnswer:
    return answer(runs, OptimizeSettings.of(**{"max_drop": 0.01, **settings}), workload)


def states(result: OptimizedAnswer) -> dict[str, State | None]:
    return {each.engine: each.tested and each.tested.state for each in result.candidates}


def test_the_cheapest_proven_engine_is_chosen() -> None:
    result = found(session(lost=3))
    assert result.engine == "third"
    assert (result.baseline, result.plain) == ("fp32", "int8")
    assert (result.choosing_rows, result.proving_rows) == (0, N)
    assert [each.engine for each in result.candidates] == ["third", "half", "int8", "fp32"]
    runs = {run.name: run for run in session(lost=3)}
    ratio = comparison.compare(runs["fp32"], runs["third"]).latency[1]
    assert ratio.statistic == "mean"
    chosen = result.chosen
    assert chosen is not None
    assert chosen.gain.value == pytest.approx(1 / ratio.value)
    assert chosen.gain.interval is not None
    assert chosen.gain.interval[0] < chosen.gain.value < chosen.gain.interval[1]


def test_an_engine_that_loses_more_is_not_chosen() -> None:
    result = found(session(lost=60))
    assert result.engine == "half"
    assert states(result)["third"] is State.NOT_PROVEN
    text = optimized_text.text(result)
    assert "deploy half" in text
    assert "loses at most 1 point of accuracy with 95 % confidence, on 1200 rows" in text


def test_if_nothing_is_proven_the_best_that_can_be_is_said() -> None:
    runs = [run for run in session(lost=60) if run.name in ("fp32", "third")]
    result = found(runs)
    assert result.engine is None
    best = result.unproven
    assert best is not None
    assert best.engine == "third"
    assert best.loses_at_most is not None
    assert best.loses_at_most > 60 / N
    assert best.rows_needed is None  # it loses 5 points: no number of rows proves one
    text = optimized_text.text(result)
    assert "no engine cheaper than fp32 is proven to lose at most 1 point of" in text


def test_a_cheaper_engine_that_may_keep_the_limit_is_named() -> None:
    result = found(session(lost=8))
    assert result.engine == "half"
    assert result.unproven is not None
    assert result.unproven.engine == "third"
    assert result.unproven.difference == pytest.approx(-8 / N)
    assert "not proven: third costs less and was measured at" in optimized_text.text(result)
    assert found(session(lost=60)).unproven is None  # it was measured beyond the limit


def test_rows_that_would_prove_are_counted() -> None:
    runs = [simulated_run("fp32", n=N, seconds=0.01, precision="fp32")]
    runs.append(reduced("half", 0.5, wrong=range(0, N, 300), seconds=0.003))
    result = found(runs, max_drop=0.006)
    assert result.engine is None
    assert result.unproven is not None
    rows = result.unproven.rows_needed
    assert rows is not None
    assert rows > N


def test_rows_that_prove_less_than_they_seem_to_are_remarked() -> None:
    runs, settings = session(), OptimizeSettings.of(max_drop=0.01)
    assert answer(runs, settings, SINGLE_STREAM).remarks == []
    result = answer(runs, settings, SINGLE_STREAM, overlap=7, different_texts=300)
    assert result.engine is not None
    first, second = result.remarks
    assert first.startswith(f"7 of the {N} validation rows are also training rows")
    assert second.startswith(f"the {N} validation rows have 300 different texts, and the proof takes them as")
    assert first in optimized_text.text(result) and second in optimized_text.markdown(result)


def test_each_objective_has_its_cost() -> None:
    runs = session(lost=3, joules=0.05, offline_per_s=400.0)
    by_size = found(runs, objective="size")
    assert by_size.engine == "third"
    assert {each.engine: each.cost for each in by_size.candidates}["half"] == 60
    by_energy = found(runs, objective="energy")
    assert by_energy.engine is None  # all take the same energy
    assert {each.cost for each in by_energy.candidates} == {0.05}
    assert by_energy.energy_source == "counter"
    estimated = found(session(lost=3, joules=0.05, source="model", meter="model"), objective="energy")
    assert "50.0 mJ/example (model)" in optimized_text.text(estimated)
    batches = found(runs, OFFLINE, objective="throughput")
    assert {each.cost for each in batches.candidates} == {32 / 400.0}
    assert optimized.cost(runs[0], "memory", SINGLE_STREAM) == 100_000_000


def of_batches(run: Run, cpu_s: float, own_score: bool | None) -> Run:
    """Add measured batches of 32 rows of 128 tokens.

    ``own_score``: whether batches, in which answers are others, have a score of their own; None: answers do
    not depend on the batch.
    """
    none = Energy("none", "none", "not measured")
    shape = WorkloadResult(grid(32, 128), [[cpu_s] * 4] * 5, list(range(5)), none, cpu_s=[cpu_s * 4] * 5)
    workloads = [*run.workloads, shape]
    if own_score is None:
        return replace(run, workloads=workloads)
    quality = replace(run.quality, workload=SINGLE_STREAM, batch_dependent=True)
    if own_score:
        lost = simulated_run(run.name, range(60), n=N).quality
        worse = replace(lost, workload=OFFLINE, batch_dependent=True)
        workloads.append(WorkloadResult(OFFLINE, [[1.0]] * 5, list(range(5)), none, quality=worse))
    return replace(run, workloads=workloads, quality=quality)


def test_processor_time_of_batches_is_of_one_example() -> None:
    runs = [
        of_batches(run, cost, None)
        for run, cost in zip(session(lost=3), (0.64, 0.32, 0.24, 0.16), strict=True)
    ]
    result = found(runs, grid(32, 128), objective="cpu_time")
    assert result.chosen is not None and result.chosen.cost == pytest.approx(0.16 / 32)
    text = optimized_text.text(result)
    assert "5.00 ms per example" in text
    assert "ms per batch" not in text


@pytest.mark.parametrize("own_score", [True, False])
def test_the_proof_for_batches_is_of_the_answers_in_batches(own_score: bool) -> None:
    """The engine loses nothing in single queries, and 5 points in batches."""
    fp32, int8, half, third = session()
    runs = [of_batches(run, cost, None) for run, cost in ((fp32, 0.64), (int8, 0.32), (half, 0.24))]
    runs.append(of_batches(third, 0.16, own_score))
    result = found(runs, grid(32, 128))
    assert result.engine == "half"
    if own_score:
        assert states(result)["third"] is State.NOT_PROVEN
    else:
        assert "third" not in states(result)
        (remark,) = [remark for remark in result.remarks if remark.startswith("third is left out")]
        assert "depend on the other rows of a batch, and were not scored in batches of 32" in remark


def test_engines_that_could_not_be_measured_are_named() -> None:
    runs = session(lost=3)
    failure = Failure("f", runs[0].started, FailedEngineRecord("tenth"), runs[0].host, "s", "it was killed")
    settings = OptimizeSettings.of(max_drop=0.01)
    result = answer(runs, settings, SINGLE_STREAM, failures=[failure])
    assert "tenth is left out: it could not be measured: it was killed" in result.remarks
    assert "it was killed" in optimized_text.text(result)


def test_a_gain_in_batches_is_not_that_of_single_queries() -> None:
    """Processor seconds of one engine against another differ between the workloads."""
    runs = []
    for name, single, batch in (("a", 0.1, 2.0), ("b", 0.05, 1.9)):
        run = simulated_run(name, n=N, offline_per_s=400.0)
        of_workloads = [
            replace(each, cpu_s=[seconds * len(block) for block in each.blocks_s])
            for each, seconds in zip(run.workloads, (single, batch), strict=True)
        ]
        runs.append(replace(run, workloads=of_workloads))
    assert optimized.gain(*runs, "cpu_time", SINGLE_STREAM).value == pytest.approx(2.0)
    assert optimized.gain(*runs, "cpu_time", OFFLINE).value == pytest.approx(2.0 / 1.9)


def test_a_gain_in_batches_is_of_the_mean_as_the_cost_is() -> None:
    """One engine is faster in most queries and much slower in some, so that its mean is above the other's."""
    shape = grid(8, 16)
    runs = []
    for name, blocks in (("a", [[1.0, 1.0, 1.0, 1.0]] * 5), ("b", [[0.9, 0.9, 0.9, 2.9]] * 5)):
        run = simulated_run(name, n=N)
        none = Energy("none", "none", "not measured")
        runs.append(
            replace(run, workloads=[*run.workloads, WorkloadResult(shape, blocks, list(range(5)), none)])
        )
    costs = [optimized.cost(run, "latency", shape) for run in runs]
    assert costs == pytest.approx([1.0, 1.4])
    assert optimized.gain(*runs, "latency", shape).value == pytest.approx(1 / 1.4)


def test_single_rows_cost_their_mean_whatever_most_of_them_cost() -> None:
    """From one engine 56 % of the rows leave early; it is slower on average than one without exits."""
    fp32, int8, half, exits = session()
    pruned, quick = 0.0025, [0.0015] * 14 + [0.0055] * 11
    single = exits.workloads[0]
    blocks = [quick[number:] + quick[:number] for number in range(len(single.blocks_s))]
    exits = replace(exits, workloads=[replace(single, blocks_s=blocks)])
    half = reduced("half", 0.5, wrong=range(2), seconds=pruned, spread=0.0)
    result = found([fp32, int8, half, exits])
    assert result.engine == "half"
    by_name = {each.engine: each for each in result.candidates}
    assert by_name["third"].cost == pytest.approx((14 * 0.0015 + 11 * 0.0055) / 25)
    means = [
        sum(of_a) / len(of_a) / (sum(of_b) / len(of_b))
        for of_a, of_b in zip(fp32.workloads[0].blocks_s, blocks, strict=True)
    ]
    assert by_name["third"].gain.value == pytest.approx(math.prod(means) ** (1 / len(means)))
    text = optimized_text.text(result)
    assert "ms per query of one row, on average" in text
    assert "mean time" in text and "| mean time |" in optimized_text.markdown(result)
    assert "mean time" not in optimized_text.text(found(session(lost=3), objective="size"))


def test_a_session_without_an_unreduced_fp32_engine_is_refused() -> None:
    with pytest.raises(UsageError, match="unreduced fp32 engine"):
        found(session()[1:])
    with pytest.raises(UsageError, match="no engine has a value of throughput"):
        found(session(), OFFLINE, objective="throughput")


def test_the_section_and_the_page_hold_all_engines() -> None:
    result = found(session(lost=3))
    rows = optimized_text.section(result)["tables"][0]["rows"]
    assert [row[0] for row in rows] == ["third", "half", "int8", "fp32"]
    page = optimized_text.markdown(result)
    assert page.startswith("# sst2: deploy third\n")
    assert all(f"| {name} |" in page for name in ("third", "half", "int8", "fp32"))


def test_a_gain_within_the_noise_is_said_to_be_none() -> None:
    runs = [simulated_run("fp32", n=N, seconds=0.0100, precision="fp32", rounds=8)]
    runs.append(reduced("half", 0.5, seconds=0.00998, rounds=8))
    result = found(runs)
    assert result.engine == "half"
    assert "not distinguishable" in optimized_text.text(result)
    assert "not distinguishable" not in optimized_text.text(found(session(lost=3)))


@pytest.mark.parametrize(
    ("variant", "plain"),
    [("buckets8+int8", "other"), ("int8+seq64", "int8"), ("threads1+int8", "int8"), ("bf16", "int8")],
)
def test_the_unreduced_engine_may_have_fixed_lengths(variant: str, plain: str) -> None:
    other = simulated_run("other", n=N, seconds=0.004)
    other = replace(other, engine=replace(other.engine, variant=variant))
    assert found([*session(), other]).plain == plain


def test_another_way_of_running_the_fp32_engine_is_a_candidate_and_not_the_baseline() -> None:
    runs = [
        simulated_run("fp32", n=N, seconds=0.010, precision="fp32"),
        simulated_run("buckets", n=N, seconds=0.006, precision="fp32"),
        reduced("half", 0.5, seconds=0.003),
    ]
    runs[1] = replace(runs[1], engine=replace(runs[1].engine, variant="buckets8+fp32"))
    runs[2] = replace(runs[2], engine=replace(runs[2].engine, variant="fp32", precision="fp32"))
    result = found(runs, variant="fp32")
    assert (result.baseline, result.plain, result.engine) == ("fp32", None, "half")
    assert states(result)["buckets"] is State.PROVEN

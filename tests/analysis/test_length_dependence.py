"""The same techniques at several lengths of the inputs: costs, changes, orders, choices, losses."""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
from scipy import stats
from statsmodels.stats import multitest

from effx.analysis import length_dependence
from effx.analysis.length_results import BatchOutcome, CostChange, LengthDependence
from effx.analysis.technique_choices import BASELINE
from effx.errors import UsageError
from effx.report import length_dependence as tables
from effx.results import Energy, GateResult, ReferenceEngine, Run, WorkloadResult
from effx.specs.constraints import TechniqueComparisonSettings
from effx.specs.workloads import grid
from tests.analysis.simulated_lengths import FOUR_SHAPES as FOUR
from tests.analysis.simulated_lengths import Reduction, everywhere, length_runs

TECHNIQUES = {
    "seq256": everywhere(0.9, lost=0.02),
    "int8": Reduction({(1, 32): 0.6, (1, 128): 0.3, (32, 32): 0.6, (32, 128): 0.6}),
    "buckets": Reduction({(1, 32): 0.4, (1, 128): 0.5, (32, 32): 0.4, (32, 128): 0.5}),
    "seq32": Reduction({(1, 32): 0.2, (32, 32): 0.2}, lost_of_long=0.3),
}


def of(runs: list[Run], technique: str) -> Run:
    return next(run for run in runs if run.engine.variant == technique)


def cell(run: Run, batch: int, length: int) -> WorkloadResult:
    found = run.workload(grid(batch, length))
    assert found is not None
    return found


def flags(found: LengthDependence) -> set[tuple[str, int, int]]:
    return {
        (each.technique, batch.batch, length)
        for batch in found.batches
        for each in batch.changes
        if (length := each.cheaper_at()) is not None
    }


def change(batch: BatchOutcome, technique: str) -> CostChange:
    return next(each for each in batch.changes if each.technique == technique)


def changes_of(runs: list[Run], alter: Callable[[WorkloadResult], WorkloadResult]) -> list[Run]:
    """Return runs with every shape of the grid altered."""
    return [
        replace(run, workloads=[
            alter(each) if each.workload.scenario == "grid" else each for each in run.workloads
        ])
        for run in runs
    ]  # fmt: skip


@pytest.mark.parametrize("objective", ["latency", "latency_mean", "throughput", "cpu_time"])
def test_costs_are_those_of_the_results(objective: str) -> None:
    runs = length_runs(1, TECHNIQUES, shapes=FOUR)
    (found,) = length_dependence.compare(runs, objective)
    assert (found.task, found.baseline, found.n) == ("sst2", "sst2-e.fp32", 400)
    assert [batch.batch for batch in found.batches] == [1, 32]
    for batch, length in [(one, length) for one in found.batches for length in one.lengths]:
        assert [each.technique for each in length.techniques] == sorted(TECHNIQUES)
        for each in length.techniques:
            if (batch.batch, length.length) not in TECHNIQUES[each.technique].costs:
                assert each.cost is None and each.cost_interval is None
                assert each.reason is not None and f"{batch.batch}x{length.length}" in each.reason
                continue
            before, after = (
                _figure(cell(of(runs, name), batch.batch, length.length), objective)
                for name in ("fp32", each.technique)
            )
            assert each.cost == pytest.approx(after / before)
            assert each.cost_interval is not None
            assert each.cost_interval[0] < each.cost < each.cost_interval[1]


def _figure(of_shape: WorkloadResult, objective: str) -> float:
    """Return what one row costs: of throughput its inverse."""
    samples = np.concatenate(of_shape.blocks_s)
    if objective == "latency":
        return float(np.sort(samples)[-(-len(samples) // 2) - 1])
    if objective == "cpu_time":
        return float(np.sum(of_shape.cpu_s)) / (of_shape.workload.batch * len(samples))
    return float(samples.mean())


def test_changes_are_welch_on_the_logarithms_of_rounds() -> None:
    """Of means: there resampled rounds have the error of their mean."""
    runs = length_runs(2, {"int8": Reduction({(1, 32): 0.5, (1, 128): 0.45})}, rounds=8, noise=0.05)
    (found,) = length_dependence.compare(runs, "latency_mean")
    means = {name: {length: np.mean(cell(of(runs, name), 1, length).blocks_s, axis=1) for length in (32, 128)}
             for name in ("fp32", "int8")}  # fmt: skip
    logs = [np.log(means["int8"][length] / means["fp32"][length]) for length in (128, 32)]
    expected = stats.ttest_ind(*logs, equal_var=False)
    ends = expected.confidence_interval()
    (each,) = found.batches[0].changes
    assert each.lengths == (32, 128) and each.interval is not None and each.p is not None
    assert np.log(each.ratio) == pytest.approx(logs[0].mean() - logs[1].mean(), abs=0.02)
    assert np.log(each.interval[1] / each.interval[0]) == pytest.approx(ends.high - ends.low, rel=0.15)
    assert each.p == pytest.approx(expected.pvalue, rel=0.5)
    assert each.p == each.p_adjusted


@pytest.mark.parametrize("objective", ["latency", "latency_mean"])
def test_costs_that_do_not_depend_are_flagged_in_at_most_5_percent_of_studies(objective: str) -> None:
    """Familywise, over techniques and batch sizes, with intervals that hold the truth."""
    techniques = {f"seq{64 * i}": everywhere(0.5) for i in range(1, 6)}
    studies, any_flag, held = 60, 0, []
    for seed in range(studies):
        (found,) = length_dependence.compare(
            length_runs(seed, techniques, shapes=FOUR, n=60, noise=0.05), objective
        )
        any_flag += bool(flags(found))
        held += [each.interval[0] <= 1 <= each.interval[1]
                 for batch in found.batches for each in batch.changes if each.interval]  # fmt: skip
    assert any_flag / studies <= 0.05 + 2 * np.sqrt(0.05 * 0.95 / studies)
    assert len(held) == 10 * studies and np.mean(held) >= 0.95 - 2 * np.sqrt(0.05 * 0.95 / len(held))


def test_planted_changes_are_found_and_only_those() -> None:
    (found,) = length_dependence.compare(length_runs(3, TECHNIQUES, shapes=FOUR, rounds=10))
    assert flags(found) == {("int8", 1, 128), ("buckets", 1, 32), ("buckets", 32, 32)}
    each = change(found.batches[0], "int8")
    assert each.interval is not None and each.interval[0] < 0.5 < each.interval[1]
    lines = tables.lines(found)
    assert any(
        line.startswith("Relatively cheaper on long inputs, batch size 1: 'int8' 0.") for line in lines
    )
    assert any(
        line.startswith("Relatively cheaper on short inputs, batch size 32: 'buckets'") for line in lines
    )


def test_holm_is_over_techniques_and_batch_sizes() -> None:
    techniques = {name: everywhere(0.5) for name in ("seq64", "int8", "buckets")}
    (found,) = length_dependence.compare(length_runs(4, techniques, shapes=FOUR))
    changes = [each for batch in found.batches for each in batch.changes]
    assert len(changes) == 6
    expected = multitest.multipletests([each.p for each in changes], method="holm")[1]
    assert [each.p_adjusted for each in changes] == pytest.approx(expected.tolist())


def test_a_technique_is_tested_between_the_lengths_that_it_has() -> None:
    shapes = ((1, 32), (1, 64), (1, 128))
    some = {"seq64": Reduction({(1, 32): 0.5, (1, 64): 0.5}), "int8": Reduction(dict.fromkeys(shapes, 0.6)),
            "seq32": Reduction({(1, 32): 0.2})}  # fmt: skip
    (found,) = length_dependence.compare(length_runs(5, some, shapes=shapes))
    (batch,) = found.batches
    assert {each.technique: each.lengths for each in batch.changes} == {"int8": (32, 128), "seq64": (32, 64)}
    assert [each.techniques for each in batch.agreements] == [2, 1, 1]
    assert [each.lengths for each in batch.agreements] == list(itertools.combinations((32, 64, 128), 2))


def test_ranks_are_those_of_scipy() -> None:
    (found,) = length_dependence.compare(length_runs(6, TECHNIQUES, shapes=FOUR))
    for batch in found.batches:
        (each,) = batch.agreements
        both = [
            [technique.cost for technique in length.techniques if technique.technique != "seq32"]
            for length in batch.lengths
        ]
        assert each.techniques == 3
        assert each.tau == pytest.approx(stats.kendalltau(*both).statistic)
        assert each.interval is not None and each.interval[0] <= each.tau <= each.interval[1]
    assert found.batches[0].agreements[0].tau == pytest.approx(1 / 3)


def test_choices_that_surely_differ_are_said_to_depend_on_the_length() -> None:
    runs = length_runs(7, TECHNIQUES)
    (found,) = length_dependence.compare(runs)
    (batch,) = found.batches
    chosen = [length.choice for length in batch.lengths]
    assert [None if each is None else each.measured for each in chosen] == ["buckets", "int8"]
    (pair,) = batch.choices
    assert pair.where == ("32 tokens", "128 tokens") and pair.measured_differ
    assert pair.measured_among == (("buckets",), ("int8",)) and pair.coverage == pytest.approx(0.975)
    costs = {length.length: {each.technique: each.cost for each in length.techniques}
             for length in batch.lengths}  # fmt: skip
    assert pair.exchanged_costs == pytest.approx(
        (costs[32]["int8"] / costs[32]["buckets"], costs[128]["buckets"] / costs[128]["int8"])
    )
    first = tables.lines(found)[0]
    assert first.startswith("Batch size 1: the best reduction depends on the length")
    assert "'buckets' at 32 tokens; 'int8' at 128 tokens" in first


def test_losses_beyond_the_limit_are_not_chosen() -> None:
    runs = length_runs(8, TECHNIQUES)
    (strict,) = length_dependence.compare(runs)
    (lax,) = length_dependence.compare(runs, settings=TechniqueComparisonSettings(max_drop=0.5))
    assert [choice.measured for choice in tables._chosen(strict)] == ["buckets", "int8"]
    assert [choice.measured for choice in tables._chosen(lax)] == ["seq32", "int8"]


def test_a_technique_of_one_length_is_shown_and_not_compared() -> None:
    """It would be the cheapest at 32 tokens; that it takes no longer inputs is no dependence."""
    equal = {"int8": everywhere(0.5), "seq32": Reduction({(1, 32): 0.2})}
    (found,) = length_dependence.compare(length_runs(9, equal))
    (batch,) = found.batches
    assert [choice.measured for choice in tables._chosen(found)] == ["seq32", "int8"]
    assert [length.shared_choice.measured for length in batch.lengths if length.shared_choice] == ["int8"] * 2
    assert not batch.choices[0].measured_differ
    lines = tables.lines(found)
    assert lines[0].startswith("Batch size 1: the best reduction is the same at all 2 lengths")
    assert "At 32 tokens, 'seq32' is cheaper still; it was not measured at every length" in lines[1]


def test_equal_techniques_are_hardly_ever_said_to_be_chosen_differently() -> None:
    equal = {f"seq{64 * i}": everywhere(0.5) for i in range(1, 7)}
    said = 0
    for seed in range(40):
        (found,) = length_dependence.compare(length_runs(seed, equal, n=60, noise=0.05))
        said += any(pair.measured_differ or pair.proven_differ for pair in found.batches[0].choices)
    assert said / 40 <= 0.05


def test_losses_on_quarters_of_the_rows_are_those_of_the_predictions() -> None:
    runs = length_runs(10, TECHNIQUES)
    (found,) = length_dependence.compare(runs)
    right = {
        name: np.array(of(runs, name).quality.predictions) == np.array(of(runs, name).quality.labels)
        for name in ("fp32", *TECHNIQUES)
    }
    for each in found.losses:
        assert each.loss == pytest.approx(right["fp32"].mean() - right[each.technique].mean())
        assert each.loss_interval is not None and each.loss_interval[0] <= each.loss <= each.loss_interval[1]
        assert [part.slice for part in each.by_words] == [
            "words: 1 to 9", "words: 10 to 19", "words: 20 to 29", "words: 30 to 60",
        ]  # fmt: skip
        for start, part in enumerate(each.by_words):
            rows = slice(start, None, 4)
            assert part.loss == pytest.approx(right["fp32"][rows].mean() - right[each.technique][rows].mean())
    flagged = {
        (each.technique, part.slice) for each in found.losses for part in each.by_words if part.flagged
    }
    assert flagged == {("seq32", "words: 30 to 60")}
    assert any(line.startswith("'seq32' loses") and "on rows of 30 to 60 words" in line
               for line in tables.lines(found))  # fmt: skip


def test_what_is_fast_on_long_inputs_and_loses_there_is_said() -> None:
    both = {"int8": Reduction({(1, 32): 0.6, (1, 128): 0.3}, lost_of_long=0.3), "seq256": everywhere(0.9)}
    (found,) = length_dependence.compare(length_runs(11, both, rounds=10))
    (line,) = [line for line in tables.lines(found) if line.startswith("'int8' loses")]
    assert line.endswith("It is relatively cheaper on long inputs, and loses more there.")


def _without_rows(run: Run) -> Run:
    return replace(run, quality=replace(run.quality, predictions=[], labels=[], groups=[]))


def test_results_without_predictions_have_costs_and_no_choice() -> None:
    runs = [_without_rows(run) for run in length_runs(12, TECHNIQUES)]
    (found,) = length_dependence.compare(runs)
    assert all(change.p is not None for change in found.batches[0].changes)
    assert tables._chosen(found) == [] and found.batches[0].choices == ()
    assert all(each.loss_interval is None and not each.by_words for each in found.losses)
    assert any("shared without predictions" in remark for remark in found.remarks)
    assert tables.choices(found).rows == ()
    json.dumps(tables.to_json([found]), allow_nan=False)


def test_agreement_with_a_reference_is_no_loss_to_choose_by() -> None:
    runs = [
        replace(run, quality=replace(run.quality, reference=ReferenceEngine("r", "0" * 64)))
        for run in length_runs(13, TECHNIQUES)
    ]
    (found,) = length_dependence.compare(runs)
    assert tables._chosen(found) == []
    assert any("its rows have no labels" in remark for remark in found.remarks)


def test_costs_of_too_few_rounds_are_not_tested() -> None:
    (found,) = length_dependence.compare(length_runs(14, TECHNIQUES, rounds=2))
    (batch,) = found.batches
    assert all(each.p is None and each.interval is None and each.reason for each in batch.changes)
    assert not batch.choices[0].measured_differ
    assert "Whether relative costs depend on the length could not be tested." in tables.lines(found)
    assert "Costs are single readings" in tables.choices(found).note


def test_shapes_timed_on_the_device_are_not_taken() -> None:
    runs = length_runs(15, TECHNIQUES)
    timed = [
        replace(run, workloads=[
            *run.workloads,
            *(replace(each, workload=each.workload.timed_on_device(), blocks_s=[[9.0]] * 5)
              for each in run.workloads if each.workload.scenario == "grid"),
        ])
        for run in runs
    ]  # fmt: skip
    assert length_dependence.compare(timed) == length_dependence.compare(runs)


def _metered(runs: list[Run], meter: str = "rapl") -> list[Run]:
    """Return runs whose energy is proportional to the seconds of a query, with 1 % of error."""

    def energy(each: WorkloadResult) -> WorkloadResult:
        joules = 20 * float(np.mean(np.concatenate(each.blocks_s))) / each.workload.batch
        measured = Energy("counter", meter, None, joules, (0.99 * joules, 1.01 * joules), joules)
        return replace(each, energy=measured)

    return changes_of(runs, energy)


def test_energy_is_compared_where_it_was_measured() -> None:
    runs = length_runs(16, TECHNIQUES)
    with pytest.raises(UsageError, match="objective energy: measured for single-stream"):
        length_dependence.compare(runs, "energy")
    metered = _metered(runs)
    (found,) = length_dependence.compare(metered, "energy")
    joules = {
        name: [cell(of(metered, name), 1, length).energy.joules_per_example for length in (32, 128)]
        for name in ("fp32", "int8")
    }
    each = change(found.batches[0], "int8")
    relative = [after / before for before, after in zip(joules["fp32"], joules["int8"], strict=True)]  # type: ignore[operator]
    assert each.costs == pytest.approx(tuple(relative)) and each.interval is not None
    # four independent errors of 1 % at 95 %, in squares
    assert np.log(each.interval[1] / each.interval[0]) == pytest.approx(2 * 0.02, rel=0.1)
    mixed = [*metered[:-1], *_metered(metered[-1:], "nvml")]
    with pytest.raises(UsageError, match="energies from different sources or meters"):
        length_dependence.compare(mixed, "energy")


def _moved(run: Run, **engine: object) -> Run:
    return replace(run, engine=replace(run.engine, **engine))  # type: ignore[arg-type]


def test_doubts_about_costs_and_losses_are_remarks() -> None:
    runs = length_runs(17, {"exit": everywhere(0.5), "int8": everywhere(0.6)}, shapes=FOUR)
    of_shape = GateResult("steady-rounds", False, "+30 %", workload="grid 1x32")
    gates = [of_shape, replace(of_shape, name="host-idle", workload=None),
             replace(of_shape, name="cpu-quota", workload="offline 32xreal"),
             replace(of_shape, name="energy-measured")]  # fmt: skip
    runs = [replace(runs[0], gates=gates), replace(runs[1], gates=gates[:1]), runs[2]]
    int8 = replace(runs[2], session="another", quality=replace(runs[2].quality, batch_dependent=True))
    (found,) = length_dependence.compare([*runs[:2], int8])
    failed = [each for each in found.remarks if each.startswith("gate failed")]
    assert [each.partition(" engines")[0] for each in failed] == [
        "gate failed: latency steady across rounds: 2 of 3",
        "gate failed: host otherwise idle: 1 of 3",
    ]
    assert any(
        "exits and token thresholds" in each and each.endswith("sst2-e.exit") for each in found.remarks
    )
    assert any(
        "answer otherwise in batches" in each and each.endswith("sst2-e.int8") for each in found.remarks
    )
    assert any("1 engines were measured in other sessions" in each for each in found.remarks)


def test_places_and_tasks_are_compared_apart() -> None:
    runs = [
        *length_runs(18, TECHNIQUES),
        *length_runs(19, TECHNIQUES, host="other"),
        *length_runs(20, TECHNIQUES, task="mrpc"),
    ]
    found = length_dependence.compare(runs)
    assert [(each.task, each.host) for each in found] == [("mrpc", "h"), ("sst2", "h"), ("sst2", "other")]
    assert {each.task for each in length_dependence.compare(runs, tasks=["mrpc"])} == {"mrpc"}


ONE_LENGTH = ((1, 32), (32, 32))
REDUCED = {name: TECHNIQUES[name] for name in ("int8", "seq32")}
"""Buckets are no reduction: without the plain engine they are the baseline."""


@pytest.mark.parametrize(
    ("runs", "message"),
    [
        (length_runs(21, REDUCED, shapes=ONE_LENGTH),
         "two lengths of one batch size in common; shapes of sst2-e.fp32: 1x32, 32x32; profile all with a"),
        (length_runs(21, REDUCED)[1:], "its unreduced fp32 engine was not measured with onnxruntime on h"),
        (length_runs(21, REDUCED)[:1], "no other engine than sst2-e.fp32 was measured"),
        (length_runs(21, REDUCED, shapes=()), "shapes of sst2-e.fp32: none"),
        ([*length_runs(21, REDUCED)[:1], *length_runs(21, REDUCED, host="other")[1:]],
         "they have different hosts, h, other; measure the unreduced engine and the techniques in one"),
        ([run if run.engine.variant == "fp32" else _moved(run, backend="openvino")
          for run in length_runs(21, REDUCED)], "they have different backends, onnxruntime, openvino"),
    ],
)  # fmt: skip
def test_what_cannot_be_compared_is_refused_in_one_line(runs: list[Run], message: str) -> None:
    with pytest.raises(UsageError, match=message) as error:
        length_dependence.compare(runs)
    assert "\n" not in str(error.value)


def test_unknown_tasks_and_costs_are_refused() -> None:
    runs = length_runs(22, TECHNIQUES)
    with pytest.raises(UsageError, match="sst2"):
        length_dependence.compare(runs, tasks=["sst3"])
    for objective, message in (("accuracy", "is the same for all workloads"), ("size", "is the same for all"),
                               ("latensy", "latency")):  # fmt: skip
        with pytest.raises(UsageError, match=message):
            length_dependence.compare(runs, objective)


def test_the_baseline_is_chosen_where_nothing_is_within_the_limit() -> None:
    (found,) = length_dependence.compare(length_runs(23, {"int8": everywhere(0.5, lost=0.2)}))
    assert {choice.measured for choice in tables._chosen(found)} == {BASELINE}
    assert any("No technique is proven" in line for line in tables.lines(found))

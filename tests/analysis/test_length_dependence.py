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
from effx.results import GateResult, ReferenceEngine, RowGroups, Run, WorkloadResult
from effx.row_slices import Slice
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
    (choices,) = batch.choices
    pair = choices.compared
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
    assert [choice.measured for choice in batch.choices[0].at] == ["int8"] * 2
    assert not batch.choices[0].compared.measured_differ
    lines = tables.lines(found)
    assert lines[0].startswith("Batch size 1: the best reduction is the same at all 2 lengths")
    assert "At 32 tokens, 'seq32' is cheaper still; it has no cost to compare at another length" in lines[1]


def test_equal_techniques_are_hardly_ever_said_to_be_chosen_differently() -> None:
    equal = {f"seq{64 * i}": everywhere(0.5) for i in range(1, 7)}
    said = 0
    for seed in range(40):
        (found,) = length_dependence.compare(length_runs(seed, equal, n=60, noise=0.05))
        (each,) = found.batches[0].choices
        said += each.compared.measured_differ or each.compared.proven_differ
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
    assert not batch.choices[0].compared.measured_differ
    assert "Whether relative costs depend on the length could not be tested." in tables.lines(found)
    assert "Costs are single readings, or of too few rounds" in tables.choices(found).note


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


def _moved(run: Run, **engine: object) -> Run:
    return replace(run, engine=replace(run.engine, **engine))  # type: ignore[arg-type]


def test_doubts_about_costs_and_losses_are_remarks() -> None:
    runs = length_runs(17, {"exit": everywhere(0.5), "int8": everywhere(0.6)}, shapes=FOUR)
    of_shape = GateResult("steady-rounds", False, "+30 %", workload="grid 1x32")
    gates = [of_shape, replace(of_shape, name="host-idle", workload=None),
             replace(of_shape, name="cpu-quota", workload="offline 32xreal"),
             replace(of_shape, name="energy-measured")]  # fmt: skip
    runs = [replace(runs[0], gates=gates), replace(runs[1], gates=gates[:1]), runs[2]]
    int8 = replace(runs[2], session="another")
    (found,) = length_dependence.compare([*runs[:2], int8])
    failed = [each for each in found.remarks if each.startswith("gate failed")]
    assert [each.partition(" engines")[0] for each in failed] == [
        "gate failed: latency steady across rounds: 2 of 3",
        "gate failed: host otherwise idle: 1 of 3",
    ]
    assert any(
        "exits and token thresholds" in each and each.endswith("sst2-e.exit") for each in found.remarks
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
    refused = "is not measured for each workload: choose latency"
    for objective, message in (("accuracy", refused), ("memory", refused), ("energy", refused),
                               ("throughput_offline", refused), ("latensy", "latency")):  # fmt: skip
        with pytest.raises(UsageError, match=message):
            length_dependence.compare(runs, objective)


def test_the_baseline_is_chosen_where_nothing_is_within_the_limit() -> None:
    (found,) = length_dependence.compare(length_runs(23, {"int8": everywhere(0.5, lost=0.2)}))
    assert {choice.measured for choice in tables._chosen(found)} == {BASELINE}
    assert any("No technique is proven" in line for line in tables.lines(found))


def test_engines_that_answer_otherwise_in_batches_are_not_chosen_there() -> None:
    """Shapes of the grid are not scored: the loss of single queries says nothing about batches of 32."""
    cheap = {"int8": everywhere(0.3), "seq256": everywhere(0.6)}
    runs = length_runs(24, cheap, shapes=FOUR)

    def dependent(name: str) -> list[Run]:
        return [run if run.engine.variant != name else
                replace(run, quality=replace(run.quality, batch_dependent=True)) for run in runs]  # fmt: skip

    (found,) = length_dependence.compare(dependent("int8"))
    single, batched = found.batches
    assert {length.choice.measured for length in single.lengths if length.choice} == {"int8"}
    of_batches = [length.choice for length in batched.lengths if length.choice]
    assert [choice.measured for choice in of_batches] == ["seq256"] * 2
    assert all("int8" not in choice.costs and choice.proven != "int8" for choice in of_batches)
    (remark,) = [each for each in found.remarks if each.startswith("batch size 32: not chosen")]
    assert remark.endswith("sst2-e.int8") and "were not scored" in remark
    (found,) = length_dependence.compare(dependent("fp32"))
    assert all(length.choice for length in found.batches[0].lengths)
    assert not any(length.choice for length in found.batches[1].lengths) and not found.batches[1].choices
    (remark,) = [each for each in found.remarks if each.startswith("batch size 32: no choice is stated")]
    assert remark.endswith("sst2-e.fp32")


def test_p99_of_few_rounds_has_no_interval_and_is_not_tested() -> None:
    """Twenty rounds, as for the p99 of one engine; five and 19 are too few."""
    costs = {name: TECHNIQUES[name] for name in ("int8", "buckets")}
    for rounds, queries, known in ((5, 140, False), (19, 37, False), (20, 35, True)):
        runs = [
            replace(run, workloads=[
                replace(each, blocks_s=[np.repeat(block, queries).tolist() for block in each.blocks_s])
                if each.workload.scenario == "grid" else each for each in run.workloads
            ])
            for run in length_runs(25, costs, rounds=rounds)
        ]  # fmt: skip
        (found,) = length_dependence.compare(runs, "latency_p99")
        (batch,) = found.batches
        for each in (technique for length in batch.lengths for technique in length.techniques):
            assert each.cost is not None and (each.cost_interval is not None) is known
        assert all((each.p is not None) is known for each in batch.changes)
        assert batch.choices[0].compared.measured_differ is known
        assert any("p99 latency has no interval" in each for each in found.remarks) is not known
        if not known:
            reason = f"p99 latency needs 20 rounds for a test, {rounds} were measured"
            assert {each.reason for each in batch.changes} == {reason}
            (remark,) = [each for each in found.remarks if "p99" in each]
            assert "more grid_rounds: sst2-e.fp32" in remark
            assert "of too few rounds" in tables.choices(found).note and found.pairs == 0


def test_the_baseline_takes_inputs_of_every_length_as_they_are() -> None:
    runs = length_runs(26, TECHNIQUES)
    (found,) = length_dependence.compare(runs)
    assert found.baseline == "sst2-e.fp32"
    assert "Losses and costs are relative to sst2-e.fp32, the unreduced fp32 engine." in tables.lines(found)
    assert all("sst2-e.fp32" in sheet.note for sheet in (tables.overview(found), tables.costs(found)))
    with pytest.raises(UsageError, match="sst2-e.buckets pads them.*build and profile fp32"):
        length_dependence.compare(runs[1:])


def test_unproven_lengths_are_not_a_matter_of_rows() -> None:
    """Losses and rows are the same at all lengths; at 32 tokens it costs more than the baseline."""
    costs = {"int8": Reduction({(1, 32): 1.5, (1, 128): 0.5})}
    (found,) = length_dependence.compare(length_runs(27, costs, n=2000))
    (line,) = [line for line in tables.lines(found) if "proven with" in line]
    assert "'int8' at 128 tokens" in line and "No cheaper technique is proven at 32 tokens" in line
    assert "each length is tested by itself" in line and "matter of rows" not in line


THREE = ((1, 32), (1, 64), (1, 128))


def test_a_length_that_some_techniques_lack_does_not_end_the_answer() -> None:
    """Each pair of lengths is compared among the techniques that both have; 256 is left out: none was
    measured there."""
    some = {
        "int8": Reduction({(1, 32): 0.6, (1, 64): 0.3}),
        "buckets": Reduction({(1, 32): 0.3, (1, 64): 0.6}),
        "seq256": Reduction({(1, 64): 0.8, (1, 128): 0.8}),
    }
    (found,) = length_dependence.compare(length_runs(28, some, shapes=(*THREE, (1, 256)), rounds=10))
    (batch,) = found.batches
    assert [length.length for length in batch.lengths] == [32, 64, 128]
    pairs = {each.compared.where: (set(each.techniques), each.compared.measured_differ)
             for each in batch.choices}  # fmt: skip
    assert pairs == {
        ("32 tokens", "64 tokens"): ({BASELINE, "int8", "buckets"}, True),
        ("64 tokens", "128 tokens"): ({BASELINE, "seq256"}, False),
    }
    assert found.pairs == 2
    assert {each.compared.coverage for each in batch.choices} == {1 - 0.05 / 2 / 2}
    lines = tables.lines(found)
    assert lines[0].startswith("Batch size 1: between 32 tokens and 64 tokens, among 2 techniques that both "
                               "have: the best reduction depends on the length")  # fmt: skip
    assert any(
        line.startswith("Between 64 tokens and 128 tokens, among 1 technique that both have: the best "
                        "reduction is the same") for line in lines
    )  # fmt: skip
    assert "adjusted for 2 pairs of lengths" in lines[0]


def test_what_is_left_out_is_said_and_a_named_task_must_be_compared(
    capsys: pytest.CaptureFixture[str],
) -> None:
    short = length_runs(29, REDUCED, shapes=ONE_LENGTH, task="mrpc")
    many = length_runs(29, {f"seq{number}": everywhere(0.5) for number in range(200, 301)}, task="rte", n=40)
    runs = [*length_runs(29, TECHNIQUES), *short, *many]
    assert [each.task for each in length_dependence.compare(runs)] == ["sst2"]
    said = capsys.readouterr().err
    assert "simulated, onnxruntime on cpu, h: mrpc: mrpc-e.fp32 and another engine must have two" in said
    assert "rte: 101 techniques: at most 100 can be compared" in said
    for tasks in (["mrpc"], ["sst2", "mrpc"]):
        with pytest.raises(UsageError, match="no lengths can be compared: mrpc: mrpc-e.fp32 and") as error:
            length_dependence.compare(runs, tasks=tasks)
        assert error.value.exit_code == 2


def test_an_engine_shared_without_predictions_has_costs_and_is_not_chosen() -> None:
    runs = length_runs(30, {"int8": everywhere(0.3), "seq256": everywhere(0.6)})
    shared = [_without_rows(run) if run.engine.variant == "int8" else run for run in runs]
    (found,) = length_dependence.compare(shared)
    assert [each.technique for each in found.batches[0].changes] == ["int8", "seq256"]
    assert [choice.measured for choice in tables._chosen(found)] == ["seq256"] * 2
    assert not any("other rows" in each for each in found.remarks)
    assert any("sst2-e.int8: its results were shared without predictions" in each for each in found.remarks)
    (whole,) = length_dependence.compare(runs)
    assert whole.batches[0].changes == found.batches[0].changes


def test_engines_with_other_labels_are_left_out() -> None:
    runs = length_runs(31, {"int8": everywhere(0.3), "seq256": everywhere(0.6)})
    quality = replace(runs[1].quality, labels=runs[1].quality.labels[::-1])
    (found,) = length_dependence.compare([runs[0], replace(runs[1], quality=quality), runs[2]])
    assert [each.technique for each in found.losses] == ["seq256"]
    assert any("1 engines scored on other rows are left out" in each for each in found.remarks)


def _regrouped(runs: list[Run], edges: list[int]) -> list[Run]:
    """Return runs whose rows are divided by their numbers of words at some shares of the rows."""
    parts = [Slice("words", f"{start} to {end}", np.arange(start, end)) for start, end in
             itertools.pairwise(edges)]  # fmt: skip
    groups = RowGroups.of(parts, edges[-1])
    return [replace(run, quality=replace(run.quality, groups=groups)) for run in runs]


def test_longest_rows_are_those_of_the_last_quarter_or_not_named() -> None:
    """The last quarter is too small to be tested: the third has not the longest rows."""
    both = {"int8": Reduction({(1, 32): 0.6, (1, 128): 0.3})}
    runs = length_runs(32, both, rounds=10)
    wrong = np.array(runs[0].quality.predictions)
    wrong[250:350] = 1 - np.array(runs[0].quality.labels)[250:350]
    runs[1] = replace(runs[1], quality=replace(runs[1].quality, predictions=wrong.tolist()))
    (found,) = length_dependence.compare(_regrouped(runs, [0, 100, 250, 390, 400]))
    assert (found.shortest, found.longest) == ("words: 0 to 100", None)
    header = [column.label for column in tables.overview(found).columns]
    assert "loss, shortest rows" in header and "loss, longest rows" not in header
    (line,) = [line for line in tables.lines(found) if line.startswith("'int8' loses")]
    assert "rows of 250 to 390 words" in line and "relatively cheaper" not in line
    (found,) = length_dependence.compare(_regrouped(runs, [0, 100, 250, 400]))
    assert found.longest == "words: 250 to 400"
    (line,) = [line for line in tables.lines(found) if line.startswith("'int8' loses")]
    assert line.endswith("It is relatively cheaper on long inputs, and loses more there.")


@pytest.mark.parametrize(
    ("of_32", "said"),
    [((0.3, 0.6), ""), ((0.5, 0.5), " (batch size 1), and"), ((0.6, 0.3), ", and")],
)
def test_batch_sizes_that_disagree_are_not_pooled(of_32: tuple[float, float], said: str) -> None:
    costs = {(1, 32): 0.6, (1, 128): 0.3, (32, 32): of_32[0], (32, 128): of_32[1]}
    runs = length_runs(33, {"int8": Reduction(costs, lost_of_long=0.3)}, shapes=FOUR, rounds=10)
    (found,) = length_dependence.compare(runs)
    (line,) = [line for line in tables.lines(found) if line.startswith("'int8' loses")]
    expected = f"It is relatively cheaper on long inputs{said} loses more there."
    assert line.endswith(expected) if said else "relatively cheaper" not in line


def test_why_losses_by_length_are_not_known_is_said() -> None:
    runs = length_runs(34, {"int8": everywhere(0.5)})
    cases = {
        "the results do not say how many words rows have": [
            replace(run, quality=replace(run.quality, groups=[])) for run in runs
        ],
        "the quarters of the rows have fewer than 20 rows": length_runs(34, {"int8": everywhere(0.5)}, n=60),
        "predictions were not shared": [
            replace(run, quality=replace(run.quality, predictions=[], labels=[])) for run in runs
        ],
    }
    for reason, of_case in cases.items():
        (found,) = length_dependence.compare(of_case)
        (remark,) = [each for each in found.remarks if "losses by the length" in each]
        assert remark.startswith(f"losses by the length of the rows are not known: {reason}")
        assert (found.shortest, found.longest) == (None, None)


def test_an_engine_of_too_few_rounds_is_left_out_of_choices_alone() -> None:
    runs = length_runs(35, {"int8": Reduction({(1, 32): 0.6, (1, 128): 0.3}), "seq256": everywhere(0.45),
                            "buckets": everywhere(0.2)}, rounds=10)  # fmt: skip
    few = [run if run.engine.variant != "buckets" else changes_of([run], _two_rounds)[0] for run in runs]
    (found,) = length_dependence.compare(few)
    (batch,) = found.batches
    assert [choice.measured for choice in tables._chosen(found)] == ["seq256", "int8"]
    (each,) = batch.choices
    assert each.compared.measured_differ and "buckets" not in each.techniques
    assert "single readings" not in tables.choices(found).note
    assert any(
        each.startswith("batch size 1: not chosen where costs are single readings") and "buckets" in each
        for each in found.remarks
    )
    assert change(batch, "buckets").p is None and change(batch, "int8").p is not None


def _two_rounds(each: WorkloadResult) -> WorkloadResult:
    return replace(
        each, blocks_s=each.blocks_s[:2], rounds=each.rounds[:2], cpu_s=each.cpu_s and each.cpu_s[:2]
    )


def test_engines_without_the_cost_are_named() -> None:
    runs = length_runs(36, TECHNIQUES)
    unknown = [*runs[:1], *changes_of(runs[1:], lambda each: replace(each, cpu_s=None))]
    with pytest.raises(UsageError) as error:
        length_dependence.compare(unknown, "cpu_time")
    assert "not measured of sst2-e.buckets, sst2-e.int8, sst2-e.seq256, sst2-e.seq32: processor seconds" in (
        str(error.value)
    )
    zero = changes_of(runs, lambda each: replace(each, cpu_s=[0.0] * len(each.blocks_s)))
    with pytest.raises(UsageError, match="sst2-e.fp32.*: the processor seconds are 0.* more grid_rounds"):
        length_dependence.compare(zero, "cpu_time")

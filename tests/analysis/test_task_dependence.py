"""The same techniques on several tasks: losses, costs, interactions, ranks, choices, on simulated studies."""

from __future__ import annotations

import hashlib
import itertools
import json
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from scipy import stats

from effx.analysis import task_dependence, task_runs, technique_choices
from effx.analysis.task_results import POINTS, RELATIVE, Interaction
from effx.analysis.technique_choices import BASELINE
from effx.errors import UsageError
from effx.manifests import CheckpointOrigin, ExitTarget
from effx.report import choice_sentences
from effx.report import task_dependence as tables
from effx.results import Energy, ReferenceEngine, Run
from effx.specs.constraints import TechniqueComparisonSettings
from effx.stats.metrics import METRICS
from tests.analysis.simulated_run import simulated_run
from tests.analysis.simulated_tasks import study
from tests.analysis.simulated_tasks import task_runs as simulated

TECHNIQUES = {
    "seq16": (0.06, 0.02, 0.001),
    "seq32": (0.04, 0.02, 0.003),
    "seq64": (0.02, 0.02, 0.006),
    "int8": (0.01, 0.01, 0.005),
}


def of(runs: list[Run], technique: str, task: str) -> Run:
    return next(run for run in runs if run.engine.variant == technique and run.task == task)


def flags(found: tuple[Interaction, ...]) -> set[tuple[str, str]]:
    return {(each.technique, where) for each in found if (where := each.loses_more_on()) is not None}


def test_losses_and_costs_are_those_of_the_results() -> None:
    runs = study(1, ("a", "b"), TECHNIQUES)
    (found,) = task_dependence.compare(runs)
    assert [task.task for task in found.tasks] == ["a", "b"] and found.same_metric
    for name, each in ((task.task, each) for task in found.tasks for each in task.techniques):
        baseline, run = of(runs, "fp32", name), of(runs, each.technique, name)
        before, after = (
            np.mean(np.array(one.quality.predictions) == np.array(one.quality.labels))
            for one in (baseline, run)
        )
        assert each.loss == pytest.approx(before - after)
        assert each.relative_loss == pytest.approx((before - after) / (before - 0.5))
        ratio = run.workloads[0].latency_s["p50"] / baseline.workloads[0].latency_s["p50"]  # type: ignore[operator]
        assert each.cost == pytest.approx(ratio)
        assert each.loss_interval is not None and each.cost_interval is not None
        assert each.loss_interval[0] < each.loss < each.loss_interval[1]
        assert each.cost_interval[0] < each.cost < each.cost_interval[1]


def test_ranks_are_those_of_scipy() -> None:
    (found,) = task_dependence.compare(study(2, ("a", "b", "c"), TECHNIQUES))
    for each in found.agreements:
        of_tasks = [
            [getattr(technique, each.by) for technique in task.techniques]
            for name in each.tasks for task in found.tasks if task.task == name
        ]  # fmt: skip
        assert each.tau == pytest.approx(stats.kendalltau(*of_tasks).statistic)
        assert each.techniques == len(TECHNIQUES)
        assert each.interval is not None and each.interval[0] <= each.tau <= each.interval[1]
    assert [each.tau for each in found.agreements if each.by == "cost"] == [1.0] * 3


@pytest.mark.parametrize(
    "techniques", [TECHNIQUES, {f"seq{16 * i}": (0.004, 0.004, 0.001) for i in range(1, 5)}]
)
def test_techniques_that_lose_the_same_are_flagged_in_at_most_5_percent_of_studies(
    techniques: dict[str, tuple[float, float, float]],
) -> None:
    """Familywise, over techniques and pairs of tasks; also where few rows differ."""
    studies, any_flag, held = 80, 0, []
    for seed in range(studies):
        (found,) = task_dependence.compare(study(seed, ("a", "b", "c"), techniques))
        any_flag += bool(flags(found.interactions))
        held += [each.interval[0] <= 0 <= each.interval[1] for each in found.interactions if each.interval]
    assert any_flag / studies <= 0.05 + 2 * np.sqrt(0.05 * 0.95 / studies)
    assert len(held) == 12 * studies and np.mean(held) >= 0.95 - 2 * np.sqrt(0.05 * 0.95 / len(held))


def test_tasks_with_as_many_rows_are_resampled_independently() -> None:
    """The same rows on two tasks: if they were drawn together, each resampling would order both alike."""
    alike = {f"seq{length}": (0.03, 0.03, 1e-5 * length) for length in (16, 32, 64)}
    runs = simulated(np.random.default_rng(3), "a", alike)
    twins = [
        replace(run, id=f"b-{run.id}", engine=replace(run.engine, task="b", name=f"b-{run.name}"))
        for run in runs
    ]
    (found,) = task_dependence.compare([*runs, *twins])
    (agreement,) = [each for each in found.agreements if each.by == "loss"]
    assert agreement.tau == 1.0
    assert agreement.interval is not None and agreement.interval[0] < 0


def test_a_planted_interaction_is_found_and_only_that() -> None:
    rng = np.random.default_rng(4)
    planted = {**TECHNIQUES, "seq32": (0.15, 0.02, 0.003)}
    runs = [*simulated(rng, "a", TECHNIQUES, n=1000), *simulated(rng, "b", planted, n=1000)]
    (found,) = task_dependence.compare(runs)
    assert flags(found.interactions) == {("seq32", "b")}
    each = next(each for each in found.interactions if each.technique == "seq32")
    assert each.scale == POINTS and each.interval is not None
    assert each.interval[0] < 0.02 - 0.13 < each.interval[1]
    assert any(
        line.startswith("'seq32' loses 1") and "more on b than on a" in line for line in tables.lines(found)
    )


def test_holm_is_over_techniques_and_pairs_of_tasks() -> None:
    (found,) = task_dependence.compare(study(5, ("a", "b", "c"), TECHNIQUES))
    p = np.array([each.p for each in found.interactions], dtype=float)
    assert len(p) == 3 * len(TECHNIQUES)
    least = int(p.argmin())
    assert found.interactions[least].p_adjusted == pytest.approx(min(1.0, len(p) * p[least]))


def test_different_metrics_are_compared_above_a_constant_answer() -> None:
    """The same losses of rows are more points of Matthews' correlation than of accuracy."""
    rng = np.random.default_rng(1)
    techniques = {"seq16": (0.08, 0.0, 0.001), "seq32": (0.05, 0.02, 0.001), "seq64": (0.03, 0.02, 0.003)}
    runs = [*simulated(rng, "a", techniques, n=800),
            *simulated(rng, "b", techniques, n=800, metric="matthews")]  # fmt: skip
    (found,) = task_dependence.compare(runs)
    a, b = found.tasks
    assert (a.constant_score, b.constant_score) == (0.5, 0.0)
    assert {each.scale for each in found.interactions} == {RELATIVE}
    assert b.techniques[0].loss > 1.5 * a.techniques[0].loss  # in points it would be flagged
    assert flags(found.interactions) == set()
    run = of(runs, "seq16", "b").quality
    base = of(runs, "fp32", "b").quality
    score = METRICS["matthews"](run.label_array, run.prediction_array)
    assert b.techniques[0].relative_loss == pytest.approx((base.value - score) / base.value)
    assert any("a point of one is not a point of another" in remark for remark in found.remarks)


def test_a_baseline_no_better_than_a_constant_has_no_relative_loss() -> None:
    rng = np.random.default_rng(7)
    runs = [*simulated(rng, "a", TECHNIQUES, wrong=0.5), *simulated(rng, "b", TECHNIQUES, metric="f1")]
    (found,) = task_dependence.compare(runs)
    assert all(each.relative_loss is None for each in found.tasks[0].techniques)
    assert all(each.p is None and each.reason is not None and "constant" in each.reason
               for each in found.interactions)  # fmt: skip


def test_a_baseline_that_some_resamplings_find_no_better_has_no_relative_loss() -> None:
    """Otherwise a loss is divided by nothing, and its interval has no end."""
    weak = 0
    for seed in range(8):
        rng = np.random.default_rng(seed)
        runs = [*simulated(rng, "a", TECHNIQUES, n=277, wrong=0.43),
                *simulated(rng, "b", TECHNIQUES, metric="matthews")]  # fmt: skip
        (found,) = task_dependence.compare(runs)
        json.dumps(tables.to_json([found]), allow_nan=False)
        tables.section(found)
        if found.tasks[0].techniques[0].relative_loss is None:
            weak += 1
            assert all(each.reason and "every resampling" in each.reason for each in found.interactions)
            assert any(remark.startswith("a: relative losses are not known") for remark in found.remarks)
    assert weak


def test_too_few_differing_predictions_are_not_tested_of_other_metrics() -> None:
    rng = np.random.default_rng(8)
    few = {"seq16": (0.005, 0.0, 0.001), "seq32": (0.1, 0.0, 0.003)}
    runs = [*simulated(rng, "a", few, metric="f1"), *simulated(rng, "b", few, metric="f1")]
    (found,) = task_dependence.compare(runs)
    tested = {each.technique: each.p is not None for each in found.interactions}
    assert tested == {"seq16": False, "seq32": True}


CLEAR = {"seq16": (0.2, 0.0, 0.001), "seq32": (0.0, 0.0, 0.005)}


def test_choices_that_surely_differ_are_said_to_depend_on_the_task() -> None:
    rng = np.random.default_rng(9)
    robust = {**CLEAR, "seq16": (0.0, 0.0, 0.001)}
    runs = [*simulated(rng, "a", CLEAR), *simulated(rng, "b", robust)]
    (found,) = task_dependence.compare(runs)
    assert [task.choice.measured for task in found.tasks] == ["seq32", "seq16"]
    (pair,) = found.choices
    assert pair.measured_differ and pair.measured_among == (("seq32",), ("seq16",))
    assert pair.coverage == pytest.approx(0.975)
    assert pair.exchanged_losses == pytest.approx((found.tasks[0].techniques[0].loss, 0.0))
    assert pair.exchanged_costs[1] == pytest.approx(
        found.tasks[1].techniques[1].cost / found.tasks[1].techniques[0].cost
    )
    lines = tables.lines(found)
    assert lines[0].startswith("The best reduction depends on the task")
    assert "'seq32' on a; 'seq16' on b" in lines[0] and "for certain" not in lines[0]
    assert "With 95 % confidence, the choices differ between a and b" in lines[0]
    assert "more than allowed" in lines[1]


def test_choices_that_may_be_chance_are_said_not_to_be_told_apart() -> None:
    close = {"seq16": (0.02, 0.01, 0.001), "seq32": (0.0, 0.0, 0.005)}
    for seed in range(20):
        (found,) = task_dependence.compare(study(seed, ("a", "b"), close))
        if len({task.choice.measured for task in found.tasks}) == 2:
            break
    assert tables.lines(found)[0].startswith("The best reductions of the tasks cannot be told apart")


def test_equal_tasks_are_hardly_ever_said_to_have_different_best_reductions() -> None:
    """The loss is exactly the limit on both tasks: either may be chosen on each."""
    close = {"seq16": (0.02, 0.01, 0.001), "seq32": (0.0, 0.0, 0.005)}
    studies, said = 60, 0
    for seed in range(studies):
        (found,) = task_dependence.compare(study(seed, ("a", "b"), close))
        said += tables.lines(found)[0].startswith("The best reduction depends")
    assert said / studies <= 0.05


def test_many_equal_techniques_are_not_said_to_be_chosen_differently() -> None:
    """Resamplings of both tasks hardly ever choose the same of 40, and yet nothing differs."""
    equal = {f"seq{8 * i}": (0.01, 0.01, 0.006) for i in range(2, 42)}
    for seed, rounds in enumerate((3, 5, 5, 6)):
        runs = study(seed, ("a", "b"), equal, rounds=rounds)
        (found,) = task_dependence.compare(runs, settings=TechniqueComparisonSettings(max_drop=0.05))
        assert not found.choices[0].measured_differ and not found.choices[0].proven_differ
        assert tables.lines(found)[0].startswith("The best reductions of the tasks cannot be told apart")


def test_a_planted_difference_among_many_techniques_is_said() -> None:
    rng = np.random.default_rng(23)
    equal = {f"seq{8 * i}": (0.0, 0.0, 0.006) for i in range(3, 20)}
    runs = [*simulated(rng, "a", {**equal, "seq16": (0.2, 0.0, 0.001)}),
            *simulated(rng, "b", {**equal, "seq16": (0.0, 0.0, 0.001)})]  # fmt: skip
    (found,) = task_dependence.compare(runs)
    (pair,) = found.choices
    assert pair.measured_among[1] == ("seq16",) and "seq16" not in pair.measured_among[0]
    assert pair.measured_differ
    assert tables.lines(found)[0].startswith("The best reduction depends on the task")


@pytest.mark.parametrize(("pairs", "coverage"), [(1, 0.975), (5, 0.995)])
def test_sets_of_choices_are_the_fewest_that_cover(pairs: int, coverage: float) -> None:
    (found,) = task_dependence.compare(study(24, ("a", "b"), TECHNIQUES))
    shares = {"x": 0.01, "y": 0.9, "z": 0.08, "w": 0.01}
    a, b = (replace(task.choice, shares=shares) for task in found.tasks)
    pair = technique_choices.pair(a, b, pairs=pairs)
    assert pair.coverage == pytest.approx(coverage)
    assert pair.measured_among[0] == (("y", "z") if pairs == 1 else ("y", "z", "x", "w"))


def test_costs_that_are_single_readings_have_no_interval_and_decide_nothing() -> None:
    rng = np.random.default_rng(25)
    planted = {**CLEAR, "seq64": (0.1, 0.0, 0.007)}
    runs = [*simulated(rng, "a", planted, rounds=1),
            *simulated(rng, "b", {**planted, "seq16": (0.0, 0.0, 0.001)}, rounds=1)]  # fmt: skip
    (found,) = task_dependence.compare(runs)
    assert [task.choice.single_readings for task in found.tasks] == [True, True]
    assert all(each.interval is None for each in found.agreements if each.by == "cost")
    assert any(each.interval is not None for each in found.agreements if each.by == "loss")
    assert all(each.cost_interval is None for task in found.tasks for each in task.techniques)
    assert not found.choices[0].measured_differ
    assert "Costs are single readings, or of too few rounds" in tables.lines(found)[0]
    assert "Costs are single readings, or of too few rounds" in tables.choices(found).note


def test_peak_memory_is_a_single_reading_and_size_is_exact() -> None:
    runs = study(26, ("a", "b"), {**CLEAR, "seq64": (0.0, 0.0, 0.007)})
    sizes = {"fp32": 9, "seq16": 5, "seq32": 6, "seq64": 7}
    runs = [
        replace(_moved(run, size_bytes=size), memory=replace(run.memory, host_peak_bytes=size))
        for run in runs for size in [sizes[run.engine.variant]]
    ]  # fmt: skip
    for objective, interval in (("memory", None), ("size", (1.0, 1.0))):
        (found,) = task_dependence.compare(runs, objective)
        assert [each.interval for each in found.agreements if each.by == "cost"] == [interval]
        assert found.tasks[0].choice.single_readings is (interval is None)


def test_the_cheapest_is_proven_only_with_enough_rows() -> None:
    rng = np.random.default_rng(10)
    small = {"seq16": (0.01, 0.01, 0.001)}
    runs = [*simulated(rng, "a", small, n=100), *simulated(rng, "b", {"seq16": (0.0, 0.0, 0.001)}, n=2000)]
    (found,) = task_dependence.compare(runs)
    assert [task.choice.proven for task in found.tasks] == [BASELINE, "seq16"]
    assert any("None is on a (100 rows)" in line for line in tables.lines(found))


def test_limit_and_confidence_are_told_as_they_were_given() -> None:
    runs = study(11, ("a", "b"), {"seq16": (0.03, 0.0, 0.001), "seq32": (0.0, 0.0, 0.005)})
    (found,) = task_dependence.compare(
        runs, settings=TechniqueComparisonSettings(max_drop=0.0004, confidence=0.9999)
    )
    told = " ".join(tables.lines(found))
    assert "the cheapest technique that loses at most 0.04 points as measured" in told
    assert "with 99.99 % confidence to lose at most 0.04 points" in told
    assert "with 99.99 % confidence" in tables.choices(found).note


@pytest.mark.parametrize(
    ("difference", "told"),
    [(0.01, "1 point"), (0.0125, "1.3 points"), (0.0004, "0.04 points"), (0.0, "0 points"),
     (-0.00012, "-0.01 points"), (-0.004, "-0.4 points")],
)  # fmt: skip
def test_a_difference_that_is_not_0_is_not_told_as_0(difference: float, told: str) -> None:
    assert choice_sentences.points(difference) == told


def test_max_drop_decides_the_choice() -> None:
    runs = study(11, ("a", "b"), CLEAR)
    (strict,) = task_dependence.compare(runs)
    (lax,) = task_dependence.compare(runs, settings=TechniqueComparisonSettings(max_drop=0.5))
    assert {task.choice.measured for task in strict.tasks} == {"seq32"}
    assert {task.choice.measured for task in lax.tasks} == {"seq16"}


def test_losses_hold_the_truth_as_often_as_they_say() -> None:
    studies, held = 60, []
    for seed in range(studies):
        (found,) = task_dependence.compare(study(seed, ("a", "b"), {"seq16": (0.05, 0.02, 0.001)}))
        held += [
            each.loss_interval[0] <= 0.03 <= each.loss_interval[1]
            for task in found.tasks for each in task.techniques if each.loss_interval
        ]  # fmt: skip
    assert np.mean(held) >= 0.95 - 2 * np.sqrt(0.05 * 0.95 / len(held))


def test_costs_hold_the_truth_as_often_as_they_say() -> None:
    held = []
    for seed in range(60):
        runs = study(seed, ("a", "b"), {"seq16": (0.05, 0.02, 0.004)})
        rng = np.random.default_rng(seed)
        noisy = [  # rounds that are slow for one engine and not the other
            replace(run, session=f"{run.session}-{seed}", workloads=[replace(run.workloads[0], blocks_s=[
                (np.array(block) * slow).tolist()
                for block, slow in zip(run.workloads[0].blocks_s, np.exp(rng.normal(0, 0.1, 5)), strict=True)
            ])]) for run in runs
        ]  # fmt: skip
        (found,) = task_dependence.compare(noisy)
        held += [
            each.cost_interval[0] <= 0.4 <= each.cost_interval[1]
            for task in found.tasks for each in task.techniques if each.cost_interval
        ]  # fmt: skip
    assert np.mean(held) >= 0.95 - 2 * np.sqrt(0.05 * 0.95 / len(held))


def test_only_techniques_of_every_task_are_compared() -> None:
    rng = np.random.default_rng(12)
    runs = [*simulated(rng, "a", TECHNIQUES), *simulated(rng, "b", {**CLEAR, "buckets": (0.0, 0.0, 0.009)})]
    (selection,) = task_runs.select(runs)
    assert selection.techniques == ("seq16", "seq32")
    assert any("3 techniques are not on every task" in remark for remark in selection.remarks)


def test_a_task_without_a_common_technique_is_left_out() -> None:
    rng = np.random.default_rng(13)
    runs = [*simulated(rng, "a", CLEAR), *simulated(rng, "b", CLEAR),
            *simulated(rng, "c", {"buckets": (0.0, 0.0, 0.009)})]  # fmt: skip
    (selection,) = task_runs.select(runs)
    assert [task.task for task in selection.tasks] == ["a", "b"]
    assert any(remark.startswith("c is left out") for remark in selection.remarks)


def _moved(run: Run, **engine: object) -> Run:
    return replace(run, engine=replace(run.engine, **engine))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda run: replace(run, host=replace(run.host, id="other")), "different hosts, h, other"),
        (lambda run: _moved(run, model="large"), "different encoders, large, simulated"),
        (lambda run: _moved(run, backend="openvino"), "different backends, onnxruntime, openvino"),
        (lambda run: replace(run, quality=replace(run.quality, predictions=[], labels=[])),
         "b: its results were shared without predictions"),
        (lambda run: replace(run, quality=replace(run.quality, reference=ReferenceEngine("r", "0" * 64))),
         "b: its rows have no labels"),
        (lambda run: _moved(run, task="a", name=f"a-{run.name}"), "results of one task, a"),
    ],
)  # fmt: skip
def test_what_cannot_be_compared_is_refused_in_one_line(change: object, reason: str) -> None:
    rng = np.random.default_rng(14)
    a, b = (simulated(rng, task, CLEAR) for task in "ab")
    with pytest.raises(UsageError) as error:
        task_runs.select([*a, *(change(run) for run in b)])  # type: ignore[operator]
    assert reason in str(error.value) and "\n" not in str(error.value)


def test_a_task_without_its_unreduced_engine_is_refused() -> None:
    rng = np.random.default_rng(15)
    a, b = (simulated(rng, task, CLEAR) for task in "ab")
    with pytest.raises(UsageError, match="b: its unreduced fp32 engine was not measured with onnxruntime"):
        task_runs.select([*a, *b[1:]])


def test_baselines_are_of_one_kind_on_all_tasks() -> None:
    """Distilled on one task and not on the other, it would lose more to the same reduction."""
    runs = [*_with_distilled("a", 1, wrong=0.02), *_with_distilled("b", 2, wrong=0.4)]
    (selection,) = task_runs.select(runs)
    assert [one.baseline.name for one in selection.tasks] == ["a-e.fp32", "b-e.fp32"]
    assert "distilled, fp32" in selection.techniques
    only = [run for run in runs if run.name != "a-e.fp32"]
    (selection,) = task_runs.select(only)  # the distilled one is on both
    assert [one.baseline.name for one in selection.tasks] == ["a-distilled.fp32", "b-distilled.fp32"]
    with pytest.raises(UsageError, match="a: its unreduced fp32 engine is 'distilled, fp32', that of other"):
        task_runs.select([run for run in only if run.name != "b-distilled.fp32"])
    third = [run for run in _with_distilled("c", 3, wrong=0.1) if run.name != "c-distilled.fp32"]
    without = [run for run in runs if run.name not in ("a-e.fp32", "b-distilled.fp32")]
    (selection,) = task_runs.select([*without, *third])
    assert [one.task for one in selection.tasks] == ["b", "c"]
    assert any(
        remark.startswith("a is left out: its unreduced fp32 engine is 'distilled, fp32'")
        for remark in selection.remarks
    )


def _made(run: Run, *, seed: int = 0, settings: str = "a", **facts: Any) -> Run:
    origin = CheckpointOrigin(seed=seed, settings=settings * 64, trained_further=False, **facts)
    return _moved(run, origin=origin)


def _with_distilled(task: str, seed: int, *, wrong: float) -> list[Run]:
    rng = np.random.default_rng(seed)
    runs = [_made(run) for run in simulated(rng, task, CLEAR, wrong=0.15)]
    distilled = simulated_run(
        f"{task}-distilled.fp32", np.flatnonzero(rng.random(400) < wrong), precision="fp32", task=task,
        rounds=5, queries=3, session=f"s-{task}",
    )  # fmt: skip
    return [*runs, _made(distilled, settings="d", distilled=True)]


def test_of_several_seeds_one_with_its_unreduced_engine_is_chosen() -> None:
    rng = np.random.default_rng(19)
    a, b = ([_made(run) for run in simulated(rng, task, CLEAR)] for task in "ab")
    more = [
        _made(replace(run, id=f"{run.id}-1"), seed=1) for run in simulated(rng, "a", TECHNIQUES)[1:]
    ]  # four engines and no baseline
    more = [_moved(run, name=run.name.replace("-e", "-e-s1"), digest=f"{index:064}")
            for index, run in enumerate(more)]  # fmt: skip
    (selection,) = task_runs.select([*a, *more, *b])
    assert selection.tasks[0].baseline.name == "a-e.fp32"
    assert "a: seed 0; 4 engines with other seeds are left out" in selection.remarks


def _twin(run: Run, name: str, settings: str, **facts: Any) -> Run:
    twin = _moved(run, name=name, digest=hashlib.sha256(name.encode()).hexdigest())
    return _made(replace(twin, id=f"id-{name}"), settings=settings, **facts)


@pytest.mark.parametrize("settings", ["a", "b"])
def test_engines_that_were_made_differently_are_not_one_technique(settings: str) -> None:
    """Such as with another learning rate, of which the title says nothing."""
    rng = np.random.default_rng(20)
    a, b = ([_made(run) for run in simulated(rng, task, CLEAR)] for task in "ab")
    other = _twin(a[1], "a-other.seq16", settings)
    (selection,) = task_runs.select([*a, other, *b])
    assert ("seq16" in selection.techniques) is (settings == "a")
    (remark,) = [remark for remark in selection.remarks if "a-other.seq16" in remark]
    assert "a-e.seq16" in remark and ("different settings" in remark) is (settings == "b")


def test_unreduced_engines_that_were_made_differently_are_no_baseline() -> None:
    rng = np.random.default_rng(21)
    a, b = ([_made(run) for run in simulated(rng, task, CLEAR)] for task in "ab")
    with pytest.raises(UsageError, match="a: its unreduced fp32 engine is not known.*a-e.fp32, a-other.fp32"):
        task_runs.select([*a, _twin(a[0], "a-other.fp32", "b"), *b])
    (selection,) = task_runs.select([*a, _twin(a[0], "a-other.fp32", "a"), *b])
    assert any(remark.startswith("a: the baseline is a-e.fp32") and "a-other.fp32" in remark
               for remark in selection.remarks)  # fmt: skip
    exits = _twin(a[0], "a-exits.fp32", "b", exits=ExitTarget(depth=3.0))
    (selection,) = task_runs.select([*a, exits, *b])
    assert any("a-exits.fp32 left out" in remark for remark in selection.remarks)


def test_unknown_tasks_and_scores_as_costs_are_refused() -> None:
    runs = study(16, ("alpha", "beta"), CLEAR)
    with pytest.raises(UsageError, match="alpha"):
        task_dependence.compare(runs, tasks=["alfa", "beta"])
    with pytest.raises(UsageError, match="score"):
        task_dependence.compare(runs, "accuracy")
    with pytest.raises(UsageError, match="energy"):
        task_dependence.compare(runs, "energy")


def test_a_single_technique_has_no_order() -> None:
    (found,) = task_dependence.compare(study(17, ("a", "b"), {"seq16": (0.05, 0.0, 0.001)}))
    assert all(each.tau is None for each in found.agreements)
    assert any("too few to compare their order" in line for line in tables.lines(found))


def test_techniques_that_lose_the_same_have_no_order() -> None:
    same = {f"seq{16 * i}": (0.0, 0.0, 0.001) for i in range(1, 4)}
    (found,) = task_dependence.compare(study(27, ("a", "b"), same))
    assert any("lose the same on one of them: they have no order" in line for line in tables.lines(found))


def with_threads(run: Run, threads: int) -> Run:
    runtime = replace(run.settings.runtime, threads=threads)
    return replace(run, settings=replace(run.settings, runtime=runtime), session=f"{run.session}-{threads}")


def test_costs_of_different_threads_are_not_compared() -> None:
    """Else an engine with one thread would seem to save nothing beside a baseline with eight."""
    runs = study(19, ("a", "b", "c"), CLEAR)
    (same,) = task_dependence.compare([with_threads(run, 8) for run in runs])
    mixed = [with_threads(run, 1 if run.engine.variant == "seq16" else 8) for run in runs]
    (found,) = task_dependence.compare(mixed)
    assert {each.technique for each in same.tasks[0].techniques} == {"seq16", "seq32"}
    assert {each.technique for each in found.tasks[0].techniques} == {"seq32"}
    told = "a: 'seq16' is left out: it was measured with 1 thread, and the baseline a-e.fp32 with 8 threads"
    assert told in found.remarks
    with pytest.raises(UsageError, match="'seq16' is left out: it was measured with 1 thread"):
        task_dependence.compare([run for run in mixed if run.engine.variant != "seq32"])
    one_other = [with_threads(run, 1 if run.task == "b" else 8) for run in runs]
    (found,) = task_dependence.compare(one_other)
    assert [task.task for task in found.tasks] == ["a", "c"]
    assert "b is left out: it was measured with threads: 1, and other tasks with threads: 8" in found.remarks


def test_engines_of_other_threads_are_not_told_to_be_the_same() -> None:
    runs = study(19, ("a", "b"), CLEAR)
    again = []
    for run in (of(runs, "fp32", "a"), of(runs, "seq16", "a")):
        for word, threads in (("slow", 1), ("twin", 8)):
            engine = replace(run.engine, name=f"{run.name}-{word}")
            again.append(with_threads(replace(run, id=f"{run.id}-{word}", engine=engine), threads))
    (found,) = task_dependence.compare([*(with_threads(run, 8) for run in runs), *again])
    for run in again:
        told = [remark for remark in found.remarks if run.name in remark]
        if run.name.endswith("slow"):
            assert told == [
                f"a: {run.name} is left out: it was measured with 1 thread, and the baseline a-e.fp32 with 8 "
                "threads"
            ]
        else:
            assert len(told) == 1 and "as their results say no more" in told[0]


def test_each_pair_of_tasks_is_compared_once() -> None:
    (found,) = task_dependence.compare(study(18, ("a", "b", "c"), CLEAR))
    assert [pair.where for pair in found.choices] == list(itertools.combinations("abc", 2))


def test_p99_of_few_rounds_decides_nothing() -> None:
    """A percentile above p90 has no interval below 20 rounds, as of one engine."""
    for rounds, known in ((6, False), (20, True)):
        runs = [
            replace(run, workloads=[
                replace(each, blocks_s=[np.repeat(block, 100).tolist() for block in each.blocks_s])
                for each in run.workloads
            ])
            for run in study(40, ("a", "b"), TECHNIQUES, rounds=rounds)
        ]  # fmt: skip
        (found,) = task_dependence.compare(runs, "latency_p99")
        for task in found.tasks:
            assert task.choice.single_readings is not known
            assert all((each.cost_interval is not None) is known for each in task.techniques)
        assert all((each.interval is not None) is known for each in found.agreements if each.by == "cost")
        said = [each for each in found.remarks if "p99 latency has no interval" in each]
        assert len(said) == (0 if known else 2)


def test_one_place_that_cannot_be_compared_does_not_remove_another(
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Energies of several meters on one host, and more than a hundred techniques on another."""
    runs = study(41, ("a", "b"), {"seq16": (0.0, 0.0, 0.001)})
    metered = [
        replace(run, host=replace(run.host, id=host), workloads=[
            replace(each, energy=Energy("counter", meter, None, 0.1, (0.09, 0.11), 0.1))
            for each in run.workloads
        ])
        for host, meters in (("one", ("a", "a")), ("several", ("a", "b")))
        for number, run in enumerate(runs) for meter in [meters[number % 2]]
    ]  # fmt: skip
    (found,) = task_dependence.compare(metered, "energy")
    assert found.host == "one"
    assert "not compared: energies from different sources or meters" in capsys.readouterr().err
    many = study(42, ("a", "b"), {f"seq{number}": (0.0, 0.0, 0.001) for number in range(100, 201)}, n=20)
    elsewhere = [replace(run, host=replace(run.host, id="many")) for run in many]
    (found,) = task_dependence.compare([*runs, *elsewhere])
    assert found.host == "h"
    assert "many: 101 techniques are on every task: at most 100" in capsys.readouterr().err

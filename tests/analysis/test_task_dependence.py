"""The same techniques on several tasks: losses, costs, interactions, ranks, choices, on simulated studies."""

from __future__ import annotations

import itertools
from dataclasses import replace

import numpy as np
import pytest
from scipy import stats

from effx.analysis import task_dependence, task_runs
from effx.analysis.task_choices import BASELINE
from effx.analysis.task_results import POINTS, RELATIVE, Interaction
from effx.errors import UsageError
from effx.report import task_dependence as tables
from effx.results import ReferenceEngine, Run
from effx.specs.constraints import TaskComparisonSettings
from effx.stats.metrics import METRICS
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
    choice = found.tasks[0].choice.shares
    assert found.choices[0].p_measured_differ == pytest.approx(1 - sum(share**2 for share in choice.values()))


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


def test_too_few_differing_predictions_are_not_tested_of_other_metrics() -> None:
    rng = np.random.default_rng(8)
    few = {"seq16": (0.005, 0.0, 0.001), "seq32": (0.1, 0.0, 0.003)}
    runs = [*simulated(rng, "a", few, metric="f1"), *simulated(rng, "b", few, metric="f1")]
    (found,) = task_dependence.compare(runs)
    tested = {each.technique: each.p is not None for each in found.interactions}
    assert tested == {"seq16": False, "seq32": True}


CLEAR = {"seq16": (0.2, 0.0, 0.001), "seq32": (0.0, 0.0, 0.005)}


def test_choices_that_differ_for_certain_are_said_to_depend_on_the_task() -> None:
    rng = np.random.default_rng(9)
    robust = {**CLEAR, "seq16": (0.0, 0.0, 0.001)}
    runs = [*simulated(rng, "a", CLEAR), *simulated(rng, "b", robust)]
    (found,) = task_dependence.compare(runs)
    assert [task.choice.measured for task in found.tasks] == ["seq32", "seq16"]
    (pair,) = found.choices
    assert pair.p_measured_differ > 0.99
    assert pair.exchanged_losses == pytest.approx((found.tasks[0].techniques[0].loss, 0.0))
    assert pair.exchanged_costs[1] == pytest.approx(
        found.tasks[1].techniques[1].cost / found.tasks[1].techniques[0].cost
    )
    lines = tables.lines(found)
    assert lines[0].startswith("The best reduction depends on the task")
    assert "'seq32' on a; 'seq16' on b" in lines[0]
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


def test_the_cheapest_is_proven_only_with_enough_rows() -> None:
    rng = np.random.default_rng(10)
    small = {"seq16": (0.01, 0.01, 0.001)}
    runs = [*simulated(rng, "a", small, n=100), *simulated(rng, "b", {"seq16": (0.0, 0.0, 0.001)}, n=2000)]
    (found,) = task_dependence.compare(runs)
    assert [task.choice.proven for task in found.tasks] == [BASELINE, "seq16"]
    assert any("None is on a (100 rows)" in line for line in tables.lines(found))


def test_max_drop_decides_the_choice() -> None:
    runs = study(11, ("a", "b"), CLEAR)
    (strict,) = task_dependence.compare(runs)
    (lax,) = task_dependence.compare(runs, settings=TaskComparisonSettings(max_drop=0.5))
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


def test_each_pair_of_tasks_is_compared_once() -> None:
    (found,) = task_dependence.compare(study(18, ("a", "b", "c"), CLEAR))
    assert [pair.tasks for pair in found.choices] == list(itertools.combinations("abc", 2))

"""Which results may be compared, and what the message says where they may not."""

from __future__ import annotations

from dataclasses import replace

import pytest

from effx.analysis import cohorts, comparison
from effx.analysis.cohorts import Cohort, EnergyMeter
from effx.analysis.recommend import recommend
from effx.errors import UsageError
from effx.results import Run, RuntimeRecord
from effx.specs.workloads import SINGLE_STREAM
from tests.analysis.simulated_run import simulated_run

RUN = simulated_run("a", joules=1.0)
FLIPPED = replace(RUN, quality=replace(RUN.quality, labels=[1 - label for label in RUN.quality.labels]))


@pytest.mark.parametrize(
    ("other", "message"),
    [
        (
            simulated_run("b", task="rte"),
            r"different tasks cannot be compared: rte in id-b-2026, sst2 in id-a-2026\.",
        ),
        (simulated_run("b", host="g"), "different hosts cannot be compared: g in id-b-2026, h in id-a-2026"),
        (
            simulated_run("b", metric="f1"),
            "different metrics cannot be compared: accuracy in id-a-2026, f1 in",
        ),
        (
            simulated_run("b", rows="others"),
            r"different evaluation sets .*: others \(400\) in id-b-2026, rows \(400\)",
        ),
        (
            simulated_run("b", n=10),
            r"different evaluation sets .*: rows \(10\) in id-b-2026, rows \(400\) in",
        ),
    ],
)
def test_results_of_different_cohorts_are_refused(other: Run, message: str) -> None:
    for runs in ([RUN, other], [other, RUN], [RUN, simulated_run("c"), other]):
        with pytest.raises(UsageError, match=message):
            cohorts.check(runs)
    assert Cohort.of(RUN) != Cohort.of(other)


@pytest.mark.parametrize(
    ("other", "meter"),
    [
        (simulated_run("b", joules=2.0, meter="nvml"), EnergyMeter("counter", "nvml")),
        (simulated_run("b", joules=2.0, source="model"), EnergyMeter("model", "rapl")),
    ],
)
def test_meters_matter_only_where_joules_are_compared(other: Run, meter: EnergyMeter) -> None:
    cohorts.check([RUN, other])
    with pytest.raises(
        UsageError, match=r"energies from different sources or meters cannot be compared: counter"
    ):
        cohorts.check([RUN, other], energy=True)
    assert set(cohorts.energy_meters([other, RUN, RUN])) == {EnergyMeter("counter", "rapl"), meter}


def test_labels_matter_only_where_examples_are_paired() -> None:
    assert Cohort.of(RUN) == Cohort.of(FLIPPED)
    assert Cohort.of(RUN, labels=True) != Cohort.of(FLIPPED, labels=True)
    with pytest.raises(UsageError, match="have different labels"):
        cohorts.shared_labels([RUN, FLIPPED])
    without = replace(RUN, quality=replace(RUN.quality, predictions=[]))
    assert not cohorts.has_predictions(without)
    with pytest.raises(UsageError, match="does not contain all predictions"):
        cohorts.shared_labels([RUN, without])


def test_the_most_thorough_cohort_of_a_task_and_host_comes_first() -> None:
    runs = [
        simulated_run("a", n=10),
        simulated_run("b"),
        simulated_run("c", task="rte", n=20),
        simulated_run("d", host="g", n=5),
        simulated_run("e"),
    ]
    assert [[run.name for run in members] for members in cohorts.split(runs).values()] == [
        ["c"], ["d"], ["b", "e"], ["a"]
    ]  # fmt: skip
    assert list(cohorts.by_task_and_host(runs)) == [("rte", "h"), ("sst2", "g"), ("sst2", "h")]


def test_latest_is_per_engine_and_host() -> None:
    runs = [
        simulated_run("a", started="2027"),
        simulated_run("a"),
        simulated_run("a", host="g"),
        simulated_run("b"),
    ]
    assert {(run.name, run.host_id, run.started[:4]) for run in cohorts.latest(runs)} == {
        ("a", "h", "2027"), ("a", "g", "2026"), ("b", "h", "2026")
    }  # fmt: skip


def test_workloads_are_shared_by_scenario_and_shape_end_to_end() -> None:
    a, b = simulated_run("a", offline_per_s=100), simulated_run("b")
    on_device = replace(a.workloads[0], workload=SINGLE_STREAM.timed_on_device())
    a = replace(a, workloads=[*a.workloads, on_device])
    b = replace(b, workloads=[*b.workloads, on_device])
    assert cohorts.shared_workloads(a, b) == [(a.workloads[0], b.workloads[0])]
    with pytest.raises(UsageError, match="no single-stream workload"):
        cohorts.single_stream(replace(b, workloads=[on_device]))


def with_texts(run: Run, digest: str | None) -> Run:
    return replace(run, quality=replace(run.quality, texts_digest=digest))


def on_gpu(run: Run, gpu: str) -> Run:
    runtime = replace(run.settings.runtime, details={"device": gpu})
    return replace(
        run, engine=replace(run.engine, device="cuda"), settings=replace(run.settings, runtime=runtime)
    )


OTHER = simulated_run("b")


def test_rows_of_one_name_and_number_with_other_texts_are_other_rows() -> None:
    """A file that was cleaned between two sessions."""
    before, after, unknown = with_texts(RUN, "1" * 64), with_texts(OTHER, "2" * 64), simulated_run("c")
    with pytest.raises(UsageError, match=r"scores of different texts .*: rows \(SHA-256 11111111\) in id-a"):
        cohorts.check([before, unknown, after])
    with pytest.raises(UsageError, match="scores of different texts"):
        comparison.compare(before, after)
    cohorts.check([before, unknown])
    cohorts.check([before, with_texts(OTHER, "1" * 64)])
    assert sorted(map(names, cohorts.split([before, unknown]).values())) == [["a", "c"]]
    assert sorted(map(names, cohorts.split([before, after, unknown]).values())) == [["a"], ["b"], ["c"]]
    (answer,) = recommend([before, with_texts(simulated_run("d"), "1" * 64), after])
    assert any("b" in remark and "scored on other rows" in remark for remark in answer.remarks)


def names(runs: list[Run]) -> list[str]:
    return sorted(run.name for run in runs)


def test_gpus_of_one_host_are_not_compared_and_its_processor_is() -> None:
    first, second = on_gpu(RUN, "A100"), on_gpu(OTHER, "T4")
    with pytest.raises(UsageError, match="different GPUs cannot be compared: A100 in id-a-2026, T4 in id-b"):
        cohorts.check([first, second])
    cpu = simulated_run("c")
    cohorts.check([first, cpu])
    assert sorted(map(names, cohorts.split([first, cpu]).values())) == [["a", "c"]]
    assert sorted(map(names, cohorts.split([first, second, cpu]).values())) == [["a"], ["b"], ["c"]]
    with pytest.raises(UsageError, match="different GPUs"):
        recommend([first, second])


def test_what_differs_between_sessions_is_said() -> None:
    assert cohorts.sessions([RUN, OTHER]) == []
    later = simulated_run("b", session="later")
    assert cohorts.sessions([RUN, later]) == [
        "they were measured in different sessions: changes of the host between them affect the ratios"
    ]
    runtime = RuntimeRecord(16, {"onnxruntime": "1.32.0"})
    changed = replace(later, settings=replace(later.settings, runtime=runtime))
    (remark,) = cohorts.sessions([RUN, changed])
    assert "(different threads: 1, 16; onnxruntime: 1.31.1, 1.32.0)" in remark
    assert remark in comparison.compare(RUN, changed).remarks
    (answer,) = recommend([RUN, changed])
    assert f"the engines are not interleaved: {remark}" in answer.remarks
    own = replace(changed, engine=replace(changed.engine, variant="int8+threads1"))
    assert "threads" not in cohorts.sessions([RUN, own])[0]  # as the variant says

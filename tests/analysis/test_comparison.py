"""Comparisons of runs whose truth is known, by hand and by independent formulas."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest

from effx.analysis import wording
from effx.analysis.comparison import adjusted, compare, pair
from effx.analysis.objectives import at, energy_per_correct
from effx.analysis.recommend import recommend
from effx.analysis.recommendation import Recommendation
from effx.analysis.sentences import non_inferiority
from effx.errors import UsageError
from effx.host.identity import Host
from effx.results import Energy, GateResult, PeakMemory, Quality, Run, WorkloadResult
from effx.specs.workloads import SINGLE_STREAM, offline, server
from effx.stats import intervals, tests
from tests.analysis.simulated_run import SETTINGS, engine, simulated_run

N = 872


def make(
    name: str,
    wrong: range = range(0),
    seconds: float = 0.01,
    joules: float | None = None,
    *,
    metric: str = "accuracy",
    rounds: int = 10,
    **changes: object,
) -> Run:
    """A run that errs on the rows of ``wrong``; every session drifts in the same way."""
    labels = np.arange(N) % 2
    predictions = labels.copy()
    predictions[list(wrong)] = 1 - predictions[list(wrong)]
    rng = np.random.default_rng(list(name.encode()))
    drift = np.exp(np.linspace(0, 1, rounds))
    blocks = [(seconds * slow * rng.uniform(0.9, 1.1, 30)).tolist() for slow in drift]
    energy = Energy("none", "none", "no meter")
    if joules is not None:
        energy = Energy("counter", "rapl", None, joules, (0.9 * joules, 1.1 * joules), joules)
    accuracy = Quality(
        metric, 1 - len(wrong) / N, N, (0.0, 1.0), {}, predictions.tolist(), labels.tolist(), "rows"
    )
    workload = WorkloadResult(SINGLE_STREAM, blocks, list(range(rounds)), energy)
    run = Run(
        id=f"id-{name}", started="2026", engine=engine(name), host=Host("h"),
        quality=accuracy, workloads=[workload],
        memory=PeakMemory(100, None), settings=SETTINGS, session="s",
    )  # fmt: skip
    return replace(run, **changes)  # type: ignore[arg-type]


def on_device(run: Run, share: float) -> Run:
    """The run with its single queries timed on a device too, all but ``share`` of their time."""
    whole = run.workloads[0]
    blocks = [[(1 - share) * seconds for seconds in block] for block in whole.blocks_s]
    return replace(
        run, workloads=[whole, replace(whole, workload=SINGLE_STREAM.timed_on_device(), blocks_s=blocks)]
    )


def changed(run: Run, **changes: object) -> Run:
    return replace(run, workloads=[replace(run.workloads[0], **changes)])  # type: ignore[arg-type]


def test_accuracy_is_compared_example_by_example() -> None:
    a, b = make("a", range(40)), make("b", range(10, 60))
    result = compare(a, b)
    right_a, right_b = np.arange(N) >= 40, (np.arange(N) < 10) | (np.arange(N) >= 60)
    assert result.difference == pytest.approx(-10 / N)
    assert result.interval == intervals.paired_accuracy_interval(right_a, right_b)
    assert result.p_value == tests.mcnemar(right_a, right_b)
    assert result.differing == 30
    back = compare(b, a)
    assert back.interval == pytest.approx((-result.interval[1], -result.interval[0]))


def test_latency_is_compared_round_by_round() -> None:
    """The host slows by e over the session; the ratio is known to a few percent all the same."""
    result = compare(make("a"), make("b", seconds=0.005))
    for ratio in result.latency:
        low, high = ratio.interval
        assert ratio.paired
        assert low < 0.5 < high
        assert high / low < 1.06
    assert [ratio.statistic for ratio in result.latency] == ["p50", "mean"]
    apart = compare(make("a"), make("b", seconds=0.005, session="other"))
    low, high = apart.latency[0].interval
    assert not apart.latency[0].paired
    assert high / low > 1.5
    assert any("measured in different sessions" in remark for remark in apart.remarks)
    assert "not interleaved" in apart.sentence()


def test_an_engine_beside_itself_is_not_told_apart() -> None:
    result = compare(make("a"), make("b"))
    assert result.latency[0].interval[0] < 1 < result.latency[0].interval[1]
    assert result.p_value == 1.0
    assert result.interval[0] < 0 < result.interval[1]
    assert result.sentence().count("not distinguishable") == 2
    assert "equal" not in result.sentence()


def test_few_rounds_have_a_ratio_and_no_interval() -> None:
    result = compare(make("a", rounds=2), make("b", seconds=0.005, rounds=2))
    assert result.latency[0].value == pytest.approx(0.5, rel=0.1)
    assert result.latency[0].interval is None
    assert "too few rounds" in result.sentence()


def test_offline_is_seconds_per_example() -> None:
    """Blocks of unlike size are compared by what an example took, not by the length of a query."""
    a = changed(make("a"), workload=offline(1), blocks_s=[[8.0]] * 3, rounds=[0, 1, 2], elapsed_s=[8.0] * 3,
                examples=[80] * 3)  # fmt: skip
    b = changed(make("b"), workload=offline(1), blocks_s=[[4.0]] * 3, rounds=[0, 1, 2], elapsed_s=[4.0] * 3,
                examples=[20] * 3)  # fmt: skip
    (ratio,) = compare(a, b).latency
    assert ratio.value == pytest.approx(2.0)
    assert ratio.statistic == "mean per example"


def test_loads_of_different_rate_are_not_compared() -> None:
    result = compare(
        changed(make("a"), workload=server(10.0)),
        changed(make("b"), workload=server(20.0)),
    )
    assert result.latency == []
    assert any("different rates" in remark for remark in result.remarks)


def test_energy_of_one_source() -> None:
    result = compare(make("a", joules=2.0), make("b", joules=1.0))
    assert result.energy.value == pytest.approx(0.5)
    low, high = result.energy.interval
    assert low == pytest.approx(0.5 * np.exp(-np.hypot(np.log(1 / 0.9), np.log(1.1))))
    assert high == pytest.approx(0.5 * np.exp(np.hypot(np.log(1 / 0.9), np.log(1.1))))
    assert "; it takes 0.50x the energy (counter, 95 % 0.43 to 0.58)." in result.sentence()
    assert compare(make("a"), make("b", joules=1.0)).energy is None
    exact = [
        changed(
            run, energy=replace(run.workloads[0].energy, interval_without_gain=(0.99 * joules, 1.01 * joules))
        )
        for run, joules in ((make("a", joules=2.0), 2.0), (make("b", joules=1.88), 1.88))
    ]
    of_exact = compare(*exact).energy  # 6 % are seen although the meter's tolerance is 10 %
    assert of_exact.value == pytest.approx(0.94) and of_exact.interval[1] < 1.0
    b = make("b", joules=1.0)
    for change in ({"source": "model"}, {"meter": "nvml"}):
        other = changed(b, energy=replace(b.workloads[0].energy, **change))
        result = compare(make("a", joules=1.0), other)
        assert result.energy is None
        assert any("sources or meters differ" in remark for remark in result.remarks)


def test_memory_and_what_was_not_measured() -> None:
    b = make("b", memory=PeakMemory(60, 5))
    assert compare(make("a"), b).memory == {"host_peak_bytes": 0.6, "device_peak_bytes": None}


def test_single_queries_that_are_mostly_not_the_devices_are_remarked() -> None:
    result = compare(on_device(make("a"), 0.31), on_device(make("b"), 0.62))
    assert result.host_overhead_shares == pytest.approx((0.31, 0.62))
    expected_text = (
        "31 % of the time of a single query to a, and 62 % to b, is not spent on the device: no reduction "
        "makes that part shorter"
    )
    assert result.remarks == [expected_text]
    assert f"Note: {expected_text}." in wording.comparison(result, 0.01)
    assert compare(on_device(make("a"), 0.31), on_device(make("b"), 0.45)).remarks == []
    for share_of_b in (compare(make("a"), on_device(make("b"), 0.62)), compare(make("a"), make("b"))):
        assert (
            share_of_b.host_overhead_shares[0] is None
        )  # not measured on a device: nothing to compare with b's
        assert not any("not spent" in remark for remark in share_of_b.remarks)
    assert json.loads(json.dumps(compare(make("a"), make("b")).to_json()))["host_overhead_shares"] == [
        None,
        None,
    ]


def test_a_choice_that_is_mostly_not_the_devices_work_is_said_to_be() -> None:
    def chosen(share: float | None, *runs: Run) -> str:
        measured = list(runs) if share is None else [on_device(run, share) for run in runs]
        (answer,) = recommend(measured, "latency")
        assert isinstance(answer, Recommendation) and answer.engine == "int8"
        return wording.recommendation(answer)

    fp32, int8, slow = (
        simulated_run("fp32", seconds=0.02, precision="fp32"),
        simulated_run("int8"),
        simulated_run("slow", seconds=0.03),
    )
    text = (
        "62 % of the time of a single query is not spent on the device: no reduction makes that part shorter."
    )
    expected_text = f"  {text}"
    assert expected_text in chosen(0.62, fp32, int8).splitlines()
    assert expected_text in chosen(0.62, int8, slow).splitlines()  # the choice is the baseline
    assert chosen(0.45, fp32, int8) == chosen(None, fp32, int8)


def test_flags_and_failed_gates_are_remarked() -> None:
    b = changed(make("b", gates=[GateResult("A/A", False, "1.2")]), flags=["throttled"])
    remarks = compare(make("a"), b).remarks
    assert "b: A/A: 1.2" in remarks
    assert "b, single-stream 1xreal: throttled" in remarks


def test_what_cannot_be_compared_is_refused() -> None:
    a, b = make("a"), make("b")
    turned = [1 - label for label in b.quality.labels]
    for other, message in (
        (replace(b, host=Host("other")), "different hosts"),
        (replace(b, engine=engine("b", task="rte")), "different tasks"),
        (replace(b, quality=replace(b.quality, metric="f1")), "different metrics"),
        (replace(b, quality=replace(b.quality, source="others")), "different evaluation sets"),
        (replace(b, quality=replace(b.quality, labels=turned)), "different labels"),
        (replace(b, quality=replace(b.quality, predictions=[])), "does not contain all predictions"),
    ):
        with pytest.raises(UsageError, match=message):
            compare(a, other)


def p_of_f1(wrong_a: range, wrong_b: range) -> float:
    """The two-sided p-value of a bootstrap of the difference in F1, with draws and F1 of its own."""
    labels = np.arange(N) % 2
    rng = np.random.default_rng(7)
    below = above = 0
    for _ in range(4000):
        rows = rng.integers(0, N, N)
        scores = []
        for wrong in (wrong_a, wrong_b):
            missed = np.isin(rows, list(wrong))
            found = np.sum((labels[rows] == 1) & ~missed)
            scores.append(2 * found / (2 * found + np.sum(missed)))
        below += scores[1] <= scores[0]
        above += scores[1] >= scores[0]
    return float(2 * min(below, above) / 4000)


def test_other_metrics_are_resampled() -> None:
    result = compare(make("a", range(40), metric="f1"), make("b", range(10, 60), metric="f1"))
    assert result.interval[0] < result.difference < result.interval[1]
    assert result.test == "paired bootstrap"
    assert result.p_value == pytest.approx(
        p_of_f1(range(40), range(10, 60)), abs=0.03
    )  # not McNemar's 0.0987
    changed_class = compare(make("a", metric="f1"), make("b", range(1, 61, 2), metric="f1"))
    assert changed_class.p_value < 0.002
    same = compare(make("a", range(40), metric="f1"), make("b", range(41), metric="f1"))
    assert same.interval is None
    assert "1 of 872 predictions differ, too few for an interval" in same.sentence()
    assert same.non_inferiority().startswith("undecided at n = 872")
    assert compare(make("a", metric="pearson"), make("b", range(60), metric="pearson")).p_value < 0.002


def test_p_values_are_adjusted_for_their_number() -> None:
    others = [make("b", range(12)), make("c", range(6)), make("d", range(60))]
    result = adjusted([compare(make("a"), other) for other in others])
    raw = [comparison.p_value for comparison in result]
    assert raw == pytest.approx([2 * 0.5**12, 2 * 0.5**6, 2 * 0.5**60])
    assert [comparison.p_adjusted for comparison in result] == pytest.approx([2 * raw[0], raw[1], 3 * raw[2]])
    assert compare(make("a"), others[0]).p_adjusted is None


def test_an_adjusted_p_value_speaks_in_the_sentence() -> None:
    others = [make(name, range(7)) for name in "bcdefg"]
    alone = compare(make("a"), others[0])
    assert alone.interval[1] < 0
    assert "not distinguishable at n" not in alone.sentence()
    result = adjusted([compare(make("a"), other) for other in others])
    assert "once adjusted" in result[0].sentence()


@pytest.mark.parametrize(
    ("difference", "interval", "expected"),
    [
        (0.0, (-0.0044, 0.0044), "loses at most 1.0 points (95 %)"),
        (-0.04, (-0.06, -0.02), "loses more than 1.0 points (95 %)"),
        (
            -0.003,
            (-0.012, 0.0051),
            "undecided at n = 872: -0.3 points (95 % -1.2 to +0.5); "
            "a loss of more than 1.0 points is neither ruled out nor shown",
        ),
    ],
)
def test_non_inferiority_in_words(difference: float, interval: tuple[float, float], expected: str) -> None:
    assert non_inferiority(difference, interval, 0.01, n=N) == expected


@pytest.mark.parametrize(
    ("margin", "expected_text"),
    [(0.01, "1.0"), (0.2, "20.0"), (0.005, "0.5"), (0.0025, "0.25"), (0.0004, "0.04"), (1e-7, "1e-05")],
)
def test_the_sentence_states_the_tested_margin(margin: float, expected_text: str) -> None:
    for interval, verb in (
        ((-margin, margin), "loses at most"),
        ((-3 * margin, -2 * margin), "loses more than"),
    ):
        assert non_inferiority(0.0, interval, margin, n=N) == f"{verb} {expected_text} points (95 %)"
    open_ = non_inferiority(0.0, (-2 * margin, margin), margin, n=N)
    assert open_.endswith(f"a loss of more than {expected_text} points is neither ruled out nor shown")


def test_a_small_loss_is_certified_only_where_hardly_anything_differs() -> None:
    """On 872 rows a loss under a point needs an observed one of about 0."""
    base = make("a", range(60))
    assert compare(base, make("b", range(60))).non_inferiority().startswith("loses at most")
    five_less = make("b", range(65))
    assert compare(base, five_less).non_inferiority().startswith("undecided")
    swapped = make("b", range(30, 90))  # as accurate, and right on other rows
    assert compare(base, swapped).non_inferiority().startswith("undecided")


def test_energy_per_correct_by_hand() -> None:
    assert energy_per_correct(make("a", range(N // 2), joules=3.0)) == pytest.approx(6.0)
    assert energy_per_correct(make("a", range(N // 4), joules=3.0, metric="matthews")) == pytest.approx(4.0)
    assert energy_per_correct(make("a")) is None
    assert energy_per_correct(make("a", range(N), joules=3.0)) is None
    assert energy_per_correct(make("a", joules=3.0, metric="pearson")) is None


def test_a_sentence_as_a_person_writes_it() -> None:
    result = compare(make("fp32", range(40)), make("int8", range(3, 46)))
    ratio = replace(result.latency[0], value=1 / 1.9, interval=(1 / 1.97, 1 / 1.85))
    expected_text = replace(result, latency=[ratio]).sentence()
    low, high = (100 * bound for bound in result.interval)
    assert expected_text == (
        "Compared with fp32, int8 is 1.90x as fast (95 % 1.85 to 1.97) and 0.3 points less accurate "
        f"({low:+.1f} to {high:+.1f}, not distinguishable at n = 872)."
    )


def test_json_holds_everything() -> None:
    value = json.loads(json.dumps(compare(make("a", joules=1.0), make("b", joules=2.0)).to_json()))
    assert value["latency"][0]["scenario"] == "single-stream"
    assert value["energy"]["value"] == 2.0
    assert value["non_inferiority"] == "loses at most 1.0 points (95 %)"
    assert value["sentence"].startswith("Compared with a, b is")


def test_names_stand_for_the_latest_session_that_holds_both() -> None:
    def at(name: str, session: str, started: str, **changes: object) -> Run:
        return make(name, session=session, started=started, id=f"{name}-{session}", **changes)

    runs = [at("a", "1", "1"), at("b", "1", "2"), at("a", "2", "3"), at("b", "2", "4"), at("b", "3", "5")]
    assert [run.id for run in pair(runs, "a", "b")] == ["a-2", "b-2"]
    assert [run.id for run in pair(runs, "b", "a")] == ["b-2", "a-2"]
    assert [run.id for run in pair(runs, "a", "b-3")] == ["a-2", "b-3"]
    assert [run.id for run in pair(runs, "a-1", "b")] == ["a-1", "b-1"]
    assert [run.id for run in pair(runs, "a-1", "a")] == [
        "a-1",
        "a-2",
    ]  # a result is not compared with itself
    elsewhere = at("b", "4", "9", host=Host("other"))
    assert [run.id for run in pair([*runs, elsewhere], "a", "b")] == ["a-2", "b-2"]
    assert [run.id for run in pair([runs[0], elsewhere], "a", "b")] == ["a-1", "b-4"]
    with pytest.raises(UsageError, match="no result of 'c'. Known: a, b."):
        pair(runs, "a", "c")


def test_an_engine_that_cannot_keep_up_is_not_compared_where_queries_arrive() -> None:
    """Its queue grows as long as queries arrive: the time of an answer is that of the block."""
    runs = []
    for name, load in (("a", 0.5), ("b", 1.2)):
        run = simulated_run(name)
        none = Energy("none", "none", "not measured")
        served = WorkloadResult(
            server(10.0), [[0.1] * 40] * 5, list(range(5)), none, elapsed_s=[4.0] * 5, load=load
        )
        runs.append(replace(run, workloads=[*run.workloads, served]))
    compared = compare(*runs)
    assert {ratio.scenario for ratio in compared.latency} == {"single-stream"}
    assert "server 1xreal: not compared, as b could not keep up" in compared.remarks
    arriving = at("latency", server(10.0))
    assert arriving.value(runs[0]) == 0.1 and arriving.value(runs[1]) is None
    assert "could not keep up" in arriving.missing(runs[1])

"""Verdicts of a check against intervals computed by hand, and what it refuses."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from xml.etree import ElementTree

import numpy as np
import pytest
from scipy import stats

from effx.analysis import check_report, limits
from effx.analysis.check import CheckResult, Subject, check, select
from effx.analysis.limits import LimitOutcome, Verdict
from effx.errors import GateError, UsageError
from effx.manifests import Parity
from effx.results import EnergyWindow, FailedEngineRecord, Failure, GateResult, Run
from effx.specs.constraints import CheckSettings
from effx.stats import intervals
from tests.analysis.simulated_run import N, simulated_run

FP32 = simulated_run("fp32", range(40), 0.030, 3.0, precision="fp32", memory=300_000_000, size=200_000_000)
INT8 = simulated_run("int8", range(42), 0.015, 1.5)
WORSE = simulated_run("worse", range(100), 0.005, 0.5)


def settings(**values: object) -> CheckSettings:
    return CheckSettings.of(**values)


def only(result: CheckResult) -> LimitOutcome:
    (outcome,) = result.limits
    return outcome


@pytest.mark.parametrize(
    ("run", "max_drop", "verdict"),
    [
        (INT8, "2%", Verdict.HOLDS),
        (INT8, "1%", Verdict.INCONCLUSIVE),
        (INT8, "0.4%", Verdict.INCONCLUSIVE),
        (WORSE, "1%", Verdict.VIOLATED),
        (WORSE, "20%", Verdict.HOLDS),
    ],
)
def test_a_drop_is_tested_one_sided_on_the_same_rows(run: Run, max_drop: str, verdict: Verdict) -> None:
    result = check(run, FP32, settings(max_drop=max_drop))
    outcome = only(result)
    assert outcome.verdict is verdict
    assert result.passed is (verdict is Verdict.HOLDS)
    right = [np.array(each.quality.predictions) == np.array(each.quality.labels) for each in (FP32, run)]
    expected = intervals.paired_accuracy_interval(*right, confidence=0.90)
    assert outcome.interval == pytest.approx(expected)
    assert outcome.difference == pytest.approx(run.quality.value - FP32.quality.value)


def test_the_confidence_widens_the_bounds() -> None:
    assert only(check(INT8, FP32, settings(max_drop="1.5%", confidence="90%"))).verdict is Verdict.HOLDS
    assert only(check(INT8, FP32, settings(max_drop="1.5%", confidence=0.99))).verdict is Verdict.INCONCLUSIVE


def test_the_rows_that_are_needed_decide_and_fewer_do_not() -> None:
    needed = only(check(INT8, FP32, settings(max_drop="1%"))).needed
    assert needed is not None
    assert needed.unit == "rows"
    assert needed.count > N

    def at(n: int) -> Verdict:
        baseline = simulated_run("fp32", range(n // 10), precision="fp32", n=n)
        run = simulated_run("int8", range(round(n * 42 / 400)), n=n)
        return only(check(run, baseline, settings(max_drop="1%"))).verdict

    more = -(-needed.count // 400) * 400  # the same shares need a multiple
    assert at(more) is Verdict.HOLDS
    assert at(more - 400) is Verdict.INCONCLUSIVE
    exactly = simulated_run("edge", range(44))  # a loss of exactly the limit: no number of rows decides
    assert only(check(exactly, FP32, settings(max_drop="1%"))).needed is None


def test_a_floor_of_accuracy_is_wilsons_bound() -> None:
    # 360 of 400 right: Wilson's lower bound at one-sided 95 %, from the textbook's formula
    z, p = stats.norm.ppf(0.95), 0.9
    low = (p + z * z / 800 - z * np.sqrt(p * (1 - p) / 400 + z * z / 640_000)) / (1 + z * z / 400)
    outcome = only(check(FP32, None, settings(min_accuracy="85%")))
    assert outcome.interval is not None
    assert outcome.interval[0] == pytest.approx(low)
    assert outcome.verdict is Verdict.HOLDS
    outcome = only(check(FP32, None, settings(min_accuracy=0.89)))
    assert outcome.verdict is Verdict.INCONCLUSIVE
    assert outcome.needed is not None
    assert 1000 < outcome.needed.count < 10_000
    assert only(check(FP32, None, settings(min_accuracy=0.95))).verdict is Verdict.VIOLATED


@pytest.mark.parametrize("metric", ["f1", "matthews", "macro_f1"])
def test_equal_predictions_can_pass_for_every_metric_of_classes(metric: str) -> None:
    """A bootstrap has no interval where fewer than ten predictions differ; the check must still decide."""
    a, b = (simulated_run(name, range(40), metric=metric) for name in ("a", "b"))
    outcome = only(check(b, a, settings(max_drop="5%")))
    assert outcome.verdict is Verdict.HOLDS
    assert outcome.interval is not None
    # three rows in 400 may differ unseen: each costs a point of F1 or two of MCC at most
    assert -0.03 < outcome.interval[0] < -0.002
    unproven = only(check(b, a, settings(max_drop="0.1%")))
    assert unproven.verdict is Verdict.INCONCLUSIVE
    assert unproven.needed is None  # how the worst case narrows with more rows is not known
    assert (
        only(check(simulated_run("c", range(41), metric=metric), a, settings(max_drop="5%"))).verdict
        is Verdict.HOLDS
    )


def test_the_bounds_of_few_differing_predictions_hold_in_repetition() -> None:
    """Drawn from a population where 1 % of the rows differ: the lower bound fails in at most 5 % of draws."""
    from effx.stats.metrics import METRICS

    rng = np.random.default_rng(0)
    labels = rng.integers(0, 2, 20_000)
    a = np.where(rng.random(20_000) < 0.1, 1 - labels, labels)
    b = np.where(rng.random(20_000) < 0.01, 1 - labels, a)
    truth = METRICS["f1"](labels, b) - METRICS["f1"](labels, a)
    below = above = 0
    for _ in range(200):
        rows = rng.integers(0, 20_000, 300)
        low, high = intervals.few_differing_interval(METRICS["f1"], labels[rows], a[rows], b[rows], 0.95)
        below += truth < low
        above += truth > high
    assert max(below, above) <= 18  # 5 % of 200 is 10; 18 has a chance of 1 in 100


def test_a_latency_is_bounded_by_its_rounds() -> None:
    value = INT8.workloads[0].latency_s["p90"]
    assert value is not None
    outcome = only(check(INT8, None, settings(max_p90_s=value * 1.5)))
    assert outcome.verdict is Verdict.HOLDS
    assert outcome.interval is not None
    assert outcome.interval[0] < value < outcome.interval[1] < value * 1.2
    assert only(check(INT8, None, settings(max_p90_s=value / 2))).verdict is Verdict.VIOLATED
    close = only(check(INT8, None, settings(max_p90_s=value * 1.01)))
    assert close.verdict is Verdict.INCONCLUSIVE
    assert close.needed is not None
    assert close.needed.unit == "rounds"
    assert close.needed.count > 6


def test_a_percentile_without_enough_samples_is_inconclusive() -> None:
    outcome = only(check(INT8, None, settings(max_p99_s="1s")))  # 180 queries
    assert (outcome.verdict, outcome.value) == (Verdict.INCONCLUSIVE, None)
    assert outcome.needed is not None
    assert (outcome.needed.count, outcome.needed.unit) == (23, "rounds")  # 662 queries, 30 a round
    two = simulated_run("two", rounds=2, queries=40)
    outcome = only(check(two, None, settings(max_p90_s="1s")))
    assert outcome.verdict is Verdict.INCONCLUSIVE
    assert outcome.needed is not None
    assert (outcome.needed.count, outcome.needed.unit) == (3, "rounds")


def windows(*joules: float) -> Run:
    energy = INT8.workloads[0].energy
    read = [EnergyWindow(10.0, 100, 100 * each, 10.0, each) for each in joules]
    mean = float(np.mean(joules))
    measured = replace(energy, joules_per_example=mean, gross=mean, windows=read)
    return replace(INT8, workloads=[replace(INT8.workloads[0], energy=measured)])


def test_energy_is_bounded_by_its_windows() -> None:
    run = windows(1.5, 1.52, 1.48)
    half = stats.t.ppf(0.95, 2) * np.std([1.5, 1.52, 1.48], ddof=1) / np.sqrt(3)
    outcome = only(check(run, None, settings(max_joules="1.6J")))
    assert outcome.interval == pytest.approx((1.5 - half, 1.5 + half))
    assert outcome.verdict is Verdict.HOLDS
    close = only(check(run, None, settings(max_joules="1505mJ")))
    assert close.verdict is Verdict.INCONCLUSIVE
    assert close.needed is not None
    assert close.needed.unit == "windows"
    assert only(check(run, None, settings(max_joules="1J"))).verdict is Verdict.VIOLATED


def test_the_tolerance_of_the_meter_widens_the_bounds_of_its_windows() -> None:
    """Both errors occur together: neither alone says how far the energy may be off."""
    run = windows(1.5, 1.52, 1.48)
    energy = run.workloads[0].energy
    read = [
        replace(each, interval_without_gain=(joules, joules), interval=(joules / 1.05, joules / 0.95))
        for each, joules in zip(energy.windows, (1.5, 1.52, 1.48), strict=True)
    ]
    run = replace(run, workloads=[replace(run.workloads[0], energy=replace(energy, windows=read))])
    half = stats.t.ppf(0.95, 2) * np.std([1.5, 1.52, 1.48], ddof=1) / np.sqrt(3)
    outcome = only(check(run, None, settings(max_joules="1.6J")))
    assert outcome.interval == pytest.approx(((1.5 - half) / 1.05, (1.5 + half) / 0.95))
    assert max(1.5 / 0.95, 1.5 + half) < 1.6 and outcome.verdict is Verdict.INCONCLUSIVE
    # more windows narrow the spread alone: 1.5 / 0.95 J is below the limit
    assert outcome.needed is not None and outcome.needed.unit == "windows"
    assert only(check(run, None, settings(max_joules="1.57J"))).needed is None


def test_one_energy_window_proves_nothing() -> None:
    """The bounds of the meter say how far it may be off, not how far another window would be."""
    run = windows(1.5)
    energy = run.workloads[0].energy
    bounded = replace(energy, windows=[replace(energy.windows[0], interval=(1.499, 1.501))])
    run = replace(run, workloads=[replace(run.workloads[0], energy=bounded)])
    outcome = only(check(run, None, settings(max_joules="1.6J")))
    assert (outcome.verdict, outcome.interval) == (Verdict.INCONCLUSIVE, None)
    assert outcome.reason == "1 energy windows are too few for an interval"
    assert outcome.needed is not None and (outcome.needed.count, outcome.needed.unit) == (2, "windows")


@pytest.mark.parametrize("run", [simulated_run("none"), simulated_run("model", joules=1.0, source="model")])
def test_energy_that_was_not_measured_decides_nothing(run: Run) -> None:
    outcome = only(check(run, None, settings(max_joules="100J")))
    assert outcome.verdict is Verdict.INCONCLUSIVE
    assert outcome.reason
    assert outcome.needed is None


def test_sizes_are_single_readings() -> None:
    result = check(FP32, None, settings(max_memory_bytes="300MB", max_size_bytes="199MB"))
    assert [outcome.verdict for outcome in result.limits] == [Verdict.HOLDS, Verdict.VIOLATED]
    assert "(single reading)" in check_report.text(result)


def with_parity(run: Run, parity: Parity) -> Run:
    return replace(run, engine=replace(run.engine, parity=parity))


def test_failed_gates_fail_the_check_unless_ignored() -> None:
    run = replace(INT8, gates=[GateResult("host-idle", False, "other processes took 12 %"),
                               GateResult("steady-rounds", None, "2 blocks")])  # fmt: skip
    result = check(run, None, settings(max_size_bytes="1GB"))
    assert [gate.name for gate in result.failed_gates] == ["host-idle"]
    assert not result.passed
    assert "gate failed: host otherwise idle: other processes took 12 %" in check_report.text(result)
    result = check(run, None, settings(max_size_bytes="1GB", ignore_gates="host-idle"))
    assert result.passed
    assert "gate ignored: host otherwise idle" in check_report.text(result)
    unlike = with_parity(INT8, Parity(200, 9.0, 0.5, False, "task"))
    result = check(unlike, None, settings(max_size_bytes="1GB"))
    assert [gate.name for gate in result.failed_gates] == ["parity"]
    with pytest.raises(UsageError, match="unknown gate 'host-ilde'"):
        settings(ignore_gates="host-ilde")


@pytest.mark.parametrize(
    ("baseline", "message"),
    [
        (simulated_run("fp32", host="other"), "different hosts"),
        (simulated_run("fp32", task="rte"), "different tasks"),
        (simulated_run("fp32", n=300), "different evaluation sets"),
        (simulated_run("fp32", rows="others"), "different evaluation sets"),
        (simulated_run("fp32", metric="f1"), "different metrics"),
        (replace(INT8, id="another"), "the baseline is the checked engine int8"),
    ],
)
def test_what_cannot_be_compared_is_refused(baseline: Run, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        check(INT8, baseline, settings(max_drop="1%"))


def test_settings_that_check_nothing_are_refused() -> None:
    with pytest.raises(UsageError, match="there is nothing to check"):
        check(INT8, None, settings())
    with pytest.raises(UsageError, match="give max_drop and baseline together"):
        check(INT8, None, settings(max_drop="1%"))
    with pytest.raises(UsageError, match="give max_drop and baseline together"):
        check(INT8, FP32, settings(max_p90_s="5ms"))


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"max_drop": "1"}, r"'1' could mean 1 or 1 %: write 0\.01 or 1%"),
        ({"max_drop": "5"}, r"write 0\.05 or 5%"),
        ({"max_drop": 1}, r"write 0\.01 or 1%"),
        ({"max_drop": "-1%"}, "expected at least 0"),
        ({"max_drop": "101%"}, "expected at most 100%"),
        ({"max_drop": "1 point"}, r"is not a share\. Write 0\.01 or 1%"),
        ({"max_drop": "nan"}, "is not a share"),
        ({"max_p90_s": "5"}, "'5' has no unit"),
        ({"max_p90_s": "5MB"}, "unknown unit 'MB'"),
        ({"max_p90_s": 0}, "expected more than 0"),
        ({"max_joules": "5"}, "'5' has no unit"),
        ({"min_accuracy": "91"}, "'91': expected -1 to 1, e.g. 0.91 or 91%"),
        ({"confidence": "50%"}, "expected more than 0.5 and less than 1"),
        ({"confidence": "95"}, r"write 0\.95 or 95%"),
    ],
)
def test_limits_are_explicit(values: dict[str, object], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        settings(**values)


@pytest.mark.parametrize(
    ("text", "value"),
    [("1%", 0.01), ("0.01", 0.01), ("0", 0.0), ("0.5 %", 0.005), ("100%", 1.0), ("1e-3", 0.001)],
)
def test_shares(text: str, value: float) -> None:
    assert settings(max_drop=text).constraints.max_drop == pytest.approx(value)


def test_the_latest_result_of_that_very_engine_counts() -> None:
    old = simulated_run("int8", range(42), started="2025")
    rebuilt = replace(
        simulated_run("int8", range(60), started="2027"), engine=replace(INT8.engine, digest="rebuilt")
    )
    runs = [old, FP32, INT8, rebuilt]
    assert select(runs, [], Subject("int8"), None) == (rebuilt, None)
    assert select(runs, [], Subject("engines/int8", INT8.engine.digest), None)[0] is INT8
    assert select(runs, [], Subject(old.id), Subject("fp32")) == (old, FP32)
    with pytest.raises(UsageError, match="no result of the current build of engines/int8"):
        select(runs, [], Subject("engines/int8", "unknown"), None)
    with pytest.raises(UsageError, match=r"no result of 'int9'\. Did you mean 'int8'"):
        select(runs, [], Subject("int9"), None)


def test_a_baseline_is_another_engine_of_the_same_session_if_there_is_one() -> None:
    elsewhere = simulated_run("fp32", host="g", started="2030")
    later = replace(simulated_run("fp32", session="t"), id="later", started="2029")
    assert select([INT8, FP32, later, elsewhere], [], Subject("int8"), Subject("fp32"))[1] is FP32
    assert select([INT8, later, elsewhere], [], Subject("int8"), Subject("fp32"))[1] is later
    again = replace(INT8, id="again", started="2020")
    for baseline in ("int8", INT8.id, "again"):
        with pytest.raises(UsageError, match="is the engine itself"):
            select([INT8, again, FP32], [], Subject("int8"), Subject(baseline))
    rebuilt = replace(again, engine=replace(INT8.engine, digest="before"))  # of the release before
    assert select([INT8, rebuilt], [], Subject("int8"), Subject("int8"))[1] is rebuilt


def test_several_hosts_are_ambiguous() -> None:
    runs = [INT8, simulated_run("int8", host="g")]
    with pytest.raises(UsageError, match="'int8' was measured on 2 hosts: g, h"):
        select(runs, [], Subject("int8"), None)
    assert select(runs, [], Subject("int8"), None, host="h")[0] is INT8
    with pytest.raises(UsageError, match=r"on host 'i'\. Hosts: g, h"):
        select(runs, [], Subject("int8"), None, host="i")


def test_an_engine_whose_latest_measurement_failed_does_not_pass_by_an_older_one() -> None:
    failure = Failure("f", "2027", FailedEngineRecord("int8"), INT8.host, "s", "the worker died")
    with pytest.raises(GateError, match="int8 could not be profiled: the worker died"):
        select([INT8], [failure], Subject("int8"), None)
    with pytest.raises(GateError, match="could not be profiled"):
        select([], [failure], Subject("int8"), None)
    assert select([INT8], [replace(failure, started="2020")], Subject("int8"), None)[0] is INT8


def test_a_failure_without_a_start_has_the_time_of_its_id() -> None:
    """As earlier versions wrote it where the engine could not be opened."""
    assert INT8.started.startswith("2026")
    failure = Failure("f", "", FailedEngineRecord("int8"), INT8.host, "s", "cannot be opened")
    with pytest.raises(GateError, match="int8 could not be profiled: cannot be opened"):
        select([INT8], [failure], Subject("int8"), None)
    later = replace(failure, id="20271130T101112.131-int8-abcdef")
    assert later.time == "2027-11-30T10:11:12.131+00:00"
    with pytest.raises(GateError, match="could not be profiled"):
        select([INT8], [later], Subject("int8"), None)
    earlier = replace(failure, id="20201130T101112.131-int8-abcdef")
    assert select([INT8], [earlier], Subject("int8"), None)[0] is INT8


def test_an_interval_without_an_end_proves_nothing() -> None:
    assert limits._verdict((0.0, float("inf")), 1.0, False) is Verdict.INCONCLUSIVE
    assert limits._verdict((2.0, float("inf")), 1.0, False) is Verdict.VIOLATED
    assert limits._verdict((0.0, 1.0), 1.0, False) is Verdict.HOLDS


@pytest.mark.parametrize(
    ("confidence", "told"), [(0.975, "97.5 %"), (0.9999, "99.99 %"), (0.945, "94.5 %"), (0.95, "95 %")]
)
def test_the_confidence_is_told_as_it_was_given(confidence: float, told: str) -> None:
    result = check(INT8, FP32, settings(max_drop="20%", confidence=confidence))
    assert f", {told} confidence (result" in check_report.text(result)
    assert check_report.conclusion(result) == f"passed: every limit holds with {told} confidence"


def test_bounds_are_rounded_to_weaker_claims() -> None:
    """What is told holds whenever the interval does."""
    result = check(INT8, FP32, settings(max_drop="2%", max_p90_s="1s"))
    drop, p90 = result.limits
    assert drop.interval is not None and p90.interval is not None and p90.value is not None
    for step in range(40):
        low, high = drop.interval[0] - step * 1e-5, p90.interval[1] + step * 1e-6
        (at_worst,) = re.findall("at worst (.*)", check_report.finding(
            replace(drop, interval=(low, 0.0)), result))  # fmt: skip
        assert 100 * low - 0.01 < float(at_worst) <= 100 * low + 1e-9
        (at_worst,) = re.findall("at worst (.*) ms", check_report.finding(
            replace(p90, interval=(0.0, high)), result))  # fmt: skip
        assert 1e3 * high - 1e-9 <= float(at_worst) < 1e3 * high + 0.1
        violated = replace(drop, interval=(-1.0, low), verdict=Verdict.VIOLATED)
        (at_best,) = re.findall("at best (.*)", check_report.finding(violated, result))
        assert 100 * low - 1e-9 <= float(at_best) < 100 * low + 0.01
    endless = replace(p90, interval=(p90.interval[0], float("inf")))
    assert "at worst –" in check_report.finding(endless, result)


def test_text_markdown_junit_and_json_agree() -> None:
    result = check(INT8, FP32, settings(max_drop="1%", max_p90_s="1ms", max_size_bytes="1GB"))
    text = check_report.text(result, lambda setting: f"--{setting}")
    assert [line.split()[0] for line in text.splitlines()[1:4]] == ["inconclusive", "violated", "holds"]
    assert "--max_drop 0.01: -0.50 points of accuracy compared with fp32" in text
    assert "rows are needed to decide" in text
    assert text.splitlines()[-1] == "failed: 1 of 3 limits violated, 1 of 3 limits inconclusive"
    assert "| inconclusive | max_drop 0.01 | -0.50 points" in check_report.markdown(result)
    suite = ElementTree.fromstring(check_report.junit(result))
    assert (suite.get("tests"), suite.get("failures")) == ("4", "2")  # three limits and the gates
    assert [failure.get("type") for failure in suite.iter("failure")] == ["inconclusive", "violated"]
    value = json.loads(json.dumps(result.to_json(), allow_nan=False))
    assert value["passed"] is False
    assert [limit["verdict"] for limit in value["limits"]] == ["inconclusive", "violated", "holds"]
    assert value["limits"][0]["needed"]["unit"] == "rows"

"""Which engines are certified to lose at most a point, and why others are not."""

from __future__ import annotations

import re
from dataclasses import replace

import numpy as np
import pytest

from effx.analysis import losses
from effx.analysis.losses import LossStatus
from effx.analysis.summary import summary
from effx.report.groups import group_runs
from effx.results import GateResult, Run
from effx.stats import intervals
from tests.analysis.simulated_run import simulated_run

N = 4000


def engine(name: str, wrong: int, first: int = 0) -> Run:
    return simulated_run(name, range(first, first + wrong), n=N)


def shared_without_rows(run: Run) -> Run:
    return replace(run, quality=replace(run.quality, predictions=[], labels=[]))


def failed(run: Run) -> Run:
    gate = GateResult("prediction-agreement", False, "9 of 100 timed predictions differ")
    return replace(run, gates=[gate], flags=[gate.name])


def statuses(runs: list[Run], baseline: Run) -> list[LossStatus]:
    return [outcome.status for outcome in losses.outcomes(runs, baseline)]


def test_each_status_is_told_apart() -> None:
    base = engine("base", 200)
    runs = [
        base, engine("same", 203), engine("near", 235), engine("far", 400), failed(engine("gate", 200)),
        shared_without_rows(engine("bare", 200)),
    ]  # fmt: skip
    assert statuses(runs, base) == [
        LossStatus.BASELINE, LossStatus.CERTIFIED, LossStatus.NOT_PROVEN, LossStatus.LOSES_MORE,
        LossStatus.UNAVAILABLE, LossStatus.UNAVAILABLE,
    ]  # fmt: skip
    sentences = [outcome.explanation for outcome in losses.outcomes(runs, base)]
    assert "measured: 0.1 points" in sentences[1] and "Measured loss 0.9 points" in sentences[2]
    assert "timed predictions differ" in sentences[4] and "without predictions" in sentences[5]


def test_what_is_certified_is_not_rounded_to_a_smaller_loss() -> None:
    """Of 20,000 rows, one that became wrong excludes no loss of 0.02 points, and 0.04 are not 0."""
    base = simulated_run("base", range(100), precision="fp32", n=20_000)
    for more in (0, 1, 3, 6, 30):
        outcome = losses.outcomes([base, simulated_run("int8", range(100 + more), n=20_000)], base)[1]
        assert outcome.status is LossStatus.CERTIFIED
        match = re.match(r"It loses at most (\S+) points \(95 %, adjusted", outcome.explanation)
        assert match is not None
        bound = -100 * intervals.tango(more, 0, 20_000, confidence=0.9)[0]
        assert bound <= float(match[1]) < bound + 0.1


def test_the_limit_and_the_confidence_are_told_as_they_were_given() -> None:
    base = simulated_run("base", range(100), precision="fp32", n=20_000)
    runs = [base, simulated_run("same", range(100), n=20_000), simulated_run("far", range(400), n=20_000)]
    far = losses.outcomes(runs, base, max_drop=0.0004, confidence=0.9999)[2]
    assert "and more than 0.04 points with 99.99 % confidence" in far.explanation
    edge = losses.outcomes(runs[:2], base, max_drop=0.000412, confidence=0.975)[1]
    assert edge.explanation.startswith("It loses at most 0.0412 points (97.5 %, adjusted")


def test_certificates_are_adjusted_for_the_number_of_engines() -> None:
    """Alone, an engine whose bound at 95 % is just within the point is certified; beside others it is not."""
    base = engine("base", 200)
    wrong = max(
        count for count in range(200, 240) if intervals.tango(count - 200, 0, N, confidence=0.9)[0] >= -0.01
    )
    edge = engine("edge", wrong)
    assert statuses([base, edge], base)[1] == LossStatus.CERTIFIED
    others = [engine(f"other{index}", 300 + index) for index in range(6)]
    assert statuses([base, edge, *others], base)[1] == LossStatus.NOT_PROVEN


def test_nothing_is_certified_against_a_baseline_whose_score_is_unavailable() -> None:
    base = shared_without_rows(engine("base", 200))
    outcome = losses.outcomes([base, engine("same", 200)], base)[1]
    assert (
        outcome.status is LossStatus.NOT_TESTED and "baseline's score is unavailable" in outcome.explanation
    )


def test_nothing_is_certified_against_the_next_best_engine() -> None:
    """As a report, and its summary, have them where a gate withdraws the score of the unreduced engine."""
    base = failed(simulated_run("fp32", range(20), precision="fp32"))
    runs = [base, simulated_run("small", range(60)), simulated_run("smaller", range(60))]
    (group,) = group_runs(runs)
    assert group.baseline is base
    found = [outcome.status for outcome in losses.outcomes(group.runs, group.baseline)]
    assert found == [LossStatus.UNAVAILABLE, LossStatus.NOT_TESTED, LossStatus.NOT_TESTED]
    (entry,) = summary(runs).values()
    assert entry.baseline == "fp32" and set(entry.cheapest.values()) == {None}


def test_a_bootstrapped_metric_is_tested_for_a_limited_number_of_engines(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    rng = np.random.default_rng(0)
    runs = [simulated_run(f"e{index}", rng.choice(400, 30, replace=False), metric="f1") for index in range(4)]
    assert LossStatus.NOT_TESTED not in statuses(runs, runs[0])
    monkeypatch.setattr(losses, "_MOST_BOOTSTRAPPED", 2)
    assert statuses(runs, runs[0])[1:] == [LossStatus.NOT_TESTED] * 3

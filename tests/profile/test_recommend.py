"""The choice against what one sees by hand, and its certainty against repetition."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest

from effx.errors import UsageError
from effx.profile import wording
from effx.profile.recommend import Limits, Recommendation, Unmet, recommend
from effx.results import Run
from tests.profile.made import N, made

FP32 = made("fp32", range(40), 0.030, 3.0, precision="fp32", memory=300_000_000, size=200_000_000)
INT8 = made("int8", range(42), 0.015, 1.5)
SMALL = made("small", range(46), 0.005, 0.5, memory=60_000_000, size=10_000_000)
TINY = made("tiny", range(80), 0.001, 0.1, memory=20_000_000, size=1_000_000)
ALL = [FP32, INT8, SMALL, TINY]


def one(runs: list[Run], *arguments: object, **named: object) -> Recommendation:
    (answer,) = recommend(runs, *arguments, **named)  # type: ignore[arg-type]
    assert isinstance(answer, Recommendation)
    return answer


def test_the_choice_its_runner_up_and_what_binds() -> None:
    found = one(ALL)
    assert (found.objective, found.baseline, found.engine) == ("energy", "fp32", "int8")
    assert found.figures["energy"].value == 1.5
    assert found.figures["accuracy"].interval == INT8.accuracy.interval
    (drop,) = found.constraints
    assert drop.admits == "small"
    assert drop.needed == pytest.approx(6 / N)
    assert drop.gain == pytest.approx(0.5 / 1.5)
    assert found.runner_up is not None
    assert (found.runner_up.engine, found.runner_up.ratio) == ("fp32", pytest.approx(2.0))
    low, high = found.runner_up.interval or (0, 0)
    assert low < 2.0 < high < 2.1
    assert found.beside_baseline is not None
    assert found.beside_baseline.difference == pytest.approx(-2 / N)
    assert json.loads(json.dumps(found.to_json()))["binding"] == ["--max-drop"]


def test_the_needed_limit_admits_and_a_hair_less_does_not() -> None:
    needed = one(ALL).constraints[0].needed
    assert needed is not None
    assert one(ALL, None, Limits(max_drop=needed)).engine == "small"
    assert one(ALL, None, Limits(max_drop=needed - 1e-6)).engine == "int8"


@pytest.mark.parametrize(
    ("objective", "limits"),
    [
        (None, Limits()),
        ("latency", Limits(max_drop=0.02)),
        ("memory", Limits(max_drop=0.05, max_size_bytes=60e6)),
        ("throughput", Limits(max_drop=None, min_accuracy=0.85)),
        ("energy_per_correct", Limits(max_drop=None)),
    ],
)
def test_without_the_choice_its_runner_up_is_the_choice(objective: str | None, limits: Limits) -> None:
    runs = list(ALL)
    while True:
        found = one(runs, objective, limits)
        runs = [run for run in runs if run.name != found.engine]
        if not runs:
            assert found.runner_up is None
            return
        (rest,) = recommend(runs, objective, limits)
        if found.runner_up is None:
            assert isinstance(rest, Unmet)
            return
        assert isinstance(rest, Recommendation)
        assert (rest.engine, rest.baseline) == (found.runner_up.engine, found.runner_up.baseline)


def test_every_constraint_keeps_out_what_it_should() -> None:
    free = {"max_drop": None}
    for limits, expected in (
        (Limits(**free), "tiny"),
        (Limits(**free, min_accuracy=0.88), "small"),
        (Limits(max_drop=0.0), "fp32"),
    ):
        assert one(ALL, "energy", limits).engine == expected
    slow_saver = made("saver", range(40), 0.1, 0.01, memory=900_000_000, size=900_000_000)
    for limits, option in (
        (Limits(max_p90_s=0.05), "--max-p90"),
        (Limits(max_memory_bytes=500e6), "--max-memory"),
        (Limits(max_size_bytes=500e6), "--max-size"),
    ):
        found = one([*ALL, slow_saver], "energy", limits)
        assert found.engine == "int8"
        bound = {one.option: one for one in found.constraints}[option]
        assert bound.admits == "saver"
        assert bound.gain == pytest.approx(0.01 / 1.5)


def test_two_limits_that_keep_one_engine_out_bind_together_only() -> None:
    found = one(ALL, "energy", Limits(max_drop=0.01, min_accuracy=0.89))
    assert found.engine == "int8"
    assert found.binding == []
    assert "No constraint binds" in wording.recommendation(found)


def test_certainty_is_a_share_of_resamplings() -> None:
    sure = one([FP32, INT8, TINY], "latency", Limits(max_drop=None))
    assert (sure.p_choice, sure.p_others, sure.p_none) == (1.0, {}, 0.0)
    # As wrong as the bar allows, on other rows: it meets the bar in about half of the resamplings.
    edge = made("edge", range(20, 64), 0.005, 0.5)
    found = one([FP32, edge], "energy")
    assert found.engine == "edge"
    (drop,) = found.constraints
    rng = np.random.default_rng(5)
    rows = rng.integers(0, N, (4000, N))
    right = [np.array(run.accuracy.predictions) == np.array(run.accuracy.labels) for run in (FP32, edge)]
    share = np.mean(right[1][rows].mean(axis=1) >= right[0][rows].mean(axis=1) - 0.01 - 1e-9)
    assert drop.p_met == pytest.approx(share, abs=0.04)
    assert found.p_choice == pytest.approx(drop.p_met)
    assert found.p_others == {"fp32": pytest.approx(1 - drop.p_met)}


def test_equals_share_the_certainty() -> None:
    found = one([replace(INT8, id="b", engine={**INT8.engine, "name": "b"}), INT8, FP32], "size")
    assert found.engine == "b"
    assert found.p_choice == pytest.approx(found.p_others["int8"])


def test_nothing_meets_the_constraints() -> None:
    (answer,) = recommend(ALL, "energy", Limits(max_drop=None, max_p90_s=0.0009))
    assert isinstance(answer, Unmet)
    assert (answer.engine, answer.option) == ("tiny", "--max-p90")
    assert "nearest is tiny, whose p90 latency" in answer.message
    assert "is above 0.9 ms (--max-p90)" in answer.message
    # the nearest is the one whose worst lack is least: small lacks 0.02 of accuracy, tiny little else
    (answer,) = recommend(ALL, "energy", Limits(max_drop=0.0, max_size_bytes=15e6))
    assert isinstance(answer, Unmet)
    assert (answer.engine, answer.option) == ("small", "--max-drop")


def test_what_was_not_measured() -> None:
    none = [made("a", precision="fp32"), made("b", seconds=0.005)]
    found = one(none)
    assert (found.objective, found.engine) == ("latency", "b")
    assert "energy unavailable (no meter)" in found.remarks[0]
    with pytest.raises(UsageError, match=r"--objective energy: no meter\. Use --objective latency"):
        recommend(none, "energy")
    with pytest.raises(
        UsageError, match="--max-p99: no engine can be held to it: p99 needs 662 queries, 180"
    ):
        recommend(none, None, Limits(max_p99_s=0.01))
    found = one([*ALL, none[1]], "energy")
    assert found.remarks == ["b is left out: without energy"]
    with pytest.raises(UsageError, match="different source or meter cannot be compared: counter"):
        recommend([*ALL, made("m", joules=1.0, source="model")], "energy")
    assert one([*ALL, made("m", joules=1.0, source="model")]).objective == "latency"


def test_groups_are_answered_apart() -> None:
    runs = [*ALL, made("fp32", range(40), task="rte", precision="fp32"), made("x", host="other")]
    assert [(answer.task, answer.host) for answer in recommend(runs)] == [
        ("rte", "h"), ("sst2", "h"), ("sst2", "other")
    ]  # fmt: skip
    assert one(runs, task="rte").task == "rte"
    assert one(runs, host="other").engine == "x"
    short = made("short", seconds=0.0001, joules=0.001, n=10)
    assert one([*ALL, short]).remarks == ["short is left out: scored on other rows"]


def test_names_that_are_not_there() -> None:
    for named, message in (
        ({"objective": "enery"}, "unknown objective 'enery'. Did you mean 'energy'"),
        ({"task": "sst3"}, "no result of task 'sst3'. Did you mean 'sst2'"),
        ({"host": "g"}, "no result of host 'g'"),
        ({"baseline": "fp31"}, "no result of baseline 'fp31'. Did you mean 'fp32'"),
    ):
        with pytest.raises(UsageError, match=message.replace("?", r"\?")):
            recommend(ALL, **named)  # type: ignore[arg-type]
    with pytest.raises(UsageError, match="no results"):
        recommend([])


def test_a_named_baseline() -> None:
    found = one(ALL, baseline="small")
    assert (found.baseline, found.engine) == ("small", "small")
    assert found.beside_baseline is None
    assert found.runner_up is not None
    assert found.runner_up.engine == "int8"


def test_as_a_person_reads_it() -> None:
    text = wording.recommendation(one(ALL))
    assert "sst2 on h: deploy int8" in text
    assert "by energy, out of 4 engines; accuracy on 400 rows; energy source: counter" in text
    assert "1.5 J/example (95 % 1.47 to 1.53 J/example)   <- objective" in text
    assert "What binds: --max-drop of 0.015 instead of 0.01 would admit small, at 0.33x the energy." in text
    assert "Runner-up: fp32, at 2.00x the energy (95 % 1.9" in text
    assert "Certainty: the choice in" in text
    assert "less accurate" in text  # the loss beside the gain


def test_a_host_that_was_not_steady_is_remarked() -> None:
    """b is faster in the long slow rounds; the median of all samples is of the quick ones."""
    levels = {"a": [3.0, 1.0, 3.0, 1.01, 3.0, 1.02], "b": [2.0, 1.1, 2.0, 1.1, 2.0, 1.1]}
    runs = []
    for name, own in levels.items():
        run = made(name)
        queries = [10, 30, 10, 30, 10, 30]  # slow rounds are short
        blocks = [[level * (1 + 1e-4 * i) for i in range(n)] for level, n in zip(own, queries, strict=True)]
        runs.append(replace(run, workloads=[replace(run.workloads[0], blocks_s=blocks)]))
    found = one(runs, "latency")
    assert found.engine == "a"
    assert [note for note in found.remarks if "round by round b takes 0.8" in note]
    assert one([FP32, INT8], "latency").remarks == []

"""The choice against what one sees by hand, and its certainty against repetition."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest

from effx.analysis import wording
from effx.analysis.recommend import recommend
from effx.analysis.recommendation import Recommendation, Unmet
from effx.errors import UsageError
from effx.manifests import ArtifactReference
from effx.results import FailedEngineRecord, Failure, GateResult, Run
from effx.specs.constraints import RecommendSettings
from effx.stats import intervals
from tests.analysis.simulated_run import simulated_run

N = 4000
FP32 = simulated_run("fp32", range(400), 0.030, 3.0, precision="fp32", memory=300_000_000, size=200_000_000,
                     n=N)  # fmt: skip
INT8 = simulated_run("int8", range(420), 0.015, 1.5, n=N)
SMALL = simulated_run("small", range(460), 0.005, 0.5, memory=60_000_000, size=10_000_000, n=N)
TINY = simulated_run("tiny", range(800), 0.001, 0.1, memory=20_000_000, size=1_000_000, n=N)
ALL = [FP32, INT8, SMALL, TINY]


def limits(**constraints: object) -> RecommendSettings:
    return RecommendSettings.of(**constraints)


def one(runs: list[Run], *arguments: object, **named: object) -> Recommendation:
    (answer,) = recommend(runs, *arguments, **named)  # type: ignore[arg-type]
    assert isinstance(answer, Recommendation)
    return answer


def test_the_choice_its_runner_up_and_what_binds() -> None:
    chosen = one(ALL)
    assert (chosen.objective, chosen.baseline, chosen.engine) == ("energy", "fp32", "int8")
    assert chosen.estimates["energy"].value == 1.5
    assert chosen.estimates["quality"].interval == INT8.quality.interval
    (drop,) = chosen.constraints
    assert drop.admits == "small"
    assert drop.needed is not None and 60 / N < drop.needed < 0.02
    assert drop.bound is not None and 20 / N < drop.bound < 0.01
    assert (chosen.confidence, chosen.tested, chosen.not_proven) == (0.95, 3, [])
    assert drop.gain == pytest.approx(0.5 / 1.5)
    assert chosen.runner_up is not None
    assert (chosen.runner_up.engine, chosen.runner_up.ratio) == ("fp32", pytest.approx(2.0))
    low, high = chosen.runner_up.interval or (0, 0)
    assert low < 2.0 < high < 2.1
    assert chosen.versus_baseline is not None
    assert chosen.versus_baseline.difference == pytest.approx(-20 / N)
    assert json.loads(json.dumps(chosen.to_json()))["binding"] == ["max_drop"]


def failed(name: str, started: str, task: str | None = INT8.task, host: Run = INT8) -> Failure:
    record = FailedEngineRecord(name, task, INT8.engine.digest if task else None)
    return Failure(f"{name}-{started}", started, record, host.host, "s", "the worker died")


@pytest.mark.parametrize("task", [INT8.task, None])  # None: its folder cannot be read
def test_an_engine_whose_latest_measurement_failed_is_left_out(task: str | None) -> None:
    assert one(ALL).engine == "int8"
    chosen = one(ALL, failures=[failed("int8", "2027", task), failed("other", "2020")])
    assert chosen.engine != "int8"
    for name in ("int8", "other"):
        assert f"{name} is left out: it could not be measured: the worker died" in chosen.remarks
    again = one(ALL, failures=[failed("int8", "2020", task)])  # it was measured later
    assert (again.engine, again.remarks) == ("int8", one(ALL).remarks)
    with pytest.raises(UsageError, match="int8 could not be measured: the worker died"):
        recommend([INT8], failures=[failed("int8", "2027", task)])


def test_a_failed_baseline_does_not_make_room_for_a_worse_one() -> None:
    lost, limit = [failed("fp32", "2027")], limits(max_drop=0.0165)
    with pytest.raises(UsageError, match="the baseline fp32 could not be measured: the worker died"):
        recommend(ALL, "latency", limit, failures=lost)
    with pytest.raises(UsageError, match="the baseline fp32 could not be measured"):
        recommend([FP32, TINY], "latency", limit, baseline="fp32", failures=lost)
    assert one(ALL, "latency", limit, baseline="int8", failures=lost).baseline == "int8"
    assert one(ALL, "latency", limits(max_drop=None, min_accuracy=0.87), failures=lost).engine == "small"


def test_an_engine_that_was_never_measured_may_be_the_baseline() -> None:
    lost, limit = [failed("fp32", "2027")], limits(max_drop=0.01)
    with pytest.raises(UsageError, match="fp32 could not be measured, and may be the baseline: the worker"):
        recommend([SMALL, TINY], "latency", limit, failures=lost)
    assert one([SMALL, TINY], "latency", limit, failures=lost, baseline="small").baseline == "small"
    assert one([SMALL, TINY], "latency", limit, failures=[failed("tiny", "2020")]).baseline == "small"
    assert one([FP32, SMALL], "latency", limit, failures=[failed("other", "2027")]).baseline == "fp32"
    assert one([SMALL, TINY], "latency", limits(max_drop=None), failures=lost).engine == "tiny"


def test_a_task_without_a_baseline_does_not_hide_the_others(capsys: pytest.CaptureFixture[str]) -> None:
    elsewhere = [
        replace(run, id=f"{run.id}-other", engine=replace(run.engine, task="other")) for run in (FP32, INT8)
    ]
    unanswered: list[str] = []
    (answer,) = recommend([withdrawn(FP32), INT8, *elsewhere], "latency", unanswered=unanswered)
    assert answer.task == "other"
    (reason,) = unanswered
    assert f"{INT8.task} on {INT8.host_id}: the baseline fp32 cannot be compared with" in reason
    assert reason in capsys.readouterr().err
    both = [withdrawn(FP32), INT8, *map(withdrawn, elsewhere[:1]), elsewhere[1]]
    with pytest.raises(UsageError, match="other on .*the baseline fp32") as error:
        recommend(both, "latency")
    assert error.value.settings == ("baseline",)


def test_a_task_without_engines_does_not_hide_the_others(capsys: pytest.CaptureFixture[str]) -> None:
    other = replace(simulated_run("int8", n=N, task="other"), id="elsewhere")
    answers = recommend([*ALL, other], failures=[failed("int8", "2027", "other")])
    assert [(answer.task, isinstance(answer, Recommendation)) for answer in answers] == [(INT8.task, True)]
    assert f"other on {INT8.host_id}: int8 could not be measured" in capsys.readouterr().err


def test_the_needed_limit_admits_and_a_hair_less_does_not() -> None:
    needed = one(ALL).constraints[0].needed
    assert needed is not None
    assert one(ALL, None, limits(max_drop=needed + 1e-9)).engine == "small"
    assert one(ALL, None, limits(max_drop=needed - 1e-4)).engine == "int8"


def test_an_engine_that_meets_a_limit_as_measured_only_is_not_proven() -> None:
    close = simulated_run("close", range(432), 0.005, 0.5, n=N)  # loses 0.008
    chosen = one([FP32, INT8, close])
    assert chosen.engine == "int8"
    (other,) = chosen.not_proven
    assert (other.engine, other.setting, other.unit) == ("close", "max_drop", "rows")
    assert other.value == pytest.approx(32 / N)
    assert other.bound is not None and 0.01 < other.bound < 0.013
    assert other.ratio == pytest.approx(0.5 / 1.5)
    assert other.more is not None
    text = wording.recommendation(chosen)
    assert text.startswith("sst2 on h: deploy int8; not proven: close needs about ")
    assert "close, at 0.33x the energy (counter), loses 0.008 as measured, but a loss of 0.01" in text
    # as many rows more, and it is proven
    factor = (N + other.more) / N * 1.1
    many = [
        simulated_run(name, range(round(wrong * factor)), joules=joules, precision=precision,
                      n=round(N * factor))
        for name, wrong, joules, precision in (
            ("fp32", 400, 3.0, "fp32"), ("int8", 420, 1.5, "int8"), ("close", 432, 0.5, "int8"),
        )
    ]  # fmt: skip
    assert one(many).engine == "close"


def test_more_engines_make_the_proof_harder() -> None:
    """An engine that is proven alone is not proven as the luckiest of many."""
    edge = simulated_run("edge", range(424), 0.001, 0.1, n=N)
    alone = one([FP32, edge])
    assert (alone.engine, alone.tested) == ("edge", 1)
    many = [simulated_run(f"e{number}", range(600), 0.02, 1.0 + number / 100, n=N) for number in range(40)]
    chosen = one([FP32, edge, *many])
    assert (chosen.engine, chosen.tested) == ("fp32", 41)
    assert [each.engine for each in chosen.not_proven] == ["edge"]
    # a lower confidence proves it
    assert one([FP32, edge, *many], None, limits(max_drop=0.01, confidence=0.6)).engine == "edge"


def test_nothing_proven_names_the_best_as_measured() -> None:
    (answer,) = recommend(ALL, "latency", limits(max_drop=None, min_accuracy=0.897))
    assert isinstance(answer, Unmet)
    assert answer.not_proven is not None
    assert (answer.engine, answer.setting, answer.not_proven.unit) == ("fp32", "min_accuracy", "rows")
    assert "none of 4 engines is proven to meet the constraints (95 %); fp32 has 0.9" in wording.unmet(answer)


@pytest.mark.parametrize(
    ("objective", "settings"),
    [
        (None, limits(max_drop=0.01)),
        ("latency", limits(max_drop=0.02)),
        ("memory", limits(max_drop=0.05, max_size_bytes=60e6)),
        ("throughput", limits(max_drop=None, min_accuracy=0.85)),
        ("energy_per_correct", limits(max_drop=None)),
    ],
)
def test_without_the_choice_its_runner_up_is_the_choice(
    objective: str | None, settings: RecommendSettings
) -> None:
    runs = list(ALL)
    while True:
        chosen = one(runs, objective, settings)
        runs = [run for run in runs if run.name != chosen.engine]
        if not runs:
            assert chosen.runner_up is None
            return
        (rest,) = recommend(runs, objective, settings)
        if chosen.runner_up is None:
            assert isinstance(rest, Unmet)
            return
        assert isinstance(rest, Recommendation)
        assert (rest.engine, rest.baseline) == (chosen.runner_up.engine, chosen.runner_up.baseline)


def test_every_constraint_keeps_out_what_it_should() -> None:
    free = {"max_drop": None}
    for settings, expected in (
        (limits(**free), "tiny"),
        (limits(**free, min_accuracy=0.87), "small"),
        (limits(max_drop=0.0), "fp32"),
    ):
        assert one(ALL, "energy", settings).engine == expected
    slow_saver = simulated_run("saver", range(400), 0.1, 0.01, n=N, memory=900_000_000, size=900_000_000)
    for settings, option in (
        (limits(max_drop=0.01, max_p90_s=0.05), "max_p90_s"),
        (limits(max_drop=0.01, max_memory_bytes=500e6), "max_memory_bytes"),
        (limits(max_drop=0.01, max_size_bytes=500e6), "max_size_bytes"),
    ):
        chosen = one([*ALL, slow_saver], "energy", settings)
        assert chosen.engine == "int8"
        bound = {one.setting: one for one in chosen.constraints}[option]
        assert bound.admits == "saver"
        assert bound.gain == pytest.approx(0.01 / 1.5)


def test_two_limits_that_keep_one_engine_out_bind_together_only() -> None:
    chosen = one(ALL, "energy", limits(max_drop=0.01, min_accuracy=0.88))
    assert chosen.engine == "int8"
    assert chosen.binding == []
    assert "No constraint binds" in wording.recommendation(chosen)


def test_certainty_is_a_share_of_resamplings_with_the_test_repeated() -> None:
    sure = one([FP32, INT8, TINY], "latency", limits(max_drop=None))
    assert (sure.p_choice, sure.p_others, sure.p_none, sure.p_kept) == (1.0, {}, 0.0, 1.0)
    edge = simulated_run("edge", range(200, 610), 0.005, 0.5, n=N)  # as accurate, wrong on other rows
    chosen = one([FP32, edge], "energy", limits(max_drop=0.015))
    assert chosen.engine == "edge"
    rng = np.random.default_rng(5)
    right = [np.array(run.quality.predictions) == np.array(run.quality.labels) for run in (FP32, edge)]
    shares = [np.mean(right[0] & ~right[1]), np.mean(~right[0] & right[1])]
    only_fp32, only_edge, _ = rng.multinomial(N, [*shares, 1 - sum(shares)], 2000).T
    proven = [
        intervals.tango(int(a), int(b), N, confidence=0.9)[0] >= -0.015
        for a, b in zip(only_fp32, only_edge, strict=True)
    ]
    assert 0.6 < chosen.p_choice < 1
    assert chosen.p_choice == pytest.approx(np.mean(proven), abs=0.04)
    assert chosen.p_others == {"fp32": pytest.approx(1 - chosen.p_choice)}
    assert 0.97 < chosen.p_kept < 1


def test_equals_share_the_certainty() -> None:
    chosen = one([replace(INT8, id="b", engine=replace(INT8.engine, name="b")), INT8, FP32], "size")
    assert chosen.engine == "b"
    assert chosen.p_choice == pytest.approx(chosen.p_others["int8"])


def test_unmet_constraints_set_exit_code_1() -> None:
    (answer,) = recommend(ALL, "energy", limits(max_drop=None, max_p90_s=0.0009))
    assert isinstance(answer, Unmet)
    assert (answer.engine, answer.setting) == ("tiny", "max_p90_s")
    assert "nearest is tiny, whose p90 latency" in wording.unmet(answer)
    assert "is above 0.9 ms (max_p90_s)" in wording.unmet(answer)
    # the nearest is the one whose worst lack is least: small lacks 0.02 of accuracy, tiny little else
    (answer,) = recommend(ALL, "energy", limits(max_drop=0.0, max_size_bytes=15e6))
    assert isinstance(answer, Unmet)
    assert (answer.engine, answer.setting) == ("small", "max_drop")


def test_a_lone_engine_is_not_its_own_baseline() -> None:
    chosen = one([INT8], "latency")
    assert (chosen.engine, chosen.baseline, chosen.versus_baseline) == ("int8", None, None)
    assert chosen.constraints == []
    assert "max_drop was not checked: there is no other engine to compare with" in chosen.remarks
    assert "It is the only engine that was measured: there is no baseline" in wording.recommendation(chosen)
    again = replace(INT8, id="later", started="2027")  # the same engine twice is still one engine
    renamed = replace(INT8, id="copy", engine=replace(INT8.engine, name="copy"))
    for runs in ([INT8, again], [INT8, renamed]):
        assert one(runs, "latency", baseline="int8").baseline is None
    assert one([INT8, FP32], "latency").baseline == "fp32"


def test_a_limit_on_energy() -> None:
    assert one(ALL, "quality", limits(max_joules=1.6)).engine == "int8"
    with pytest.raises(UsageError, match="different sources or meters cannot be compared"):
        recommend(
            [*ALL, simulated_run("m", joules=1.0, source="model", n=N)], "latency", limits(max_joules="2J")
        )


def test_what_was_not_measured() -> None:
    none = [simulated_run("a", precision="fp32", n=N), simulated_run("b", seconds=0.005, n=N)]
    chosen = one(none)
    assert (chosen.objective, chosen.engine) == ("latency", "b")
    assert "energy is unavailable (no meter)" in chosen.remarks[0]
    with pytest.raises(UsageError, match=r"objective energy: no meter\. Choose the objective latency"):
        recommend(none, "energy")
    with pytest.raises(
        UsageError, match=r"max_p99_s: no engine has p99 latency.*: p99 needs 662 queries, 180"
    ):
        recommend(none, None, limits(max_p99_s=0.01))
    chosen = one([*ALL, none[1]], "energy")
    assert chosen.remarks == ["b is left out: without energy"]
    with pytest.raises(UsageError, match="different sources or meters cannot be compared: counter"):
        recommend([*ALL, simulated_run("m", joules=1.0, source="model", n=N)], "energy")
    assert one([*ALL, simulated_run("m", joules=1.0, source="model", n=N)]).objective == "latency"


def test_groups_are_answered_apart() -> None:
    runs = [
        *ALL,
        simulated_run("fp32", range(40), task="rte", precision="fp32"),
        simulated_run("x", host="other"),
    ]
    assert [(answer.task, answer.host) for answer in recommend(runs)] == [
        ("rte", "h"), ("sst2", "h"), ("sst2", "other")
    ]  # fmt: skip
    assert one(runs, task="rte").task == "rte"
    assert one(runs, host="other").engine == "x"
    short = simulated_run("short", seconds=0.0001, joules=0.001, n=10)
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
    chosen = one(ALL, baseline="small")
    assert (chosen.baseline, chosen.engine) == ("small", "small")
    assert chosen.versus_baseline is None
    assert chosen.runner_up is not None
    assert chosen.runner_up.engine == "int8"


def test_comparison_as_text() -> None:
    text = wording.recommendation(one(ALL))
    assert "sst2 on h: deploy int8" in text
    assert "by energy, out of 4 engines; accuracy on 4000 rows; energy source: counter" in text
    assert "1.50 J/example (95 % 1.47 to 1.53 J/example)   <- objective" in text
    assert re.search(r"max_drop of 0\.01\d+ instead of 0\.01 would admit small, at 0\.33x the ", text)
    assert "Runner-up: fp32, at 2.00x the energy (counter, 95 % 1.9" in text
    assert "max_drop 0.01 compared with fp32: loses 0.005; a loss of at most 0.00" in text
    assert "(95 %, adjusted for 3 engines)" in text
    assert "Certainty: tests and choice, repeated in 1000 joint resamplings" in text
    assert "less accurate" in text  # the loss is stated next to the gain


@pytest.mark.parametrize(
    ("value", "interval", "printed"),
    [
        (1.02, (0.98, 1.06), "1.02 J/example (95 % 0.980 to 1.06 J/example)"),
        (0.98, (0.94, 1.02), "980 mJ/example (95 % 940 to 1020 mJ/example)"),
        (0.9998, (0.9, 1.1), "1000 mJ/example (95 % 900 to 1100 mJ/example)"),
    ],
)
def test_an_interval_has_the_unit_of_its_value(
    value: float, interval: tuple[float, float], printed: str
) -> None:
    energy = replace(INT8.workloads[0].energy, joules_per_example=value, interval=interval)
    run = replace(INT8, workloads=[replace(INT8.workloads[0], energy=energy)])
    line = rf"energy \(counter\) +{re.escape(printed)}   <- objective"
    assert re.search(line, wording.recommendation(one([run])))


GRADED = [
    simulated_run(f"e{number:02d}", range(40 + 3 * number), 0.0203 * 0.937**number, 2.03 * 0.937**number,
         memory=int(3e8 * 0.9371**number), size=int(2e8 * 0.9372**number),
         precision="fp32" if number == 0 else "int8", n=1307)
    for number in range(16)
]  # fmt: skip
"""Each cheaper and less accurate than the one before."""


@pytest.mark.parametrize(
    ("objective", "field", "values"),
    [
        ("energy", "max_drop", np.linspace(0.0, 0.03, 14)),
        ("energy", "min_accuracy", np.linspace(0.935, 0.958, 14)),
        ("quality", "max_p90_s", np.linspace(0.0085, 0.02, 14)),
        ("quality", "max_memory_bytes", np.linspace(1.2e8, 2.9e8, 14)),
        ("quality", "max_size_bytes", np.linspace(0.8e8, 1.9e8, 14)),
    ],
)
def test_the_limit_that_is_told_admits_the_engine(objective: str, field: str, values: np.ndarray) -> None:
    """Told is what is typed in again: rounded, it must still let the engine pass."""
    free = {"max_drop": "100%"}
    seen = 0
    for limit in values.tolist():
        (chosen,) = recommend(GRADED, objective, limits(**{**free, field: limit}), baseline="e00")
        if isinstance(chosen, Unmet):
            continue
        (bound,) = [outcome for outcome in chosen.constraints if outcome.setting == field]
        if bound.admits is None:
            continue
        seen += 1
        text = wording.recommendation(chosen)
        matched = re.search(
            rf"{bound.setting} of (\S+)( ms| MiB)? instead of (\S+)( ms| \w?i?B)?( \(.* MiB\))? would admit",
            text,
        )
        assert matched is not None
        scale = {None: 1.0, " ms": 1e-3, " MiB": 2.0**20}[matched[2]]
        scale_of_limit = {" MB": 1e6, " B": 1.0}.get(matched[4], scale)
        assert float(matched[3]) * scale_of_limit == pytest.approx(limit, rel=1e-9)
        again = one(GRADED, objective, limits(**{**free, field: float(matched[1]) * scale}), baseline="e00")
        assert again.engine == bound.admits
        assert float(matched[1]) * scale == pytest.approx(
            bound.needed, rel=0.02
        )  # and not more than it takes
    assert seen > 5


def test_the_engine_that_just_misses_does_not_read_as_if_it_met() -> None:
    value = float(np.sort(np.concatenate(TINY.workloads[0].blocks_s))[161])
    (answer,) = recommend([TINY], "latency", limits(max_p90_s=value - 1e-9))
    assert isinstance(answer, Unmet)
    matched = re.search(r"of (\S+) ms is above (\S+) ms", wording.unmet(answer))
    assert matched is not None
    assert float(matched[1]) * 1e-3 >= value > float(matched[2]) * 1e-3


def scored(name: str, wrong: range | None, **changes: object) -> Run:
    """A run of MCC; None: it gives every row the same class, so its MCC is 0."""
    run = simulated_run(name, wrong or (), metric="matthews", **changes)  # type: ignore[arg-type]
    if wrong is not None:
        return run
    accuracy = replace(run.quality, value=0.0, interval=(0.0, 0.0), predictions=[1] * 400)
    return replace(run, quality=replace(accuracy, metrics={"matthews": 0.0}))


def test_scores_are_told_apart_in_points() -> None:
    chosen = one([scored("a", range(40)), scored("b", range(60)), scored("c", None)], "quality")
    assert chosen.engine == "a"
    assert chosen.runner_up is not None
    assert (chosen.runner_up.engine, chosen.runner_up.ratio) == ("b", None)
    assert chosen.runner_up.difference == pytest.approx(-0.1)
    low, high = chosen.runner_up.interval or (0, 0)
    assert -0.16 < low < -0.1 < high < -0.04
    text = wording.recommendation(chosen)
    assert "Runner-up: b, at -10.0 points of matthews (95 % -1" in text
    limited = one(
        [scored("a", range(40), seconds=0.02), scored("b", range(60))],
        "quality",
        limits(max_p90_s=0.015),
    )
    (bound,) = limited.binding
    assert (bound.admits, bound.gain, bound.difference) == ("a", None, pytest.approx(0.1))
    assert "would admit a, at +10.0 points of matthews." in wording.recommendation(limited)


@pytest.mark.parametrize("wrong", [None, range(199)])
def test_a_score_of_nothing_divides_nothing(wrong: range | None) -> None:
    """Warnings are errors here: what is 0 in all resamplings, or in some, must not be divided by."""
    runs = [scored("a", wrong), scored("b", None)]
    for objective in ("quality", "matthews", "latency"):
        chosen = one(runs, objective)
        assert wording.recommendation(chosen)
        json.dumps(chosen.to_json(), allow_nan=False)


def test_a_cost_of_nothing_divides_nothing() -> None:
    chosen = one([simulated_run("a", size=0), simulated_run("b", size=10)], "size")
    assert chosen.runner_up is not None
    assert (chosen.runner_up.ratio, chosen.runner_up.difference, chosen.runner_up.interval) == (
        None,
        None,
        None,
    )
    text = wording.recommendation(chosen)
    assert "Runner-up: b. Compared with a, b is" in text
    json.dumps(chosen.to_json(), allow_nan=False)


def test_energy_of_a_model_is_named_so_and_not_chosen_by() -> None:
    runs = [
        simulated_run("a", range(9), 0.01, 2.0, source="model"),
        simulated_run("b", range(9), 0.02, 1.0, source="model"),
    ]
    chosen = one(runs)
    assert (chosen.objective, chosen.engine) == ("latency", "a")
    (remark,) = chosen.remarks
    assert remark == (
        "by latency, as energy was estimated by a model, not measured; choose the objective energy to use "
        "the estimate"
    )
    for objective in ("latency", "energy"):
        lines = wording.recommendation(one(runs, objective)).splitlines()
        lines_with_energy = [line for line in lines if "mJ" in line or " J" in line or "the energy" in line]
        assert len(lines_with_energy) >= 3
        assert all("model" in line for line in lines_with_energy)
    assert one(runs, "energy").engine == "b"


def test_a_host_that_was_not_steady_is_remarked() -> None:
    """b is faster in the long slow rounds; the median of all samples is of the quick ones."""
    levels = {"a": [3.0, 1.0, 3.0, 1.01, 3.0, 1.02], "b": [2.0, 1.1, 2.0, 1.1, 2.0, 1.1]}
    runs = []
    for name, round_levels in levels.items():
        run = simulated_run(name)
        queries = [10, 30, 10, 30, 10, 30]  # slow rounds are short
        blocks = [
            [level * (1 + 1e-4 * i) for i in range(n)] for level, n in zip(round_levels, queries, strict=True)
        ]
        runs.append(replace(run, workloads=[replace(run.workloads[0], blocks_s=blocks)]))
    chosen = one(runs, "latency")
    assert chosen.engine == "a"
    assert [note for note in chosen.remarks if "round by round, b takes 0.8" in note]
    assert one([FP32, INT8], "latency").remarks == []


def test_an_engine_whose_mean_is_lower_than_that_of_the_choice_is_named() -> None:
    """From ``exits`` 56 % of the queries leave early; ``half`` is slower than these and faster on average."""
    half, exits = simulated_run("half", seconds=0.0025, spread=0.001), simulated_run("exits")
    single = exits.workloads[0]
    quick = [0.0015] * 14 + [0.0055] * 11
    exits = replace(exits, workloads=[replace(single, blocks_s=[quick] * len(single.blocks_s))])
    runs = [simulated_run("fp32", seconds=0.01, precision="fp32"), half, exits]
    chosen = one(runs, "latency")
    assert chosen.engine == "exits"
    (remark,) = [each for each in chosen.remarks if "latency_mean" in each]
    means = [np.mean(block) for block in half.workloads[0].blocks_s]
    expected = np.exp(np.mean(np.log(means))) / np.mean(quick)
    assert expected == pytest.approx(0.806, abs=5e-4)
    assert "by the mean latency half is faster: it takes 0.81x the time of this engine" in remark
    by_mean = one(runs, "latency_mean")
    assert by_mean.engine == "half"
    assert not [each for each in by_mean.remarks if "by the mean latency" in each]


def test_the_mean_latency_is_not_compared_with_a_result_that_cannot_be() -> None:
    """Of three proven engines, that with the lowest mean has other labels, or no predictions."""
    base, half = simulated_run("fp32", seconds=0.01, precision="fp32"), simulated_run("half", seconds=0.0025)
    exits, middle = (
        replace(run, workloads=[replace(run.workloads[0], blocks_s=[block] * 6)])
        for run, block in (
            (simulated_run("exits"), [0.0015] * 14 + [0.0055] * 11),
            (simulated_run("middle"), [0.0024] * 20 + [0.02] * 5),
        )
    )
    turned = [1 - label for label in half.quality.labels]
    others = replace(half, quality=replace(half.quality, labels=turned, predictions=turned))
    for other in (without_predictions(half), others):
        chosen = one([base, other, exits, middle], "latency", limits(max_drop=None))
        assert chosen.engine == "exits"
        assert not [remark for remark in chosen.remarks if "by the mean latency" in remark]


def test_results_shared_without_predictions_are_left_out_or_refused() -> None:
    """A loss cannot be tested without the predictions of every row."""

    def shared(run: Run) -> Run:
        return replace(run, quality=replace(run.quality, predictions=[], labels=[]))

    base, fast = simulated_run("base", precision="fp32"), simulated_run("fast", seconds=0.005)
    answer = recommend([base, shared(fast)], "latency")[0]
    assert isinstance(answer, Recommendation) and answer.engine == "base"
    assert "fast is left out: its result was shared without predictions" in answer.remarks
    with pytest.raises(UsageError, match="shared without predictions, so no loss can be tested"):
        recommend([shared(base), shared(fast)], "latency")


def test_the_optimism_of_the_choice_is_about_what_it_is_in_sessions_with_known_truth() -> None:
    """Six engines are as good as the baseline; the smallest one that is proven is chosen."""
    rng = np.random.default_rng(0)
    stated, true = [], []
    for session in range(40):
        wrong = [np.flatnonzero(rng.random(400) < 0.04) for _ in range(7)]
        runs = [simulated_run("base", wrong[0], precision="fp32", size=100)]
        runs += [
            simulated_run(f"e{index}", rows, size=50 - index, rounds=3, queries=2)
            for index, rows in enumerate(wrong[1:])
        ]
        (answer,) = recommend(runs, "size", limits(max_drop=0.02))
        assert isinstance(answer, Recommendation), session
        assert answer.optimism is not None
        chosen = next(run for run in runs if run.name == answer.engine)
        stated.append(answer.optimism)
        true.append(chosen.quality.value - runs[0].quality.value)
    assert np.mean(true) > 0.002  # the winner's curse
    assert 0.3 * np.mean(true) < np.mean(stated) < 1.5 * np.mean(true)


def test_a_choice_without_a_score_is_not_optimistic() -> None:
    runs = [simulated_run("base", precision="fp32"), simulated_run("small", range(9), size=10)]
    (answer,) = recommend(runs, "size", limits(max_size_bytes=1e9))
    assert isinstance(answer, Recommendation)
    assert answer.optimism is None
    assert "also chose it" not in wording.recommendation(answer)


def without_predictions(run: Run) -> Run:
    return replace(run, quality=replace(run.quality, predictions=[], labels=[]))


def withdrawn(run: Run) -> Run:
    return replace(run, gates=[GateResult("prediction-agreement", False, "7 timed predictions differ", None)])


def of_other_rows(run: Run) -> Run:
    return replace(run, quality=replace(run.quality, source="other rows", n=run.quality.n // 2))


@pytest.mark.parametrize(
    ("left_out", "reason"),
    [
        (withdrawn, "its quality is unavailable: gate failed: timed predictions match"),
        (without_predictions, "its result was shared without predictions"),
        (of_other_rows, "was scored on other rows"),
    ],
)
@pytest.mark.parametrize("others", [[TINY], [TINY, SMALL]])
def test_a_limit_is_not_held_against_a_worse_baseline(
    left_out: Callable[[Run], Run], reason: str, others: list[Run]
) -> None:
    """TINY loses ten points compared with fp32, and nothing compared with itself."""
    runs = [left_out(FP32), *others]
    (answer,) = recommend([FP32, *others], "latency", limits(max_drop=0.01))
    assert isinstance(answer, Recommendation) and answer.engine == "fp32"
    with pytest.raises(UsageError, match=f"sst2 on h: the baseline fp32 .*{reason}.*name another baseline"):
        recommend(runs, "latency", limits(max_drop=0.01))
    if left_out is not without_predictions:
        free = one(runs, "latency", limits(max_drop=None))  # nothing is limited
        assert (free.engine, free.left_out) == ("tiny", 1)
    if left_out is not of_other_rows:  # the named baseline's rows are those that count
        with pytest.raises(UsageError, match=f"the baseline fp32 .*{reason}") as error:
            recommend(runs, "latency", limits(max_drop=0.01), baseline="fp32")
        assert error.value.settings == ("baseline",)
    assert one(runs, "latency", limits(max_drop=0.01), baseline="tiny").engine == "tiny"


def test_a_baseline_that_was_withdrawn_is_refused_without_a_limit_too() -> None:
    with pytest.raises(UsageError, match="the baseline fp32 .*its quality is unavailable"):
        recommend([withdrawn(FP32), TINY], "latency", limits(max_drop=None), baseline="fp32")


def test_what_is_proven_is_not_rounded_to_a_stronger_claim() -> None:
    chosen = one(ALL, None, limits(max_drop=0.01, max_p90_s="0.1s"))
    for step in range(30):
        drop, p90 = (
            replace(each, bound=each.bound + step * size)
            for each, size in zip(chosen.constraints, (1e-5, 1e-6), strict=True)
            if each.bound is not None
        )
        text = wording.recommendation(replace(chosen, constraints=[drop, p90]))
        (told,) = re.findall(r"; a loss of at most (\S+) \(", text)
        assert drop.bound is not None and drop.bound - 1e-9 <= float(told) < drop.bound + 1e-4
        (told,) = re.findall(r"; at most (\S+) ms \(", text)
        assert p90.bound is not None and 1e3 * p90.bound - 1e-9 <= float(told) < 1e3 * p90.bound + 0.1


def test_another_unreduced_engine_of_the_same_checkpoint_replaces_the_baseline() -> None:
    twin = replace(FP32, id="twin", engine=replace(FP32.engine, name="twin", digest="a" * 64))
    assert one([withdrawn(FP32), twin, TINY], "latency", limits(max_drop=0.01)).baseline == "twin"
    made_of = ArtifactReference(name="sst2-other", digest="b" * 64)
    other = replace(twin, engine=replace(twin.engine, checkpoint=made_of))
    with pytest.raises(UsageError, match="the baseline fp32"):
        recommend([withdrawn(FP32), other, TINY], "latency", limits(max_drop=0.01))
    # what is more accurate on fewer rows is not known to be
    assert one([of_other_rows(FP32), other, TINY], "latency", limits(max_drop=0.01)).baseline == "twin"


def test_a_baseline_that_is_unavailable_on_other_rows_too_is_not_replaced_by_another_checkpoint() -> None:
    made_of, weak = ArtifactReference(name="sst2-small", digest="b" * 64), replace(TINY, id="weak")
    weak = replace(weak, engine=replace(FP32.engine, name="weak", digest="b" * 64, checkpoint=made_of))
    limit, old = limits(max_drop=0.01), of_other_rows(FP32)
    assert one([old, weak, TINY], "latency", limit).baseline == "weak"
    with pytest.raises(UsageError, match="the baseline fp32 .*its quality is unavailable"):
        recommend([withdrawn(old), weak, TINY], "latency", limit)
    with pytest.raises(UsageError, match="the baseline fp32 could not be measured"):
        recommend([old, weak, TINY], "latency", limit, failures=[failed("fp32", "2027")])


def test_without_an_unreduced_engine_those_of_other_rows_do_not_stand_in_the_way() -> None:
    old = simulated_run("old-int8", range(10), 0.02, n=400)
    old = replace(old, quality=replace(old.quality, source="other rows"))
    chosen = one([old, INT8, SMALL], "latency", limits(max_drop=0.02))
    assert (chosen.baseline, chosen.engine) == ("int8", "small")


def test_the_only_engine_that_is_left_is_not_the_only_one_that_was_measured() -> None:
    text = wording.recommendation(one([withdrawn(FP32), TINY], "latency", limits(max_drop=None)))
    assert "It is the only engine that can be compared (1 left out): there is no baseline" in text

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

import effx.profile
from effx import results
from effx.analysis.recommend import recommend
from effx.cli import run
from effx.cli.recommend import print_answers
from effx.errors import WorkerError
from effx.results import FailedEngineRecord, Failure, GateResult, Run
from effx.specs.constraints import RecommendSettings
from tests.analysis.simulated_run import simulated_run
from tests.cli.test_cli import fails

RUNS = [
    simulated_run("fp32", range(400), 0.030, 3.0, precision="fp32", memory=300_000_000, size=200_000_000,
                  n=4000),
    simulated_run("int8", range(420), 0.015, 1.5, n=4000),
    simulated_run("small", range(460), 0.005, 0.5, memory=60_000_000, size=10_000_000, n=4000),
]  # fmt: skip


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for one in RUNS:
        results.save(one, tmp_path / "results")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def answer(capsys: pytest.CaptureFixture[str], *arguments: str) -> dict:
    assert run(["recommend", *arguments, "--json"]) == 0
    (result,) = json.loads(capsys.readouterr().out)["recommendations"]
    return result


def test_recommend_without_options(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["recommend"]) == 0
    assert capsys.readouterr().out.startswith("sst2 on h: deploy int8\n")


def test_other_commands_print_answers_with_the_options_of_recommend(
    capsys: pytest.CaptureFixture[str],
) -> None:
    """As ``effx profile --recommend`` does: its own command has no --max-drop."""
    assert print_answers(recommend(RUNS)) == 0
    assert "--max-drop 0.01 compared with fp32" in capsys.readouterr().out
    strict = RecommendSettings.of(max_p90_s=1e-6)
    assert print_answers(recommend(RUNS, settings=strict)) == 1
    assert "--max-p90" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["--max-drop", "0.02"], "small"),
        (["--objective", "latency", "--min-accuracy", "0.888"], "fp32"),
        (["--max-drop", "0.02", "--max-p90", "0.0062s"], "small"),
        (["--max-drop", "0.02", "--max-memory", "64MiB"], "small"),
        (["--max-size", "50MB"], "int8"),
        (["--baseline", "small"], "small"),
    ],
)
def test_options(here: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], expected: str) -> None:
    assert answer(capsys, *arguments)["engine"] == expected


def test_the_runner_up_is_recommended_without_the_result_of_the_best(
    here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    result = answer(capsys, "results/")
    (here / "results" / f"{result['result']}.json").unlink()
    assert answer(capsys)["engine"] == result["runner_up"]["engine"]


def test_unmet_constraints_set_exit_code_1(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    line = fails(capsys, ["recommend", "--max-p90", "1ms"], code=1)
    assert line.startswith(
        "effx: sst2 on h: none of 3 engines meets the constraints; nearest is small, whose p90"
    )
    assert "is above 1 ms (--max-p90)." in line
    results.save(simulated_run("alone", host="g"), here / "results")
    assert run(["recommend", "--max-memory", "70MB", "--json", "--max-drop", "100%"]) == 1
    result = json.loads(capsys.readouterr().out)
    assert [one["engine"] for one in result["recommendations"]] == ["small"]
    assert [one["engine"] for one in result["unmet"]] == ["alone"]


def test_constant_predictions_do_not_crash(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Their MCC is 0, and the JSON is valid for strict parsers."""
    for name in ("a", "b"):
        single_run = simulated_run(name, metric="matthews", task="cola")
        scored = replace(
            single_run.quality, value=0.0, metrics={"matthews": 0.0}, interval=(0.0, 0.0),
            predictions=[1] * single_run.quality.n,
        )  # fmt: skip
        results.save(replace(single_run, quality=scored), here / "cola")
    assert run(["recommend", "cola", "--objective", "quality"]) == 0
    assert "at +0.0 points of matthews" in capsys.readouterr().out
    assert run(["recommend", "cola", "--objective", "quality", "--json"]) == 0

    def refuse(constant: str) -> None:
        raise AssertionError(constant)

    (result,) = json.loads(capsys.readouterr().out, parse_constant=refuse)["recommendations"]
    assert (result["runner_up"]["ratio"], result["runner_up"]["difference"]) == (None, 0.0)


def test_modelled_energy_is_not_the_default_objective(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name, seconds, joules in (("a", 0.01, 2.0), ("b", 0.02, 1.0)):
        results.save(simulated_run(name, seconds=seconds, joules=joules, source="model"), here / "modelled")
    result = answer(capsys, "modelled")
    assert (result["objective"], result["engine"], result["energy_source"]) == ("latency", "a", "model")
    assert run(["recommend", "modelled", "--objective", "latency"]) == 0
    lines = [line for line in capsys.readouterr().out.splitlines() if "J/example" in line]
    assert lines and all("energy (model)" in line for line in lines)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--max-p90", "5"], "'5' has no unit. Units: s, ms, us, µs; e.g. 5ms or 0.005s."),
        (["--max-p90", "5MB"], "unknown unit 'MB'"),
        (["--max-p99", "soon"], "'soon' is not a duration"),
        (["--max-memory", "-5MB"], "'-5MB': expected more than 0"),
        (["--max-memory", "0MB"], "expected more than 0"),
        (["--max-size", "5mb"], "unknown unit 'mb'. Units: B, kB, MB, GB, KiB, MiB, GiB"),
        (["--max-drop", "-1"], "Invalid value for '--max-drop'"),
        (["--objective", "enrgy"], "Did you mean 'energy'"),
        (["--baseline", "fp23"], "Did you mean 'fp32'"),
        (["--task", "sst3"], "Did you mean 'sst2'"),
        (["--max-p99", "1s"], "p99 needs 662 queries"),
        (["nowhere"], "nowhere contains no results"),
    ],
)
def test_wrong_input_gives_a_one_line_error(
    here: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], message: str
) -> None:
    assert message in fails(capsys, ["recommend", *arguments])


def test_a_session_whose_baseline_failed_recommends_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    small = RUNS[2]
    record = FailedEngineRecord("fp32", small.task, small.engine.digest)
    lost = Failure("lost", small.started, record, small.host, small.session, "out of memory")

    def profiled(*_: object, out: Path, **__: object) -> tuple[list[Run], list[WorkerError]]:
        results.save(small, out)
        results.save(lost, out)
        results.save(replace(lost, id="before", session="earlier"), out)
        return RUNS[1:], [WorkerError(lost.failure)]

    monkeypatch.setattr(effx.profile, "profile", profiled)
    assert run(["profile", "engines", "--recommend", "-o", str(tmp_path)]) == 2
    shown = capsys.readouterr()
    assert "deploy" not in shown.out
    assert "fp32 could not be measured, and may be the baseline: out of memory" in shown.err


def test_a_task_without_a_baseline_sets_exit_code_1(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    gates = [GateResult("prediction-agreement", False, "7 timed predictions differ", None)]
    for each in (replace(RUNS[0], gates=gates, flags=["prediction-agreement"]), RUNS[1]):
        other = replace(each, id=f"{each.id}-other", engine=replace(each.engine, task="other"))
        results.save(other, here / "results")
    for form in ([], ["--json"]):
        assert run(["recommend", "--objective", "latency", *form]) == 1
        shown = capsys.readouterr()
        assert "int8" in shown.out
        assert "other on h: the baseline fp32 cannot be compared with" in shown.err

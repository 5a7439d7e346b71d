from __future__ import annotations

import json
from pathlib import Path

import pytest

from effx import results
from effx.analysis.comparison import compare
from effx.cli import run
from tests.analysis.simulated_run import simulated_run
from tests.cli.test_cli import fails

A = simulated_run("bert.fp32", range(40), 0.030, 3.0)
B = simulated_run("bert.int8", range(10, 60), 0.015, 1.5)


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for one in (A, B, simulated_run("bert.int8", range(10, 60), 0.020, session="later", started="2027")):
        results.save(one, tmp_path / "results")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_the_session_that_measured_both_engines_is_used(
    here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["compare", "bert.fp32", "bert.int8", "--json"]) == 0
    result = json.loads(capsys.readouterr().out)
    assert result == json.loads(json.dumps({**compare(A, B).to_json(), "margin": 0.01}))
    assert run(["compare", "bert.fp32", "id-bert.int8-2027", "results/"]) == 0
    out = capsys.readouterr().out
    assert "not interleaved" in out
    assert "Note: they were measured in different sessions" in out


def test_comparison_as_text(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["compare", "bert.fp32", "bert.int8", "--margin", "0.2"]) == 0
    out = capsys.readouterr().out
    assert compare(A, B).sentence() in out
    assert "accuracy: bert.int8 loses at most 20.0 points (95 %)." in out
    assert run(["compare", "bert.fp32", "bert.int8", "--margin", "0.0725"]) == 0
    assert "accuracy: bert.int8 loses at most 7.25 points (95 %)." in capsys.readouterr().out
    assert "Predictions that differ: 30 of 400" in out
    assert "joules, single queries (counter): 0.500x" in out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["bert.fp32"], "Missing argument 'B'"),
        (
            ["bert.fp32", "bert.int9"],
            "no result of 'bert.int9'. Did you mean 'bert.int8'? Known: bert.fp32, b",
        ),
        (["id-bert.fp32-2025", "bert.int8"], "Did you mean 'id-bert.fp32-2026'"),
        (["bert.fp32", "bert.int8", "--margin", "0"], "Invalid value for '--margin'"),
        (["bert.fp32", "bert.int8", "nowhere"], "nowhere contains no results"),
    ],
)
def test_wrong_input_gives_a_one_line_error(
    here: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], message: str
) -> None:
    assert message in fails(capsys, ["compare", *arguments])


def test_results_of_different_hosts_are_refused(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    results.save(simulated_run("there", host="g"), here / "results")
    assert "different hosts" in fails(capsys, ["compare", "bert.fp32", "there"])

"""``effx report``: output folder, and messages about damaged results."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from effx import results
from effx.cli import run
from effx.host.identity import Host
from effx.results import FailedEngineRecord, Failure
from tests.analysis import simulated_results
from tests.cli.test_cli import fails


@pytest.fixture
def results_of_two(tmp_path: Path) -> Path:
    return simulated_results.write(
        [simulated_results.run(number, n=20, rounds=4, queries=5) for number in range(2)],
        tmp_path / "results",
    )


def test_report_is_written_into_a_new_and_an_existing_folder(
    results_of_two: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    for _ in range(2):  # into an empty one, and over the first report
        assert run(["report", str(results_of_two), "-o", "."]) == 0
        assert capsys.readouterr().out.splitlines()[-1] == "index.html"
        assert {"index.html", "frontier.json"} <= set(os.listdir(os.curdir))
    assert sorted(os.listdir(tmp_path)) == ["here", "results"]
    (tmp_path / "here/frontier.json").unlink()
    assert ". exists already and is not a report" in fails(capsys, ["report", str(results_of_two), "-o", "."])


def test_report_of_one_file_is_written_next_to_it(
    results_of_two: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    first = sorted(results_of_two.glob("*.json"))[0]
    assert run(["report", str(first)]) == 0
    assert (results_of_two / "report/index.html").is_file()


@pytest.mark.parametrize("command", ["report", "recommend"])
@pytest.mark.parametrize(
    "text",
    [
        '{"failure": "broken"}',
        '{"schema": 5, "engine": {}, "workloads": [], "quality": NaN}',
        '{"schema": 5, "engine": {}, "workloads": [], "quality": {}}',
    ],
)
def test_a_damaged_file_is_named(
    results_of_two: Path, capsys: pytest.CaptureFixture[str], command: str, text: str
) -> None:
    (results_of_two / "x.json").write_text(text)
    line = fails(capsys, [command, str(results_of_two)])
    assert str(results_of_two / "x.json") in line
    assert line.endswith("Remove it, or profile the engine again.")
    assert "internal error" not in line


def test_a_reason_in_brackets_is_printed(results_of_two: Path, capsys: pytest.CaptureFixture[str]) -> None:
    reason = "x: cannot open [/dev/nvidia0] [enforce fail at alloc]"
    results.save(Failure("a", "", FailedEngineRecord("x"), Host("h"), "s", reason), results_of_two)
    assert run(["report", str(results_of_two)]) == 0
    assert f"not measured: {reason}\n" in capsys.readouterr().out

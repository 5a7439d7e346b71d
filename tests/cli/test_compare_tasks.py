"""``effx compare-tasks`` and the sections that ``effx report`` shows of several tasks and seeds."""

from __future__ import annotations

import csv
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from effx import results
from effx.analysis import seeds
from effx.cli import run
from effx.errors import MissingExtraError
from effx.manifests import CheckpointOrigin
from effx.report import tables
from tests.analysis.simulated_run import simulated_run
from tests.analysis.simulated_tasks import task_runs
from tests.cli.test_cli import fails

ALIKE = {"seq16": (0.2, 0.0, 0.001), "seq32": (0.0, 0.0, 0.005), "int8": (0.01, 0.01, 0.006)}
ROBUST = {**ALIKE, "seq16": (0.0, 0.0, 0.001)}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    rng = np.random.default_rng(0)
    for one in [*task_runs(rng, "sst2", ALIKE), *task_runs(rng, "mrpc", ROBUST)]:
        results.save(one, tmp_path / "results")
    return tmp_path / "results"


def test_answer_is_printed_and_written(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    assert run(["compare-tasks", str(folder), "-o", str(out)]) == 0
    printed = capsys.readouterr().out
    assert "The best reduction depends on the task" in printed
    assert "'seq16' on mrpc; 'seq32' on sst2" in printed
    assert "'seq16' loses" in printed and "more on sst2 than on mrpc" in printed
    value = json.loads((out / "task-dependence.json").read_text())
    (study,) = value["studies"]
    assert [task["task"] for task in study["tasks"]] == ["mrpc", "sst2"]
    assert study["interactions"][1]["loses_more_on"] == "sst2"
    assert study["sentences"][0].startswith("The best reduction depends on the task")
    names = {"techniques", "choices", "ranks", "interactions"}
    for name in names:
        assert {path.suffix for path in out.glob(f"tasks-{name}.*")} == {".csv", ".md", ".tex"}
    with (out / "tasks-techniques.csv").open() as file:
        rows = [*csv.DictReader(file)]
    assert [(row["technique"], row["task"]) for row in rows][:2] == [("int8", "mrpc"), ("int8", "sst2")]
    assert {"tasks-frontiers.png", "tasks-frontiers.svg"} <= {path.name for path in out.iterdir()}
    assert ">seq16<" in (out / "tasks-frontiers.svg").read_text()


def test_json_is_that_of_the_file(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["compare-tasks", str(folder), "--json", "--max-drop", "0.5", "-o", str(tmp_path / "out")]
    assert run(arguments) == 0
    value = json.loads(capsys.readouterr().out)
    assert value == json.loads((tmp_path / "out/task-dependence.json").read_text())
    assert value["studies"][0]["max_drop"] == 0.5
    assert {task["choice"]["measured"] for task in value["studies"][0]["tasks"]} == {"seq16"}


def test_refusals_are_one_line(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert "no two tasks can be compared" not in fails(capsys, ["compare-tasks", str(folder), "--task", "x"])
    assert "expected at least two tasks" in fails(capsys, ["compare-tasks", str(folder), "--task", "sst2"])
    message = fails(capsys, ["compare-tasks", str(folder), "--objective", "energy"])
    assert "objective energy: no meter" in message
    assert "cost 'accuracy'" in fails(capsys, ["compare-tasks", str(folder), "--objective", "accuracy"])


def test_report_of_several_tasks_has_the_section(folder: Path, tmp_path: Path) -> None:
    assert run(["report", str(folder), "-o", str(tmp_path / "report")]) == 0
    page = (tmp_path / "report/index.html").read_text()
    assert "Does the best reduction depend on the task?" in page
    assert (tmp_path / "report/tasks/task-dependence.json").is_file()
    assert not (tmp_path / "report/seeds.csv").exists()


def test_report_of_one_task_has_no_section(tmp_path: Path) -> None:
    for one in task_runs(np.random.default_rng(0), "sst2", ALIKE):
        results.save(one, tmp_path / "results")
    assert run(["report", str(tmp_path / "results"), "-o", str(tmp_path / "report")]) == 0
    assert "Does the best reduction depend" not in (tmp_path / "report/index.html").read_text()
    assert not (tmp_path / "report/tasks").exists()


def test_report_says_why_tasks_are_not_compared(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rng = np.random.default_rng(0)
    for one in [*task_runs(rng, "sst2", ALIKE), *task_runs(rng, "mrpc", ALIKE)[1:]]:
        results.save(one, tmp_path / "results")
    assert run(["report", str(tmp_path / "results"), "-o", str(tmp_path / "report")]) == 0
    assert "tasks are not compared: no two tasks can be compared: mrpc" in capsys.readouterr().err


def test_a_weak_baseline_has_a_report(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """As that of RTE, whose 277 rows some resamplings answer no better than a constant."""
    for seed in (4, 9):
        folder, rng = tmp_path / f"{seed}/results", np.random.default_rng(seed)
        for one in [*task_runs(rng, "rte", ALIKE, n=277, wrong=0.43), *task_runs(rng, "sst2", ALIKE)]:
            results.save(one, folder)
        capsys.readouterr()
        assert run(["compare-tasks", str(folder), "--json"]) == 0
        assert json.loads(capsys.readouterr().out)["studies"]
        assert run(["report", str(folder), "-o", str(tmp_path / f"{seed}/report")]) == 0
        assert (tmp_path / f"{seed}/report/tasks/task-dependence.json").is_file()


def test_report_is_not_lost_to_the_section(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(*_: object, **__: object) -> None:
        raise ZeroDivisionError("by chance")

    monkeypatch.setattr("effx.analysis.technique_choices.choose", fails)
    assert run(["report", str(folder), "-o", str(tmp_path / "report")]) == 0
    assert "tasks are not compared: ZeroDivisionError" in capsys.readouterr().err
    assert (tmp_path / "report/index.html").is_file()


def test_missing_extra_is_said_before_the_work(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def needs(*_: object) -> None:
        raise MissingExtraError("matplotlib is not installed")

    monkeypatch.setattr("effx.errors.need", needs)
    missing = str(tmp_path / "none")  # has no results, which is found later
    assert run(["compare-tasks", missing, "-o", str(tmp_path / "out")]) != 0
    assert "matplotlib is not installed" in capsys.readouterr().err


def test_means_of_the_first_frontier_are_those_of_the_table() -> None:
    """Energy was measured of two seeds of three."""
    wrong = (40, 44, 48)
    runs = []
    for seed, number in enumerate(wrong):
        one = simulated_run(f"sst2-full-s{seed}.int8", range(number), joules=0.1 if seed < 2 else None)
        origin = CheckpointOrigin(seed=seed, settings="a" * 64, trained_further=False)
        runs.append(replace(one, engine=replace(one.engine, origin=origin)))
    frontiers = seeds.frontiers(runs)
    assert [frontier.points[0].quality.n for frontier in frontiers] == [3, 2]
    found = tables._by_result(frontiers)
    assert {point.quality.n for point in found.values()} == {3}
    assert found[runs[0].id].quality.mean == pytest.approx(1 - 44 / 400)


def test_report_shows_means_over_seeds(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for seed, wrong in enumerate((40, 48)):
        one = simulated_run(f"sst2-full-s{seed}.int8", range(wrong))
        origin = CheckpointOrigin(seed=seed, settings="a" * 64, trained_further=False)
        results.save(replace(one, engine=replace(one.engine, origin=origin)), tmp_path / "results")
    results.save(simulated_run("sst2-full.fp32", range(30), precision="fp32"), tmp_path / "results")
    assert run(["report", str(tmp_path / "results"), "-o", str(tmp_path / "report")]) == 0
    printed = capsys.readouterr().out
    assert "means over seeds" in printed and "sst2-full.int8" in printed
    report = tmp_path / "report"
    assert {"seeds.csv", "seeds.md", "seeds.tex", "seeds-latency.png", "seeds-latency.svg"} <= {
        path.name for path in report.iterdir()
    }
    rows = {row["engine"]: row for row in csv.DictReader((report / "frontier.csv").read_text().splitlines())}
    mean, std = np.mean([0.9, 0.88]), np.std([0.9, 0.88], ddof=1)
    for seed in (0, 1):
        row = rows[f"sst2-full-s{seed}.int8"]
        assert (row["seed"], row["seeds"], row["technique_of_seeds"]) == (str(seed), "2", "sst2-full.int8")
        assert float(row["score_mean_over_seeds"]) == pytest.approx(mean)
        assert float(row["score_std_over_seeds"]) == pytest.approx(std)
    assert rows["sst2-full.fp32"]["seeds"] == rows["sst2-full.fp32"]["seed"] == ""
    content = json.loads((report / "frontier.json").read_text())
    assert [point["technique"] for point in content["seed_means"][0]["points"]][0] in rows | {
        "sst2-full.int8": 0
    }
    assert "Means over seeds" in (report / "index.html").read_text()

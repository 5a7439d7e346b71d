"""Processor seconds of engines, from real processes to recommendations."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from scipy import stats

from effx import data, results
from effx.analysis import comparison
from effx.analysis.objectives import OBJECTIVES
from effx.cli import run as command
from effx.engines import mock
from effx.engines.mock import MockBehavior
from effx.errors import ArtifactError
from effx.results import Run
from effx.specs.tasks import TASKS

CPU_TIME = OBJECTIVES["cpu_time"]


@pytest.fixture(scope="module")
def measured(tmp_path_factory: pytest.TempPathFactory, rows_folder: Path) -> Path:
    """A session of engines that wait, compute with one thread, and compute with two."""
    folder = tmp_path_factory.mktemp("cpu")
    record = data.recorded(TASKS["sst2"], rows_folder)
    for name, threads in (("wait", 0), ("one", 1), ("two", 2)):
        mock.write_engine(
            folder / "engines" / name, MockBehavior(latency_s=0.004, busy_threads=threads), data=record
        )
    assert command(
        ["profile", str(folder / "engines"), "--rounds", "5", "--grid", "none", "--meter", "none",
         "--limit", "40", "-o", str(folder / "results")]
    ) == 0  # fmt: skip
    return folder / "results"


def by_name(folder: Path) -> dict[str, Run]:
    return {run.name: run for run in results.find([folder])}


def test_two_busy_threads_take_twice_the_processor_seconds(measured: Path) -> None:
    runs = by_name(measured)
    values = {name: CPU_TIME.value(run) for name, run in runs.items()}
    assert values["wait"] < values["one"] / 2  # type: ignore[operator]
    assert 1.5 < values["two"] / values["one"] < 2.6  # type: ignore[operator]
    for run in runs.values():
        single = run.workloads[0]
        assert single.cpu_s is not None and len(single.cpu_s) == 5
        low, high = CPU_TIME.interval(run) or (0.0, 0.0)
        assert low < values[run.name] < high  # type: ignore[operator]


def test_the_cheapest_engine_is_recommended_and_compared(
    measured: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert command(["recommend", str(measured), "--objective", "cpu_time", "--json"]) == 0
    (answer,) = json.loads(capsys.readouterr().out)["recommendations"]
    assert answer["engine"] == "wait" and answer["objective"] == "cpu_time"
    runs = by_name(measured)
    ratio = comparison.compare(runs["one"], runs["two"]).cpu_time
    assert ratio is not None and ratio.interval is not None and ratio.paired
    assert ratio.interval[0] <= ratio.value <= ratio.interval[1] and ratio.value > 1.5
    assert command(["compare", "one", "two", str(measured)]) == 0
    assert "CPU seconds per example, single queries" in capsys.readouterr().out


def test_the_report_has_a_frontier_of_cpu_time(measured: Path, tmp_path: Path) -> None:
    assert command(["report", str(measured), "-o", str(tmp_path)]) == 0
    frontiers = json.loads((tmp_path / "frontier.json").read_text())["other_frontiers"]
    front = next(each for each in frontiers if each["objectives"] == ["quality", "cpu_time"])
    assert {point["engine"] for point in front["points"]} == {"wait", "one", "two"}
    assert (tmp_path / "frontier-cpu-time.png").stat().st_size > 5000
    header, *lines = (tmp_path / "frontier.csv").read_text().splitlines()
    assert len(lines) == 3 and "cpu_s_per_example" in header.split(",")


def test_the_interval_covers_the_truth_in_simulated_sessions() -> None:
    from dataclasses import replace

    from tests.analysis.simulated_run import simulated_run

    rng, covered, trials = np.random.default_rng(3), 0, 300
    run = simulated_run("a", rounds=10)
    single = run.workloads[0]
    for number in range(trials):
        used = [0.02 * len(block) * rng.lognormal(-0.02, 0.2) for block in single.blocks_s]
        changed = replace(single, cpu_s=used)
        low, high = CPU_TIME.interval(replace(run, workloads=[changed], session=str(number))) or (0, 0)
        covered += low <= 0.02 <= high
    assert covered / trials > stats.binom(trials, 0.95).ppf(0.001) / trials - 0.03


def test_impossible_processor_seconds_are_refused(measured: Path, tmp_path: Path) -> None:
    path = next(measured.glob("*one*.json"))
    for change, message in (
        (lambda seconds: [-1.0, *seconds[1:]], "cpu_s of a block is -1"),
        (lambda seconds: [1e9, *seconds[1:]], "cpu_s of a block is 1000000000"),
        (lambda seconds: seconds[1:], "cpu_s: expected 5 entries"),
    ):
        value = json.loads(path.read_text())
        value["workloads"][0]["cpu_s"] = change(value["workloads"][0]["cpu_s"])
        (tmp_path / "r.json").write_text(json.dumps(value))
        with pytest.raises(ArtifactError, match=message):
            results.open_run(tmp_path / "r.json")

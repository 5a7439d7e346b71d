"""A session in which engines fail: each failure is recorded, and costs no other engine its result.

The engines are mock engines: no runtime, no checkpoint.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest

from effx import data, results
from effx.artifacts import Engine
from effx.cli import run as command
from effx.engines import mock
from effx.engines.mock import MockBehavior
from effx.errors import ArtifactError, UsageError
from effx.profile import profile
from effx.profile.client import WorkerClient
from effx.profile.worker import check_answer
from effx.specs.data import DataRecord, DataSettings
from effx.specs.measurement import MeasurementPlan
from effx.specs.tasks import TASKS
from tests.conftest import write_rows

PLAN = MeasurementPlan(grid=(), rounds=3, block_queries=10, block_s=0.0, warmup_s=0.05, window_s=0.1)
TEXTS = ("the film is good", "a dull plot", "warm acting", "bad film", "the plot was not good")


@pytest.fixture
def rows(tmp_path: Path) -> Path:
    rows = [{"sentence": text, "label": number % 2} for number, text in enumerate(TEXTS * 3)]
    write_rows(tmp_path / "data" / "validation.jsonl", rows)
    return tmp_path / "data"


def write(folder: Path, rows: Path, **behaviors: MockBehavior) -> Path:
    for name, behavior in behaviors.items():
        mock.write_engine(folder / name, behavior, data=data.recorded(TASKS["sst2"], rows))
    return folder


def test_failures_of_engines_are_recorded_and_the_others_are_measured(tmp_path: Path, rows: Path) -> None:
    engines = write(
        tmp_path / "engines",
        rows,
        good=MockBehavior(),
        better=MockBehavior(seed=1),
        raises=MockBehavior(fails_after=20),
        crashes=MockBehavior(exits_after=20),
        infinite=MockBehavior(nan_after=0),
        unopened=MockBehavior(open_error="cannot open, as configured"),
    )
    (Path(shutil.copytree(engines / "good", engines / "damaged")) / mock.FILE).write_text("{}")
    (Path(shutil.copytree(engines / "good", engines / "empty")) / "engine.json").write_text("{}")
    elsewhere = DataRecord("nowhere", True, DataSettings(), "0" * 64)
    mock.write_engine(engines / "rowless", MockBehavior(), data=elsewhere)
    runs, errors = profile([engines], out=tmp_path / "r", plan=PLAN, meter="none")
    assert [run.name for run in runs] == ["better", "good"]
    assert len(errors) == 7
    saved, failures = results.read([tmp_path / "r"])
    assert sorted(run.name for run in saved) == ["better", "good"]
    assert all(failure.started and failure.time == failure.started for failure in failures)
    reasons = {failure.name: failure.failure for failure in failures}
    assert sorted(reasons) == [
        "crashes", "damaged", "empty", "infinite", "raises", "rowless", "unopened"
    ]  # fmt: skip
    assert "RuntimeError: mock engine" in reasons["raises"]
    assert "the worker died" in reasons["crashes"]
    assert "not finite" in reasons["infinite"]
    assert "cannot open, as configured" in reasons["unopened"]
    assert "truncated or changed" in reasons["damaged"]
    assert "expected schema" in reasons["empty"]
    assert "nowhere" in reasons["rowless"]
    assert not [reason for reason in reasons.values() if str(tmp_path) in reason]


def test_an_engine_that_is_replaced_during_the_session_fails(
    tmp_path: Path, rows: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its worker is unloaded and loaded again; what is in the folder now is not what was scored."""
    engines = write(tmp_path / "engines", rows, a=MockBehavior(), b=MockBehavior(seed=1))
    real, blocks = WorkerClient.request, []

    def request(self: WorkerClient, name: str, **arguments: object) -> object:
        if name == "block":
            blocks.append(name)
            if len(blocks) == 3:
                shutil.rmtree(engines / "a")
                write(engines, rows, a=MockBehavior(seed=2))
        return real(self, name, **arguments)

    monkeypatch.setattr(WorkerClient, "request", request)
    runs, errors = profile([engines], out=tmp_path / "r", plan=PLAN.replace(resident=1), meter="none")
    assert [run.name for run in runs] == ["b"]
    assert "a: the engine has changed since the measurement began" in str(errors[0])
    _, (failure,) = results.read([tmp_path / "r"])
    assert failure.name == "a" and "changed" in failure.failure


def test_a_session_without_a_usable_engine_is_refused(tmp_path: Path, rows: Path) -> None:
    engines = write(tmp_path / "engines", rows, only=MockBehavior())
    (engines / "only" / mock.FILE).write_text("{}")
    with pytest.raises(ArtifactError, match="truncated or changed"):
        profile([engines], out=tmp_path / "r", plan=PLAN, meter="none")
    assert not (tmp_path / "r").exists()


def test_results_that_do_not_fit_on_the_disk_are_kept_elsewhere(
    tmp_path: Path, rows: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    engines = write(tmp_path / "engines", rows, a=MockBehavior(), b=MockBehavior(seed=1))
    real = results.save

    def full(result: results.Run | results.Failure, folder: Path) -> Path:
        if result.name == "a" and folder == tmp_path / "r":
            raise UsageError(f"cannot write {folder}: No space left on device.")
        return real(result, folder)

    monkeypatch.setattr(results, "save", full)
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    with pytest.raises(UsageError, match=r"No space left on device. 1 results are in .*effx-results-"):
        profile([engines], out=tmp_path / "r", plan=PLAN, meter="none")
    assert [run.name for run in results.find([tmp_path / "r"])] == ["b"]
    (elsewhere,) = tmp_path.glob("effx-results-*")
    assert [run.name for run in results.find([elsewhere])] == ["a"]


def test_a_failed_engine_sets_exit_code_1_and_is_in_the_report(
    tmp_path: Path, rows: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    engines = write(
        tmp_path / "engines", rows, good=MockBehavior(), bad=MockBehavior(open_error="no such GPU")
    )
    arguments = ["--grid", "none", "--rounds", "3", "--meter", "none", "-o", str(tmp_path / "r")]
    assert command(["profile", str(engines), *arguments]) == 1
    capsys.readouterr()
    assert command(["report", str(tmp_path / "r")]) == 0
    assert "not measured: bad: no such GPU" in " ".join(capsys.readouterr().out.split())
    written = json.loads((tmp_path / "r" / "report" / "frontier.json").read_text())
    assert [failure["engine"] for failure in written["failures"]] == ["bad"]


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        ({"scores": np.zeros((1, 2))}, "no output logits, but scores"),
        ({"logits": np.zeros((1, 3))}, r"shape \[1, 3\], expected \[1, 2\] for the labels of sst2"),
        ({"logits": np.zeros(2)}, r"shape \[2\]"),
        ({"logits": np.array([[0.0, np.inf]])}, "not finite"),
        ({"logits": np.zeros((1, 2)), "depth": np.array([7])}, "after layer .*7.* of 2"),
    ],
)
def test_a_wrong_first_answer_is_refused(
    tmp_path: Path, answer: Mapping[str, np.ndarray], message: str
) -> None:
    engine = Engine.open(mock.write_engine(tmp_path / "e"))
    check_answer({"logits": np.zeros((1, 2))}, engine)
    with pytest.raises(ArtifactError, match=message):
        check_answer(answer, engine)

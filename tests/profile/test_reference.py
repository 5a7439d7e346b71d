"""Rows without labels: engines are compared with a reference engine, and nothing calls that accuracy.

The engines are mock engines: no runtime, no checkpoint.
"""

from __future__ import annotations

import dataclasses
import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from effx import results
from effx.analysis import cohorts, majority
from effx.analysis.check import check
from effx.analysis.comparison import compare
from effx.analysis.frontier import frontier
from effx.analysis.objectives import OBJECTIVES
from effx.analysis.recommend import recommend
from effx.analysis.recommendation import Recommendation
from effx.cli import run as command
from effx.engines import mock
from effx.engines.mock import MockBehavior
from effx.errors import DataError, UsageError
from effx.profile import profile
from effx.profile.engine_under_test import EngineUnderTest
from effx.profile.protocol import Block
from effx.report import tracking
from effx.results import Run
from effx.specs.constraints import CheckSettings, Constraints, RecommendSettings
from effx.specs.data import DataSettings, DataSource
from effx.specs.kinds import KINDS
from effx.specs.measurement import MeasurementPlan
from effx.specs.tasks import TASKS, Task

PLAN = MeasurementPlan(grid=(), rounds=3, block_queries=10, block_s=0.0, warmup_s=0.05, window_s=0.1)
TEXTS = [f"{what} {was} {how}" for what in ("film", "plot", "acting") for was in ("is", "was", "was not")
         for how in ("dull", "warm", "good", "bad")]  # fmt: skip
INT8 = {"variant": "int8", "precision": "int8", "scheme": "int8-dynamic"}


@pytest.fixture
def texts(tmp_path: Path) -> Path:
    path = tmp_path / "texts.csv"
    path.write_text("id,text\n" + "".join(f"{number},{text}\n" for number, text in enumerate(TEXTS)))
    return path


@pytest.fixture
def engines(tmp_path: Path) -> Path:
    folder = tmp_path / "engines"
    mock.write_engine(folder / "plain", MockBehavior(latency_s=0.002))
    mock.write_engine(folder / "small", MockBehavior(seed=1), **INT8)
    return folder


def unlabelled(path: Path) -> DataSource:
    return DataSource(str(path), DataSettings(unlabelled=True))


def measured(engines: Path, texts: Path, out: Path) -> dict[str, Run]:
    runs, errors = profile([engines], out=out, plan=PLAN, meter="none", data_folder=unlabelled(texts))
    assert not errors
    return {run.name: run for run in runs}


def test_agreement_is_the_share_of_the_references_predictions(
    engines: Path, texts: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    runs = measured(engines, texts, tmp_path / "r")
    assert "the rows have no labels" in (err := capsys.readouterr().err)
    assert "agreement with the reference plain" in err
    plain, small = runs["plain"].quality, runs["small"].quality
    assert plain.reference == small.reference == results.ReferenceEngine("plain", runs["plain"].engine.digest)
    assert (plain.metric, plain.value, plain.labels) == ("agreement", 1.0, plain.predictions)
    same = np.array(small.predictions) == np.array(plain.predictions)
    assert small.labels == plain.predictions and small.n == len(TEXTS)
    assert small.value == same.mean() < 1
    assert small.metrics == {"agreement": small.value}
    assert results.find([tmp_path / "r"])[0].quality.reference == plain.reference


def test_every_answer_says_agreement_and_never_accuracy(engines: Path, texts: Path, tmp_path: Path) -> None:
    runs = list(measured(engines, texts, tmp_path / "r").values())
    free = Constraints(max_drop=0.9)
    answer = recommend(runs, "latency", RecommendSettings(constraints=free))[0]
    assert isinstance(answer, Recommendation) and answer.baseline == "plain"
    assert answer.metric == "agreement with plain"
    assert any("rows have no labels" in remark for remark in answer.remarks)
    compared = compare(runs[0], runs[1])
    outcome = check(runs[1], runs[0], CheckSettings(constraints=free))
    front = frontier(runs)
    assert compared.metric == outcome.metric == front.metric == "agreement with plain"
    assert front.to_json()["labels"]["quality"] == "agreement with plain"
    logged = tracking.parameters(runs[1]), tracking.metrics(runs[1])
    assert logged[0]["reference"] == "plain" and "agreement" in logged[1]
    texts_of = [compared.sentence(), json.dumps([answer.to_json(), outcome.to_json(), front.to_json()])]
    for text in (*texts_of, *logged[0], *logged[1]):
        assert not re.search("accura", text.replace("min_accuracy", "")), text


def test_limits_of_accuracy_are_refused_without_labels(engines: Path, texts: Path, tmp_path: Path) -> None:
    runs = list(measured(engines, texts, tmp_path / "r").values())
    with pytest.raises(UsageError, match="rows have no labels: agreement with plain was measured instead"):
        recommend(runs, "latency", RecommendSettings(constraints=Constraints(min_accuracy=0.1)))
    strict = CheckSettings(constraints=Constraints(min_accuracy=0.1))
    outcome = check(runs[0], None, strict)
    assert not outcome.passed and "no labels" in str(outcome.limits[0].reason)
    agreed = CheckSettings(constraints=Constraints(min_agreement=0.5))
    of_itself = check(next(run for run in runs if run.name == "plain"), None, agreed)
    assert of_itself.passed and "its agreement with itself is 1, whatever it predicts" in of_itself.remarks[0]
    with pytest.raises(UsageError, match="objective correct: the rows have no labels"):
        recommend(runs, "correct", RecommendSettings(constraints=Constraints(max_drop=0.9)))


def test_agreement_and_accuracy_are_never_in_one_cohort(engines: Path, texts: Path, tmp_path: Path) -> None:
    labelled = tmp_path / "labelled.csv"
    labelled.write_text("text,label\n" + "".join(f"{text},{i % 2}\n" for i, text in enumerate(TEXTS)))
    agreeing = list(measured(engines, texts, tmp_path / "r").values())
    scored, _ = profile([engines], out=tmp_path / "r", plan=PLAN, meter="none", data_folder=labelled)
    assert len(cohorts.latest([*agreeing, *scored])) == 4
    groups = list(cohorts.split([*agreeing, *scored]).values())
    assert [{run.quality.metric for run in group} for group in groups] == [{"accuracy"}, {"agreement"}]
    with pytest.raises(UsageError, match="different metrics cannot be compared"):
        compare(agreeing[0], scored[0])
    answer = recommend(
        [*scored, *agreeing], "latency", RecommendSettings(constraints=Constraints(max_drop=0.9))
    )[0]
    assert isinstance(answer, Recommendation) and answer.metric == "accuracy"
    other = dataclasses.replace(agreeing[1].quality, reference=results.ReferenceEngine("other", "0" * 64))
    with pytest.raises(UsageError, match="different reference engines"):
        compare(agreeing[0], dataclasses.replace(agreeing[1], quality=other))


def test_reference_is_chosen_or_named(
    engines: Path, texts: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    options = ["--data", str(texts), "--unlabelled", "--meter", "none", "--grid", "none"]
    assert command(["profile", str(engines / "small"), *options, "-o", str(tmp_path / "r")]) == 2
    err = capsys.readouterr().err.splitlines()[-1]
    assert "no unreduced fp32 engine" in err and "option --reference" in err and "small" in err
    runs, _ = profile([engines / "small"], out=tmp_path / "r", plan=PLAN, meter="none",
                      data_folder=unlabelled(texts), reference=str(engines / "plain"))  # fmt: skip
    assert [run.quality.described for run in runs] == ["agreement with plain"] * 2
    mock.write_engine(engines / "other", MockBehavior(seed=2))
    with pytest.raises(UsageError, match=r"name the engine to compare with \(other, plain\)"):
        measured(engines, texts, tmp_path / "r")
    with pytest.raises(UsageError, match="'plian' is not one of the engines. Did you mean 'plain'"):
        profile([engines], out=tmp_path / "r", plan=PLAN, data_folder=unlabelled(texts), reference="plian")


def test_a_reference_needs_rows_without_labels(engines: Path, tmp_path: Path) -> None:
    labelled = tmp_path / "labelled.csv"
    labelled.write_text("text,label\na,0\nb,1\n")
    with pytest.raises(UsageError, match="the rows have labels") as raised:
        profile([engines], out=tmp_path / "r", plan=PLAN, data_folder=labelled, reference="plain")
    assert raised.value.settings == ("reference",)


def test_engines_fail_with_their_reference(texts: Path, tmp_path: Path) -> None:
    folder = tmp_path / "engines"
    mock.write_engine(folder / "plain", MockBehavior(nan_after=1))
    mock.write_engine(folder / "small", MockBehavior(), **INT8)
    runs, errors = profile(
        [folder], out=tmp_path / "r", plan=PLAN, meter="none", data_folder=unlabelled(texts)
    )
    assert not runs and "its reference plain could not be scored" in " ".join(map(str, errors))


def test_agreement_is_unavailable_where_the_references_predictions_are_not_stable(
    engines: Path, texts: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The gate of the reference fails: no engine's agreement is shown."""
    measure = EngineUnderTest.run_block

    def unstable(engine: EngineUnderTest, *arguments: Any) -> Block:
        block = measure(engine, *arguments)
        if engine.name == "plain":
            engine.agreed = 0
        return block

    monkeypatch.setattr(EngineUnderTest, "run_block", unstable)
    runs = measured(engines, texts, tmp_path / "r")
    reason = OBJECTIVES["quality"].missing(runs["small"])
    assert "of the reference plain: 30 of 30 timed predictions differ" in reason
    assert all(OBJECTIVES["quality"].value(run) is None for run in runs.values())
    with pytest.raises(UsageError, match="of the reference plain"):
        frontier([runs["small"], runs["plain"]])


def test_sets_of_labels_agree_if_all_labels_are_equal(texts: Path, tmp_path: Path) -> None:
    topics = Task("topics", "multi-label", ("sentence",), ("a", "b", "c"), KINDS["multi-label"].metrics)
    folder = tmp_path / "engines"
    mock.write_engine(folder / "plain", task=topics)
    mock.write_engine(folder / "small", MockBehavior(seed=1), task=topics, **INT8)
    runs = measured(folder, texts, tmp_path / "r")
    small = runs["small"].quality
    same = [a == b for a, b in zip(small.predictions, runs["plain"].quality.predictions, strict=True)]
    assert small.described == "agreement with plain" and small.value == np.mean(same) < 1
    assert small.label_f1 is None
    assert results.find([tmp_path / "r"])[0].quality.labels == runs["plain"].quality.predictions


def test_engine_that_agrees_no_more_than_a_constant_is_reported(
    engines: Path, texts: Path, tmp_path: Path
) -> None:
    small = measured(engines, texts, tmp_path / "r")["small"]
    constant = dataclasses.replace(small.quality, labels=[1.0] * small.quality.n, value=0.5)
    text = majority.remark(dataclasses.replace(small, quality=constant))
    assert text is not None and "small: agreement with plain is 0.5000; always predicting" in text


def test_numbers_are_correlated_with_the_references(texts: Path, tmp_path: Path) -> None:
    numbers = dataclasses.replace(TASKS["stsb"], name="grades", columns=("sentence",), hub=None)
    folder = tmp_path / "engines"
    mock.write_engine(folder / "plain", task=numbers)
    mock.write_engine(folder / "small", MockBehavior(seed=1), task=numbers, **INT8)
    runs = measured(folder, texts, tmp_path / "r")
    a, b = (np.array(runs[name].quality.predictions) for name in ("plain", "small"))
    assert runs["small"].quality.metrics["agreement_pearson"] == pytest.approx(np.corrcoef(a, b)[0, 1])
    assert runs["small"].quality.described == "agreement_pearson with plain"


def test_a_label_that_is_not_recognised_is_not_taken_for_a_missing_one(engines: Path, texts: Path) -> None:
    with pytest.raises(DataError, match="or, if the rows have none, set unlabelled") as raised:
        profile([engines], plan=PLAN, data_folder=texts)
    assert raised.value.settings == ("label_column", "unlabelled")

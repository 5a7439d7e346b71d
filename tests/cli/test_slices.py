"""``effx slices`` on results and the rows that they are of."""

from __future__ import annotations

import csv
import json
from dataclasses import replace
from pathlib import Path

import pytest

from effx import data, results
from effx.cli import run
from effx.specs.data import DataSettings, DataSource
from effx.specs.tasks import TASKS
from effx.stats.metrics import METRICS
from tests.analysis.simulated_run import simulated_run
from tests.conftest import write_rows

N = 400


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Results of two engines; the smaller one loses most rows of one country."""
    monkeypatch.chdir(tmp_path)
    lost = range(3, N, 8)
    countries = ["at" if index % 8 == 3 else "de" for index in range(N)]
    rows: list[dict[str, object]] = [
        {
            "sentence": f"text {index} is {'not ' * (index % 3 == 0)}bad",
            "label": index % 2,
            "country": country,
        }
        for index, country in enumerate(countries)
    ]
    for split in ("train", "validation"):
        write_rows(tmp_path / "rows" / f"{split}.jsonl", rows)
    digest = data.load(TASKS["sst2"], "validation", tmp_path / "rows").texts_digest
    for one in (
        simulated_run("fp32", range(10), precision="fp32", n=N),
        simulated_run("int8", [*range(10), *lost], n=N),
    ):
        quality = replace(one.quality, texts_digest=digest)
        results.save(replace(one, quality=quality), tmp_path / "results")
    return tmp_path


def test_the_slice_that_loses_is_named(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["slices", "results", "--data", "rows", "--column", "country", "-o", "out"]) == 0
    printed = capsys.readouterr().out
    assert "int8 loses more on country: at (98.0 points instead of 0.0 on 50 rows" in printed.splitlines()[-2]
    value = json.loads((here / "out" / "slices.json").read_text())
    groups = {each["group"] for each in value["slices"]}
    assert groups == {"label", "words", "negation", "country"}
    assert value["baseline"] == "fp32"
    # every lost row has an odd number, so that its label is 1, too
    assert {each["slice"] for each in value["losses"] if each["flagged"]} >= {"country: at"}
    with (here / "out" / "lost-rows.csv").open() as file:
        lost = [*csv.DictReader(file)]
    assert [int(row["row"]) for row in lost] == [index for index in range(3, N, 8) if index > 9]
    assert lost[0]["text"].startswith("text 11 is")
    assert (here / "out" / "slices.md").exists() and (here / "out" / "slices.tex").exists()


def test_the_report_shows_the_section(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["slices", "--data", "rows", "-o", "results"]) == 0
    assert run(["report", "results", "-o", "page"]) == 0
    capsys.readouterr()
    assert "Who is lost: sst2" in (here / "page" / "index.html").read_text()


def test_the_baseline_can_be_named(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["slices", "--data", "rows", "--baseline", "int8", "--json"]) == 0
    value = json.loads(capsys.readouterr().out)
    assert value["baseline"] == "int8" and {each["engine"] for each in value["losses"]} == {"fp32"}
    assert all(each["loss"] <= 0 for each in value["losses"])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--data", "rows", "--column", "contry"], "has no column 'contry'. Did you mean 'country'?"),
        (["--data", "rows", "--baseline", "int7"], "unknown engine 'int7'. Did you mean 'int8'?"),
        (["--data", "others"], "was scored on 400 other rows than the 30 of others"),
        (["--data", "flipped"], "was scored on 400 other rows than the 400 of flipped"),
        (["--data", "other-texts"], "was scored on 400 other rows than the 400 of other-texts"),
        (["--data", "rows", "--column", "sentence"], "column sentence: no value has at least 20 rows"),
        (["--data", "nowhere"], "nowhere"),
        (["nothing", "--data", "rows"], "nothing"),
    ],
)
def test_wrong_input_is_one_line(
    here: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], message: str
) -> None:
    few: list[dict[str, object]] = [{"sentence": f"text {index}", "label": index % 2} for index in range(30)]
    flipped: list[dict[str, object]] = [{"sentence": "text", "label": 1 - index % 2} for index in range(N)]
    texts: list[dict[str, object]] = [{"sentence": f"{index}", "label": index % 2} for index in range(N)]
    for folder, rows in (("others", few), ("flipped", flipped), ("other-texts", texts)):
        for split in ("train", "validation"):
            write_rows(here / folder / f"{split}.jsonl", rows)
    assert run(["slices", *arguments]) == 2
    error = capsys.readouterr().err
    assert message in error and len(error.strip().splitlines()) == 1


def test_results_of_an_earlier_version_are_known_by_their_labels(
    here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for one in results.find([here / "results"]):
        results.save(replace(one, quality=replace(one.quality, texts_digest=None)), here / "earlier")
    assert run(["slices", "earlier", "--data", "rows"]) == 0
    assert "known from their labels alone" in capsys.readouterr().err
    assert run(["slices", "earlier", "--data", "rows", "--unlabelled"]) == 2


def test_rows_of_one_file_that_is_divided_have_their_column(
    here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Lines without a label, and those of the training part, are not among the scored rows."""
    lines: list[dict[str, object]] = [
        {"sentence": f"text {index}", "label": index % 2, "part": "abc"[index % 3]} for index in range(1000)
    ]
    lines.insert(3, {"sentence": "no label", "label": -1, "part": "c"})
    write_rows(here / "all.jsonl", lines)
    source = DataSource("all.jsonl", DataSettings(split=0.6))
    rows = data.load(TASKS["sst2"], "validation", source)
    labels = rows.labels.tolist()
    lost = {number for number, (text,) in enumerate(rows.texts) if int(text.split()[1]) % 3 == 1}
    for name, wrong in (("fp32", set()), ("int8", lost)):
        predictions = [1 - label if number in wrong else label for number, label in enumerate(labels)]
        one = simulated_run(name, wrong, precision=name, n=len(rows))
        metrics = {name: METRICS[name](labels, predictions) for name in one.quality.metrics}
        quality = replace(one.quality, labels=labels, predictions=predictions, metrics=metrics,
                          texts_digest=rows.texts_digest)  # fmt: skip
        results.save(replace(one, quality=quality), here / "divided")
    command = ["slices", "divided", "--data", "all.jsonl", "--split", "0.6", "--column", "part", "--json"]
    assert run(command) == 0
    value = json.loads(capsys.readouterr().out)
    of_column = {each["slice"]: each for each in value["losses"] if each["slice"].startswith("part")}
    assert of_column["part: b"]["loss"] == 1.0 and of_column["part: b"]["flagged"]
    assert of_column["part: a"]["loss"] == of_column["part: c"]["loss"] == 0.0

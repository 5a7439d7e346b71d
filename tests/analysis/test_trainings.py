"""Ways of training compared over tasks and seeds."""

from __future__ import annotations

import csv
import json
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from scipy import stats

from effx.analysis import trainings
from effx.analysis.trainings import Training
from effx.artifacts import Checkpoint
from effx.cli import run
from effx.errors import UsageError
from effx.report import trainings as tables
from tests.train.multitask.test_run import data_folders, plain, tickets

__all__ = ["data_folders", "plain", "tickets"]  # fixtures

SCORES = {
    "full": {"rte": [0.60, 0.64, 0.62], "cola": [0.40, 0.43, 0.41]},
    "full-ticket": {"rte": [0.63, 0.65, 0.66], "cola": [0.42, 0.44, 0.40]},
    "mtdnn": {"rte": [0.70, 0.72, 0.69], "cola": [0.38, 0.37, 0.39]},
}


def training(
    task: str, method: str, seed: int, score: float, weight: float = 1.0, rows: str = "rows"
) -> Training:
    return Training(task=task, method=method, seed=seed, score=score, weight_remaining=weight, rows=rows)


def made(scores: dict[str, dict[str, list[float]]] = SCORES) -> list[Training]:
    return [
        training(task, method, seed, value, 0.8 if "ticket" in method else 1.0)
        for method, tasks in scores.items()
        for task, values in tasks.items()
        for seed, value in enumerate(values)
    ]


def test_means_differences_and_spreads_equal_the_textbook_formulas() -> None:
    table = trainings.compare(made())
    assert table.baseline == "full" and table.tasks == ("cola", "rte")
    assert [method.method for method in table.methods] == ["full", "mtdnn", "full-ticket"]
    full, mtdnn, ticket = table.methods
    assert full.average is not None and mtdnn.average_difference is not None
    averages = {name: np.mean([tasks["rte"], tasks["cola"]], axis=0) for name, tasks in SCORES.items()}
    assert full.average.mean == pytest.approx(averages["full"].mean())
    assert full.average.std == pytest.approx(averages["full"].std(ddof=1))
    assert full.average_difference is None and not full.differences
    assert ticket.weight_remaining == pytest.approx(0.8)
    p_values = []
    for method in (mtdnn, ticket):
        each = method.differences["rte"]
        before, after = SCORES["full"]["rte"], SCORES[method.method]["rte"]
        expected = stats.ttest_rel(after, before)
        assert each.test.p == pytest.approx(expected.pvalue)
        assert each.interval == pytest.approx(tuple(expected.confidence_interval()))
        assert each.spread is not None
        assert each.spread.ratio == pytest.approx(np.std(before) / np.std(after))
        p_values.append(each.test.p)
    low, high = sorted(p_values)  # Holm's adjustment over the two methods
    adjusted = sorted(method.differences["rte"].p_adjusted for method in (mtdnn, ticket))
    assert adjusted == pytest.approx([2 * low, max(2 * low, high)])
    ratios = []
    for method in (mtdnn, ticket):
        before, after = (np.var(SCORES[name]["rte"], ddof=1) for name in ("full", method.method))
        tail = stats.f(len(SCORES["full"]["rte"]) - 1, len(SCORES["full"]["rte"]) - 1).sf(before / after)
        ratios.append(2 * min(tail, 1 - tail))
    low, high = sorted(ratios)
    adjusted = sorted(method.differences["rte"].spread_p_adjusted for method in (mtdnn, ticket))
    assert adjusted == pytest.approx([min(1, 2 * low), min(1, max(2 * low, high))])
    change = averages["mtdnn"] - averages["full"]
    assert mtdnn.average_difference.test.difference == pytest.approx(change.mean())


def test_what_is_missing_is_left_out_and_not_averaged(tmp_path: Path) -> None:
    scores = {**SCORES, "later": {"rte": [0.7, 0.71]}, "half": {"rte": [0.7, 0.71, 0.72], "cola": [0.4]}}
    table = trainings.compare(made(scores), "full")
    later = next(method for method in table.methods if method.method == "later")
    assert later.average is None and later.average_difference is None
    assert set(later.differences) == {"rte"} and later.differences["rte"].test.n == 2
    half = next(method for method in table.methods if method.method == "half")
    assert half.average is not None and half.average.n == 1  # the seed that has both tasks
    sheet = tables.scores(table)
    row = next(row for row in sheet.rows if row[0] == "later")
    assert row[2:] == (None, "0.7050 ± 0.0071", None, "2")
    assert next(row for row in sheet.rows if row[0] == "half")[-1] == "1-3"
    tables.write(table, tmp_path)
    rows = list(csv.DictReader((tmp_path / "scores.csv").read_text().splitlines()))
    (of_later,) = [row for row in rows if row["method"] == "later"]
    assert float(of_later["rte, mean"]) == pytest.approx(0.705)
    assert float(of_later["rte, std"]) == pytest.approx(np.std([0.7, 0.71], ddof=1))
    assert (of_later["cola, mean"], of_later["average, std"], of_later["seeds"]) == ("", "", "2")
    (of_half,) = [row for row in rows if row["method"] == "half"]
    assert (of_half["cola, mean"], of_half["cola, std"]) == ("0.4", "")  # one seed has no deviation
    assert "0.7050 ± 0.0071" in (tmp_path / "scores.md").read_text()


def test_equal_scores_and_equal_differences_have_no_interval() -> None:
    scores = {"full": {"rte": [0.7, 0.7, 0.7]}, "other": {"rte": [0.7, 0.71, 0.72]},
              "third": {"rte": [0.8, 0.8, 0.8]}}  # fmt: skip
    other, third = trainings.compare(made(scores), "full").methods[1:]
    assert other.differences["rte"].spread is not None
    assert other.differences["rte"].spread.ratio is None  # a deviation of 1e-16 is none
    assert third.differences["rte"].interval is None and third.differences["rte"].test.p is None


@pytest.mark.parametrize(
    ("name", "task", "kind", "expected"),
    [
        ("rte-minilm-full-s0", "rte", "finetune", "minilm-full"),
        ("multitask-minilm-s0-rte", "rte", "multitask", "multitask-minilm"),
        ("rte-mrpc-joint-s1-mrpc", "mrpc", "multitask", "rte-mrpc-joint"),
        ("rte-mrpc-joint-s1-rte", "rte", "multitask", "rte-mrpc-joint"),
        ("rte-multitask-minilm-s0-rte-full-s1", "rte", "finetune", "multitask-minilm-full"),
        ("rte-minilm-full-ticket-sharing-s2", "rte", "multitask", "minilm-full-ticket-sharing"),
        ("tiny", "rte", "finetune", "tiny"),
        ("rte", "rte", "finetune", "rte"),
    ],
)
def test_the_method_is_what_is_left_of_a_name(name: str, task: str, kind: str, expected: str) -> None:
    manifest = SimpleNamespace(task=task, training=SimpleNamespace(kind=kind))
    assert trainings._method(name, manifest) == expected  # type: ignore[arg-type]


def test_rows_that_are_read_differently_are_other_rows(plain: list[Checkpoint]) -> None:
    manifest = plain[0].manifest
    assert manifest.data is not None
    other = replace(manifest.data, settings=manifest.data.settings.replace(text_column="sentence"))
    moved = replace(manifest.data, name="elsewhere")
    rows = [
        trainings._rows(manifest.model_copy(update={"data": data})) for data in (manifest.data, moved, other)
    ]
    assert rows[0] == rows[1] != rows[2]


def test_one_seed_has_no_interval() -> None:
    table = trainings.compare(made({name: {"rte": [tasks["rte"][0]]} for name, tasks in SCORES.items()}))
    each = table.methods[1].differences["rte"]
    assert (each.interval, each.test.p, each.p_adjusted, each.spread) == (None, None, None, None)


@pytest.mark.parametrize(
    ("rows", "baseline", "expected"),
    [
        (made({"full": SCORES["full"]}), None, "only 'full' was trained: expected at least two methods"),
        (made(), "mt-dnn", "unknown baseline 'mt-dnn'"),
        ([*made(), made()[0]], None, "two checkpoints of task 'rte' with seed 0 are of 'full'"),
        (
            [*made(), training("rte", "other", 0, 0.5, rows="other rows")], None,
            "task 'rte': 'full' and 'other' were trained or scored on different files",
        ),
    ],
)  # fmt: skip
def test_what_cannot_be_compared(rows: list[Training], baseline: str | None, expected: str) -> None:
    with pytest.raises(UsageError, match=expected):
        trainings.compare(rows, baseline)


def test_checkpoints_are_read_and_compared(
    plain: list[object], tickets: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for task, folder in tickets.items():
        (tmp_path / f"{task}-ticket-s0").symlink_to(folder)
    for checkpoint in plain:
        name = checkpoint.folder.name.replace("both", "both-s0")  # type: ignore[attr-defined]
        (tmp_path / name).symlink_to(checkpoint.folder)  # type: ignore[attr-defined]
    out = tmp_path / "tables"
    assert run(["train", "compare", str(tmp_path), "--baseline", "ticket", "-o", str(out)]) == 0
    printed = capsys.readouterr().out
    assert "| ticket |" in printed and "| both | 100 % |" in printed and "Differences from ticket" in printed
    value = json.loads((out / "trainings.json").read_text())
    assert value["baseline"] == "ticket" and value["tasks"] == ["grades", "sst2"]
    for checkpoint in plain:
        (method,) = (each for each in value["methods"] if each["method"] == "both")
        scores = checkpoint.manifest.metrics  # type: ignore[attr-defined]
        task = checkpoint.manifest.task  # type: ignore[attr-defined]
        assert method["tasks"][task]["mean"] == pytest.approx(np.mean(list(scores.values())))
    assert {path.name for path in out.glob("*.tex")} == {"scores.tex", "differences.tex", "spreads.tex"}
    assert run(["train", "compare", str(tmp_path / "nothing")]) == 2


def test_earlier_comparisons_count_like_checkpoints(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    whole, out = made(), tmp_path / "all"
    for name, seeds in (("early", (0, 2)), ("late", (1,))):
        part = [each for each in whole if each.seed in seeds]
        tables.write(trainings.compare(part), tmp_path / name)
    files = [str(tmp_path / name / "trainings.json") for name in ("early", "late")]
    assert run(["train", "compare", *files, "-o", str(out)]) == 0
    assert "0.6200 ± 0.0200" in capsys.readouterr().out
    expected = json.dumps(tables.to_json(trainings.compare(whole)))
    assert json.loads((out / "trainings.json").read_text()) == json.loads(expected)
    assert run(["train", "compare", files[0], files[0]]) == 2
    assert "two checkpoints of task 'cola' with seed 0 are of 'full'" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ({"schema": 1, "methods": []}, "expected a trainings.json of `effx train compare -o` with schema 2"),
        ({"schema": 2, "trainings": [{"task": "rte"}]}, "trainings[0].method: missing"),
        (
            {"schema": 2, "trainings": [{**training("a", "m", 0, 0.5).to_json(), "task": "a\x1b[2J"}]},
            "control",
        ),
        ({"schema": 2, "trainings": []}, "no checkpoint was scored"),
    ],
)
def test_files_that_are_no_earlier_comparison_are_one_line(
    value: dict[str, object], expected: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "trainings.json").write_text(json.dumps(value))
    assert run(["train", "compare", str(tmp_path / "trainings.json")]) in {2, 3}
    error = capsys.readouterr().err
    assert expected in error and error.count("\n") == 1

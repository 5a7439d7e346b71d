"""Rows with any number of labels, from every kind of file."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from effx import data
from effx.data.split import split
from effx.errors import DataError, UsageError
from effx.specs.data import DataSettings, DataSource
from effx.specs.tasks import TASKS, Task
from tests.conftest import write_rows

SETS = [["b"], ["a", "c"], [], ["c"], ["a", "b", "c"]]
BITS = [[0, 1, 0], [1, 0, 1], [0, 0, 0], [0, 0, 1], [1, 1, 1]]


def read(path: Path, **settings: Any) -> tuple[Task, list[list[int]]]:
    source = DataSource(str(path), DataSettings.of(**settings))
    task = data.resolve("tags", source)
    return task, data.load(task, "train", source).labels.astype(int).tolist()


def objects(labels: list[Any]) -> list[dict[str, object]]:
    return [{"text": f"text {index}", "labels": value} for index, value in enumerate(labels)]


@pytest.mark.parametrize(
    ("labels", "names"),
    [(SETS, ("a", "b", "c")), (BITS, ("0", "1", "2")), ([[1], [0, 2], [], [2], [0, 1, 2]], ("0", "1", "2"))],
)
def test_json_lists(tmp_path: Path, labels: list[Any], names: tuple[str, ...]) -> None:
    write_rows(tmp_path / "train.jsonl", objects(labels))
    task, sets = read(tmp_path)
    assert (task.kind, task.labels, task.metrics) == (
        "multi-label", names, ("micro_f1", "macro_f1", "accuracy")
    )  # fmt: skip
    assert sets == BITS
    assert Task.from_json(json.loads(json.dumps(task.to_json()))) == task


def test_parquet_lists_with_the_names_of_the_hub(tmp_path: Path) -> None:
    pyarrow = pytest.importorskip("pyarrow")
    from pyarrow import parquet

    table = pyarrow.table({"text": [f"t{i}" for i in range(5)], "labels": [[1], [0, 2], [], [2], [0, 1, 2]]})
    feature = {"feature": {"names": ["x", "y", "z"], "_type": "ClassLabel"}, "_type": "Sequence"}
    info = {"info": {"features": {"labels": feature}}}
    parquet.write_table(
        table.replace_schema_metadata({"huggingface": json.dumps(info)}), tmp_path / "train.parquet"
    )
    task, sets = read(tmp_path)
    assert (task.labels, sets) == (("x", "y", "z"), BITS)


def test_lists_in_a_csv(tmp_path: Path) -> None:
    lines = ["text,labels", *(f'text,"{json.dumps(row).replace(chr(34), chr(39))}"' for row in SETS)]
    (tmp_path / "train.csv").write_text("\n".join(lines))
    task, sets = read(tmp_path)
    assert (task.labels, sets) == (("a", "b", "c"), BITS)


def test_a_separator(tmp_path: Path) -> None:
    (tmp_path / "train.csv").write_text("text,labels\nt,b\nt,a;c\nt,\nt, c\nt,a; b;c\n")
    task, sets = read(tmp_path, label_separator=";")
    assert (task.kind, task.labels, sets) == ("multi-label", ("a", "b", "c"), BITS)


def test_a_column_for_each_label(tmp_path: Path) -> None:
    rows = "\n".join(f"text {i},{c},{a},{b}" for i, (a, b, c) in enumerate(BITS))
    (tmp_path / "train.csv").write_text(f"text,c,a,b\n{rows}\n")
    task, sets = read(tmp_path, label_columns=("a", "b", "c"))
    assert (task.kind, task.labels, sets) == ("multi-label", ("a", "b", "c"), BITS)
    with pytest.raises(DataError, match="column 'd' is missing"):
        read(tmp_path, label_columns=("a", "d"))
    (tmp_path / "train.csv").write_text("text,a,b\nx,1,0\ny,-1,0\n")
    with pytest.raises(DataError, match="row 2: column 'a': expected 0 or 1, got '-1'"):
        read(tmp_path, label_columns=("a", "b"))


@pytest.mark.parametrize(
    ("labels", "settings", "message"),
    [
        ([["a"], "b"], {}, "line 2: the label is b: expected a list|row 2: the label is b: expected a list"),
        ([["a"], ["a"]], {}, "the only label is 'a'; expected at least 2"),
        ([[], []], {}, "no row has a label"),
        (
            [[0, 1, 1], [1, 0, 0]],
            {"class_names": ("x", "y")},
            "expected a 0 or 1 for each of 2 labels, got 3",
        ),
        (
            [["a"], ["b"]],
            {"task_kind": "classification"},
            "the label is a list, .*but the rows of this task have one label",
        ),
    ],
)
def test_labels_that_are_not_clear(
    tmp_path: Path, labels: list[Any], settings: dict[str, Any], message: str
) -> None:
    write_rows(tmp_path / "train.jsonl", objects(labels))
    with pytest.raises(DataError, match=message):
        read(tmp_path, **settings)


def test_a_task_with_one_label_per_row_refuses_lists(tmp_path: Path) -> None:
    write_rows(tmp_path / "train.jsonl", [{"sentence": "x", "label": [0, 1]}])
    with pytest.raises(DataError, match="the label is a list"):
        data.load(TASKS["sst2"], "train", tmp_path)


@pytest.mark.parametrize(
    "settings",
    [
        {"label_columns": ("a", "b"), "label_column": "c"},
        {"label_columns": ("a", "b"), "class_names": ("a", "b")},
        {"label_columns": ("a", "a")},
        {"label_separator": ";", "task_kind": "classification"},
        {"label_columns": ("a", "b"), "text_column": "a"},
    ],
)
def test_settings_that_contradict_each_other(settings: dict[str, Any]) -> None:
    with pytest.raises(UsageError):
        DataSettings.of(**settings)


def test_rare_labels_are_in_both_parts_of_a_split() -> None:
    rng = np.random.default_rng(0)
    labels = rng.random((500, 4)) < [0.5, 0.2, 0.05, 0.01]
    train, validation = split([(f"t{i}",) for i in range(500)], labels, 0.8, 0)
    assert len(train) + len(validation) == 500
    for part, share in ((train, 0.8), (validation, 0.2)):
        rarest = labels[:, labels.sum(axis=0).argmin()]
        assert labels[part].any(axis=0).all()
        assert rarest[part].sum() == pytest.approx(share * rarest.sum(), abs=1)


def test_what_was_understood_is_said(tmp_path: Path) -> None:
    write_rows(tmp_path / "train.jsonl", objects(SETS))
    source = DataSource(str(tmp_path))
    task = data.resolve("tags", source)
    rows = data.load(task, "train", source)
    lines = data.scored(task, rows)
    assert "any of 3 labels for one text" in lines[0]
    assert "  labels: c 3, a 2, b 2; 1.4 per row, rows with none 1" in lines
    # all labels for every row: 7 of 7 found, 15 named
    assert f"  baseline: always 'a', 'b', 'c': micro_f1 {14 / 22:.4f}" in lines

from __future__ import annotations

from pathlib import Path

import pytest

from effx import data
from effx.data import labels
from effx.data.columns import choose
from effx.errors import DataError, UsageError
from effx.specs.data import DataSettings, DataSource
from effx.specs.tasks import TASKS, Task


def infer(*texts: str, **settings: object) -> Task:
    return labels.infer("mine", ("sentence",), texts, DataSettings.of(**settings), "rows.csv")


def numbers(task: Task, *texts: str) -> list[float]:
    return list(task.behavior.encode(task.labels, texts, lambda index: f"row {index + 1}", None)[1])


@pytest.mark.parametrize(
    ("texts", "expected"),
    [
        (("b", "a", "not sure"), ("a", "b", "not sure")),
        (("0", "2"), ("0", "1", "2")),
        (("1001", "1002", "5000"), ("1001", "1002", "5000")),  # codes
        (("-2", "2"), ("-2", "2")),
        (
            tuple(f"intent {index % 150}" for index in range(450)),
            tuple(sorted(f"intent {i}" for i in range(150))),
        ),
        (tuple(str(index % 150) for index in range(450)), tuple(map(str, range(150)))),
        (("True", "False"), ("False", "True")),
    ],
)
def test_classes(texts: tuple[str, ...], expected: tuple[str, ...]) -> None:
    task = infer(*texts)
    assert (task.kind, task.labels) == ("classification", expected)
    if not texts[0].isdigit():
        assert numbers(task, *texts) == [expected.index(text) for text in texts]


def test_classes_in_a_given_order() -> None:
    task = infer("a", "b", class_names=("b", "a", "c"))
    assert task.labels == ("b", "a", "c")
    assert numbers(task, "a", "b", "c") == [1, 0, 2]
    assert numbers(infer("-1", "0", "1", class_names=("-1", "0", "1")), "-1", "0", "1") == [0, 1, 2]
    with pytest.raises(UsageError, match="duplicate class 'a'"):
        DataSettings.of(class_names=("a", "a"))


def test_numbers_to_predict() -> None:
    assert infer("0.5", "-1", "20000.25").kind == "regression"
    assert infer("1", "2", "3", task_kind="regression").kind == "regression"
    assert numbers(infer("0.5", "-1"), "-1", "0.5") == [-1.0, 0.5]
    assert infer("1.0", "2.0", "0.0", task_kind="classification").labels == ("0", "1", "2")
    assert numbers(infer("1.0", "0.0", task_kind="classification"), "1.0", "0.0", "1") == [1, 0, 1]
    assert infer(*(f"{index}.0" for index in range(30))).kind == "regression"


@pytest.mark.parametrize(
    ("texts", "message"),
    [
        (("1.0", "2.0"), "classes, or numbers to predict. Set task_kind to classification or regression"),
        (
            tuple(f"text {index}" for index in range(30)),
            "30 different labels in 30 rows: is this the label's column",
        ),
        (tuple(str(20000 + index) for index in range(30)), "30 different labels in 30 rows"),
        (("-1", "0", "1"), "1 of 3 rows have the label -1: .* as class_names -1,0,1"),
        (("-", "a", "b"), "1 of 3 rows have the label -: "),
        (("a", "a"), "every row has the label 'a'"),
        (("1.5", "2.25", "NA"), "the labels are numbers, except in 1 rows, e.g. 'NA': remove these rows"),
        (("1", "2", "3", "none", "none"), "numbers, except in 2 rows, e.g. 'none'"),
        (("1.5", "2.25", "3.5", "high"), "numbers, except in 1 rows, e.g. 'high'"),
        (("1,5", "2", "3,25"), "numbers with a decimal comma, such as 1,5: write them with a point"),
        (("1,5", "2,0", "n/a"), "numbers with a decimal comma, such as 1,5"),
        (("01", "1", "2"), "the labels 01 and 1 are the same number"),
        (("True", "False", "1", "0"), "the labels True and 1 are the same truth value: write both alike"),
        (("TRUE", "False", "FALSE"), "the labels False and FALSE are the same truth value"),
        (("true", "0.0", "false"), "the labels 0.0 and false are the same truth value"),
    ],
)
def test_labels_that_are_not_clear(texts: tuple[str, ...], message: str) -> None:
    with pytest.raises(DataError, match=message):
        infer(*texts)


def test_true_and_false_are_classes() -> None:
    assert infer("True", "False").labels == ("False", "True")
    assert infer("true", "false", "unclear", "2").labels == ("2", "false", "true", "unclear")


def test_truth_values_and_numbers_of_json_are_not_mixed(tmp_path: Path) -> None:
    labels = ("true", "false", "1", "0")
    lines = [f'{{"sentence": "a{index}", "label": {labels[index % 4]}}}' for index in range(40)]
    (tmp_path / "train.jsonl").write_text("\n".join(lines))
    with pytest.raises(DataError, match="the labels True and 1 are the same truth value"):
        data.resolve("mine", tmp_path)


def test_rows_without_a_label_are_left_out_and_counted(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    lines = ["sentence,label", *(f"a{index},{index % 3}" for index in range(99)), "b,-1", "c,-"]
    (tmp_path / "train.csv").write_text("\n".join(lines))
    task = data.resolve("mine", tmp_path)
    assert task.labels == ("0", "1", "2")
    rows = data.load(task, "train", tmp_path)
    assert len(rows) == len(rows.labels) == 99
    assert "train.csv: 2 rows without a label (-1 or -) are left out" in capsys.readouterr().err
    (tmp_path / "train.csv").write_text("sentence,label\na,-1\nb,-1\n")
    with pytest.raises(DataError, match="no row has a label"):
        data.load(task, "train", tmp_path)


def test_minus_one_is_a_number_to_predict(tmp_path: Path) -> None:
    (tmp_path / "train.csv").write_text("sentence,label\na,-1\nb,0.5\n")
    assert data.load(data.resolve("mine", tmp_path), "train", tmp_path).labels.tolist() == [-1.0, 0.5]


@pytest.mark.parametrize(
    ("header", "expected"),
    [
        (["text", "label"], ((0,), 1)),
        (["id", " Sentence ", "LABEL"], ((1,), 2)),
        (["sentence1", "sentence2", "label"], ((0, 1), 2)),
        (["label", "premise", "hypothesis"], ((1, 2), 0)),
        (["question", "sentence", "label"], ((0, 1), 2)),
        (["text", "category"], ((0,), 1)),
        (["body", "label", "label_text"], ((0,), 1)),
        (["text", "label", "score"], ((0,), 1)),
    ],
)
def test_usual_columns(header: list[str], expected: tuple[tuple[int, ...], int]) -> None:
    columns = choose(header, "rows.csv", DataSettings(), None)
    assert (columns.texts, columns.label) == expected


@pytest.mark.parametrize(
    ("header", "settings", "message"),
    [
        (["text", "sentence", "label"], {}, "several columns may be the text .sentence or text.: name it"),
        (["text", "premise", "hypothesis", "label"], {}, "several columns may be the text"),
        (["text", "class", "category"], {}, "several columns may be the label .class, category.: name it"),
        (["text", "label", "label"], {}, "2 columns are called 'label'"),
        (["text", "text", "label"], {}, "2 columns are called 'text'"),
        (["a", "b"], {}, "called label .columns: a, b.: name the columns"),
        (["a", "label"], {}, "column 'sentence' is missing .columns: a, label.. Name the column of the text"),
        (["text", "b"], {}, "column 'label' is missing .columns: text, b.. Name the column of the label"),
        (["text", "label"], {"text_column": "txt"}, "column 'txt' is missing .* Did you mean 'text'"),
        (["text", "label"], {"text_column": "label"}, "the same column would be text and label"),
    ],
)
def test_columns_that_are_not_clear(header: list[str], settings: dict[str, str], message: str) -> None:
    with pytest.raises(DataError, match=message):
        choose(header, "rows.csv", DataSettings.of(**settings), None)


def test_named_columns() -> None:
    settings = DataSettings.of(text_column="q", text_pair_column="a", label_column="Label")
    assert choose(["a", "label", "q", "Label"], "x", settings, None).texts == (2, 0)
    assert choose(["a", "label", "q", "Label"], "x", settings, None).label == 3
    with pytest.raises(
        DataError, match="task 'sst2' has 1 texts per row: expected as many text columns, got 2"
    ):
        choose(["a", "q", "Label"], "x", settings, TASKS["sst2"])
    with pytest.raises(UsageError, match="text_pair_column needs text_column"):
        DataSettings.of(text_pair_column="a")
    with pytest.raises(UsageError, match="expected different columns"):
        DataSettings.of(text_column="a", label_column="a")


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"encoding": "utf-9"}, "unknown encoding 'utf-9'"),
        ({"encoding": "base64"}, "'base64' is not an encoding of text"),
        ({"delimiter": "::"}, "expected comma, semicolon, tab, pipe or one character"),
        ({"split": 1.0}, "split: expected a number > 0 and < 1"),
        ({"split_seed": 1}, "split_seed needs split"),
        ({"quoting": "doubled"}, "unknown quoting 'doubled'. Did you mean 'double'"),
    ],
)
def test_settings_are_checked(settings: dict[str, object], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        DataSettings.of(**settings)


def test_a_source_is_the_same_after_a_manifest() -> None:
    settings = DataSettings.of(split=0.8, delimiter="tab", class_names=("a", "b"), encoding="latin-1")
    source = DataSource("/rows.csv", settings, "0" * 64)
    assert DataSource.from_json(source.to_json()) == source
    assert source.settings.delimiter == "\t"


def test_numbers_of_named_classes_need_a_stated_order(tmp_path: Path) -> None:
    (tmp_path / "train.csv").write_text("sentence,label\na,good\nb,bad\n")
    (tmp_path / "validation.csv").write_text("sentence,label\nc,1\nd,0\n")
    task = data.resolve("mine", tmp_path)
    with pytest.raises(DataError, match="label '1' is a number, but the classes are .*bad.*good"):
        data.load(task, "validation", tmp_path)
    stated = DataSource(str(tmp_path), DataSettings.of(class_names=("good", "bad")))
    task = data.resolve("mine", stated)
    assert task.labels == ("good", "bad")
    assert data.load(task, "validation", stated).labels.tolist() == [1, 0]


def test_minus_one_is_no_score_of_stsb(tmp_path: Path) -> None:
    rows = "sentence1,sentence2,label\na,b,-1.0\nc,d,2.5\n"
    (tmp_path / "validation.csv").write_text(rows)
    read = data.load(TASKS["stsb"], "validation", tmp_path)
    assert read.labels.tolist() == [2.5] and read.texts == [("c", "d")]
    (tmp_path / "validation.csv").write_text(rows.replace("2.5", "-1"))
    with pytest.raises(DataError, match="no row has a label"):
        data.load(TASKS["stsb"], "validation", tmp_path)


def test_numbers_among_names_are_classes() -> None:
    assert infer("1", "2", "other").labels == ("1", "2", "other")
    assert infer("1.5", "NA", "2.25", task_kind="classification").labels == ("1.5", "2.25", "NA")
    assert infer("1,5", "a", "b").labels == ("1,5", "a", "b")
    assert infer("01", "02", "10").labels == ("01", "02", "10")
    assert numbers(infer("01", "02", "10"), "02", "10") == [1, 2]

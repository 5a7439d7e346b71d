"""Predictions written to files, and submission files of GLUE."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import AutoModelForSequenceClassification, AutoTokenizer

from effx import data
from effx.artifacts import Checkpoint
from effx.encoding import Encoder
from effx.errors import DataError, UsageError
from effx.models import evaluate, exits, load, pretrained, save
from effx.specs.data import DataSettings, DataSource
from effx.specs.tasks import TASKS, Task
from effx.specs.training import FinetuneSettings, TrainingSettings
from effx.train import finetune
from effx.train.predict import GLUE_FILES, predict
from tests.cli.test_cli import fails
from tests.conftest import write_rows

TEXTS = ["the film was warm", "the plot was never dull", '"odd" acting , again', "a film"] * 3


def untrained(encoder: Path, folder: Path, task: str) -> Checkpoint:
    torch.manual_seed(0)
    model, tokenizer = pretrained(encoder, TASKS[task])
    for parameter in model.parameters():
        parameter.data += 0.5 * torch.randn_like(parameter)
    return save(model, folder / task, tokenizer=tokenizer, task=TASKS[task], max_length=32)


def expected_classes(checkpoint: Checkpoint, *texts: list[str]) -> list[int]:
    """Return what transformers alone predicts."""
    model = AutoModelForSequenceClassification.from_pretrained(checkpoint.folder).eval()
    tokenizer = AutoTokenizer.from_pretrained(checkpoint.folder)
    classes = []
    for row in zip(*texts, strict=True):
        with torch.inference_mode():
            logits = model(**tokenizer(*row, truncation=True, max_length=32, return_tensors="pt")).logits
        classes.append(int(logits.argmax()))
    return classes


def read(path: Path, delimiter: str = ",") -> list[list[str]]:
    with path.open(newline="") as file:
        return list(csv.reader(file, delimiter=delimiter))


def test_each_row_has_the_prediction_of_transformers(encoders: dict[str, Path], tmp_path: Path) -> None:
    checkpoint = untrained(encoders["bert"], tmp_path, "sst2")
    labels = [0, 1] * 6
    rows: list[dict[str, object]] = [
        {"sentence": text, "label": label} for text, label in zip(TEXTS, labels, strict=True)
    ]
    write_rows(tmp_path / "data/test.jsonl", rows)
    predicted = predict(checkpoint.folder, out=tmp_path / "p.csv", data_folder=tmp_path / "data")
    classes = expected_classes(checkpoint, TEXTS)
    assert 0 < sum(classes) < len(classes)
    names = [("negative", "positive")[number] for number in classes]
    assert read(tmp_path / "p.csv") == [["index", "prediction"], *([str(i), n] for i, n in enumerate(names))]
    right = np.mean(np.array(classes) == labels)
    assert (predicted.rows, predicted.scores) == (12, {"accuracy": pytest.approx(right)})
    with pytest.raises(UsageError, match="exists: choose another file, or overwrite it"):
        predict(checkpoint.folder, out=tmp_path / "p.csv", data_folder=tmp_path / "data")
    predict(checkpoint.folder, out=tmp_path / "p.jsonl", data_folder=tmp_path / "data/test.jsonl")
    lines = [json.loads(line) for line in (tmp_path / "p.jsonl").read_text().splitlines()]
    assert lines == [{"index": i, "prediction": name} for i, name in enumerate(names)]


def test_rows_without_labels_keep_their_place(encoders: dict[str, Path], tmp_path: Path) -> None:
    checkpoint = untrained(encoders["bert"], tmp_path, "sst2")
    text = "sentence,label\n" + "".join(
        f'"{row.replace(chr(34), chr(34) * 2)}",{-1 if i % 3 else 1}\n' for i, row in enumerate(TEXTS)
    )
    (tmp_path / "rows.csv").write_text(text)
    predicted = predict(checkpoint.folder, out=tmp_path / "p.tsv", data_folder=tmp_path / "rows.csv")
    assert (predicted.rows, predicted.scores) == (12, None)
    names = [("negative", "positive")[number] for number in expected_classes(checkpoint, TEXTS)]
    assert [row[1] for row in read(tmp_path / "p.tsv", "\t")[1:]] == names


@pytest.mark.parametrize("task", ["sst2", "cola", "mrpc", "rte", "mnli", "stsb", "qqp", "qnli"])
def test_glue_files(task: str, encoders: dict[str, Path], tmp_path: Path) -> None:
    """Test rows as gluebenchmark.com has them: tabs, no quoting, no labels."""
    checkpoint = untrained(encoders["bert"], tmp_path, task)
    headers = {
        "sst2": "index sentence", "cola": "index sentence", "rte": "index sentence1 sentence2",
        "mrpc": "index,#1 ID,#2 ID,#1 String,#2 String", "qnli": "index question sentence",
        "qqp": "id question1 question2", "mnli": "index promptID sentence1 sentence2",
        "stsb": "index genre filename sentence1 sentence2",
    }  # fmt: skip
    header = headers[task].split("," if "," in headers[task] else None)
    pair = len(TASKS[task].columns) == 2
    others = TEXTS[1:] + TEXTS[:1]
    lines = ["\t".join(header)]
    for index, (first, second) in enumerate(zip(TEXTS, others, strict=True)):
        texts = [first, second] if pair else [first]
        lines.append("\t".join([str(index), *["x"] * (len(header) - 1 - len(texts)), *texts]))
    (tmp_path / "data").mkdir()
    (tmp_path / "data/test.tsv").write_text("\n".join(lines) + "\n")
    out = tmp_path / "submission"
    predicted = predict(checkpoint.folder, out=out, data_folder=tmp_path / "data", glue=True)
    assert predicted.path == out / GLUE_FILES[task] and predicted.scores is None
    written = read(predicted.path, "\t")
    assert written[0] == ["index", "prediction"]
    assert [int(index) for index, _ in written[1:]] == list(range(12))
    if task == "stsb":
        assert all(0 <= float(value) <= 5 for _, value in written[1:])
        return
    classes = expected_classes(checkpoint, TEXTS, others) if pair else expected_classes(checkpoint, TEXTS)
    as_numbers = task in ("sst2", "cola", "mrpc", "qqp")
    assert [value for _, value in written[1:]] == [
        str(number) if as_numbers else TASKS[task].labels[number] for number in classes
    ]


def test_mismatched_rows_are_a_second_validation_set(encoders: dict[str, Path], tmp_path: Path) -> None:
    checkpoint = untrained(encoders["bert"], tmp_path, "mnli")
    for split, shift in (("validation_matched", 0), ("validation_mismatched", 1), ("test_mismatched", 2)):
        rows: list[dict[str, object]] = [
            {"premise": text, "hypothesis": "a film", "label": (number + shift) % 3}
            for number, text in enumerate(TEXTS)
        ]
        write_rows(tmp_path / f"data/{split}.jsonl", rows)
    classes = np.array(expected_classes(checkpoint, TEXTS, ["a film"] * 12))
    for split, shift in (("validation", 0), ("validation_mismatched", 1)):
        predicted = predict(
            checkpoint.folder, out=tmp_path / f"{split}.csv", data_folder=tmp_path / "data", split=split
        )
        right = np.mean(classes == (np.arange(12) + shift) % 3)
        assert predicted.scores == {"accuracy": pytest.approx(right)}
    mismatched = predict(
        checkpoint.folder, out=tmp_path, data_folder=tmp_path / "data", split="test_mismatched", glue=True
    )
    assert mismatched.path.name == "MNLI-mm.tsv"
    with pytest.raises(DataError, match="has no file for test: expected test.csv"):
        predict(checkpoint.folder, out=tmp_path / "t.csv", data_folder=tmp_path / "data")


def test_exits_and_token_pruning_run_as_calibrated(
    reduced_checkpoint: Checkpoint, rows_folder: Path, tmp_path: Path
) -> None:
    predict(reduced_checkpoint.folder, out=tmp_path / "p.jsonl", data_folder=rows_folder, split="validation")
    lines = [json.loads(line) for line in (tmp_path / "p.jsonl").read_text().splitlines()]
    rows = (rows_folder / "validation.jsonl").read_text().splitlines()
    texts = [(json.loads(row)["sentence"],) for row in rows]
    model, rule = load(reduced_checkpoint), exits.rule_of(reduced_checkpoint)
    encoded = Encoder(reduced_checkpoint.folder, reduced_checkpoint.max_length)(texts)
    logits, _, _ = evaluate.reduced(model, encoded, rule=rule)
    labels = reduced_checkpoint.task.labels
    assert [line["prediction"] for line in lines] == [labels[n] for n in logits.argmax(axis=1)]


def test_mistakes_are_told_before_anything_is_predicted(
    encoders: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    checkpoint = untrained(encoders["bert"], tmp_path, "snli")
    (tmp_path / "train.csv").write_text("premise,hypothesis,label\na,b,0\n")
    for options, message in (
        (["-o", "p.xlsx"], "p.xlsx: unknown format; known: .csv, .tsv, .jsonl."),
        (["-o", "p", "--glue"], "task 'snli' is not one of GLUE"),
        (["-o", "p.csv", "--data", str(tmp_path)], "has no file for test"),
        (["-o", "p.csv", "--split", "tst"], "'tst' is not one of"),
    ):
        assert message in fails(capsys, ["train", "predict", str(checkpoint.folder), *options])
    assert not list(tmp_path.glob("p*"))


def test_rows_that_training_divided_are_divided_again(encoders: dict[str, Path], tmp_path: Path) -> None:
    write_rows(
        tmp_path / "mine.jsonl",
        [{"sentence": f"{text} {n}", "label": n % 2} for n, text in enumerate(TEXTS * 4)],
    )
    divided = DataSource(str(tmp_path / "mine.jsonl"), DataSettings.of(split=0.75))
    settings = FinetuneSettings(max_length=32, training=TrainingSettings(max_steps=1))
    checkpoint = finetune(
        "mine", encoders["bert"], data_folder=divided, out=tmp_path / "ck", settings=settings
    )
    held_out = predict(checkpoint.folder, out=tmp_path / "v.csv", split="validation")
    assert held_out.rows == 12
    assert held_out.scores is not None and held_out.scores == pytest.approx(dict(checkpoint.manifest.metrics))
    assert predict(checkpoint.folder, out=tmp_path / "t.csv", split="train").rows == 36
    with pytest.raises(UsageError, match="divided into train and validation rows, without test rows"):
        predict(checkpoint.folder, out=tmp_path / "x.csv")
    named = predict(checkpoint.folder, out=tmp_path / "all.csv", data_folder=tmp_path / "mine.jsonl")
    assert named.rows == 48


def test_predictions_are_written_unchanged(encoders: dict[str, Path], tmp_path: Path) -> None:
    torch.manual_seed(0)
    model, tokenizer = pretrained(encoders["bert"], TASKS["sst2"])
    for labels, refused in ((("-1", "1"), False), (("@a", "@b"), True)):
        task = Task("signs", "classification", ("sentence",), labels, ("accuracy",))
        checkpoint = save(model, tmp_path / labels[0][-1], tokenizer=tokenizer, task=task, max_length=32)
        write_rows(tmp_path / "rows.jsonl", [{"sentence": text} for text in TEXTS])
        written = []
        for suffix in ("jsonl", "csv", "tsv"):
            out = tmp_path / f"{labels[0][-1]}.{suffix}"
            if refused and suffix != "jsonl":
                with pytest.raises(UsageError, match="would be a formula in a spreadsheet: write a .jsonl"):
                    predict(checkpoint.folder, out=out, data_folder=tmp_path / "rows.jsonl")
                assert not out.exists()
                continue
            predict(checkpoint.folder, out=out, data_folder=tmp_path / "rows.jsonl")
            lines = out.read_text().splitlines()
            if suffix == "jsonl":
                written.append([json.loads(line)["prediction"] for line in lines])
            else:
                written.append([line[1] for line in read(out, "," if suffix == "csv" else "\t")[1:]])
        assert all(predictions == written[0] for predictions in written)
        assert set(written[0]) <= set(labels)


def test_rows_of_stsb_without_a_label_are_not_scored(
    encoders: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    checkpoint = untrained(encoders["bert"], tmp_path, "stsb")
    rows: list[dict[str, object]] = [{"sentence1": text, "sentence2": "b", "label": -1.0} for text in TEXTS]
    write_rows(tmp_path / "data/test.jsonl", rows)
    predicted = predict(checkpoint.folder, out=tmp_path / "p.csv", data_folder=tmp_path / "data")
    assert predicted.rows == len(TEXTS) and predicted.scores is None
    assert "not scored" in capsys.readouterr().err


def test_submissions_are_of_test_rows(encoders: dict[str, Path], tmp_path: Path) -> None:
    checkpoint = untrained(encoders["bert"], tmp_path, "rte")
    for numbers in ([0, 2, 1], [0, 1, 3], [1, 2, 3]):
        lines = [f"{number}\ta\tb" for number in numbers]
        (tmp_path / "data").mkdir(exist_ok=True)
        (tmp_path / "data/test.tsv").write_text("\n".join(["index\tsentence1\tsentence2", *lines]) + "\n")
        with pytest.raises(DataError, match="has the index .*needs all test rows in their published order"):
            predict(checkpoint.folder, out=tmp_path / "out", data_folder=tmp_path / "data", glue=True)
        assert not (tmp_path / "out").exists()
    with pytest.raises(UsageError, match="split validation: GLUE takes predictions of test rows"):
        predict(checkpoint.folder, out=tmp_path, split="validation", glue=True)


OF_KINDS: dict[str, list[dict[str, object]]] = {
    "multi-label": [{"text": text, "labels": ["a", "b"][: n % 3]} for n, text in enumerate(TEXTS)],
    "token-classification": [
        {"tokens": text.split(), "tags": ["B-x", *["O"] * (len(text.split()) - 1)]} for text in TEXTS
    ],
    "answer-span": [
        {"question": "who?", "context": text, "answers": {"text": [text.split()[0]], "answer_start": [0]}}
        for text in TEXTS
    ],
    "ranking": [
        {"query": f"query {n // 3}", "passage": f"{n} {text}", "label": n % 3} for n, text in enumerate(TEXTS)
    ],
    "embedding": [{"sentence1": text, "sentence2": "a film", "label": n} for n, text in enumerate(TEXTS)],
}


@pytest.mark.parametrize("kind", OF_KINDS)
def test_predictions_of_every_kind_have_names_and_scores(
    kind: str, encoders: dict[str, Path], tmp_path: Path
) -> None:
    for split in ("train", "validation", "test"):
        write_rows(tmp_path / f"data/{split}.jsonl", OF_KINDS[kind])
    source = DataSource(str(tmp_path / "data"), DataSettings(task_kind=kind))
    task = data.resolve("things", source)
    torch.manual_seed(0)
    model, tokenizer = pretrained(encoders["bert"], task)
    for parameter in model.parameters():
        parameter.data += 0.5 * torch.randn_like(parameter)
    saved = save(model, tmp_path / "c", tokenizer=tokenizer, task=task, max_length=32)
    done = predict(saved.folder, out=tmp_path / "p.jsonl", data_folder=source)
    rows = data.load(task, "test", source)
    encoded = Encoder(saved.folder, 32, form=task.behavior.form)(rows.texts)
    expected = evaluate.predictions(load(saved), encoded, task)
    assert done.rows == len(rows) and done.scores == pytest.approx(task.score(rows.labels, expected))
    lines = [json.loads(line)["prediction"] for line in (tmp_path / "p.jsonl").read_text().splitlines()]
    if task.labels:
        named = [[task.labels.index(name) for name in line] for line in lines]
        np.testing.assert_array_equal(task.behavior.restore(named, task.labels), expected)
        assert any(lines)
    elif kind == "answer-span":
        assert lines == expected.tolist()
    else:
        np.testing.assert_allclose(np.concatenate([np.ravel(line) for line in lines]),
                                   np.concatenate([np.ravel(row) for row in expected]))  # fmt: skip

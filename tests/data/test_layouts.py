from __future__ import annotations

import gzip
import json
import shutil
from pathlib import Path

import pyarrow
import pyarrow.parquet
import pytest

from effx import data
from effx.errors import DataError, UsageError
from effx.specs.data import DataSettings, DataSource
from effx.specs.tasks import TASKS
from tests.conftest import write_rows

SST2 = TASKS["sst2"]
ROWS = [{"sentence": f"text {index}", "label": index % 2} for index in range(20)]


def parquet(path: Path, rows: list[dict[str, object]], names: list[str] | None = None) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    table = pyarrow.Table.from_pylist(rows)
    if names:
        features = {"label": {"names": names, "_type": "ClassLabel"}}
        table = table.replace_schema_metadata({"huggingface": json.dumps({"info": {"features": features}})})
    pyarrow.parquet.write_table(table, path)


def source(path: Path, **settings: object) -> DataSource:
    return DataSource(str(path), DataSettings.of(**settings))


@pytest.mark.parametrize("folder", ["", "sst2", "data", "sst2/data"])
def test_shards_of_the_hub_are_read_in_order(tmp_path: Path, folder: str) -> None:
    for number in range(3):
        parquet(tmp_path / folder / f"train-{number:05d}-of-00003.parquet", ROWS[number * 5 : number * 5 + 5])
    rows = data.load(SST2, "train", tmp_path)
    assert rows.texts == [(row["sentence"],) for row in ROWS[:15]]
    (tmp_path / folder / "train-00001-of-00003.parquet").unlink()
    with pytest.raises(DataError, match="1 of 3 shards are missing, e.g. number 00001"):
        data.load(SST2, "train", tmp_path)


def test_older_names_of_shards_end_in_a_fingerprint(tmp_path: Path) -> None:
    marks = ("a09b74b3ef9c3b56", "0123456789abcdef")
    for number, mark in enumerate(marks):
        name = f"train-{number:05d}-of-00002-{mark}.parquet"
        parquet(tmp_path / "data" / name, ROWS[number * 5 : number * 5 + 5])
    parquet(tmp_path / "data/validation-00000-of-00001-a09b74b3ef9c3b56.parquet", ROWS[10:])
    assert data.load(SST2, "train", tmp_path).texts == [(row["sentence"],) for row in ROWS[:10]]
    assert data.load(SST2, "validation", tmp_path).texts == [(row["sentence"],) for row in ROWS[10:]]
    parquet(tmp_path / "data" / f"train-00000-of-00002-{marks[1]}.parquet", ROWS[:5])
    with pytest.raises(DataError, match="duplicate shards"):
        data.load(SST2, "train", tmp_path)
    (tmp_path / "data" / f"train-00001-of-00002-{marks[1]}.parquet").unlink()
    with pytest.raises(DataError, match="1 of 2 shards are missing"):
        data.load(SST2, "train", tmp_path)


@pytest.mark.parametrize("task", ["squad", "my-questions"])
def test_a_version_in_the_name_is_no_part_of_the_split(task: str, tmp_path: Path) -> None:
    answer = {"id": "1", "question": "who?", "answers": [{"text": "Ann", "answer_start": 0}]}
    articles = {"data": [{"title": "", "paragraphs": [{"context": "Ann wrote it.", "qas": [answer]}]}]}
    for name in ("train-v1.1.json", "dev-v1.1.json"):
        (tmp_path / name).write_text(json.dumps(articles), encoding="utf-8")
    found = data.resolve(task, source(tmp_path, task_kind="answer-span"))
    assert found.kind == "answer-span"
    assert data.load(found, "validation", tmp_path).file == f"{tmp_path.name}/dev-v1.1.json"
    (tmp_path / "dev-v2.0.json").write_text(json.dumps(articles), encoding="utf-8")
    with pytest.raises(DataError, match=r"several files may be the same rows: dev-v1.1.json, dev-v2.0.json"):
        data.load(found, "validation", tmp_path)


def test_a_word_after_the_version_is_no_part_of_the_split(tmp_path: Path) -> None:
    write_rows(tmp_path / "train-v1.1-small.jsonl", ROWS)
    write_rows(tmp_path / "dev-v1.1-small.jsonl", ROWS[:4])
    assert len(data.load(SST2, "train", tmp_path)) == 20
    assert len(data.load(SST2, "validation", tmp_path)) == 4
    write_rows(tmp_path / "dev-v1.1.jsonl", ROWS[:6])  # a name without a word comes first
    assert len(data.load(SST2, "validation", tmp_path)) == 6
    (tmp_path / "dev-v1.1.jsonl").unlink()
    write_rows(tmp_path / "dev-v1.1-large.jsonl", ROWS)
    with pytest.raises(DataError, match="several files may be the same rows"):
        data.load(SST2, "validation", tmp_path)


def test_a_version_before_the_split_is_a_part_of_the_name(tmp_path: Path) -> None:
    for split in ("train", "dev"):
        write_rows(tmp_path / f"reviews_v2_{split}.jsonl", ROWS)
    write_rows(tmp_path / "train-v2-test.jsonl", ROWS[:2])
    assert len(data.load(SST2, "train", tmp_path)) == len(data.load(SST2, "validation", tmp_path)) == 20


def test_a_folder_per_split(tmp_path: Path) -> None:
    parquet(tmp_path / "train/0000.parquet", ROWS[:5])
    parquet(tmp_path / "train/0001.parquet", ROWS[5:10])
    parquet(tmp_path / "validation/0000.parquet", ROWS[10:])
    assert [len(data.load(SST2, split, tmp_path)) for split in ("train", "validation")] == [10, 10]


def test_names_of_class_numbers_decide_their_order(tmp_path: Path) -> None:
    parquet(tmp_path / "train.parquet", ROWS, ["Positive", "Negative"])
    assert data.load(SST2, "train", tmp_path).labels.tolist() == [1 - row["label"] for row in ROWS]
    assert data.resolve("mine", tmp_path).labels == ("Positive", "Negative")
    as_numbers = data.resolve("mine", source(tmp_path, task_kind="regression"))
    assert (as_numbers.kind, as_numbers.labels) == ("regression", ())
    assert data.load(as_numbers, "train", tmp_path).labels.tolist() == [row["label"] for row in ROWS]
    parquet(tmp_path / "train.parquet", ROWS, ["no", "yes"])
    with pytest.raises(DataError, match="the classes are 0=no, 1=yes; expected 0=negative, 1=positive"):
        data.load(SST2, "train", tmp_path)


@pytest.mark.parametrize("names", [["1", "0"], ["1", "2", "3", "4", "5"], ["b", "a"]])
def test_numbers_of_named_classes_are_positions_though_names_are_numbers(
    names: list[str], tmp_path: Path
) -> None:
    rows = [{"sentence": f"text {n}", "label": n % len(names)} for n in range(20)]
    for split in ("train", "validation"):
        parquet(tmp_path / f"{split}.parquet", rows, names)
    task = data.resolve("mine", tmp_path)
    assert task.labels == tuple(names)
    assert data.load(task, "validation", tmp_path).labels.tolist() == [row["label"] for row in rows]


def test_another_kind_than_that_of_the_task_is_refused(tmp_path: Path) -> None:
    write_rows(tmp_path / "validation.jsonl", ROWS)
    with pytest.raises(UsageError, match="task 'sst2' is classification, not regression: leave the kind out"):
        data.load(SST2, "validation", source(tmp_path, task_kind="regression"))


def test_the_hubs_names_of_columns_are_known(tmp_path: Path) -> None:
    write_rows(tmp_path / "train.jsonl", [{"question": "a", "sentence": "b", "label": 0, "idx": 0}])
    assert data.load(TASKS["qnli"], "train", tmp_path).texts == [("a", "b")]
    write_rows(
        tmp_path / "train.jsonl", [{"premise": "a", "hypothesis": "b", "label": label} for label in (0, -1)]
    )
    rows = data.load(TASKS["snli"], "train", tmp_path)
    assert rows.texts == [("a", "b")]
    assert rows.origin is not None and rows.origin.notes == ("1 rows without a label (-1 or -) are left out",)


GLUE = {
    "cola": (["gj04", "1", "", "He said \"no\""], ["gj04", "0", "*", "a"], None),
    "mrpc": (["1", "1", "2", '"Yes" he said', "b"], ["0", "1", "2", '"a', 'b"'],
             ["\ufeffQuality", "#1 ID", "#2 ID", "#1 String", "#2 String"]),
    "qqp": (["0", "1", "2", '"a"', "b", "1"], ["1", "1", "2", "a", "b", "0"],
            ["id", "qid1", "qid2", "question1", "question2", "is_duplicate"]),
    "stsb": (["0", "g", "f", "y", "0", "s", "s", '"a"', "b", "5.000"],
             ["1", "g", "f", "y", "1", "s", "s", "a", "b", "3"],
             ["index", "genre", "filename", "year", "old_index", "source1", "source2", "sentence1",
              "sentence2", "score"]),
    "mnli": (["0", "1", "1", "g", "(", "(", "(", "(", '"a"', "b", "neutral", "entailment"],
             ["0", "1", "1", "g", "(", "(", "(", "(", "a", "b", "neutral", "-"],
             ["index", "promptID", "pairID", "genre", "sentence1_binary_parse", "sentence2_binary_parse",
              "sentence1_parse", "sentence2_parse", "sentence1", "sentence2", "label1", "gold_label"]),
    "qnli": (["0", '"a"', "b", "entailment"], ["1", "a", "b", "not_entailment"],
             ["index", "question", "sentence", "label"]),
    "rte": (["0", '"a"', "b", "entailment"], ["1", "a", "b", "not_entailment"],
            ["index", "sentence1", "sentence2", "label"]),
    "sst2": (['a "b" c', "1"], ["d", "0"], ["sentence", "label"]),
}  # fmt: skip


@pytest.mark.parametrize("task", GLUE)
def test_the_files_of_glue(task: str, tmp_path: Path) -> None:
    """A quote is a character of the text; it does not enclose it."""
    first, second, header = GLUE[task]
    name = "dev_matched.tsv" if task == "mnli" else "dev.tsv"
    lines = [header] if header else []
    (tmp_path / name).write_text("\n".join("\t".join(line) for line in [*lines, first, second]) + "\n")
    (tmp_path / "dev_mismatched.tsv").write_text("not read")
    rows = data.load(TASKS[task], "validation", tmp_path)
    texts = {"cola": ('He said "no"',), "mrpc": ('"Yes" he said', "b"), "sst2": ('a "b" c',)}
    assert rows.texts[0] == texts.get(task, ('"a"', "b"))
    assert len(rows) == (1 if task == "mnli" else 2)


def test_broken_rows_of_qqp_are_left_out_and_counted(tmp_path: Path) -> None:
    header = GLUE["qqp"][2]
    assert header is not None
    lines = [header, *(["0", "1", "2", f"a{index}", "b", "1"] for index in range(300))]
    lines[7] = ["0", "1", "2", "a", "b\tc", "1"]
    lines[9] = ["0", "1", "2", "a"]
    (tmp_path / "train.tsv").write_text("\n".join("\t".join(line) for line in lines) + "\n")
    rows = data.load(TASKS["qqp"], "train", tmp_path)
    assert len(rows) == 298 and rows.origin is not None
    assert rows.origin.notes == ("2 rows with a wrong number of fields are left out",)
    for index in range(10, 60):
        lines[index] = ["0"]
    (tmp_path / "train.tsv").write_text("\n".join("\t".join(line) for line in lines) + "\n")
    with pytest.raises(DataError, match="52 of 301 rows do not have 6 fields"):
        data.load(TASKS["qqp"], "train", tmp_path)


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (["train.csv", "train.jsonl"], "several files may be the train rows: train.csv, train.jsonl"),
        (["train.jsonl", "train.jsonl.gz"], "several files may be the same rows"),
        (["a_train.csv", "b_train.csv"], "several files may be the train rows"),
        (["train-00000-of-00002.csv", "train-00000-of-00001.csv"], "shards of different sets"),
    ],
)
def test_it_has_to_be_clear_which_file_is_read(tmp_path: Path, names: list[str], message: str) -> None:
    for name in names:
        (tmp_path / name).write_text("sentence,label\na,1\n")
    with pytest.raises(DataError, match=message):
        data.load(SST2, "train", tmp_path)


def test_one_file_is_divided(tmp_path: Path) -> None:
    path = tmp_path / "reviews.jsonl"
    write_rows(path, ROWS)
    for location in (path, tmp_path):
        with pytest.raises(UsageError, match="set split to the share to train on, e.g. 0.8"):
            data.load(SST2, "train", location)
        train = data.load(SST2, "train", source(location, split=0.7))
        validation = data.load(SST2, "validation", source(location, split=0.7))
        assert (len(train), len(validation)) == (14, 6)
        assert sorted(train.texts + validation.texts) == sorted((row["sentence"],) for row in ROWS)
        other = data.load(SST2, "train", source(location, split=0.7, split_seed=1))
        assert other.texts != train.texts
    assert len(data.load(SST2, "validation", path)) == 20  # a file to score on


def test_training_rows_are_divided_where_there_are_no_validation_rows(tmp_path: Path) -> None:
    write_rows(tmp_path / "train.jsonl", ROWS)
    write_rows(tmp_path / "test.jsonl", ROWS[:3])
    with pytest.raises(UsageError, match="has no validation rows: set split"):
        data.load(SST2, "validation", tmp_path)
    assert len(data.load(SST2, "train", source(tmp_path, split=0.5))) == 10
    assert len(data.load(SST2, "validation", source(tmp_path, split=0.5))) == 10
    write_rows(tmp_path / "dev.jsonl", ROWS[:3])
    with pytest.raises(UsageError, match="files of both train and validation rows: leave split out"):
        data.load(SST2, "train", source(tmp_path, split=0.5))


def test_another_file_is_not_divided_for_a_checkpoint(tmp_path: Path) -> None:
    """A row added would move training rows among the validation rows."""
    path = tmp_path / "reviews.jsonl"
    write_rows(path, ROWS)
    recorded = data.recorded(SST2, source(path, split=0.5))
    before = data.load(SST2, "validation", data.locate(None, SST2, recorded))
    assert len(before) == 10
    write_rows(tmp_path / "moved.jsonl", ROWS)
    moved = data.locate(tmp_path / "moved.jsonl", SST2, recorded)
    assert data.load(SST2, "validation", moved).texts == before.texts
    write_rows(path, [*ROWS, {"sentence": "new", "label": 1}])
    with pytest.raises(DataError, match="has changed since the checkpoint was trained"):
        data.load(SST2, "validation", data.locate(None, SST2, recorded))
    write_rows(tmp_path / "folder/validation.jsonl", ROWS[:7])
    assert len(data.load(SST2, "validation", data.locate(tmp_path / "folder", SST2, recorded))) == 7


def test_a_separate_file_needs_a_folder(tmp_path: Path) -> None:
    """It could be the divided one with another name or a further row, which has the training rows."""
    write_rows(tmp_path / "reviews.jsonl", ROWS)
    write_rows(tmp_path / "holdout.jsonl", [{"sentence": f"unseen {n}", "label": n % 2} for n in range(12)])
    recorded = data.recorded(SST2, source(tmp_path / "reviews.jsonl", split=0.5))
    with pytest.raises(
        DataError, match="holdout.jsonl is not reviews.jsonl, .* a folder as validation.jsonl"
    ):
        data.locate(tmp_path / "holdout.jsonl", SST2, recorded)
    (tmp_path / "reviews.jsonl.gz").write_bytes(gzip.compress((tmp_path / "reviews.jsonl").read_bytes()))
    with pytest.raises(DataError, match="training rows could be among its rows"):
        data.locate(tmp_path / "reviews.jsonl.gz", SST2, recorded)
    (tmp_path / "holdout").mkdir()
    (tmp_path / "holdout.jsonl").rename(tmp_path / "holdout" / "validation.jsonl")
    separate = data.locate(tmp_path / "holdout", SST2, recorded)
    assert len(data.load_to_measure(SST2, separate)) == 12
    # what an engine that was built with them records does not divide them either
    again = data.locate(None, SST2, data.recorded(SST2, separate))
    assert len(data.load_to_measure(SST2, again)) == 12
    # a file of the same name is the one that was trained on
    write_rows(tmp_path / "other/reviews.jsonl", [*ROWS, {"sentence": "new", "label": 1}])
    changed = data.locate(tmp_path / "other/reviews.jsonl", SST2, recorded)
    with pytest.raises(DataError, match="has changed since the checkpoint was trained"):
        data.load_to_measure(SST2, changed)


def test_settings_of_a_checkpoint_hold_for_other_files(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("body;kind\nfine;1\n")
    shutil.copyfile(tmp_path / "a.csv", tmp_path / "b.csv")
    recorded = data.recorded(SST2, source(tmp_path / "b.csv", text_column="body", label_column="kind"))
    moved = data.locate(tmp_path / "a.csv", SST2, recorded)
    assert data.load(SST2, "validation", moved).texts == [("fine",)]


def test_everything_that_is_missing_is_named_at_once(tmp_path: Path) -> None:
    (tmp_path / "tickets.csv").write_bytes("Nr;Anfrage;Art\n1;Gr\u00fc\u00dfe;a\n2;x;b\n".encode("latin-1"))
    with pytest.raises(DataError) as caught:
        data.resolve("tickets", tmp_path / "tickets.csv")
    assert caught.value.settings == ("split", "encoding", "text_column", "label_column")
    assert "line 2: not text in UTF-8: set encoding to latin-1" in str(caught.value)
    assert "(columns: Nr, Anfrage, Art): name the columns of text and label" in str(caught.value)
    given = {"split": 0.5, "encoding": "latin-1", "text_column": "Anfrage", "label_column": "Art"}
    assert data.resolve("tickets", source(tmp_path / "tickets.csv", **given)).labels == ("a", "b")


def test_what_save_to_disk_writes_is_read(tmp_path: Path) -> None:
    table = pyarrow.Table.from_pylist(ROWS)
    (tmp_path / "train").mkdir()
    (tmp_path / "train/state.json").write_text("{}")
    (tmp_path / "train/dataset_info.json").write_text("{}")
    with (
        pyarrow.OSFile(str(tmp_path / "train/data-00000-of-00001.arrow"), "wb") as file,
        pyarrow.ipc.new_stream(file, table.schema) as writer,
    ):
        writer.write_table(table)
    assert len(data.load(SST2, "train", tmp_path)) == 20


def test_a_users_tsv_of_a_glue_task_is_read_with_its_quotes(tmp_path: Path) -> None:
    """As pandas writes it, with an index column without a name."""
    text = 'he said "hi" there'
    quoted = '"he said ""hi"" there"'
    for split in ("train", "validation"):
        header = "\tsentence1\tsentence2\tlabel\n"
        (tmp_path / f"{split}.tsv").write_text(f"{header}0\t{quoted}\tb\tentailment\n")
    with pytest.raises(DataError, match="quotes may enclose the text or be part of it: set quoting"):
        data.load(TASKS["rte"], "train", tmp_path)
    double = source(tmp_path, quoting="double")
    assert data.load(TASKS["rte"], "train", double).texts == [(text, "b")]
    published = f"index\tsentence1\tsentence2\tlabel\n0\t{quoted}\tb\tentailment\n"
    (tmp_path / "train.tsv").write_text(published)
    assert data.load(TASKS["rte"], "train", tmp_path).texts == [(quoted, "b")]


def test_rows_without_labels_are_only_the_split_that_their_file_is(tmp_path: Path) -> None:
    named = source(tmp_path, unlabelled=True)
    write_rows(tmp_path / "validation.jsonl", [{"sentence": "a"}])
    assert len(data.load_to_measure(SST2, named)) == 1
    with pytest.raises(DataError, match="no training rows"):
        data.load_to_measure(SST2, named, "train")
    (tmp_path / "validation.jsonl").rename(tmp_path / "train.jsonl")
    with pytest.raises(DataError, match="training rows, and no validation rows"):
        data.load_to_measure(SST2, named)
    alone = source(tmp_path / "train.jsonl", unlabelled=True)
    assert len(data.load_to_measure(SST2, alone)) == 1
    with pytest.raises(DataError, match="no training rows"):
        data.load_to_measure(SST2, alone, "train")

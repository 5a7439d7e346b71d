from __future__ import annotations

import gzip
import hashlib
import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from effx import corpus, data
from effx.data import tables
from effx.errors import DataError, UsageError
from effx.specs.data import DataSettings, DataSource
from effx.specs.tasks import TASKS, Task
from tests.conftest import SHARED_DATA, write_rows

SST2 = TASKS["sst2"]


def test_every_format_gives_the_same_rows(tmp_path: Path) -> None:
    import pyarrow
    import pyarrow.parquet

    rows = [{"sentence": 'a "quoted" film', "label": 1}, {"sentence": "dull", "label": 0}]
    write_rows(tmp_path / "a/train.jsonl", rows)
    (tmp_path / "b").mkdir()
    with gzip.open(tmp_path / "b/train.jsonl.gz", "wt") as file:
        file.write("\n".join(map(json.dumps, rows)))
    (tmp_path / "c").mkdir()
    (tmp_path / "c/train.csv").write_text('sentence,label\n"a ""quoted"" film",positive\ndull,negative\n')
    (tmp_path / "d").mkdir()
    (tmp_path / "d/train.tsv").write_text('sentence\tlabel\na "quoted" film\t1\ndull\t0\n')
    (tmp_path / "e").mkdir()
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), tmp_path / "e/train.parquet")
    for name in "abcde":
        rows_read = data.load(SST2, "train", tmp_path / name)
        assert rows_read.texts == [('a "quoted" film',), ("dull",)], name
        assert rows_read.labels.tolist() == [1, 0]


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"sentence": "x", "label": 2}, "row 2: label '2' is not one of 0=negative, 1=positive"),
        ({"sentence": "x", "label": -2}, "label '-2' is not one of"),
        (
            {"sentence": "x", "label": [0, 1]},
            "row 2: the label is a list, .0, 1., but",
        ),
        ({"sentence": "x", "label": {"name": 1}}, "row 2: the label is an object"),
        ({"sentence": "x", "label": "[0, 1]"}, "row 2: the label is written like a list"),
        ({"sentence": "x", "label": "positiv"}, "Did you mean 'positive'"),
        ({"sentence": "x"}, "column 'label' is missing"),
        ({"sentenc": "x", "label": 1}, "column 'sentence' is missing .columns: label, sentenc"),
        ({"sentence": 3, "label": 1}, "expected text, got int"),
        ({"sentence": "x", "label": None}, "row 2: the label is empty"),
        ({"sentence": "x", "label": " "}, "row 2: the label is empty"),
        ({"sentence": "x", "label": float("nan")}, "row 2: the label is empty"),
    ],
)
def test_errors_name_the_bad_row(tmp_path: Path, row: dict[str, object], message: str) -> None:
    write_rows(tmp_path / "train.jsonl", [{"sentence": "ok", "label": 0}, row])
    with pytest.raises(DataError, match=message):
        data.load(SST2, "train", tmp_path)


def test_errors_name_the_broken_file(tmp_path: Path) -> None:
    (tmp_path / "train.jsonl").write_text('{"sentence": "x", "label": 1}\n{"sentence"\n')
    with pytest.raises(DataError, match="line 2: not JSON"):
        data.load(SST2, "train", tmp_path)
    (tmp_path / "validation.jsonl.gz").write_bytes(gzip.compress(b'{"sentence": "x"}')[:12])
    with pytest.raises(DataError, match="cannot be read"):
        data.load(SST2, "validation", tmp_path)
    with pytest.raises(DataError, match="nowhere does not exist: expected a file or a folder"):
        data.load(SST2, "train", tmp_path / "nowhere")
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match="has no file for train: expected train.csv"):
        data.load(SST2, "train", tmp_path / "empty")


def test_a_task_is_inferred_from_its_files(tmp_path: Path) -> None:
    write_rows(tmp_path / "n/train.jsonl", [{"text": "a", "label": "spam"}, {"text": "b", "label": "ham"}])
    task = data.resolve("mail", tmp_path / "n")
    assert (task.kind, task.labels, task.columns) == ("classification", ("ham", "spam"), ("sentence",))
    assert data.load(task, "train", tmp_path / "n").labels.tolist() == [1, 0]
    rows = [
        {"premise": "a", "hypothesis": "b", "label": 0.5},
        {"premise": "a", "hypothesis": "b", "label": 2.0},
    ]
    write_rows(tmp_path / "r/train.jsonl", rows)
    task = data.resolve("closeness", tmp_path / "r")
    assert (task.kind, task.columns, task.outputs) == ("regression", ("sentence1", "sentence2"), 1)
    assert Task.from_json(json.loads(json.dumps(task.to_json()))) == task


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("sentence,label\na,0\nb,\n", "row 2: the label is empty"),
        ("sentence,label\na,0\nb\n", "row 2: fewer fields than the header .1, expected 2"),
        ("sentence,label\na,0\nb, c,1\n", "row 2: more fields than the header"),
        ("sentence,label\na,1\nb,1\n", "every row has the label '1'"),
        ("sentence,lable\na,1\n", "column 'label' is missing"),
    ],
)
def test_labels_of_an_inferred_task_are_checked(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "train.csv").write_text(text)
    with pytest.raises(DataError, match=message):
        data.resolve("mine", tmp_path)


def test_nan_is_a_missing_label(tmp_path: Path) -> None:
    write_rows(tmp_path / "train.jsonl", [{"sentence": "x", "label": y} for y in (1.5, 2.5, float("nan"))])
    with pytest.raises(DataError, match="row 3: the label is empty"):
        data.resolve("mine", tmp_path)


@pytest.mark.parametrize("label", ["²", "--5", "٣"])
def test_a_label_that_only_resembles_a_number_is_a_class_name(tmp_path: Path, label: str) -> None:
    write_rows(tmp_path / "train.jsonl", [{"sentence": "x", "label": y} for y in ("0", label)])
    task = data.resolve("mine", tmp_path)
    assert (task.kind, set(task.labels)) == ("classification", {"0", label})
    assert data.load(task, "train", tmp_path).labels.tolist() == [
        task.labels.index("0"),
        task.labels.index(label),
    ]
    with pytest.raises(DataError, match="is not one of 0=negative, 1=positive"):
        data.load(SST2, "train", tmp_path)


@pytest.mark.parametrize("name", ["my/reviews", ".hid", "a[b]", "..", "", "a b"])
def test_a_task_name_that_cannot_be_a_folder_name_is_refused(rows_folder: Path, name: str) -> None:
    with pytest.raises(
        UsageError, match=rf"the task's name '{re.escape(name)}' becomes part of folder names"
    ):
        data.resolve(name, rows_folder)
    assert data.resolve("my-reviews_2.0", rows_folder).kind == "classification"


def test_numbers_are_class_names_when_other_class_names_are_numbers(tmp_path: Path) -> None:
    (tmp_path / "train.csv").write_text("sentence,label\na,1\nb,other\n")
    (tmp_path / "validation.csv").write_text("sentence,label\na,0\n")
    task = data.resolve("mine", tmp_path)
    assert task.labels == ("1", "other")
    with pytest.raises(DataError, match="row 1: label '0' is not one of 0=1, 1=other"):
        data.load(task, "validation", tmp_path)


def test_classes_without_rows_are_reported(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "train.csv").write_text("sentence,label\na,1\nb,3\n")
    assert data.resolve("mine", tmp_path).labels == ("0", "1", "2", "3")
    assert "no row has the label 0, 2, but classes are numbered from 0" in capsys.readouterr().err


@pytest.mark.parametrize("written", [("0.0", "1.0"), ("+0", "+1"), ("0", "1.0")])
def test_classes_that_are_written_otherwise_have_rows(
    written: tuple[str, str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "train.csv").write_text(f"sentence,label\na,{written[0]}\nb,{written[1]}\n")
    source = DataSource(str(tmp_path), DataSettings.of(task_kind="classification"))
    task = data.resolve("mine", source)
    assert task.labels == ("0", "1") and data.load(task, "train", source).labels.tolist() == [0, 1]
    assert "no row has the label" not in capsys.readouterr().err


def test_a_byte_order_mark_is_not_part_of_a_column_name(tmp_path: Path) -> None:
    (tmp_path / "train.csv").write_text("sentence,label\na,0\nb,1\n", encoding="utf-8-sig")
    assert data.load(data.resolve("mine", tmp_path), "train", tmp_path).texts == [("a",), ("b",)]


def test_mistyped_task_names_are_not_inferred_as_new_tasks(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="Did you mean 'sst2'"):
        data.resolve("sst-2", tmp_path)
    with pytest.raises(UsageError, match="Did you mean 'stsb'"):
        data.resolve("sts-b", None)


def test_a_limited_subset_is_random_and_always_the_same(tmp_path: Path) -> None:
    rows = data.load(TASKS["demo"], "train")
    first, second = rows.limit(100), rows.limit(100)
    assert first.texts == second.texts
    assert len(set(first.texts) & set(rows.texts[:100])) < 50
    assert rows.limit(10**9) is rows


@pytest.mark.parametrize(
    ("split", "digest"),
    [("train", "9ab256b162c7b719"), ("validation", "a9c470c78c93eb8c"), ("pretraining", "8988157d76a7c440")],
)
def test_the_demo_corpus_is_always_the_same(split: str, digest: str) -> None:
    rows = json.dumps(corpus.split(split)).encode()
    assert hashlib.sha256(rows).hexdigest()[:16] == digest


def test_demo_splits_are_balanced_and_do_not_overlap() -> None:
    splits = {name: corpus.split(name) for name in ("train", "validation", "pretraining")}
    texts = [set(texts) for texts, _ in splits.values()]
    assert not texts[0] & texts[1]
    assert not texts[1] & texts[2]
    for texts_, labels in splits.values():
        assert len(set(texts_)) == len(texts_)
        assert 0.45 < np.mean(labels) < 0.55


@pytest.mark.skipif(not SHARED_DATA.is_dir(), reason=f"no real data in {SHARED_DATA}")
@pytest.mark.parametrize(
    ("folder", "task", "n"),
    [("sst2", "sst2", 872), ("mrpc", "mrpc", 408), ("stsb", "stsb", 1500), ("cola", "cola", 1043),
     ("rte", "rte", 277), ("mnli_subset", "mnli", 9815), ("qnli_subset", "qnli", 5463),
     ("qqp_subset", "qqp", 1000), ("snli_subset", "snli", 9842), ("scitail_subset", "scitail", 1304)],
)  # fmt: skip
def test_real_validation_sets(folder: str, task: str, n: int) -> None:
    assert len(data.load(TASKS[task], "validation", SHARED_DATA / folder)) == n


def test_calls_that_share_a_cache_read_each_file_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "mail.csv"
    path.write_text("text,label\n" + "".join(f"text {number},{'ab'[number % 2]}\n" for number in range(20)))
    source = DataSource(str(path), DataSettings(split=0.5))
    files: list[Path] = []
    read = tables.read

    def counted(paths: tuple[Path, ...], *arguments: Any) -> tables.Table:
        files.extend(paths)
        return read(paths, *arguments)

    monkeypatch.setattr(tables, "read", counted)
    cache: data.Cache = {}
    task = data.resolve("mail", source, cache=cache)
    parts = [data.load(task, split, source, cache=cache) for split in ("train", "validation")]
    assert files == [path]
    assert [part.texts for part in parts] == [
        data.load(task, split, source).texts for split in ("train", "validation")
    ]


@pytest.mark.parametrize(
    ("label", "message"),
    [
        ("a\x1b[2J", r"the label 'a\\x1b\[2J': a text has control characters"),
    ],
)
def test_a_class_name_that_no_manifest_can_hold_is_refused(tmp_path: Path, label: str, message: str) -> None:
    rows = [{"sentence": f"row {number}", "label": label if number % 2 else "b"} for number in range(8)]
    write_rows(tmp_path / "train.jsonl", rows)
    with pytest.raises(DataError, match=message):
        data.resolve("mine", DataSource(str(tmp_path)))


@pytest.mark.parametrize("labelled", [True, False])
def test_rows_with_an_empty_text_are_counted(
    labelled: bool, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    texts = ["", "  ", "a film", "", "another film"]
    (tmp_path / "train.csv").write_text(
        "sentence,label\n" + "".join(f"{text},{index % 2}\n" for index, text in enumerate(texts))
    )
    task = data.resolve("mine", tmp_path)
    if labelled:
        rows = data.load(task, "train", tmp_path)
    else:
        (tmp_path / "train.csv").rename(tmp_path / "validation.csv")
        source = DataSource(str(tmp_path), DataSettings(unlabelled=True))
        rows = data.load_to_measure(task, source)
    assert len(rows) == len(texts)
    assert "3 of 5 rows have an empty text" in capsys.readouterr().err
    assert rows.origin is not None and "3 of 5 rows have an empty text" in rows.origin.notes


def test_no_note_where_every_text_has_characters(rows_folder: Path) -> None:
    rows = data.load(data.resolve("mine", rows_folder), "train", rows_folder)
    assert rows.origin is not None and not rows.origin.notes


def _repeated(path: Path, *, compressed: bool = False, dictionary: bool = False) -> None:
    """Write one long text many times, in few bytes."""
    import pyarrow
    import pyarrow.parquet

    texts = pyarrow.array(["x" * 20_000] * 300)
    table = pyarrow.table(
        {
            "sentence": texts.dictionary_encode() if dictionary else texts,
            "label": [number % 2 for number in range(300)],
        }
    )
    if path.suffix == ".parquet":
        pyarrow.parquet.write_table(table, path)
        return
    options = pyarrow.ipc.IpcWriteOptions(compression="zstd" if compressed else None)
    with path.open("wb") as file, pyarrow.ipc.new_stream(file, table.schema, options=options) as writer:
        writer.write_table(table)


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("train.parquet", {}, "expands to more than [0-9,]+ bytes from [0-9,]+: not a file of texts"),
        ("train.parquet", {"dictionary": True}, "expands to more than"),
        ("train.arrow", {"dictionary": True}, "expands to more than"),
        ("train.arrow", {"compressed": True}, "train.arrow is compressed: write it without compression"),
        ("train.arrow", {"compressed": True, "dictionary": True}, "train.arrow is compressed"),
    ],
)
def test_small_files_that_take_much_memory_are_refused(
    name: str, options: dict[str, bool], message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("effx.data.text._RATIO_FROM_BYTES", 1 << 20)
    _repeated(tmp_path / name, **options)
    assert (tmp_path / name).stat().st_size < 25_000
    with pytest.raises(DataError, match=message):
        data.resolve("mine", tmp_path)


@pytest.mark.parametrize("dictionary", [False, True])
@pytest.mark.parametrize("name", ["train.parquet", "train.arrow"])
def test_rows_of_several_batches_are_read_in_order(dictionary: bool, name: str, tmp_path: Path) -> None:
    import pyarrow
    import pyarrow.parquet

    texts = pyarrow.array([f"text {number % 700}" for number in range(1500)])
    table = pyarrow.table(
        {
            "sentence": texts.dictionary_encode() if dictionary else texts,
            "label": [number % 3 for number in range(1500)],
        }
    )
    if name == "train.parquet":
        pyarrow.parquet.write_table(table, tmp_path / name, row_group_size=600)
    else:
        with (tmp_path / name).open("wb") as file, pyarrow.ipc.new_stream(file, table.schema) as writer:
            writer.write_table(table, max_chunksize=600)
    rows = data.load(data.resolve("mine", tmp_path), "train", tmp_path)
    assert rows.texts == [(f"text {number % 700}",) for number in range(1500)]
    assert rows.labels.tolist() == [number % 3 for number in range(1500)]

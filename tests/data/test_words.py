"""Rows that are lists of words with a tag for each."""

from __future__ import annotations

import gzip
import json
from pathlib import Path

import numpy as np
import pytest

from effx import data
from effx.data import UnlabelledRows
from effx.errors import DataError, EffxError
from effx.specs.data import DataSettings, DataSource
from tests.conftest import SHARED_DATA, write_rows

ROWS = [
    {"tokens": ["New", "York", "is", "big"], "tags": ["B-place", "I-place", "O", "O"]},
    {"tokens": ["so"], "tags": ["O"]},
    {"tokens": ["Ann", "left"], "tags": ["B-person", "O"]},
]
LABELS = ("O", "B-person", "I-person", "B-place", "I-place")
TAGS = [[3, 4, 0, 0], [0, -1, -1, -1], [1, 0, -1, -1]]


def written(folder: Path, suffix: str) -> Path:
    for split in ("train", "validation"):
        path = folder / f"{split}{suffix}"
        if suffix.startswith(".jsonl"):
            write_rows(folder / f"{split}.jsonl", ROWS)
        elif suffix == ".conll":
            rows = [
                "".join(f"{w} NN {t}\n" for w, t in zip(r["tokens"], r["tags"], strict=True)) for r in ROWS
            ]
            path.write_text("-DOCSTART- -X- O\n\n" + "\n".join(rows))
        else:
            import pyarrow
            import pyarrow.parquet

            pyarrow.parquet.write_table(pyarrow.Table.from_pylist(ROWS), path)
        if suffix.endswith(".gz"):
            path.write_bytes(gzip.compress((folder / f"{split}.jsonl").read_bytes()))
            (folder / f"{split}.jsonl").unlink()
    return folder


@pytest.mark.parametrize("suffix", [".jsonl", ".jsonl.gz", ".conll", ".parquet"])
def test_every_format_gives_the_same_rows(suffix: str, tmp_path: Path) -> None:
    folder = written(tmp_path, suffix)
    task = data.resolve("places", folder)
    assert (task.kind, task.columns, task.labels) == ("token-classification", ("tokens",), LABELS)
    rows = data.load(task, "train", folder)
    assert rows.texts == [tuple(row["tokens"]) for row in ROWS]
    assert rows.labels.tolist() == TAGS
    assert rows.take(np.array([1, 2])).labels.tolist() == [[0, -1], [1, 0]]
    summary = data.summarize(task, rows, data.load(task, "validation", folder))
    assert any("entities person 1+1, place 1+1, in 7+7 words" in line for line in summary.lines())


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"tokens": ["a", "b"], "tags": ["O"]}, "row 4: 2 words and 1 tags: expected a tag for each word"),
        ({"tokens": ["a"], "tags": "O"}, 'row 4: the tags are O: expected a tag for each word, as {"tokens"'),
        ({"tokens": "a b", "tags": ["O", "O"]}, "row 4: column 'tokens': expected a list of words, as"),
        ({"tokens": ["a", 3], "tags": ["O", "O"]}, "row 4: column 'tokens': expected a list of words"),
        ({"tokens": [], "tags": []}, "row 4: column 'tokens' has no words"),
        ({"tokens": ["a"], "tags": ["X"]}, "row 4: tag 'X' is not in the scheme IOB2"),
        ({"tokens": ["a"]}, "row 4: column 'tags' is missing"),
    ],
)
def test_a_wrong_row_is_one_line(row: dict[str, object], message: str, tmp_path: Path) -> None:
    write_rows(tmp_path / "train.jsonl", [*ROWS, row])
    with pytest.raises(DataError, match=message) as caught:
        data.resolve("places", tmp_path)
    assert "\n" not in str(caught.value)


def test_a_tag_that_the_training_rows_lack_is_refused(tmp_path: Path) -> None:
    written(tmp_path, ".jsonl")
    write_rows(tmp_path / "validation.jsonl", [{"tokens": ["a"], "tags": ["B-plaace"]}])
    task = data.resolve("places", tmp_path)
    with pytest.raises(DataError, match="row 1: tag 'B-plaace' is not one of .* Did you mean 'B-place'"):
        data.load(task, "validation", tmp_path)


def test_lists_that_are_written_as_text_are_refused(tmp_path: Path) -> None:
    (tmp_path / "rows.csv").write_text("tokens,tags\n\"['a', 'b']\",\"['O', 'B-x']\"\n")
    source = DataSource(str(tmp_path / "rows.csv"), DataSettings.of(split=0.5))
    with pytest.raises(EffxError, match="column 'tokens' has a list that is written as text: use .jsonl"):
        data.resolve("places", source)


def test_a_line_without_a_tag_is_refused(tmp_path: Path) -> None:
    (tmp_path / "train.conll").write_text("New B-place\nYork\n")
    with pytest.raises(DataError, match="train.conll, line 2: expected a word and its tag, got 'York'"):
        data.resolve("places", tmp_path)


def test_one_file_is_divided_by_the_types_of_entities(tmp_path: Path) -> None:
    rows = [{"tokens": [str(i), "x"], "tags": ["O", "B-a" if i % 2 else "O"]} for i in range(20)]
    write_rows(tmp_path / "rows.jsonl", rows)
    source = DataSource(str(tmp_path / "rows.jsonl"), DataSettings.of(split=0.5))
    task = data.resolve("places", source)
    for split in ("train", "validation"):
        assert (data.load(task, split, source).labels == 1).sum() == 5


def test_words_without_tags_can_be_measured(tmp_path: Path) -> None:
    written(tmp_path, ".jsonl")
    task = data.resolve("places", tmp_path)
    (tmp_path / "words").mkdir()
    write_rows(tmp_path / "words" / "validation.jsonl", [{"tokens": row["tokens"]} for row in ROWS])
    rows = data.load_to_measure(task, tmp_path / "words")
    assert isinstance(rows, UnlabelledRows) and rows.texts == [tuple(row["tokens"]) for row in ROWS]


@pytest.mark.skipif(not (SHARED_DATA / "wnut17").is_dir(), reason="needs shared/data/wnut17")
def test_wnut17_has_its_six_types() -> None:
    task = data.resolve("wnut17", SHARED_DATA / "wnut17")
    types = [label[2:] for label in task.labels[1::2]]
    assert types == ["corporation", "creative-work", "group", "location", "person", "product"]
    rows = data.load(task, "validation", SHARED_DATA / "wnut17")
    with gzip.open(SHARED_DATA / "wnut17" / "validation.jsonl.gz", "rt") as file:
        first = json.loads(file.readline())
    assert rows.texts[0] == tuple(first["tokens"])
    assert [task.labels[tag] for tag in rows.labels[0] if tag >= 0] == first["labels"]


@pytest.mark.parametrize(
    ("content", "words", "tags"),
    [
        ("New York\tB-place\nis\tO\n", ("New York", "is"), [1, 0]),
        ("10\u00a0000 B-place\nis O\n", ("10\u00a0000", "is"), [1, 0]),
        ("New  B-place\r\nYork I-place\r\n", ("New", "York"), [1, 2]),
        ("New B-place\rYork I-place\r", ("New", "York"), [1, 2]),
    ],
)
def test_words_of_a_conll_file_are_whole(
    tmp_path: Path, content: str, words: tuple[str, ...], tags: list[int]
) -> None:
    for split in ("train", "validation"):
        (tmp_path / f"{split}.conll").write_bytes(content.encode())
    task = data.resolve("places", tmp_path)
    assert task.labels == ("O", "B-place", "I-place")
    rows = data.load(task, "train", tmp_path)
    assert rows.texts == [words] and rows.labels.tolist() == [tags]


def test_sentences_of_a_conll_file_with_cr_line_ends_stay_apart(tmp_path: Path) -> None:
    for split in ("train", "validation"):
        (tmp_path / f"{split}.conll").write_bytes(b"I O\rwent O\r\rto O\rParis B-place\r")
    task = data.resolve("places", tmp_path)
    assert data.load(task, "train", tmp_path).texts == [("I", "went"), ("to", "Paris")]

"""Which files of a folder contain which split: plain names, the hub's layouts, and GLUE's original files.

    train.csv, dev.jsonl.gz                     SPLIT.FORMAT
    train-00000-of-00003.parquet, ...           shards; all of them must be there
    train/0000.parquet, ...                     a folder per split, also as save_to_disk of datasets writes it
    snli_1.0_train.jsonl                        NAME_SPLIT.FORMAT
    dev-v1.1.json, dev-v1.1-small.json          SPLIT-vVERSION.FORMAT, SPLIT-vVERSION-WORD.FORMAT
    corpus.jsonl, queries.jsonl, qrels/dev.tsv  documents, queries, and which belong together (BEIR, MTEB)

in the folder itself, or in its subfolder ``data`` or one with the task's name. A folder with one file, and a
file, hold rows that are divided by the setting ``split``.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from effx.data import tables, text
from effx.data.tables import Header
from effx.errors import DataError, UsageError
from effx.specs.data import DataSource

SPLITS = ("train", "validation")
"""Splits of training."""
PREDICTED_SPLITS = (*SPLITS, "validation_mismatched", "test", "test_mismatched")
"""Splits whose rows can be predicted; those of other genres, ``mismatched``, are MNLI's."""
_NAMES = {
    "train": ("train", "training"),
    "validation": ("validation", "dev", "val", "valid", "validation_matched", "dev_matched"),
    "validation_mismatched": ("validation_mismatched", "dev_mismatched"),
    "test": ("test", "testing", "eval", "test_matched"),
    "test_mismatched": ("test_mismatched",),
}
_SPLITS = "|".join(word for names in _NAMES.values() for word in names)
_SHARD = r"(\d{5})-of-(\d{5})(?:-[0-9a-f]{16})?"
"""Number and count of a shard, in the hub's older names followed by a part of its fingerprint."""
_SPLIT_VERSION_WORD = re.compile(
    rf"({_SPLITS})[-_]v\d+(\.\d+)*[-_](?!({_SPLITS})\.[a-z])\w+\.[a-z]", re.IGNORECASE
)
"""Beginning of a name such as train-v1.1-subset.json."""
_METADATA = ("dataset_info.json", "dataset_infos.json", "state.json", "dataset_dict.json")


@dataclass(frozen=True)
class Files:
    """The files of a split."""

    paths: tuple[Path, ...]
    divided: bool = False
    """They hold the rows of both splits."""


def files_of(source: DataSource, split: str, task: str) -> Files:
    """Return the files that hold a split.

    Args:
        source: a file or a folder.
        split: one of :data:`PREDICTED_SPLITS`.
        task: the task's name.

    Raises:
        DataError: there are none, or it is not clear which.
        UsageError: rows must be divided, and the setting ``split`` is missing; or it is given for no reason.
    """
    path = Path(source.path).expanduser()
    if not path.exists():
        raise DataError(f"the data {path} does not exist: expected a file or a folder", settings="data")
    if (corpus := corpus_folder(path)) is not None:
        return Files(_corpus_files(corpus, split))
    if not path.is_dir():
        text.check_plain(path)
        if not tables.suffix_of(path):
            raise DataError(f"{path}: unknown format; known: {', '.join(tables.SUFFIXES)}.", settings="data")
        return _divided((path,), source, split)
    for parent in _folders(path, task):
        if paths := _split_files(parent, split):
            return _whole(paths, source, parent, split)
    for parent in _folders(path, task):
        if split == "validation" and (paths := _split_files(parent, "train")):
            if source.settings.unlabelled:
                raise DataError(f"{source.path} has training rows, and no validation rows", settings="data")
            return _divided(paths, source, split)
        every = _data_files(parent)
        if len(every) == 1 and split in SPLITS:
            return _divided((every[0],), source, split)
    raise DataError(
        f"the data folder {path} has no file for {split}: expected {split}.csv or another of "
        f"{', '.join(tables.SUFFIXES)}, or one file",
        settings="data",
    )


CORPUS_FILES = ("corpus", "queries")
"""Names of the files with documents and with queries."""
CORPUS_LAYOUT = "a folder with corpus.jsonl, queries.jsonl and qrels/test.tsv"


def corpus_folder(path: str | Path) -> Path | None:
    """Return the folder that has documents and queries, ``path`` or its subfolder ``data``; None: none."""
    root = Path(path).expanduser()
    for folder in (root, root / "data"):
        if folder.is_dir() and all(_named_files(folder, name) for name in CORPUS_FILES):
            return folder
    return None


def has_documents(path: str | Path) -> bool:
    """Whether a folder has documents and queries."""
    return corpus_folder(path) is not None


def _named_files(folder: Path, name: str) -> list[Path]:
    return [path for path in _data_files(folder) if (_stem(path) or "").lower() == name]


def _corpus_files(folder: Path, split: str) -> tuple[Path, ...]:
    """Return the files with the relevant documents of a split's queries, with queries, and with documents.

    Validation rows are those of ``test`` where there is no other file: most collections have no more.

    Raises:
        DataError: one is missing, or several may be meant.
    """
    names = (split, "test") if split == "validation" else (split,)
    judged = folder / "qrels"
    found = next((paths for name in names if judged.is_dir() and (paths := _split_files(judged, name))), ())
    if not found:
        raise DataError(
            f"{folder} has documents and queries, but no file qrels/{names[-1]}.tsv that says which "
            "documents are relevant for a query",
            settings="data",
        )
    parts = [found]
    for name in reversed(CORPUS_FILES):
        of_name = _named_files(folder, name)
        if len(of_name) > 1:
            shown = ", ".join(path.name for path in of_name)
            raise DataError(f"{folder}: several files may be the {name}: {shown}. Keep one of them.")
        parts.append((of_name[0],))
    return tuple(path for part in parts for path in part)


def _whole(paths: tuple[Path, ...], source: DataSource, parent: Path, split: str) -> Files:
    """Return a split that has its files; training rows alone are divided if this is set."""
    if source.settings.split is None:
        return Files(paths)
    if split == "train" and not _split_files(parent, "validation"):
        return Files(paths, divided=True)
    raise UsageError(
        f"{source.path} has files of both train and validation rows: leave split out", settings="split"
    )


def _divided(paths: tuple[Path, ...], source: DataSource, split: str) -> Files:
    if source.settings.unlabelled and split != "train":  # nothing is trained on them
        return Files(paths)
    if source.settings.unlabelled:
        raise DataError(f"{source.path} has no training rows", settings="data")
    if source.settings.split is None and split == "train":
        raise UsageError(
            f"{source.path} has rows in one file, and no validation rows: set split to the share to train "
            "on, e.g. 0.8",
            settings="split",
        )
    if source.settings.split is None and Path(source.path).is_dir():
        raise UsageError(
            f"{source.path} has no validation rows: set split to the share of the rows to train on, e.g. 0.8",
            settings="split",
        )
    return Files(paths, divided=source.settings.split is not None)


def _folders(path: Path, task: str) -> list[Path]:
    return [parent for parent in (path, path / task, path / "data", path / task / "data") if parent.is_dir()]


def _data_files(parent: Path) -> list[Path]:
    return sorted(
        child
        for child in parent.iterdir()
        if not child.name.startswith(".")
        and child.is_file()
        and tables.suffix_of(child) not in ("", ".txt")
        and child.name not in _METADATA
    )


def _split_files(parent: Path, split: str) -> tuple[Path, ...]:
    """Return the files of a split in one folder; an empty tuple where it has none.

    Raises:
        DataError: several files or sets of files could be the split, or shards are missing.
    """
    choices: dict[str, list[Path]] = {}
    children = sorted(parent.iterdir())
    plain = [child for child in children if not _SPLIT_VERSION_WORD.match(child.name)]
    named = [child for child in plain if child.is_file() and _is_named(_stem(child) or "", split)]
    for child in plain if named else children:  # a word after the version counts where no name is without
        if child.is_dir() and child.name.lower() in _NAMES[split] and (shards := _data_files(child)):
            choices[child.name] = shards
        elif child.is_file() and (stem := _stem(child)) is not None and _is_named(stem, split):
            choices.setdefault(f"{stem}{tables.suffix_of(child)}", []).append(child)
    exact = {key: paths for key, paths in choices.items() if key.partition(".")[0].lower() in _NAMES[split]}
    choices = exact or choices
    if len(choices) > 1:
        names = ", ".join(paths[0].name for paths in choices.values())
        raise DataError(f"{parent}: several files may be the {split} rows: {names}. Keep one of them.")
    for paths in choices.values():
        _check_shards(parent, paths)
        return tuple(paths)
    return ()


def _stem(path: Path) -> str | None:
    """Return a data file's name without format, shard number and version; None: it is not a data file.

    A word after the version of a split's name is left out too: train for train-v1.1-subset.json.
    """
    suffix = tables.suffix_of(path)
    if not suffix or path.name.startswith("."):
        return None
    name = path.name[: path.name.lower().rindex(suffix)]
    if versioned := _SPLIT_VERSION_WORD.match(path.name):
        return versioned[1]
    return re.sub(rf"-{_SHARD}$|[-_]v\d+(\.\d+)*$", "", name)


def _is_named(stem: str, split: str) -> bool:
    """Whether a name is that of a split, or ends in it after ``_``, ``-`` or ``.``."""
    lower = stem.lower()
    return any(lower == name or re.search(rf"[_.-]{name}$", lower) for name in _NAMES[split])


def _check_shards(parent: Path, paths: Sequence[Path]) -> None:
    """Raise :class:`DataError` for shards that are missing, and for several files that are not shards."""
    if len(paths) == 1 and not re.search(rf"-{_SHARD}\.", paths[0].name):
        return
    shards = [re.search(rf"{_SHARD}\.", path.name) for path in paths]
    if all(shard is None for shard in shards):
        numbers = [path.name.split(".")[0] for path in paths]
        if [number.isdigit() and int(number) for number in numbers] == list(range(len(numbers))):
            return  # 0000.parquet, 0001.parquet, as the hub converts datasets
        names = ", ".join(path.name for path in paths[:4])
        raise DataError(f"{parent}: several files may be the same rows: {names}. Keep one of them.")
    totals = {shard[2] for shard in shards if shard}
    have = [int(shard[1]) for shard in shards if shard]
    if len(totals) != 1 or len(have) != len(paths):
        raise DataError(f"{parent}: shards of different sets: {', '.join(path.name for path in paths[:4])}.")
    total = int(totals.pop())
    if missing := sorted(set(range(total)) - set(have)):
        raise DataError(
            f"{parent}: {len(missing)} of {total} shards are missing, e.g. number {missing[0]:05d}."
        )
    if len(have) != total:
        raise DataError(f"{parent}: duplicate shards.")


# GLUE's original files

_GLUE_COLUMNS = {
    "cola": (("source", "label", "mark", "sentence"), False),
    "qqp": (("id", "qid1", "qid2", "question1", "question2", "is_duplicate"), True),
}
"""Tasks whose .tsv files are not tables as they are: CoLA's have no header, some of QQP's rows are broken."""
_GLUE_NAMES = {
    "mrpc": {"text_column": "#1 String", "text_pair_column": "#2 String", "label_column": "Quality"},
    "qqp": {"text_column": "question1", "text_pair_column": "question2", "label_column": "is_duplicate"},
    "stsb": {"text_column": "sentence1", "text_pair_column": "sentence2", "label_column": "score"},
    "mnli": {"text_column": "sentence1", "text_pair_column": "sentence2", "label_column": "gold_label"},
    "snli": {"text_column": "sentence1", "text_pair_column": "sentence2", "label_column": "gold_label"},
    "cola": {"text_column": "sentence", "label_column": "label"},
    "qnli": {"text_column": "question", "text_pair_column": "sentence", "label_column": "label"},
    "rte": {"text_column": "sentence1", "text_pair_column": "sentence2", "label_column": "label"},
}
_SST2_NAMES = {"text_column": "sentence", "label_column": "label"}
"""Those of the rows without labels; the others are read as anyone's file."""


_COLUMNS = {
    "mrpc": ("quality", "#1 id", "#2 id", "#1 string", "#2 string"),
    "qnli": ("index", "question", "sentence", "label"),
    "rte": ("index", "sentence1", "sentence2", "label"),
}
_TEST_COLUMNS = {
    "cola": ("index", "sentence"),
    "sst2": ("index", "sentence"),
    "mrpc": ("index", "#1 id", "#2 id", "#1 string", "#2 string"),
    "qqp": ("id", "question1", "question2"),
    "qnli": ("index", "question", "sentence"),
    "rte": ("index", "sentence1", "sentence2"),
}
"""The headers of GLUE's files with and without labels, in lower case."""
_MARKS = {
    "stsb": {"genre", "old_index"},
    "mnli": {"promptid", "pairid"},
    "snli": {"captionid", "pairid"},
}
"""Columns that only the published files of a task with many columns have."""
_OF_LABELS = {
    "label",
    "labels",
    "class",
    "target",
    *(names["label_column"].lower() for names in _GLUE_NAMES.values()),
}


@dataclass(frozen=True)
class GlueFile:
    """How GLUE's original file of a task is read: delimiter tab, without quoting."""

    columns: dict[str, str]
    """Settings that name its columns."""
    ragged: Header | None
    """Its columns, where it has no header or broken rows."""


def glue_file(path: Path, task: str) -> GlueFile | None:
    """Return how a file is read, with GLUE's columns, if it is one of GLUE's original files; else None."""
    names = _GLUE_NAMES.get(task, _SST2_NAMES if task == "sst2" else None)
    if names is None or tables.suffix_of(path) not in (".tsv", ".txt") or path.suffix == ".gz":
        return None
    with path.open("rb") as file:
        line = file.readline(1 << 20)
    fields = line.decode("utf-8-sig", errors="replace").rstrip("\r\n").split("\t")
    lower = [field.strip().lower() for field in fields]
    texts = {setting: column for setting, column in names.items() if setting != "label_column"}
    if _is_published(task, lower, _TEST_COLUMNS) and not _OF_LABELS & set(lower):
        return GlueFile(texts, None)
    if task == "sst2":
        return None  # anyone's file
    columns, has_header = _GLUE_COLUMNS.get(task, ((), True))
    if not has_header:
        is_row = len(fields) == len(columns) and fields[1] in ("0", "1") and fields[2] in ("", "*")
        return GlueFile(names, Header(columns, False)) if is_row else None
    if columns:
        return GlueFile(names, Header(columns, True)) if tuple(lower) == columns else None
    wanted = {column.lower() for column in names.values()}
    return GlueFile(names, None) if wanted <= set(lower) and _is_published(task, lower, _COLUMNS) else None


def _is_published(task: str, header: Sequence[str], columns: Mapping[str, tuple[str, ...]]) -> bool:
    """Whether a header is that of the task's file as GLUE or SNLI publish it; other files are anyone's."""
    if task in columns:
        return tuple(header) == columns[task]
    return task in _MARKS and _MARKS[task] <= set(header)

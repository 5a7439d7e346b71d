"""Files of rows as tables: .csv, .tsv, .txt, .jsonl, .json, .conll, .parquet, and .gz of the text formats."""

from __future__ import annotations

import contextlib
import json
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from effx.data import dialects, text
from effx.errors import DataError, need
from effx.records import unique_keys
from effx.specs.data import DataSettings

SUFFIXES = (".jsonl", ".json", ".csv", ".tsv", ".txt", ".conll", ".parquet", ".arrow")
"""Formats of rows. Those of text may be compressed: .jsonl.gz."""
_BINARY = (".parquet", ".arrow")
MISSING = object()
"""Value of a row that does not have the column, as an object in .jsonl without the key."""
_ROWS_AT_ONCE = 256
_NUMBER_BYTES = 8
_DICTIONARY_BATCH, _RECORD_BATCH = b"\2", b"\3"
"""Types of the messages of an Arrow stream that have buffers."""
_LISTS = ("Sequence", "List", "LargeList")
"""Features of ``datasets`` that are lists."""


@dataclass(frozen=True)
class Table:
    """Columns and rows of the files of one split."""

    columns: tuple[str, ...]
    rows: Sequence[Sequence[Any]]
    """Values in the order of ``columns``; :data:`MISSING` where a row has none."""
    parts: tuple[tuple[str, int], ...]
    """Files in order, with their numbers of rows."""
    format: str
    class_names: dict[str, tuple[str, ...]] = field(default_factory=dict)
    """Column -> names of its class numbers, where a file has them (the hub's parquet files)."""
    skipped: int = 0
    """Rows left out because their number of fields is wrong."""

    def where(self, index: int) -> str:
        """Return file and number, from 1, of a row."""
        for name, count in self.parts:
            if index < count:
                return f"{name}, row {index + 1}"
            index -= count
        raise IndexError(index)

    def missing(self, column: str, index: int) -> DataError:
        """Return the error for a row without a column."""
        present = [
            name for name, value in zip(self.columns, self.rows[index], strict=True) if value is not MISSING
        ]
        return DataError(
            f"{self.where(index)}: column '{column}' is missing (columns: {', '.join(present) or 'none'})."
        )

    @property
    def source(self) -> str:
        """The files, for messages."""
        first = self.parts[0][0]
        return first if len(self.parts) == 1 else f"{first} and {len(self.parts) - 1} more"


@dataclass(frozen=True)
class Header:
    """Columns of a file whose first line has none, or whose rows need not all have them."""

    columns: tuple[str, ...]
    is_first_row: bool
    """Whether the file's first line is this header; False: it is a row."""


Choose = Callable[[Sequence[str]], object]
"""Takes column names; raises :class:`DataError` where the needed ones are missing."""


def suffix_of(path: Path) -> str:
    """Return the suffix that says the format, ``.jsonl`` of ``train.jsonl.gz``; empty for other files."""
    name = path.name.lower().removesuffix(".gz")
    suffix = next((suffix for suffix in SUFFIXES if name.endswith(suffix)), "")
    return "" if suffix in _BINARY and path.name.lower().endswith(".gz") else suffix


def read(
    paths: Sequence[Path], settings: DataSettings, choose: Choose, ragged: Header | None = None
) -> Table:
    """Return the rows of one or several files.

    Args:
        paths: the files, in order, all with the same columns.
        settings: encoding, delimiter and quoting, where the user gives them.
        choose: checks a header for the needed columns.
        ragged: tab-separated file without quoting that is known to have some broken rows, which are skipped.

    Raises:
        DataError: a file cannot be read, or files have different columns.
    """
    tables = [_read(path, settings, choose, ragged) for path in paths]
    first = tables[0]
    for path, table in zip(paths, tables, strict=True):
        if set(table.columns) != set(first.columns) or table.class_names != first.class_names:
            raise DataError(f"{path}: columns {', '.join(table.columns)}, but {paths[0]} has "
                            f"{', '.join(first.columns)}: expected the same in all files.")  # fmt: skip
    if len(tables) == 1:
        return first
    rows: list[Sequence[Any]] = []
    for table in tables:
        order = [table.columns.index(column) for column in first.columns]
        rows += [[row[index] for index in order] for row in table.rows]
    formats = dict.fromkeys(table.format for table in tables)
    return Table(
        first.columns,
        rows,
        tuple(part for table in tables for part in table.parts),
        "; ".join(formats),
        first.class_names,
        sum(table.skipped for table in tables),
    )


def _read(path: Path, settings: DataSettings, choose: Choose, ragged: Header | None) -> Table:
    text.check_plain(path)
    suffix = suffix_of(path)
    if suffix in _BINARY:
        return _arrow(path, suffix)
    content, encoding = text.read(path, settings.encoding)
    if suffix in (".jsonl", ".json"):
        objects = _json_objects(path, content) if suffix == ".json" else _json_lines(path, content)
        return _of_objects(path, list(objects), f"{suffix[1:].upper()}, {encoding}")
    if suffix == ".conll":
        return _of_objects(path, list(_conll(path, content)), f"CoNLL, {encoding}")
    if ragged is not None:
        rows, skipped = dialects.read_ragged(content, str(path), len(ragged.columns))
        body = rows[1:] if ragged.is_first_row else rows
        form = f"TSV, {dialects.Dialect(chr(9), 'none')}, {encoding}"
        return _table(path, ragged.columns, body, form, skipped)
    return _delimited(path, content, encoding, settings, choose)


def _delimited(path: Path, content: str, encoding: str, settings: DataSettings, choose: Choose) -> Table:
    def suits(columns: Sequence[str]) -> bool:
        try:
            choose([column.strip() for column in columns])
        except DataError:
            return False
        return True

    suffix = suffix_of(path)
    try:
        read = dialects.read(
            content, str(path), suits,
            delimiter=settings.delimiter, quoting=settings.quoting, tabs=suffix == ".tsv",
        )  # fmt: skip
    except dialects.UnsuitedError as error:
        choose([column.strip() for column in error.header])
        raise
    return _table(path, read.columns, read.rows, f"{suffix[1:].upper()}, {read.dialect}, {encoding}")


def _table(
    path: Path, columns: tuple[str, ...], rows: Sequence[Sequence[Any]], form: str, skipped: int = 0
) -> Table:
    if not rows:
        raise DataError(f"{path} has no rows.")
    return Table(columns, list(rows), ((str(path), len(rows)),), form, skipped=skipped)


def _conll(path: Path, content: str) -> Iterator[dict[str, Any]]:
    """Yield the rows of a file with a word and its tag per line, and an empty line after each row.

    Fields are separated by tabs if a line has any, else by spaces; the first is the word, the last the tag.
    """
    words: list[str] = []
    tags: list[str] = []
    separator = re.compile(r"\t+" if "\t" in content else " +")
    for number, line in enumerate([*re.split(r"\r\n|\r|\n", content), ""], 1):
        fields = [field.strip() for field in separator.split(line.strip(" \t"))]
        if fields == [""] or fields[0].split(" ")[0] == "-DOCSTART-":
            if words:
                yield {"tokens": words, "tags": tags}
            words, tags = [], []
            continue
        if len(fields) == 1:
            raise DataError(f"{path}, line {number}: expected a word and its tag, got '{fields[0][:40]}'.")
        words.append(fields[0])
        tags.append(fields[-1])


def _json_lines(path: Path, content: str) -> Iterator[dict[str, Any]]:
    for number, line in enumerate(content.split("\n"), 1):
        if not line.strip():
            continue
        where = f"{path}, line {number}"
        try:
            value = _loads(line)
        except (ValueError, RecursionError) as error:
            raise DataError(f"{where}: not JSON ({error}).") from error
        if not isinstance(value, dict):
            raise DataError(f'{where}: expected an object, e.g. {{"sentence": ...}}.')
        yield value


def _json_objects(path: Path, content: str) -> Iterator[dict[str, Any]]:
    """Yield the rows of a list of objects, or of SQuAD v1.1's layout: articles, paragraphs, questions."""
    try:
        value = _loads(content)
    except (ValueError, RecursionError) as error:
        try:
            yield from list(_json_lines(path, content))  # one object per line, as pandas writes it
        except DataError:
            raise DataError(f"{path}: not JSON ({error}).") from error
        return
    if isinstance(value, dict) and isinstance(value.get("data"), list):
        yield from _squad(path, value["data"])
    elif isinstance(value, list) and all(isinstance(row, dict) for row in value):
        yield from value
    elif isinstance(value, dict) and len(content.strip().splitlines()) == 1:
        yield value
    else:
        raise DataError(f'{path}: expected a list of objects, e.g. [{{"sentence": ...}}], or one per line.')


def _squad(path: Path, articles: Sequence[Any]) -> Iterator[dict[str, Any]]:
    try:
        for article in articles:
            for paragraph in article["paragraphs"]:
                for entry in paragraph["qas"]:
                    yield {
                        "id": entry.get("id"),
                        "title": article.get("title"),
                        "context": paragraph["context"],
                        "question": entry["question"],
                        "answers": entry["answers"],
                    }
    except (KeyError, TypeError, AttributeError) as error:
        raise DataError(f"{path} does not have SQuAD's layout ({error!r}).") from error


def _loads(text: str) -> Any:
    """Return the value of JSON text.

    Raises:
        ValueError: it is not JSON, has a key twice, or half of a surrogate pair, which no tokenizer takes.
        RecursionError: it is nested too deeply.
    """
    value = json.loads(text, object_pairs_hook=unique_keys)
    if "\\ud" in text or "\\uD" in text:
        try:
            json.dumps(value, ensure_ascii=False).encode()
        except UnicodeEncodeError as error:
            raise ValueError("half of a surrogate pair is not a character") from error
    return value


def _of_objects(path: Path, objects: list[dict[str, Any]], form: str) -> Table:
    columns = tuple(dict.fromkeys(key for row in objects for key in row))
    rows = [[row.get(column, MISSING) for column in columns] for row in objects]
    return _table(path, columns, rows, form)


def _arrow(path: Path, suffix: str) -> Table:
    need("hub", "pyarrow")
    import pyarrow

    rows: list[tuple[Any, ...]] = []
    total, size = 0, path.stat().st_size
    try:
        with (_parquet if suffix == ".parquet" else _arrow_stream)(path) as (schema, batches):
            for batch in batches:
                part = list(zip(*(column.to_pylist() for column in batch.columns), strict=True))
                total += _content_bytes(part)
                text.check_expanded(path, total, size)
                rows += part
    except (pyarrow.ArrowException, OSError) as error:
        raise DataError(f"{path} cannot be read: {error}") from error
    if not rows:
        raise DataError(f"{path} has no rows.")
    names = _class_names(schema.metadata or {})
    return Table(tuple(schema.names), rows, ((str(path), len(rows)),), suffix[1:], names)


def _content_bytes(value: Any) -> int:
    """Return about how many bytes a value of Python has: a column may have one long text many times."""
    if isinstance(value, str | bytes):
        return len(value)
    if isinstance(value, list | tuple):
        return sum(map(_content_bytes, value))
    if isinstance(value, dict):
        return sum(map(_content_bytes, value.values()))
    return _NUMBER_BYTES


@contextlib.contextmanager
def _parquet(path: Path) -> Iterator[tuple[Any, Iterator[Any]]]:
    """Yield schema and rows, a few at a time."""
    import pyarrow.parquet

    with pyarrow.parquet.ParquetFile(path) as file:
        groups = [file.metadata.row_group(number) for number in range(file.metadata.num_row_groups)]
        size = sum(group.total_byte_size for group in groups)
        if size > text.MAX_BYTES:
            raise DataError(f"{path} expands to {size:,} bytes; at most {text.MAX_BYTES:,} are read.")
        yield file.schema_arrow, file.iter_batches(batch_size=_ROWS_AT_ONCE)


@contextlib.contextmanager
def _arrow_stream(path: Path) -> Iterator[tuple[Any, Iterator[Any]]]:
    """Yield schema and rows, a few at a time, of what ``save_to_disk`` of ``datasets`` has written.

    Raises:
        DataError: the file is compressed: a part of it is expanded at once, whatever its size.
    """
    import pyarrow.ipc

    with path.open("rb") as file:
        with contextlib.suppress(EOFError):
            while True:
                if _is_compressed(bytes(pyarrow.ipc.read_message(file).metadata)):
                    raise DataError(f"{path} is compressed: write it without compression, or as .parquet.")
        file.seek(0)
        stream = pyarrow.ipc.open_stream(file)
        yield (
            stream.schema,
            (
                batch.slice(start, _ROWS_AT_ONCE)
                for batch in stream
                for start in range(0, batch.num_rows, _ROWS_AT_ONCE)
            ),
        )


def _is_compressed(message: bytes) -> bool:
    """Whether the buffers of an Arrow message are compressed, by its flatbuffer (format/Message.fbs)."""

    def field(table: int, number: int) -> int:
        """Return the position of a field; 0: the table does not have it."""
        layout = table - int.from_bytes(message[table : table + 4], "little", signed=True)
        if int.from_bytes(message[layout : layout + 2], "little") <= 4 + 2 * number:
            return 0
        at = layout + 4 + 2 * number
        offset = int.from_bytes(message[at : at + 2], "little")
        return table + offset if offset else 0

    def inner(position: int) -> int:
        return position + int.from_bytes(message[position : position + 4], "little")

    root = inner(0)
    at, header = field(root, 1), field(root, 2)
    kind = message[at : at + 1] if at and header else b""
    if kind not in (_DICTIONARY_BATCH, _RECORD_BATCH):
        return False
    batch = inner(header)
    if kind == _DICTIONARY_BATCH:
        batch = inner(field(batch, 1))
    return bool(field(batch, 3))


def _class_names(metadata: dict[bytes, bytes]) -> dict[str, tuple[str, ...]]:
    """Return the names of class numbers, or of lists of them, that ``datasets`` writes into a schema."""
    try:
        features = json.loads(metadata.get(b"huggingface", b"{}")).get("info", {}).get("features", {})
    except (ValueError, AttributeError):
        return {}
    inner = {column: _element(feature) for column, feature in features.items()}
    return {
        column: tuple(map(str, feature["names"]))
        for column, feature in inner.items()
        if feature.get("_type") == "ClassLabel" and feature.get("names")
    }


def _element(feature: Any) -> dict[str, Any]:
    """Return a feature of ``datasets``, or that of the entries if it is a list."""
    if isinstance(feature, list) and feature:
        return _element(feature[0])
    if isinstance(feature, dict) and feature.get("_type") in _LISTS:
        return _element(feature.get("feature"))
    return feature if isinstance(feature, dict) else {}

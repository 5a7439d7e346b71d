"""Tables written in every dialect are read back equal, or refused."""

from __future__ import annotations

import csv
import io
import os
import re
from pathlib import Path

import pandas
import pytest
from hypothesis import HealthCheck, assume, example, given, settings
from hypothesis import strategies as st

from effx.data import tables
from effx.data.columns import choose
from effx.data.tables import Table
from effx.errors import DataError
from effx.specs.data import DataSettings

Fields = list[str]
HEADER = ["sentence", "label"]
TEXTS = st.text(st.sampled_from("ab ,;\t|\"'\\\n\r.é😀-1"), max_size=8)
TABLES = st.lists(st.tuples(TEXTS, st.sampled_from(["yes", "no", "not sure"])), min_size=1, max_size=6)
DELIMITERS = st.sampled_from([",", ";", "\t", "|"])
SETTINGS = settings(
    max_examples=int(os.environ.get("EFFX_EXAMPLES", "100")),
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.filter_too_much],
)


def read(path: Path, **given: object) -> Table:
    reading = DataSettings.of(**given)
    return tables.read([path], reading, lambda columns: choose(columns, path.name, reading, None))


def check(path: Path, content: str, rows: list[tuple[str, str]], **given: object) -> bool:
    """Whether the file was read; its rows are then those that were written."""
    path.write_bytes(content.encode())
    try:
        table = read(path, **given)
    except DataError:
        return False
    assert [tuple(row) for row in table.rows] == rows, content
    return True


def written(rows: list[tuple[str, str]], **dialect: object) -> str:
    file = io.StringIO(newline="")
    try:
        writer = csv.writer(file, **dialect)  # type: ignore[arg-type]
        writer.writerows([HEADER, *rows])
    except csv.Error:  # this dialect has no way to write these texts
        assume(False)
    return file.getvalue()


def looks_quoted(text: str, quote: str = '"') -> bool:
    """Whether a text is itself written like a quoted field, so that no reader can tell it from one."""
    inner = text[1:-1]
    return len(text) > 1 and text[0] == text[-1] == quote and quote not in inner.replace(quote * 2, "")


@SETTINGS
@given(TABLES, DELIMITERS, st.sampled_from(["\n", "\r\n"]),
       st.sampled_from([csv.QUOTE_MINIMAL, csv.QUOTE_ALL, csv.QUOTE_NONNUMERIC]),
       st.sampled_from([".csv", ".tsv"]))  # fmt: skip
@example([("a\rb", "yes")], ",", "\n", csv.QUOTE_MINIMAL, ".csv")
def test_quoted_tables(
    tmp_path: Path, rows: list[tuple[str, str]], delimiter: str, end: str, quoting: int, suffix: str
) -> None:
    content = written(rows, delimiter=delimiter, lineterminator=end, quoting=quoting)
    check(tmp_path / f"t{suffix}", content, rows)
    given = {"delimiter": delimiter, "quoting": "double"}
    read_back = check(tmp_path / f"t{suffix}", content, rows, **given)
    assert read_back or "\r" in "".join(text for text, _ in rows)


@SETTINGS
@given(TABLES, DELIMITERS, st.booleans(), st.booleans(), st.sampled_from([".csv", ".tsv"]))
@example([("a\\b", "yes")], ",", True, False, ".csv")
@example([('a "b" c', "yes")], ";", False, False, ".csv")
@example([(",\n", "yes")], ",", False, True, ".csv")
def test_tables_with_an_escape_character(
    tmp_path: Path, rows: list[tuple[str, str]], delimiter: str, doubled: bool, unquoted: bool, suffix: str
) -> None:
    quoting = csv.QUOTE_NONE if unquoted else csv.QUOTE_MINIMAL
    content = written(rows, delimiter=delimiter, lineterminator="\n", quoting=quoting,
                      escapechar="\\", doublequote=doubled)  # fmt: skip
    check(tmp_path / f"t{suffix}", content, rows)


@SETTINGS
@given(TABLES, DELIMITERS, st.booleans())
@example([("it's", "yes"), ("a''b", "no")], ",", False)
def test_tables_in_single_quotes(
    tmp_path: Path, rows: list[tuple[str, str]], delimiter: str, all_quoted: bool
) -> None:
    quoting = csv.QUOTE_ALL if all_quoted else csv.QUOTE_MINIMAL
    content = written(rows, delimiter=delimiter, lineterminator="\n", quotechar="'", quoting=quoting)
    assume(not any(looks_quoted(text) for text, _ in rows))
    check(tmp_path / "t.csv", content, rows)


@SETTINGS
@given(TABLES, DELIMITERS, st.sampled_from([".csv", ".tsv"]))
@example([('"a" said b', "yes")], "\t", ".tsv")
@example([('"a', "yes"), ('b"', "no")], "\t", ".tsv")
@example([('""', "yes"), ("b", "no")], "\t", ".tsv")
def test_tables_without_quoting(
    tmp_path: Path, rows: list[tuple[str, str]], delimiter: str, suffix: str
) -> None:
    """As in the files of GLUE; a .csv file whose texts look quoted is read as a quoted file."""
    rows = [(re.sub(rf"[{re.escape(delimiter)}\r\n]", "", text) or "a", label) for text, label in rows]
    assume(suffix == ".tsv" or not any(looks_quoted(text) for text, _ in rows))
    lines = [delimiter.join(row) for row in [HEADER, *rows]]
    check(tmp_path / f"t{suffix}", "\n".join(lines) + "\n", rows)


@SETTINGS
@given(TABLES, DELIMITERS, st.booleans(), st.sampled_from([csv.QUOTE_MINIMAL, csv.QUOTE_ALL]),
       st.sampled_from(["utf-8", "utf-8-sig", "utf-16"]))  # fmt: skip
@example([("'", "yes"), ("\r", "yes"), ("'", "yes")], ",", False, csv.QUOTE_MINIMAL, "utf-8")
def test_tables_by_pandas(
    tmp_path: Path, rows: list[tuple[str, str]], delimiter: str, index: bool, quoting: int, encoding: str
) -> None:
    path = tmp_path / "t.csv"
    frame = pandas.DataFrame(rows, columns=HEADER)
    frame.to_csv(path, sep=delimiter, index=index, quoting=quoting, encoding=encoding)
    try:
        table = read(path)
    except DataError:
        return
    columns = [table.columns.index(name) for name in HEADER]
    assert [tuple(row[column] for column in columns) for row in table.rows] == rows


@SETTINGS
@given(
    TABLES, DELIMITERS, st.sampled_from(["\n", "\r\n", "\r"]), st.sampled_from([".csv", ".tsv", ".txt"]),
    st.sampled_from([csv.QUOTE_MINIMAL, csv.QUOTE_ALL, csv.QUOTE_NONNUMERIC]),
    st.sampled_from(["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-16-be", "utf-32", "latin-1"]),
)  # fmt: skip
def test_tables_in_every_encoding(
    tmp_path: Path,
    rows: list[tuple[str, str]],
    delimiter: str,
    end: str,
    suffix: str,
    quoting: int,
    encoding: str,
) -> None:
    """Without a byte-order mark the encoding is named; unnamed it is refused, or the texts are the same."""
    content = written(rows, delimiter=delimiter, lineterminator=end, quoting=quoting)
    try:
        encoded = content.encode(encoding)
    except UnicodeEncodeError:
        assume(False)
    path = tmp_path / f"t{suffix}"
    path.write_bytes(encoded)
    marked = encoding in ("utf-8-sig", "utf-16", "utf-32")
    for named in ({}, {} if marked else {"encoding": encoding}):
        try:
            table = read(path, **named)
        except DataError:
            continue
        assert [tuple(row) for row in table.rows] == rows


@SETTINGS
@given(
    st.lists(TEXTS.filter(str.strip), min_size=1, max_size=6),
    st.sampled_from([csv.QUOTE_MINIMAL, csv.QUOTE_ALL]),
)
def test_tables_of_one_column(tmp_path: Path, texts: list[str], quoting: int) -> None:
    """With one column any delimiter fits; a carriage return at the end of a text is part of the line end."""
    assume(not any(text.endswith("\r") for text in texts))
    file = io.StringIO(newline="")
    csv.writer(file, lineterminator="\n", quoting=quoting).writerows([["text"], *([text] for text in texts)])
    path = tmp_path / "t.csv"
    path.write_bytes(file.getvalue().encode())
    reading = DataSettings()
    try:
        table = tables.read(
            [path], reading, lambda columns: choose(columns, path.name, reading, None, labelled=False)
        )
    except DataError:
        return
    assert [row[0] for row in table.rows] == texts


@pytest.mark.parametrize(
    ("name", "content", "form"),
    [
        ("a.csv", "sentence;label\nfine, thanks;yes\n", "CSV, delimiter semicolon, double quotes, UTF-8"),
        ("a.csv", 'sentence,label\n"a\nb",yes\n', "CSV, delimiter comma, double quotes, UTF-8"),
        ("a.csv", 'sep=;\r\nsentence;label\r\n"a;b";yes\r\n',
         "CSV, delimiter semicolon, double quotes, UTF-8"),
        ("a.csv", 'id;sentence;label\n1;"say \\"hi\\"; now";yes\n',
         "CSV, delimiter semicolon, backslashes before quotes, UTF-8"),
        ("a.tsv", 'sentence\tlabel\n"a" said b\tyes\n', "TSV, delimiter tab, no quoting, UTF-8"),
        ("a.tsv", 'sentence\tlabel\n"a\tb"\tyes\n', "TSV, delimiter tab, double quotes, UTF-8"),
        ("a.txt", "sentence|label\na,b;c|yes\n", "TXT, delimiter pipe, double quotes, UTF-8"),
        ("a.csv", "'sentence','label'\n'it''s','yes'\n", "CSV, delimiter comma, single quotes, UTF-8"),
    ],
)  # fmt: skip
def test_the_dialect_is_stated(tmp_path: Path, name: str, content: str, form: str) -> None:
    (tmp_path / name).write_bytes(content.encode())
    assert read(tmp_path / name).format == form


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.csv", "sentence,label\na,b,yes\n", "row 1: more fields than the header .3, .* by comma"),
        ("a.tsv", "sentence\tlabel\na\tb\tyes\n", "row 1: more fields than the header .3, .* by tab"),
        ("a.csv", "label,sentence,id\nyes,a\nb,1\n", "row 1: fewer fields than the header .2, expected 3"),
        ("a.csv", 'sentence,label\n"a" b,yes\n', "line 2: .* quotes do not match"),
        ("a.csv", 'sentence,label\n"a,yes\nb,no\n', "quotes do not match"),
        ("a.csv", 'sentence,label\n"a",yes\nb,no\nc,no\n', "row 1: quotes may enclose the text"),
        ("a.csv", 'sentence,label\n"a,yes\nb",no\n', "row 1: quotes may enclose the text"),
        ("a.tsv", 'sentence\tlabel\n"a\tyes\nb"\tno\n', "row 1: .* set quoting to double or none"),
        ("a.csv", "sentence,label\na\rb,yes\n", "fewer fields"),
        ("a.csv", "sentence\na\rb\nc\n", "column 'label' is missing"),
        ("a.csv", "sentence,label,label\na,yes,no\n", "2 columns are called 'label'"),
        ("a.csv", "sentence,label,Label\na,yes,no\n", "2 columns are called 'label'"),
        ("a.csv", "I like it,yes\nI do not,no\n", "no column is called label "),
        ("a.csv", "\n\n", "has no rows"),
        ("a.csv", "sentence,label\n", "has no rows"),
    ],
)  # fmt: skip
def test_tables_that_are_refused(tmp_path: Path, name: str, content: str, message: str) -> None:
    (tmp_path / name).write_bytes(content.encode())
    with pytest.raises(DataError, match=message):
        read(tmp_path / name)


def test_very_long_fields(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text(f'sentence,label\n"{"long, " * 100_000}",yes\n')
    assert len(read(tmp_path / "a.csv").rows[0][0]) == 600_000

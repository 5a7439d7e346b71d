r"""Delimiter and quoting of a text file: chosen so that the whole file fits them, or refused as ambiguous.

A delimiter is possible if the header has the needed columns with it and every row has the header's number of
fields. For each possible delimiter the file is read with each quoting, strictly:

    double      "a ""quoted"" text"        csv, pandas and Excel write this (RFC 4180)
    backslash   "a \"quoted\" text"          csv and pandas with an escape character
    single      'it''s'                    csv with another quote character
    none        a "quoted" text            GLUE's .tsv files: a quote is a character of the text

Readings that give the same rows need no choice. Where they differ, what the file looks like decides, if no
writer would have written it otherwise (:func:`_preferred`); if not, the file is refused.
"""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from effx.errors import DataError
from effx.specs.data import DELIMITERS, delimiter_name

Fields = list[str]
_USUAL = "".join(DELIMITERS.values())
_CONVINCING = 5
"""Texts with quotes, all of them wrapped and doubled, from which a tab-separated file is taken for quoted."""
csv.field_size_limit(2**31 - 1)  # the default, 128 KiB, refuses long documents


@dataclass(frozen=True)
class Dialect:
    """How the fields of a text file are separated and quoted."""

    delimiter: str
    quoting: str
    """One of :data:`effx.specs.data.QUOTINGS`."""

    def rows(self, text: str) -> Iterator[Fields]:
        """Yield the rows; empty lines are left out.

        Raises:
            csv.Error: the text does not fit; the message has the line.
        """
        lines = io.StringIO(text, newline="")
        if self.quoting == "none":
            reader = csv.reader(lines, delimiter=self.delimiter, quoting=csv.QUOTE_NONE, quotechar=None)
        else:
            reader = csv.reader(
                lines,
                delimiter=self.delimiter,
                quotechar="'" if self.quoting == "single" else '"',
                doublequote=True,
                escapechar="\\" if self.quoting == "backslash" else None,
                strict=True,
            )
        try:
            yield from filter(None, reader)
        except csv.Error as error:
            raise csv.Error(f"line {reader.line_num}: {error}") from error

    def header(self, text: str) -> Fields:
        """Return the first row; an empty list where it cannot be read."""
        try:
            return next(self.rows(text), [])
        except csv.Error:
            return []

    def __str__(self) -> str:
        names = {"double": "double quotes", "single": "single quotes",
                 "backslash": "backslashes before quotes", "none": "no quoting"}  # fmt: skip
        return f"delimiter {delimiter_name(self.delimiter)}, {names[self.quoting]}"


@dataclass(frozen=True)
class _Reading:
    dialect: Dialect
    rows: list[Fields]


@dataclass(frozen=True)
class Content:
    """A text file as columns and rows."""

    columns: tuple[str, ...]
    rows: list[Fields]
    dialect: Dialect
    skipped: int = 0
    """Rows that are left out because they have another number of fields, where the caller allows this."""


def read(
    text: str,
    where: str,
    suits: Callable[[Sequence[str]], bool],
    *,
    delimiter: str | None = None,
    quoting: str | None = None,
    tabs: bool = False,
) -> Content:
    """Return the columns and rows of a text file.

    Args:
        text: of the file, with its line ends.
        where: the file, for messages.
        suits: whether a header has the needed columns.
        delimiter: given by the user; None: chosen.
        quoting: given by the user; None: chosen.
        tabs: the file's name says that it is separated by tabs.

    Raises:
        DataError: no delimiter and quoting fit the whole file, or several do and differ.
    """
    text, hint = _without_hint(text)
    if not text.strip():
        raise DataError(f"{where} has no rows.")
    delimiters = (
        [delimiter or hint] if delimiter or hint else list(dict.fromkeys("\t" + _USUAL if tabs else _USUAL))
    )
    quotings = [quoting] if quoting else _possible_quotings(text)
    readings: list[_Reading] = []
    failures: list[DataError] = []
    for candidate in (Dialect(str(each), kind) for each in delimiters for kind in quotings):
        if not suits(candidate.header(text)):
            continue
        try:
            rows = list(candidate.rows(text))
            problem = _problem(text, rows, where, candidate)
        except csv.Error as error:
            problem = _broken_quoting(where, error)
        if problem is None:
            readings.append(_Reading(candidate, rows))
        elif candidate.quoting == quotings[0]:
            failures.append(problem)
    readings = _without_false_escapes(text, readings, quoting)
    if quoting is None and not text.startswith("'") and all(r.dialect.quoting == "single" for r in readings):
        readings = []  # apostrophes: a writer that always uses single quotes has them around the header
    if not readings:
        raise (
            failures[0] if failures else UnsuitedError(_longest_header(text, delimiters, quotings[0]), where)
        )
    return _content(_preferred(text, where, readings, failures, tabs=tabs, given=quoting is not None))


def read_ragged(text: str, where: str, width: int) -> tuple[list[Fields], int]:
    """Return the rows that have ``width`` fields of a file without quoting, and how many have not.

    Raises:
        DataError: more than a hundredth of the rows have another number.
    """
    every = list(Dialect("\t", "none").rows(text))
    rows = [row for row in every if len(row) == width]
    skipped = len(every) - len(rows)
    if skipped > max(1, len(every) // 100):
        raise DataError(f"{where}: {skipped} of {len(every)} rows do not have {width} fields.")
    return rows, skipped


def _without_hint(text: str) -> tuple[str, str | None]:
    """Return the text without Excel's first line ``sep=;``, and the delimiter that it names."""
    match = re.match(r"sep=(.)\r?\n", text)
    return (text[match.end() :], match[1]) if match else (text, None)


def _possible_quotings(text: str) -> list[str]:
    quotings = ["double"]
    if '"' in text:
        quotings.append("none")
    if "\\" in text:
        quotings.append("backslash")
    if "'" in text:
        quotings.append("single")
    return quotings


def _content(reading: _Reading) -> Content:
    return Content(tuple(column.strip() for column in reading.rows[0]), reading.rows[1:], reading.dialect)


def _problem(text: str, rows: list[Fields], where: str, dialect: Dialect) -> DataError | None:
    """Return why rows are not those of a table, or None."""
    width = len(rows[0])
    for number, row in enumerate(rows[1:], 1):
        if len(row) == width:
            continue
        cause = "more fields than the header" if len(row) > width else "fewer fields than the header"
        quoted = "quote" if dialect.quoting == "none" else 'quote ("...")'
        return DataError(
            f"{where}, row {number}: {cause} ({len(row)}, expected {width}, separated by "
            f"{delimiter_name(dialect.delimiter)}): {quoted} texts that contain the delimiter or a line "
            "break, or set another delimiter or quoting",
            settings=("delimiter", "quoting"),
        )
    bare = re.findall("\r(?!\n)", text)
    if bare and "\n" in text:  # neither the line ends of an old Macintosh
        inside = sum(len(re.findall("\r(?!\n)", field)) for row in rows for field in row)
        if inside != len(bare):
            line = text[: re.search("\r(?!\n)", text).start()].count("\n") + 1  # type: ignore[union-attr]
            return DataError(
                f"{where}, line {line}: a carriage return outside of quotes: it may be a line end or part of "
                "a text. Quote the text, or remove it."
            )
    return None


def _broken_quoting(where: str, error: csv.Error) -> DataError:
    return DataError(
        f"{where}, {error}: quotes do not match: double the quotes within a quoted text, or set quoting to "
        "none if quotes are characters of the texts",
        settings="quoting",
    )


def _without_false_escapes(text: str, readings: list[_Reading], quoting: str | None) -> list[_Reading]:
    r"""Return the readings without those by backslash that no writer has written.

    A writer puts a backslash only before a delimiter, a quote or a backslash; before a line end it may be
    the end of a text. Text with other backslashes, as C:\dir or \alpha, was not escaped.
    """

    def escaped(reading: _Reading) -> bool:
        special = {reading.dialect.delimiter, '"', "\\"}
        if any(other.dialect.quoting != "backslash" for other in readings):
            special |= {"\n", "\r"}  # enough for a doubt, not for a choice
        return all(following in special for following in re.findall(r"\\(.?)", text, re.DOTALL))

    return [
        reading
        for reading in readings
        if quoting is not None or reading.dialect.quoting != "backslash" or escaped(reading)
    ]


def _preferred(
    text: str, where: str, readings: list[_Reading], failures: list[DataError], *, tabs: bool, given: bool
) -> _Reading:
    """Return the reading that the file was written for.

    Raises:
        DataError: this cannot be decided.
    """
    distinct = [reading for index, reading in enumerate(readings) if not _same(reading, readings[:index])]
    if len(distinct) == 1 and (
        given or distinct[0].dialect.quoting != "none" or _is_tabbed(distinct[0], tabs)
    ):
        return distinct[0]
    delimiters = {reading.dialect.delimiter for reading in distinct}
    if len(delimiters) > 1:
        raise DataError(
            f"{where}: {' and '.join(map(delimiter_name, sorted(delimiters)))} are both possible "
            "delimiters: set the delimiter",
            settings="delimiter",
        )
    by_quoting = {reading.dialect.quoting: reading for reading in distinct}
    tab = _is_tabbed(distinct[0], tabs)
    single = by_quoting.pop("single", None)
    if single is not None and _style(text, single) in ("minimal", "mixed") and by_quoting:
        if _style(text, single) == "minimal":
            raise _ambiguous(where, single, next(iter(by_quoting.values())))
        single = None
    if single is not None:
        by_quoting["single"] = single
    if {"double", "none"} <= set(by_quoting):
        chosen = _quoted_or_not(text, where, by_quoting["double"], by_quoting["none"], tab=tab)
        by_quoting = {**by_quoting, "double": chosen}
        del by_quoting["none"]
    elif "none" in by_quoting and not tab:
        del by_quoting["none"]
        if not by_quoting:
            raise (
                failures[0]
                if failures
                else DataError(
                    f"{where}: it is not clear how texts are quoted: set quoting", settings="quoting"
                )
            )
    first, *others = by_quoting.values()
    if others:
        raise _ambiguous(where, first, others[0])
    return first


def _is_tabbed(reading: _Reading, tabs: bool) -> bool:
    return tabs or reading.dialect.delimiter == "\t"


def _quoted_or_not(text: str, where: str, double: _Reading, none: _Reading, *, tab: bool) -> _Reading:
    """Decide where quotes may enclose fields or be characters of the texts."""
    style = _style(text, double)
    if len(double.rows) != len(none.rows):
        raise _ambiguous(where, double, none)
    if not tab:  # RFC 4180, unless only some texts have quotes, none of which they need
        if style == "mixed":
            raise _ambiguous(where, double, none)
        return double
    if style == "mixed":  # no writer of tables writes this, so the quotes are the texts'
        return none
    wrapped = sum(1 for row in double.rows for field in row if '"' in field and re.search(r"\w", field))
    if style == "minimal" and wrapped >= _CONVINCING:
        return double
    raise _ambiguous(where, double, none)


def _style(text: str, reading: _Reading) -> str:
    """Return which fields are quoted.

    Returns:
        ``minimal``: those that need it; ``columns``: all of some columns, and those that need it in others;
        ``mixed``: others as well.
    """
    quote = "'" if reading.dialect.quoting == "single" else '"'
    fields = _raw_fields(text, reading.dialect.delimiter, quote)
    width = len(reading.rows[0])
    if len(fields) != width * len(reading.rows):
        return "mixed"  # the file has lines that this simple pattern reads differently
    style = "minimal"
    for column in range(width):
        raw = fields[width + column :: width]
        quoted = [field for field in raw if field.startswith(quote)]
        if all(_needs_quotes(field[1:-1], reading.dialect.delimiter, quote) for field in quoted):
            continue
        if len(quoted) < len(raw):
            return "mixed"
        style = "columns"
    return style


def _raw_fields(text: str, delimiter: str, quote: str) -> list[str]:
    """Return the fields of a strictly quoted text as written, row by row."""
    other, end = re.escape(delimiter), "\r\n|\n|\r"
    pattern = rf"({quote}[^{quote}]*(?:{quote}{quote}[^{quote}]*)*{quote}|[^{other}\r\n]*)({other}|{end}|$)"
    fields: list[str] = []
    begins_row = True
    for match in re.finditer(pattern, text):
        raw, terminator = match.groups()
        if raw or not begins_row or terminator == delimiter:  # not an empty line
            fields.append(raw)
        begins_row = terminator != delimiter
        if terminator == "" and match.end() == len(text):
            break
    return fields


def _needs_quotes(inner: str, delimiter: str, quote: str) -> bool:
    """Whether writers quote a field: it has a usual delimiter, a quote, a line end or outer spaces."""
    return (
        not inner
        or inner != inner.strip()
        or any(char in inner for char in (delimiter, quote, "\n", "\r", *_USUAL))
    )


def _same(reading: _Reading, others: list[_Reading]) -> bool:
    return any(reading.rows == other.rows for other in others)


def _ambiguous(where: str, one: _Reading, other: _Reading) -> DataError:
    number = next(
        (index for index, (a, b) in enumerate(zip(one.rows, other.rows, strict=False)) if a != b),
        min(len(one.rows), len(other.rows)),
    )
    return DataError(
        f"{where}, row {number}: quotes may enclose the text or be part of it: set quoting to "
        f"{one.dialect.quoting} or {other.dialect.quoting}",
        settings="quoting",
    )


def _longest_header(text: str, delimiters: Sequence[str | None], quoting: str) -> Fields:
    return max((Dialect(str(each), quoting).header(text) for each in delimiters), key=len)


class UnsuitedError(DataError):
    """With no delimiter does the header have the needed columns."""

    def __init__(self, header: Sequence[str], where: str) -> None:
        super().__init__(f"{where}: the header does not have the needed columns.")
        self.header = tuple(header)

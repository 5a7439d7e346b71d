from __future__ import annotations

import gzip
import os
from pathlib import Path

import pytest

from effx.data import text
from effx.errors import DataError


@pytest.mark.parametrize(
    ("content", "encoding", "expected"),
    [
        ("né 😀".encode(), None, ("né 😀", "UTF-8")),
        ("né".encode("utf-8-sig"), None, ("né", "UTF-8 with byte-order mark")),
        ("né".encode("utf-8-sig"), "utf-8", ("né", "UTF-8 with byte-order mark")),
        ("né 😀".encode("utf-16"), None, ("né 😀", "UTF-16 with byte-order mark")),
        ("né 😀".encode("utf-16-le"), "utf-16-le", ("né 😀", "utf-16-le")),
        ("né".encode("latin-1"), "latin-1", ("né", "Latin-1")),
        ("“né”".encode("cp1252"), "cp1252", ("“né”", "cp1252")),
        (b"n\xe9\n\xf0\x9f\x98\x80\na", "utf-8,latin-1",
         ("né\n😀\na", "UTF-8 (1 lines) and Latin-1 (1 lines)")),
        (b"\xef\xbb\xbfn\xe9\n\xf0\x9f\x98\x80", "utf-8,latin-1",
         ("né\n😀", "UTF-8 (1 lines) and Latin-1 (1 lines), with byte-order mark")),
        (b"n\xe9 \xf0\x9f\x98\x80", "utf-8,latin-1", ("né 😀", "UTF-8 (0 lines) and Latin-1 (1 lines)")),
    ],
)  # fmt: skip
def test_encodings(tmp_path: Path, content: bytes, encoding: str | None, expected: tuple[str, str]) -> None:
    (tmp_path / "a.csv").write_bytes(content)
    assert text.read(tmp_path / "a.csv", encoding) == expected
    (tmp_path / "a.csv.gz").write_bytes(gzip.compress(content))
    assert text.read(tmp_path / "a.csv.gz", encoding) == expected


@pytest.mark.parametrize(
    ("content", "encoding", "message"),
    [
        (b"a\nn\xe9", None, "line 2: not text in UTF-8: set encoding to latin-1, or to what wrote the file"),
        (b"a\n\x93n\xe9\x94", None, "line 2: not text in UTF-8: set encoding to cp1252"),
        (b"\xc3\xa9\nn\xe9", None, "line 2: not text in UTF-8: other lines are UTF-8; .* utf-8,latin-1"),
        ("né".encode("utf-16-le"), None, "NUL bytes: if it is UTF-16, set encoding to utf-16-le"),
        (b"a\n\x93n\xe9\x94", "latin-1", "line 2: control characters in Latin-1.*set encoding to cp1252"),
        (b"n\xe9\n\xf0\x9f\x98\x80", "latin-1", "control characters .* set encoding to utf-8,latin-1"),
        ("né".encode("utf-8-sig"), "latin-1", "byte-order mark of UTF-8, but"),
        ("né".encode("utf-8-sig"), "latin-1,utf-8", "encoding is set to latin-1,utf-8: leave encoding out"),
        ("né".encode("utf-16"), "utf-16,latin-1", "several bytes per character: it cannot be mixed"),
        (b"a\nb\0c", None, "line 2: NUL characters"),
        (b"n\xe9", "ascii", "line 1: not text in ascii"),
    ],
)  # fmt: skip
def test_other_encodings_are_refused_with_the_line(
    tmp_path: Path, content: bytes, encoding: str | None, message: str
) -> None:
    (tmp_path / "a.csv").write_bytes(content)
    with pytest.raises(DataError, match=message):
        text.read(tmp_path / "a.csv", encoding)


def test_a_pipe_is_not_read(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "a.csv")
    with pytest.raises(DataError, match="not a plain file"):
        text.read(tmp_path / "a.csv", None)


def test_compressed_files_are_bounded(tmp_path: Path) -> None:
    (tmp_path / "a.csv.gz").write_bytes(gzip.compress(b"0" * (101 << 20), compresslevel=1))
    with pytest.raises(DataError, match="not a file of texts"):
        text.read(tmp_path / "a.csv.gz", None)


@pytest.mark.parametrize("content", [b"plain", gzip.compress(b"cut off" * 100, mtime=0)[:20]])
def test_damaged_compressed_files_are_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "a.csv.gz").write_bytes(content)
    with pytest.raises(DataError, match="cannot be read"):
        text.read(tmp_path / "a.csv.gz", None)

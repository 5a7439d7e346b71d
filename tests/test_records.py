"""JSON that is not strict is refused in one line that names the file and the key."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from effx import records
from effx.errors import ArtifactError
from effx.records import Record


class Inner(Record):
    share: float


class Outer(Record):
    count: int
    name: str = ""
    parts: tuple[Inner, ...] = ()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (b'{"a": 1, "a": 2}', "duplicate key 'a'"),
        (b'{"a": NaN}', "NaN is not a JSON number"),
        (b'{"a": -Infinity}', "-Infinity is not a JSON number"),
        (b'{"a": 1e400}', "1e400 is too large for a number"),
        (b'{"a": 9223372036854775808}', "9223372036854775808 is too large for an integer"),
        (b'{"a": ' + b"1" * 5000 + b"}", "is too large for an integer"),
        (b'{"a": "\\ud800"}', "it is not UTF-8 text"),
        (b'{"a": "\xff"}', "it is not UTF-8 text"),
        (b"\xef\xbb\xbf{}", "cannot be read"),
        (b"[" * 200_000, "its JSON is nested too deeply"),
        (b'{"a":' * 200_000, "its JSON is nested too deeply"),
        (b"", "cannot be read"),
        (b"null", "expected a JSON object, got null"),
    ],
    ids=lambda value: None if isinstance(value, str) else value[:12].decode("ascii", "replace"),
)
def test_json_that_is_not_strict_is_refused(text: bytes, message: str, tmp_path: Path) -> None:
    path = tmp_path / "value.json"
    path.write_bytes(text)
    with pytest.raises(ArtifactError) as caught:
        records.read_json(path)
    line = str(caught.value)
    assert message in line and str(path) in line and "\n" not in line and len(line) < 400


def test_only_regular_files_of_a_limited_size_are_read(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo")
    with pytest.raises(ArtifactError, match="fifo is not a regular file"):
        records.read_json(tmp_path / "fifo")
    with pytest.raises(ArtifactError, match="is not a regular file"):
        records.read_json(tmp_path)
    with pytest.raises(ArtifactError, match="none cannot be read: No such file"):
        records.read_json(tmp_path / "none")
    (tmp_path / "large").write_text('{"a": 1}')
    with pytest.raises(ArtifactError, match="expected at most 4 bytes, got 8"):
        records.read_json(tmp_path / "large", limit_bytes=4)


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ({}, "count: missing"),
        ({"count": 1, "more": 2}, "more: unknown key"),
        ({"count": True}, "count: expected a valid integer, got true"),
        ({"count": 1.0}, "count: expected a valid integer, got 1.0"),
        ({"count": "1"}, 'count: expected a valid integer, got "1"'),
        ({"count": 1, "name": 5}, "name: expected a valid string, got 5"),
        ({"count": 1, "parts": {}}, "parts: expected a valid array, got an object"),
        ({"count": 1, "parts": [{"share": 0}, {"share": None}]},
         "parts[1].share: expected a valid number, got null"),
        ({"count": 1, "parts": [{"share": 0.5, "\x1b[31m": 1}]}, "parts[0].\\x1b[31m: unknown key"),
    ],
)  # fmt: skip
def test_values_have_exactly_their_type(value: dict[str, object], message: str) -> None:
    with pytest.raises(ArtifactError) as caught:
        records.build(Outer, value, Path("f.json"))
    assert str(caught.value) == f"f.json: {message}."


def test_a_record_reads_back_from_its_json() -> None:
    record = Outer(count=2, parts=(Inner(share=0.25),))
    assert records.build(Outer, json.loads(json.dumps(record.to_json())), Path("f")) == record

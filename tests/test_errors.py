"""Messages of libraries and names from files, as they are printed."""

from __future__ import annotations

from pathlib import Path

import pytest

from effx.errors import one_line, printable, without_folders


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("plain, größe \\n", "plain, größe \\n"),
        ("\x1b[31mred", "\\x1b[31mred"),
        ("größe\nnext", "größe\\nnext"),
        ("\u202egpj.exe", "\\u202egpj.exe"),  # right-to-left override
        ("\udc80", "\\udc80"),  # a byte of a name that is not UTF-8
        ("", ""),
    ],
)
def test_only_characters_that_a_terminal_acts_on_are_escaped(text: str, expected: str) -> None:
    assert printable(text) == expected


def test_a_message_of_several_lines_becomes_one_of_limited_length() -> None:
    assert one_line("first\n\n  second\x07", None) == "first second\\x07"
    assert one_line("a" * 500) == "a" * 200
    assert one_line("a" * 500, 120) == "a" * 120


def test_an_error_without_a_message_is_named_by_its_class() -> None:
    assert one_line(TimeoutError()) == "TimeoutError"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("/home/x/engines/a/model.onnx is damaged", "model.onnx is damaged"),
        (
            "opening '/a/b c': no; see https://a.org/b/c, 3 a/b",
            "opening 'b c': no; see https://a.org/b/c, 3 a/b",
        ),
        ("engines/a: 1/2 failed", "engines/a: 1/2 failed"),
        (r"C:\x\y.onnx", "y.onnx"),
        (f"{Path.home()}/a.onnx", "a.onnx"),
    ],
)
def test_folders_are_cut_from_texts_for_other_machines(text: str, expected: str) -> None:
    assert without_folders(text) == expected

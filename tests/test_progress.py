"""Progress without a terminal on stderr, and with one."""

from __future__ import annotations

import pytest

from effx import progress


def test_completion_is_printed_once(capsys: pytest.CaptureFixture[str]) -> None:
    with progress.bar("work", 0.3) as advance:
        for _ in range(3):
            advance(0.1, "step")  # their sum is not 0.3 exactly
        advance(0.0, "after")
    assert capsys.readouterr().err.splitlines() == ["work", "  100% after 0 s step"]


def test_brackets_in_names_are_shown(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.stderr.isatty", lambda: True, raising=False)
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("COLUMNS", "120")
    with progress.bar("profile [/dev/nvidia0]", 1.0) as advance:
        advance(1.0, "[/]")
    printed = capsys.readouterr().err
    assert "[/dev/nvidia0]" in printed and "[/]" in printed


def test_lines_are_printed_apart_and_their_control_characters_escaped(
    capsys: pytest.CaptureFixture[str],
) -> None:
    progress.say("data: 2 rows", "  columns: a\nb \x1b[31m")
    assert capsys.readouterr().err == "data: 2 rows\n  columns: a\\nb \\x1b[31m\n"

"""Progress where stderr is no terminal."""

from __future__ import annotations

import pytest

from effx import progress


def test_the_end_is_told_once(capsys: pytest.CaptureFixture[str]) -> None:
    with progress.bar("work", 0.3) as advance:
        for _ in range(3):
            advance(0.1, "step")  # their sum is not 0.3 exactly
        advance(0.0, "after")
    assert capsys.readouterr().err.splitlines() == ["work", "  100% after 0 s step"]

"""Commands killed and stopped at random moments: see tests/kills.py."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.kills import campaign


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/environ").exists(), reason="processes are read from /proc")
def test_kills_and_stops_lose_nothing(tmp_path: Path, encoders: dict[str, Path], rows_folder: Path) -> None:
    """EFFX_KILLS: how many SIGKILLs, and as many stops with SIGTERM and SIGINT together."""
    n = int(os.environ.get("EFFX_KILLS", "12"))
    done = campaign(tmp_path / "campaign", encoders["bert"], rows_folder, kills=n, stops=n // 2, in_a_row=2)
    assert done.wrong == []
    assert done.sent == {"KILL": n, "TERM": n // 2, "INT": n // 2}

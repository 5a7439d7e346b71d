from __future__ import annotations

import gc
from pathlib import Path

import pytest

from effx.host import memory


def test_the_collector_rests_and_is_back_even_after_an_error() -> None:
    assert gc.isenabled()
    with pytest.raises(ValueError, match="within"), memory.collector_paused():
        assert not gc.isenabled()
        with memory.collector_paused():
            pass
        assert not gc.isenabled()  # as it was found
        raise ValueError("within")
    assert gc.isenabled()


def test_a_control_groups_cached_files_are_free(tmp_path: Path) -> None:
    mib = 1024**2
    (tmp_path / "memory.max").write_text(f"{300 * mib}\n")
    (tmp_path / "memory.current").write_text(f"{290 * mib}\n")
    assert memory.free_bytes(tmp_path) == 10 * mib
    (tmp_path / "memory.stat").write_text(f"anon {10 * mib}\ninactive_file {200 * mib}\nactive_file 5\n")
    assert memory.free_bytes(tmp_path) == 210 * mib
    (tmp_path / "memory.current").write_text(f"{600 * mib}\n")  # a limit that was lowered
    assert memory.free_bytes(tmp_path) == 0
    (tmp_path / "memory.max").write_text("max\n")
    assert memory.free_bytes(tmp_path) > 0

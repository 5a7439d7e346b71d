"""Available memory, and the paused garbage collector."""

from __future__ import annotations

import gc
from pathlib import Path

import pytest

from effx.host import memory
from effx.host.cgroups import Cgroups

MIB = 1024**2


def test_the_collector_runs_again_even_after_an_error() -> None:
    assert gc.isenabled()
    with pytest.raises(ValueError, match="within"), memory.collector_paused():
        assert not gc.isenabled()
        with memory.collector_paused():
            pass
        assert not gc.isenabled()  # the outer block still pauses it
        raise ValueError("within")
    assert gc.isenabled()


def test_available_memory_is_limited_by_the_control_group(tmp_path: Path) -> None:
    cgroups = Cgroups(tmp_path, tmp_path / "none")
    (tmp_path / "memory.max").write_text(f"{30 * MIB}\n")
    (tmp_path / "memory.current").write_text(f"{20 * MIB}\n")
    assert memory.available_memory_bytes(cgroups) == 10 * MIB
    (tmp_path / "memory.max").write_text("max\n")
    assert 10 * MIB < memory.available_memory_bytes(cgroups) <= memory.total_memory_bytes()


def test_peak_memory_is_that_of_this_process(tmp_path: Path) -> None:
    status = tmp_path / "status"
    status.write_text("Name:\tpython\nVmHWM:\t   2048 kB\n")
    assert memory.peak_resident_bytes(status) == 2 * MIB
    peak = memory.peak_resident_bytes()
    assert peak is not None and peak > MIB

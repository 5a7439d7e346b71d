"""Counters read from a powercap tree in a temporary folder."""

from __future__ import annotations

from pathlib import Path

import pytest

from effx.profile import meters
from effx.profile.meters import rapl
from effx.profile.meters.protocol import UnavailableError

RANGE_UJ = 1_000_000


def domain(root: Path, folder: str, name: str, energy_uj: int) -> Path:
    place = root / folder
    place.mkdir(parents=True)
    (place / "name").write_text(name + "\n")
    (place / "energy_uj").write_text(f"{energy_uj}\n")
    (place / "max_energy_range_uj").write_text(f"{RANGE_UJ}\n")
    return place / "energy_uj"


def test_packages_and_dram_are_summed_psys_and_core_are_not(tmp_path: Path) -> None:
    counted = [
        domain(tmp_path, "intel-rapl:0", "package-0", 100),
        domain(tmp_path, "intel-rapl:1", "package-1", 200),
        domain(tmp_path, "intel-rapl:0:2", "dram", 300),
    ]
    parts = [domain(tmp_path, "intel-rapl:2", "psys", 0), domain(tmp_path, "intel-rapl:0:0", "core", 0)]
    meter = rapl.open(root=tmp_path)
    meter.start()
    for file in counted:
        file.write_text(str(int(file.read_text()) + 1000))
    for file in parts:
        file.write_text("999999")
    assert meter.stop(cpu_s=0).joules == pytest.approx(3000e-6)


def test_a_wrap_is_undone_and_a_failed_read_is_no_wrap(tmp_path: Path) -> None:
    counter = domain(tmp_path, "intel-rapl:0", "package-0", RANGE_UJ - 100)
    meter = rapl.open(root=tmp_path)
    meter.start()
    counter.write_text("50")
    assert meter.stop(cpu_s=0).joules == pytest.approx(150e-6)
    meter.start()
    counter.unlink()
    reading = meter.stop(cpu_s=0)
    assert reading.joules is None
    assert "could not be read" in str(reading.reason)


def test_no_counters_is_unavailable_with_a_remedy(tmp_path: Path) -> None:
    with pytest.raises(UnavailableError, match="--meter model:WATTS_PER_CORE"):
        rapl.open(root=tmp_path)


def test_model_is_cpu_seconds_times_watts() -> None:
    meter = meters.open("model:7.5")
    meter.start()
    assert meter.stop(cpu_s=2.0).joules == pytest.approx(15.0)
    assert meter.source == "model"


def test_auto_never_falls_back_to_a_model() -> None:
    meter = meters.open("auto", "cpu")
    assert meter.source in ("counter", "none")
    if meter.source == "none":
        assert meter.reason

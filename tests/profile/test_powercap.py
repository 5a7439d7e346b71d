"""CPU counters read from a powercap tree in a temporary folder."""

from __future__ import annotations

from pathlib import Path

import pytest

from effx.host.sensors import UnavailableError
from effx.profile.meters import rapl
from effx.profile.meters.rapl import RaplMeter
from effx.profile.meters.sampler import Clock

RANGE_UJ = 262_143_328_850  # of many Intel packages: 262 s at 1 kW


class Time:
    """A clock that the test advances."""

    def __init__(self) -> None:
        self.now_s = 100.0
        self.clock = Clock(lambda: self.now_s, self.advance)

    def advance(self, seconds: float) -> None:
        self.now_s += seconds


def domain(root: Path, folder: str, name: str, energy_uj: int, range_uj: int = RANGE_UJ) -> Path:
    directory = root / folder
    directory.mkdir(parents=True)
    (directory / "name").write_text(name + "\n")
    (directory / "energy_uj").write_text(f"{energy_uj}\n")
    (directory / "max_energy_range_uj").write_text(f"{range_uj}\n")
    return directory / "energy_uj"


def add(counter: Path, uj: int, range_uj: int = RANGE_UJ) -> None:
    counter.write_text(f"{(int(counter.read_text()) + uj) % range_uj}\n")


@pytest.fixture
def time() -> Time:
    return Time()


def opened(root: Path, time: Time) -> RaplMeter:
    return rapl.open(root=root, clock=time.clock, threaded=False)


def test_packages_and_dram_are_summed_and_psys_core_and_mmio_are_skipped(tmp_path: Path, time: Time) -> None:
    counted = [
        domain(tmp_path, "intel-rapl:0", "package-0", 100),
        domain(tmp_path, "intel-rapl:0:1", "dram", 300),
        domain(tmp_path, "intel-rapl:1", "package-1-die-0", 200),
        domain(tmp_path, "intel-rapl:1:0", "dram", 400),
    ]
    parts = [
        domain(tmp_path, "intel-rapl:0:0", "core", 0),
        domain(tmp_path, "intel-rapl:0:2", "uncore", 0),
        domain(tmp_path, "intel-rapl:2", "psys", 0),
        domain(tmp_path, "intel-rapl:3", "package-0", 0),
        domain(tmp_path, "intel-rapl-mmio:0", "package-0", 0),
        domain(tmp_path, "intel-rapl-mmio:0:0", "dram", 0),
    ]
    meter = opened(tmp_path, time)
    meter.start()
    for counter in counted:
        add(counter, 250_000_000)
    for counter in parts:
        add(counter, 999_000_000)
    time.advance(10.0)
    reading = meter.stop(cpu_s=0)
    assert reading.joules == pytest.approx(1000.0)
    assert reading.seconds == pytest.approx(10.0)
    assert reading.conditions["mean_w"] == pytest.approx(100.0)
    assert reading.conditions["domains_j"]["package-1-die-0/dram"] == pytest.approx(250.0)
    assert reading.flags == ()
    described = meter.describe()
    assert described["domains"] == ["package-0", "package-0/dram", "package-1-die-0", "package-1-die-0/dram"]
    assert len(described["skipped"]) == len(parts)
    assert meter.limit_w == 2000.0


def test_wraps_of_a_counter_are_corrected(tmp_path: Path, time: Time) -> None:
    range_uj = 65_532_610_987  # of many AMD packages
    counter = domain(tmp_path, "intel-rapl:0", "package-0", range_uj - 100, range_uj)
    meter = opened(tmp_path, time)
    meter.start()
    add(counter, 150, range_uj)
    assert meter.stop(cpu_s=0).joules == pytest.approx(150e-6)
    meter.start()
    for _ in range(400):  # 200 s at 800 W: 160 kJ, more than twice the range
        add(counter, 400_000_000, range_uj)
        time.advance(0.5)
        meter.sampler.sample()
    reading = meter.stop(cpu_s=0)
    assert reading.joules == pytest.approx(160_000.0)
    assert reading.interval is not None
    assert reading.interval[0] <= 160_000.0 <= reading.interval[1]


def test_a_window_fails_if_a_wrap_may_have_been_missed(tmp_path: Path, time: Time) -> None:
    counter = domain(tmp_path, "intel-rapl:0", "package-0", 0)
    meter = opened(tmp_path, time)
    meter.start()
    add(counter, 1_000_000)
    time.advance(300.0)  # the host slept
    reading = meter.stop(cpu_s=0)
    assert reading.joules is None
    assert "a wrap of a counter may have been missed: 300 s between two reads" in str(reading.reason)


def test_a_failed_read_fails_the_window_even_if_later_reads_succeed(tmp_path: Path, time: Time) -> None:
    counter = domain(tmp_path, "intel-rapl:0", "package-0", 500)
    meter = opened(tmp_path, time)
    for vanish in (lambda: counter.unlink(), lambda: counter.write_text("")):
        counter.write_text("500")
        meter.start()
        vanish()
        meter.sampler.sample()
        counter.write_text("600")
        reading = meter.stop(cpu_s=0)
        assert reading.joules is None
        assert "could not be read" in str(reading.reason)
    meter.start()
    counter.write_text("700")
    assert meter.stop(cpu_s=0).joules == pytest.approx(100e-6)


def test_counters_without_read_permission_are_unavailable_with_the_command(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    counter = domain(tmp_path, "intel-rapl:0", "package-0", 0)
    read_text = Path.read_text

    def guarded(path: Path, *arguments: object, **keywords: object) -> str:
        if path == counter:  # root may read any file, so the mode of the file has no effect
            raise PermissionError(13, "Permission denied", str(path))
        return read_text(path, *arguments, **keywords)  # type: ignore[arg-type]

    monkeypatch.setattr(Path, "read_text", guarded)
    with pytest.raises(UnavailableError, match="sudo chmod a\\+r"):
        rapl.open(root=tmp_path)


def test_missing_counters_are_unavailable_with_a_remedy(tmp_path: Path) -> None:
    domain(tmp_path, "intel-rapl:0", "psys", 0)  # psys alone is not the energy of a package
    with pytest.raises(UnavailableError, match="the meter model:WATTS_PER_CORE"):
        rapl.open(root=tmp_path)
    with pytest.raises(UnavailableError, match="the meter model:WATTS_PER_CORE"):
        rapl.open(root=tmp_path / "missing")


def test_the_thread_reads_while_a_window_is_open(tmp_path: Path) -> None:
    range_uj = 40_000_000  # 40 ms at 1 kW: read every 5 ms
    counter = domain(tmp_path, "intel-rapl:0", "package-0", 0, range_uj)
    meter = rapl.open(root=tmp_path)
    assert meter.describe()["period_s"] == pytest.approx(0.005)
    meter.start()
    meter.start()  # a window that was not stopped is discarded, and its thread ends
    spare = tmp_path / "spare"
    for _ in range(8):
        spare.write_text(f"{(int(counter.read_text()) + 15_000_000) % range_uj}\n")
        spare.replace(counter)  # never half-written
        Clock().sleep(0.012)
    reading = meter.stop(cpu_s=0)
    meter.close()
    if reading.joules is None:  # on a busy host the thread may be late; then the reading must have a reason
        assert "a wrap of a counter may have been missed" in str(reading.reason)
    else:
        assert reading.joules == pytest.approx(120.0)
        assert reading.flags == ("short window",)

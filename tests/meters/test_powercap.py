"""CPU counters read from a powercap tree in a temporary folder."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import pytest

from effx.host.sensors import UnavailableError
from effx.meters import rapl
from effx.meters.rapl import RaplMeter
from effx.meters.sampler import Clock

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
    assert "a counter may have wrapped unnoticed: 300 s between two reads" in str(reading.reason)


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
    counter = domain(tmp_path, "intel-rapl:0", "package-0", 15_000_000, range_uj)
    meter = rapl.open(root=tmp_path)
    assert meter.describe()["period_s"] == pytest.approx(0.005)
    meter.start()
    meter.start()  # a window that was not stopped is discarded, and its thread ends
    spare = tmp_path / "spare"
    for _ in range(8):
        spare.write_text(f"{(int(counter.read_text()) + 4_000_000) % range_uj}\n")
        spare.replace(counter)  # never half-written
        Clock().sleep(0.012)
    reading = meter.stop(cpu_s=0)
    meter.close()
    if reading.joules is None:  # on a busy host the thread may be late; then the reading must have a reason
        assert "a counter may have wrapped unnoticed" in str(reading.reason)
    else:
        assert reading.joules == pytest.approx(32.0)
        assert reading.flags == ("short window",)


def steady(meter: RaplMeter, time: Time, counters: dict[Path, int], steps: int = 100) -> None:
    """Read every 0.1 s while each counter counts as many microjoules per step."""
    for _ in range(steps):
        for counter, uj in counters.items():
            add(counter, uj)
        time.advance(0.1)
        meter.sampler.sample()


@pytest.mark.parametrize(
    "fault, reason",
    [
        (lambda uj: uj + 10**9, "jumped by 1e"),  # 10 kW in a step
        (lambda uj: uj - 5_000_000, "ran backwards by"),
        (lambda uj: 0, "was reset"),
        (lambda uj: -1, "shows -1 µJ"),
        (lambda uj: 2 * RANGE_UJ, "its range is"),
        (lambda uj: uj * 1000, "jumped|range"),  # another unit
    ],
)
def test_a_step_that_the_hardware_cannot_make_fails_the_window(
    tmp_path: Path, time: Time, fault: Callable[[int], int], reason: str
) -> None:
    counter = domain(tmp_path, "intel-rapl:0", "package-0", 10**11)
    meter = opened(tmp_path, time)
    meter.start()
    steady(meter, time, {counter: 6_800_000}, 50)
    counter.write_text(f"{fault(int(counter.read_text()))}\n")
    meter.sampler.sample()
    steady(meter, time, {counter: 6_800_000}, 2)
    reading = meter.stop(0.0)
    assert reading.joules is None
    assert re.search(reason, str(reading.reason))


def test_a_reset_close_to_the_end_of_the_range_is_not_taken_for_a_wrap(tmp_path: Path, time: Time) -> None:
    counter = domain(tmp_path, "intel-rapl:0", "package-0", RANGE_UJ - 10 * 6_800_000 - 80_000_000)
    meter = opened(tmp_path, time)
    meter.start()
    steady(meter, time, {counter: 6_800_000}, 10)
    counter.write_text("0\n")  # 80 J before the wrap
    steady(meter, time, {counter: 6_800_000}, 20)
    reading = meter.stop(0.0)
    assert reading.joules is None and "was reset in the window, or wrapped in a burst" in str(reading.reason)


def test_power_limits_bound_the_steps(tmp_path: Path, time: Time) -> None:
    counter = domain(tmp_path, "intel-rapl:0", "package-0", 0)
    for number, watts in enumerate((65, 90)):
        (tmp_path / "intel-rapl:0" / f"constraint_{number}_power_limit_uw").write_text(f"{watts}000000\n")
    (tmp_path / "intel-rapl:0" / "constraint_0_max_power_uw").write_text("0\n")
    meter = opened(tmp_path, time)
    assert meter.limit_w == 180.0
    meter.start()
    steady(meter, time, {counter: 6_800_000}, 50)
    add(counter, 60_000_000)  # 600 W: the processor cannot
    steady(meter, time, {counter: 6_800_000}, 2)
    assert "more than its limit of 180 W permits" in str(meter.stop(0.0).reason)


def test_a_package_that_stops_counting_fails_the_window(tmp_path: Path, time: Time) -> None:
    moving = domain(tmp_path, "intel-rapl:0", "package-0", 0)
    domain(tmp_path, "intel-rapl:1", "package-1", 500)
    meter = opened(tmp_path, time)
    meter.start()
    steady(meter, time, {moving: 6_800_000})
    reading = meter.stop(0.0)
    assert reading.joules is None and "package-1 is stuck: no change in" in str(reading.reason)


def test_one_implausible_step_is_suspect(tmp_path: Path, time: Time) -> None:
    counter = domain(tmp_path, "intel-rapl:0", "package-0", 0)
    meter = opened(tmp_path, time)
    meter.start()
    steady(meter, time, {counter: 3_000_000}, 60)
    add(counter, 50_000_000)
    steady(meter, time, {counter: 3_000_000}, 60)
    assert meter.stop(0.0).flags == ("suspect: package-0 counted 53 J in one step of 0.1 s",)


def test_dies_that_show_one_counter_are_counted_once(tmp_path: Path, time: Time) -> None:
    dies = [domain(tmp_path, f"intel-rapl:{n}", f"package-0-die-{n}", 10**9) for n in range(2)]
    meter = opened(tmp_path, time)
    assert meter.domains == ["package-0-die-0"]
    assert meter.describe()["skipped"] == ["package-0-die-1 (mirrors package-0-die-0)"]
    meter.start()
    steady(meter, time, dict.fromkeys(dies, 6_800_000))
    assert meter.stop(0.0).joules == pytest.approx(680.0)


def test_dies_with_separate_counters_are_summed(tmp_path: Path, time: Time) -> None:
    dies = [domain(tmp_path, f"intel-rapl:{n}", f"package-0-die-{n}", (n + 1) * 10**9) for n in range(2)]
    meter = opened(tmp_path, time)
    meter.start()
    steady(meter, time, {dies[0]: 6_800_000, dies[1]: 3_000_000})
    assert meter.stop(0.0).joules == pytest.approx(980.0)


def test_idle_time_around_the_work_is_left_out(tmp_path: Path, time: Time) -> None:
    counter = domain(tmp_path, "intel-rapl:0", "package-0", 0)
    meter = opened(tmp_path, time)
    meter.start()
    steady(meter, time, {counter: 1_000_000}, 3)
    begin = time.now_s
    steady(meter, time, {counter: 6_800_000}, 110)
    end = time.now_s
    steady(meter, time, {counter: 1_000_000}, 3)
    reading = meter.stop(0.0, (begin - 1e-9, end + 1e-9))
    assert reading.seconds == pytest.approx(11.0) and reading.joules == pytest.approx(110 * 6.8)
    assert reading.flags == ()

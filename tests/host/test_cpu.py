"""Features of a processor, read from /proc/cpuinfo as kernels write it."""

from __future__ import annotations

import os
import threading
from pathlib import Path

import pytest

from effx.host import cpu


@pytest.mark.parametrize(
    ("text", "bf16", "vnni"),
    [
        ("processor\t: 0\nflags\t\t: fpu avx512f avx512_bf16 avx512_vnni\n", True, True),
        ("flags\t\t: fpu avx2 avx_vnni\n", False, True),
        (
            "flags\t\t: fpu avx2 avx512_4vnniw\n",
            False,
            False,
        ),  # Xeon Phi: other instructions
        ("model name\t: vnni bf16\nflags\t\t: fpu\n", False, False),
        ("Features\t: fp asimd asimddp bf16\n", True, False),
        ("", False, False),
    ],
)
def test_features_are_matched_as_complete_flags(text: str, bf16: bool, vnni: bool) -> None:
    this = cpu.parse_cpuinfo(text, "x86_64")
    assert (this.has_bf16, this.has_vnni) == (bf16, vnni)
    assert cpu.parse_cpuinfo(text, "aarch64").has_vnni


@pytest.mark.parametrize(
    ("flags", "expected"), [("amx_bf16 amx_tile amx_int8", True), ("amx_tile amx_int8", False), ("", False)]
)
def test_amx_multiplies_both_kinds(flags: str, expected: bool) -> None:
    assert cpu.parse_cpuinfo(f"flags\t\t: fpu {flags}\n", "x86_64").has_amx == expected


def test_the_model_and_virtual_machines_are_recognised() -> None:
    text = "processor\t: 0\nmodel\t\t: 1\nmodel name\t: AMD EPYC\nflags\t\t: fpu hypervisor\n"
    assert cpu.parse_cpuinfo(text + text.replace("EPYC", "other")).model == "AMD EPYC"
    assert cpu.parse_cpuinfo(text).is_virtual
    assert not cpu.parse_cpuinfo("model name\t: hypervisor\nflags\t\t: fpu\n").is_virtual


def test_the_busy_time_of_some_processors_is_that_of_their_lines(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Processor 1 is offline, so that the third line is that of processor 2."""
    stat = tmp_path / "stat"
    ticks = os.sysconf("SC_CLK_TCK")
    stat.write_text(
        f"cpu {900 * ticks} 0 0 0 0 0 0 0 0 0\n"
        f"cpu0 {10 * ticks} {ticks} {2 * ticks} {500 * ticks} {300 * ticks} 0 0 0 0 0\n"
        f"cpu2 {100 * ticks} 0 0 {7 * ticks} 0 {ticks} {ticks} {ticks} {50 * ticks} 0\n"
        "intr 1 2 3\n"
    )
    monkeypatch.setattr(cpu, "STAT", stat)
    assert cpu.busy_s_of({0}) == pytest.approx(13.0)
    assert cpu.busy_s_of({0, 2}) == pytest.approx(13.0 + 103.0)
    assert cpu.busy_s_of({0, 1}) is None
    monkeypatch.setattr(cpu, "STAT", tmp_path / "none")
    assert cpu.busy_s_of({0}) is None


def test_this_machine_has_processors_and_busy_time() -> None:
    assert 1 <= cpu.usable_processors() <= cpu.allowed_processors() <= cpu.installed_processors()
    busy_s = cpu.busy_s()
    assert busy_s is not None and busy_s > 0


def test_arm_processors_are_told_apart_by_their_codes() -> None:
    """/proc/cpuinfo of Graviton2 and Graviton4 has no name."""
    text = "processor : 0\nFeatures : fp asimd\nCPU implementer : 0x41\nCPU architecture: 8\n"
    models = [cpu.parse_cpuinfo(f"{text}CPU part : {part}\n", "aarch64").model for part in ("0xd0c", "0xd4f")]
    assert models == ["Arm implementer 0x41, part 0xd0c", "Arm implementer 0x41, part 0xd4f"]
    named = f"model name : Cortex-A72\n{text}CPU part : 0xd08\n"
    assert cpu.parse_cpuinfo(named, "aarch64").model == "Cortex-A72"


class Spinning:
    """A clock on which a thread of this process waits busily for some seconds."""

    def __init__(self, spinning_s: float) -> None:
        self.now, self._spinning_s = 0.0, spinning_s

    def perf_counter(self) -> float:
        return self.now

    def process_time(self) -> float:
        return min(self.now, self._spinning_s)

    def sleep(self, seconds: float) -> None:
        self.now += seconds


@pytest.mark.parametrize(
    ("spinning_s", "idle", "until_s"), [(0.0, True, 0.01), (0.035, True, 0.045), (5.0, False, 1.0)]
)
def test_rest_waits_until_threads_stop_waiting_busily(
    spinning_s: float, idle: bool, until_s: float, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = Spinning(spinning_s)
    monkeypatch.setattr(cpu, "time", clock)
    monkeypatch.setattr(cpu, "TASKS", tmp_path / "none")
    assert cpu.rest(1.0) is idle
    assert clock.now == pytest.approx(until_s, abs=0.006)


@pytest.mark.parametrize(
    ("of_this", "of_others", "idle"),
    [
        ("R", {"11": "S", "12": "S"}, True),
        ("R", {"11": "S", "12": "R"}, False),
        ("R", {"11": "D", "12": None}, True),  # waits for a disk; has ended
    ],
)
def test_rest_waits_for_threads_that_get_no_processor(
    of_this: str, of_others: dict[str, str | None], idle: bool, tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    """On a busy host they use no processor time; their state says that they want some."""
    for number, state in {str(threading.get_native_id()): of_this, **of_others}.items():
        (tmp_path / number).mkdir()
        if state is not None:
            (tmp_path / number / "stat").write_text(f"{number} (a) R (b) {state} 1 R R 0\n")
    clock = Spinning(0.0)
    monkeypatch.setattr(cpu, "time", clock)
    monkeypatch.setattr(cpu, "TASKS", tmp_path)
    assert cpu.rest(1.0) is idle
    assert clock.now == pytest.approx(0.01 if idle else 1.0, abs=0.006)


def test_rest_waits_until_such_a_thread_sleeps(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "11").mkdir()
    stat = tmp_path / "11" / "stat"

    class Sleeps(Spinning):
        def sleep(self, seconds: float) -> None:
            super().sleep(seconds)
            stat.write_text(f"11 (a) {'R' if self.now < 0.099 else 'S'} 1\n")

    clock = Sleeps(0.0)
    monkeypatch.setattr(cpu, "time", clock)
    monkeypatch.setattr(cpu, "TASKS", tmp_path)
    assert cpu.rest(1.0)
    assert clock.now == pytest.approx(0.105, abs=0.006)

"""The processor: model, instructions, number of cores that this process may use, load."""

from __future__ import annotations

import functools
import os
import platform
import threading
import time
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path

import psutil

from effx.host.cgroups import Cgroups

CPUINFO = Path("/proc/cpuinfo")
STAT = Path("/proc/stat")
TASKS = Path("/proc/self/task")
"""Of Linux; a folder for each thread of this process."""
_STAT_FIELDS = ("user", "nice", "system", "idle", "iowait", "irq", "softirq", "steal")
"""Of a processor, in ticks."""
_BUSY = ("user", "nice", "system", "irq", "softirq", "steal")
"""Neither idle nor waiting for input."""
_X86 = ("x86_64", "amd64")
_FLAGS_KEYS = ("flags", "features")
_MODEL_KEYS = ("model name", "model")
_BF16 = {"avx512_bf16", "amx_bf16", "bf16"}
_AMX = {"amx_bf16", "amx_int8"}
_VNNI = {"avx512_vnni", "avx_vnni"}

_STEP_S, _IDLE_STEPS, _IDLE_SHARE = 0.005, 2, 0.2
"""A process is at rest after so many steps in each of which it used less than this share of a processor."""


@dataclass(frozen=True)
class Cpu:
    """A processor."""

    model: str
    """Model name, as its manufacturer calls it."""
    flags: frozenset[str]
    """Instruction set flags, named as in /proc/cpuinfo; empty if the system does not list them."""
    machine: str
    """The architecture, such as ``x86_64`` or ``aarch64``."""

    @property
    def has_bf16(self) -> bool:
        """Whether it multiplies bf16 matrices in hardware (AVX-512, AMX or Armv8.6)."""
        return bool(self.flags & _BF16)

    @property
    def has_amx(self) -> bool:
        """Whether it has tiles that multiply matrices of bf16 and int8 (AMX)."""
        return self.flags >= _AMX

    @property
    def has_vnni(self) -> bool:
        """Whether it multiplies uint8 by int8 without saturating intermediate sums.

        x86 without VNNI adds pairs of products in 16 bits, which overflow; 7-bit weights do not. Other
        architectures do not have this limit.
        """
        return self.machine.lower() not in _X86 or bool(self.flags & _VNNI)

    @property
    def is_virtual(self) -> bool:
        """Whether it is that of a virtual machine, as far as the processor reports it."""
        return "hypervisor" in self.flags


def parse_cpuinfo(text: str, machine: str = "") -> Cpu:
    """Return the first processor in the text of Linux' /proc/cpuinfo (x86 or Arm)."""
    fields: dict[str, str] = {}
    for line in text.splitlines():
        key, _, value = line.partition(":")
        fields.setdefault(key.strip().lower(), value.strip())
    model = next((fields[key] for key in _MODEL_KEYS if fields.get(key)), "") or _arm_model(fields)
    flags = next((fields[key] for key in _FLAGS_KEYS if key in fields), "")
    machine = machine or platform.machine()
    return Cpu(model or platform.processor() or machine, frozenset(flags.split()), machine)


def _arm_model(fields: Mapping[str, str]) -> str:
    """Return the codes that tell Arm processors apart, which have no name in /proc/cpuinfo; empty: none."""
    codes = {key: fields.get(key) for key in ("cpu implementer", "cpu part", "cpu variant")}
    if not codes["cpu implementer"] or not codes["cpu part"]:
        return ""
    return "Arm " + ", ".join(f"{key[4:]} {code}" for key, code in codes.items() if code)


@functools.cache
def this_cpu() -> Cpu:
    """Return this machine's processor.

    On Linux, /proc/cpuinfo is read, in a millisecond. On other systems py-cpuinfo is used, which takes about
    a second.
    """
    if CPUINFO.is_file():
        return parse_cpuinfo(CPUINFO.read_text())
    try:
        import cpuinfo

        info = cpuinfo.get_cpu_info()
    except Exception:  # not installed, or an unknown architecture
        info = {}
    model = info.get("brand_raw") or platform.processor() or platform.machine()
    return Cpu(str(model), frozenset(info.get("flags", ())), platform.machine())


def has_bf16() -> bool:
    """Return whether this machine's processor multiplies bf16 matrices in hardware."""
    return this_cpu().has_bf16


def has_amx() -> bool:
    """Return whether this machine's processor multiplies bf16 and int8 matrices in tiles (AMX)."""
    return this_cpu().has_amx


def has_vnni() -> bool:
    """Return whether this machine's processor has VNNI, or needs none; see :attr:`Cpu.has_vnni`."""
    return this_cpu().has_vnni


def allowed() -> frozenset[int] | None:
    """Return the numbers of the processors that this thread may run on (its CPU affinity); None: unknown."""
    return frozenset(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else None


def allowed_processors() -> int:
    """Return how many processors this process may run on (its CPU affinity)."""
    processors = allowed()
    return (os.cpu_count() or 1) if processors is None else len(processors)


def usable_processors(cgroups: Cgroups | None = None) -> int:
    """Return how many threads this process can keep busy: its CPU affinity and its container's CPU quota."""
    quota = (cgroups or Cgroups()).cpu_quota()
    allowed = allowed_processors()
    return allowed if quota is None else max(1, min(allowed, int(quota)))


def installed_processors() -> int:
    """Return the number of processors of the machine, including those that this process may not use."""
    return psutil.cpu_count() or 1


def rest(limit_s: float = 1.0) -> bool:
    """Wait until this process computes nothing; return whether that came to pass within ``limit_s``.

    Threads of a runtime that found no work wait busily for more (ONNX Runtime's for some 35 ms after a query,
    OpenMP's for up to 200 ms): what is timed meanwhile in another process or session shares the processors
    with them. A thread that waits so on a busy host may get no processor for a while, and then uses no time:
    on Linux, no other thread may want a processor either.
    """
    end = time.perf_counter() + limit_s
    idle = 0
    while idle < _IDLE_STEPS:
        if time.perf_counter() >= end:
            return False
        before = time.process_time()
        time.sleep(_STEP_S)
        used_s = time.process_time() - before
        idle = idle + 1 if used_s < _IDLE_SHARE * _STEP_S and not _others_run() else 0
    return True


def _others_run() -> bool:
    """Return whether another thread of this process runs or waits for a processor; False: also unknown."""
    this = str(threading.get_native_id())
    try:
        others = [name for name in os.listdir(TASKS) if name != this]
    except OSError:  # not Linux
        return False
    return any(_state(TASKS / name / "stat") == "R" for name in others)


def _state(stat: Path) -> str | None:
    """Return the letter of a thread's state (proc(5)); None: it ended."""
    try:
        fields = stat.read_bytes().rpartition(b")")[2].split()  # its name may have spaces and brackets
    except OSError:
        return None
    return fields[0].decode("ascii", "replace") if fields else None


def busy_s() -> float | None:
    """Return the busy time of all processors since the machine started, in seconds; None: unknown."""
    try:
        times = psutil.cpu_times()
    except (OSError, RuntimeError):  # a sandbox without /proc/stat
        return None
    return float(sum(getattr(times, field, 0.0) for field in _BUSY))


def busy_s_of(processors: Collection[int]) -> float | None:
    """Return the busy time of some processors since the machine started, in seconds.

    Args:
        processors: their numbers.

    Returns:
        None: the system does not report the time of each of them.
    """
    try:
        lines = [line.split() for line in STAT.read_text().splitlines()]
        ticks = {line[0]: dict(zip(_STAT_FIELDS, map(int, line[1:]), strict=False)) for line in lines if line}
        of_each = [ticks[f"cpu{number}"] for number in processors]
        return sum(times.get(field, 0) for times in of_each for field in _BUSY) / os.sysconf("SC_CLK_TCK")
    except (OSError, ValueError, KeyError, AttributeError):
        return None


def load_average() -> float | None:
    """Return the load average over the last minute; None: unknown."""
    return os.getloadavg()[0] if hasattr(os, "getloadavg") else None

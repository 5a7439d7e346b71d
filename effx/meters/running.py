"""Measures a computation of this process while it runs: time, processor time, energy, peak memory.

    |--- window ---|--- window ---|- evaluation -|--- window ---|-|
     10 min each, read one after the other; what is evaluated in between is counted apart

Windows are long, so that little is lost at their ends, and short enough that the samples of a meter fit into
memory. A training or evaluation of less than 10 s is read in one window with what follows it, whose energy is
divided by time, or for a model of processor time by that.

A meter may fail in a window, or be disturbed: by another process on the GPU, or, if it reads the whole
machine, by others that use its processors. The energy of such windows is assumed to be that of the others,
second by second, if they are at most 5 % of the time, and its bounds are as much wider; else there is none.
"""

from __future__ import annotations

import contextlib
import os
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from types import TracebackType
from typing import Self

from effx import meters
from effx.costs import READ_ELSEWHERE, Cost, EnergySpent
from effx.errors import UsageError, one_line
from effx.host import cpu, gpus, memory
from effx.meters.protocol import Meter, Reading, Unavailable
from effx.meters.trace import PART_TIME, SHORT_S, SHORT_WINDOW, THROTTLED
from effx.specs import meters as specs

_WINDOW_S = 600.0
_UNREAD_SHARE = 0.05
"""Share of the time in which the meter may fail or be disturbed."""
_OTHERS_SHARE, _OTHERS_PROCESSORS = 0.05, 0.1
"""Processors that others may use while a meter reads the whole machine: of those in use, or in number."""
_CLOCK_S = 0.1
"""Processor seconds by which the system's count and that of a process may differ."""


@dataclass(frozen=True)
class Requested:
    """The meter of computations."""

    meter: str = "auto"
    """As :func:`effx.meters.open` takes it."""
    required: bool = False
    """Whether a computation fails if the meter cannot be read; else it has no energy, with the reason."""


_requested = Requested()


def requested() -> Requested:
    """Return the meter of computations that begin now."""
    return _requested


@contextlib.contextmanager
def using(request: Requested) -> Iterator[None]:
    """Measure the computations that begin within the ``with`` block by a meter.

    Raises:
        UsageError: it is required, and cannot be read.
    """
    global _requested
    if request.required and request != _requested and request.meter not in ("auto", "none"):
        meters.open(request.meter, None).close()
    before, _requested = _requested, request
    try:
        yield
    finally:
        _requested = before


@dataclass
class _Part:
    """What was measured of one part of a computation: its training, or its evaluations."""

    seconds: float = 0.0
    cpu_s: float = 0.0
    window_s: float = 0.0
    """Seconds in the window that is open."""
    window_cpu_s: float = 0.0
    read_s: float = 0.0
    """Seconds whose energy is known."""
    joules: float = 0.0
    bounds: tuple[float, float] = (0.0, 0.0)
    has_bounds: bool = True
    faults: Counter[str] = field(default_factory=Counter)
    """Reason -> windows without energy."""

    def add(
        self,
        reading: Reading,
        whole: float,
        share: float,
        others_s: float,
        power_w: tuple[float | None, float | None],
    ) -> None:
        """Add the part's share of a window.

        Args:
            reading: of the window.
            whole: joules of the complete window over those that the meter read.
            share: of these, by time; the parts may have drawn different power, which the bounds include.
            others_s: seconds of the other part in the window.
            power_w: the least and the most plausible power; None: unknown.
        """
        assert reading.joules is not None
        self.read_s += self.window_s
        self.joules += share * whole * reading.joules
        self.has_bounds &= reading.interval is not None
        if reading.interval is None:
            return
        low, high = (whole * end for end in reading.interval)
        if others_s:
            least_w, most_w = power_w
            low = 0.0 if most_w is None else max(0.0, low - most_w * others_s)
            high -= (least_w or 0.0) * others_s
        else:
            low, high = share * low, share * high
        self.bounds = self.bounds[0] + low, self.bounds[1] + high


class RunningMeter:
    """Measures a computation in a ``with`` block."""

    def __init__(
        self,
        meter: Meter | None,
        *,
        whole_machine: bool = False,
        own_gpu: bool = False,
        processes: int = 1,
        window_s: float = _WINDOW_S,
        hardware: str | None = None,
        device_peak_bytes: Callable[[], int] | None = None,
        now: Callable[[], float] = time.monotonic,
    ) -> None:
        """Take an open meter, which is closed at the end.

        Args:
            meter: reads energy; None: another process on this machine reads it for all.
            whole_machine: whether it reads everything that runs on the machine.
            own_gpu: whether it reads the GPU that this process computes on.
            processes: of this computation on this machine.
            window_s: seconds of a window.
            hardware: what computes.
            device_peak_bytes: returns the most memory allocated on the GPU since the computation began.
            now: a monotonic clock, seconds.
        """
        self._meter = meter
        self._whole_machine, self._processes, self._window_s = whole_machine, processes, window_s
        self._own_gpu = own_gpu
        self._hardware, self._device_peak_bytes, self._now = hardware, device_peak_bytes, now
        self._lock = threading.Lock()
        self._done = threading.Event()
        self._thread: threading.Thread | None = None
        self._training, self._evaluation = _Part(), _Part()
        self._current = self._training
        self.evaluations = 0
        """Number of evaluations so far."""
        self._not_started: str | None = None
        self._peaks: tuple[int | None, int | None] = (None, None)

    def __enter__(self) -> Self:
        self._host_peak_known = memory.reset_peak()
        self._open()
        self._thread = threading.Thread(target=self._rotate, name="effx-running-meter", daemon=True)
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._done.set()
        assert self._thread is not None
        self._thread.join()
        self._close()
        host = memory.peak_resident_bytes() if self._host_peak_known else None
        self._peaks = host, None if self._device_peak_bytes is None else self._device_peak_bytes()
        if self._meter is not None:
            with contextlib.suppress(Exception):
                self._meter.close()

    @contextlib.contextmanager
    def evaluating(self) -> Iterator[None]:
        """Count what is computed in the ``with`` block apart, as one evaluation."""
        self._switch(self._evaluation)
        self.evaluations += 1
        try:
            yield
        finally:
            self._switch(self._training)

    def cost(self, sequences: int | None) -> Cost:
        """Return the cost of the computation without its evaluations.

        Args:
            sequences: that were computed, each as often as it was; None: not counted.
        """
        return self._cost(self._training, sequences)

    def evaluation_cost(self) -> Cost | None:
        """Return the cost of all evaluations together; None: there was none."""
        return self._cost(self._evaluation, None) if self.evaluations else None

    def _cost(self, part: _Part, sequences: int | None) -> Cost:
        host, device = self._peaks
        return Cost(
            seconds=round(part.seconds, 3),
            cpu_s=round(part.cpu_s, 3),
            sequences=sequences,
            energy=self._energy(part),
            host_peak_bytes=host,
            device_peak_bytes=device,
            hardware=self._hardware,
        )

    def _energy(self, part: _Part) -> EnergySpent:
        meter = self._meter
        if meter is None:
            return EnergySpent(source="none", meter="none", reason=READ_ELSEWHERE)
        if meter.source == "none":
            return EnergySpent(source="none", meter=meter.name, reason=meter.reason or "no meter")
        unread_s = part.seconds - part.read_s
        if unread_s > _UNREAD_SHARE * part.seconds or part.read_s <= 0:
            (reason, _), *_ = part.faults.most_common(1) or [("it was too short", 1)]
            return EnergySpent(
                source="none", meter=meter.name,
                reason=f"not read in {unread_s:.3g} of {part.seconds:.3g} s: {reason}",
            )  # fmt: skip
        joules = part.joules * part.seconds / part.read_s
        assumed = joules - part.joules
        bounds = None
        if part.has_bounds:
            bounds = (max(0.0, part.bounds[0]), part.bounds[1] + 2 * assumed)
        return EnergySpent(source=meter.source, meter=meter.name, joules=joules, interval=bounds)

    def next_window(self) -> None:
        """End a window of the meter and begin the next; done every ``window_s``."""
        with self._lock:
            self._close()
            self._open()

    def _rotate(self) -> None:
        while not self._done.wait(self._window_s):
            self.next_window()

    def _switch(self, part: _Part) -> None:
        """Count what follows to a part; a window that is long enough ends."""
        with self._lock:
            self._count()
            if self._training.window_s + self._evaluation.window_s >= SHORT_S:
                self._close()
                self._open()
            self._current = part

    def _open(self) -> None:
        self._not_started = None
        if self._meter is not None:
            try:
                self._meter.start()
            except Exception as error:  # drivers raise many kinds
                self._not_started = f"the meter failed: {one_line(error)}"
        self._busy_s = cpu.busy_s() if self._whole_machine else None
        self._since, self._cpu_since = self._now(), time.process_time()
        for part in (self._training, self._evaluation):
            part.window_s = part.window_cpu_s = 0.0

    def _count(self) -> None:
        """Count the time since the last call to the part that is at work."""
        now, cpu_now = self._now(), time.process_time()
        part = self._current
        part.window_s += now - self._since
        part.window_cpu_s += cpu_now - self._cpu_since
        part.seconds += now - self._since
        part.cpu_s += cpu_now - self._cpu_since
        self._since, self._cpu_since = now, cpu_now

    def _close(self) -> None:
        self._count()
        if self._meter is None or self._meter.source == "none":
            return
        parts = [part for part in (self._training, self._evaluation) if part.window_s > 0]
        seconds = sum(part.window_s for part in parts)
        cpu_s = sum(part.window_cpu_s for part in parts)
        reading = Reading(None, self._not_started)
        if self._not_started is None:
            try:
                reading = self._meter.stop(cpu_s)
            except Exception as error:  # a training is worth more than its energy
                reading = Reading(None, f"the meter failed: {one_line(error)}")
        covered_s = reading.seconds or seconds
        fault = self._fault(reading, covered_s, seconds, cpu_s)
        for part in parts:
            if fault is not None or reading.joules is None:
                part.faults[fault or "the meter failed"] += 1
                continue
            whole = seconds / covered_s if covered_s > 0 else 1.0
            share, others_s = part.window_s / seconds, seconds - part.window_s
            if self._meter.source == "model" and cpu_s > 0:
                share, others_s = part.window_cpu_s / cpu_s, 0.0
            part.add(reading, whole, share, others_s, (self._meter.floor_w, self._meter.limit_w))

    def _fault(self, reading: Reading, covered_s: float, seconds: float, cpu_s: float) -> str | None:
        """Return why the energy of a window is not that of this computation, if it is not."""
        assert self._meter is not None
        if reading.joules is None:
            return reading.reason or "the meter failed"
        if others := self._others(seconds, cpu_s):
            return others
        if faults := self._foreign(reading.flags):
            return faults[0]
        watts = reading.joules / covered_s if covered_s > 0 else 0.0
        low, high = self._meter.floor_w, self._meter.limit_w
        if (low is not None and watts < low) or (high is not None and watts > high):
            return f"{watts:.3g} W is not plausible"
        return None

    def _foreign(self, flags: Sequence[str]) -> list[str]:
        """Return the flags of a window whose energy is not that of this computation.

        Throttling belongs to it. In a container, this process has another id on its GPU.
        """
        faults = [flag for flag in flags if not flag.startswith((SHORT_WINDOW, THROTTLED, PART_TIME))]
        ambiguous = [flag for flag in faults if flag.endswith(gpus.AMBIGUOUS)]
        if self._own_gpu and len(ambiguous) == 1:
            return [flag for flag in faults if flag not in ambiguous]
        return faults

    def _others(self, seconds: float, cpu_s: float) -> str | None:
        """Return that others used the processors while a meter read the whole machine, if they did."""
        busy_s = cpu.busy_s() if self._busy_s is not None else None
        if busy_s is None or self._busy_s is None or seconds <= 0:
            return None
        in_use_s = busy_s - self._busy_s
        others_s = in_use_s - cpu_s * self._processes
        if others_s <= max(_OTHERS_PROCESSORS * seconds, _OTHERS_SHARE * in_use_s, _CLOCK_S):
            return None
        return (
            f"other processes used {others_s / seconds:.2g} of the {in_use_s / seconds:.2g} processors that "
            "the meter read"
        )


def open_running(
    device: str,
    *,
    hardware: str,
    device_peak_bytes: Callable[[], int] | None = None,
    gpu: str | None = None,
) -> RunningMeter:
    """Return a meter for a computation of this process, by the meter that :func:`using` named, or ``auto``.

    Of several processes on a machine that torchrun started, each reads its own GPU, and the first one reads
    what is common to all.

    Args:
        device: ``cpu`` or ``cuda``.
        hardware: name of the GPU or processor.
        device_peak_bytes: as :class:`RunningMeter` takes it.
        gpu: UUID of the GPU that this process computes on; None: unknown.

    Raises:
        UsageError: a meter that is required cannot be read, or does not read what computes.
    """
    local, local_processes = _local_rank(), _local_processes()
    try:
        meter = _open(_requested.meter, device, gpu, local_processes)
    except UsageError as error:
        if _requested.required:
            raise
        meter = Unavailable(str(error))
    row = specs.METERS.get(meter.name.partition(":")[0])
    whole_machine = row is not None and row.whole_machine
    if whole_machine and local > 0:
        meter.close()
    return RunningMeter(
        None if whole_machine and local > 0 else meter, whole_machine=whole_machine,
        own_gpu=device == "cuda" and gpu is not None and _requested.meter in ("auto", "nvml"),
        processes=local_processes, hardware=hardware, device_peak_bytes=device_peak_bytes,
    )  # fmt: skip


def _open(name: str, device: str, gpu: str | None, local_processes: int) -> Meter:
    """Open a meter for one of the processes on this machine, which computes on ``gpu``.

    Raises:
        UsageError: it cannot be read, or does not read what computes.
    """
    row = specs.METERS.get(name.partition(":")[0])
    if device == "cuda" and row is not None and row.name == "model":
        raise UsageError(f"meter {name} does not read the GPU that computes.", settings="meter")
    if local_processes > 1 and name.startswith("nvml:"):
        raise UsageError(
            f"meter {name}: {local_processes} processes compute on this machine, each on its own GPU; use "
            "nvml.", settings="meter",
        )  # fmt: skip
    if device == "cuda" and name in ("auto", "nvml"):
        if gpu is None and local_processes > 1:
            return Unavailable("this release of PyTorch does not tell which GPU a process computes on")
        if name == "nvml" and gpu is not None:
            name = f"nvml:{gpu}"
        elif gpu is not None:
            try:
                return meters.open(f"nvml:{gpu}", device, worker_pids=_own_pids)
            except UsageError:  # then the next one of this device
                pass
    return meters.open(name, device, worker_pids=_own_pids)


def _own_pids() -> set[int]:
    return {os.getpid()}


def _local_rank() -> int:
    return int(os.environ.get("LOCAL_RANK", "0"))


def _local_processes() -> int:
    return int(os.environ.get("LOCAL_WORLD_SIZE", "1"))

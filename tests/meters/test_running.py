"""Energy and time of a computation while it runs."""

from __future__ import annotations

import mmap
import time
from collections.abc import Callable
from dataclasses import replace

import pytest

from effx.errors import UsageError
from effx.host import cpu, gpus
from effx.meters import Reading, Unavailable, running
from effx.meters.running import Requested, RunningMeter


class Time:
    """A clock that only moves when it is told to."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


class Constant:
    """A meter of a device that draws constant power; ``change`` alters the reading of each window."""

    source = "counter"
    reason = None
    chosen_because = "a test"
    floor_w: float | None = None
    limit_w: float | None = None
    lag_s = 0.0
    name = "nvml"

    def __init__(self, watts: float, change: Callable[[int, Reading], Reading] | None = None) -> None:
        self._watts, self._change = watts, change
        self.time = Time()
        self.windows: list[float] = []
        self.closed = False

    def describe(self) -> dict[str, str]:
        return {}

    def start(self) -> None:
        self._since = self.time()

    def stop(self, cpu_s: float, during: object = None) -> Reading:
        seconds = self.time() - self._since
        self.windows.append(seconds)
        joules = 0.5 * seconds * self._watts  # a counter's first and last tick cover a part of the window
        reading = Reading(joules, seconds=0.5 * seconds, interval=(0.9 * joules, 1.1 * joules))
        return reading if self._change is None else self._change(len(self.windows) - 1, reading)

    def close(self) -> None:
        self.closed = True


def run(meter: Constant, *windows_s: float, **options: object) -> RunningMeter:
    """Measure windows, one after the other."""
    with RunningMeter(meter, now=meter.time, **options) as running_meter:  # type: ignore[arg-type]
        for number, seconds in enumerate(windows_s or (100.0,)):
            if number:
                running_meter.next_window()
            meter.time.now += seconds
    return running_meter


def test_joules_are_power_times_time_though_ticks_cover_a_part_of_each_window() -> None:
    meter = Constant(100.0)
    cost = run(meter, 600.0, 600.0, 30.0, hardware="GPU").cost(7)
    assert meter.windows == [600.0, 600.0, 30.0]
    assert meter.closed
    assert cost.seconds == 1230.0
    assert cost.energy.joules == pytest.approx(123_000.0)
    assert cost.energy.interval == pytest.approx((110_700.0, 135_300.0))
    assert (cost.sequences, cost.hardware) == (7, "GPU")
    assert (cost.energy.source, cost.energy.meter) == ("counter", "nvml")


def test_a_long_computation_is_read_in_several_windows() -> None:
    meter = Constant(1.0)
    with RunningMeter(meter, window_s=0.001):
        until = time.monotonic() + 30
        while len(meter.windows) < 3 and time.monotonic() < until:
            time.sleep(0.001)
    assert len(meter.windows) >= 3


def test_evaluations_are_counted_apart() -> None:
    constant = Constant(100.0)
    with RunningMeter(constant, now=constant.time) as meter:
        constant.time.now += 10.0
        for _ in range(2):
            with meter.evaluating():
                constant.time.now += 3.0
    cost, evaluation = meter.cost(3), meter.evaluation_cost()
    assert evaluation is not None
    assert (meter.evaluations, cost.seconds, evaluation.seconds) == (2, 10.0, 6.0)
    assert cost.energy.joules == pytest.approx(1000.0)
    assert evaluation.energy.joules == pytest.approx(600.0)


def test_short_parts_are_read_in_one_window_and_divided_by_time() -> None:
    constant = Constant(100.0)
    with RunningMeter(constant, now=constant.time) as meter:
        for _ in range(4):
            constant.time.now += 4.0
            with meter.evaluating():
                constant.time.now += 1.0
    assert constant.windows == [10.0, 10.0, 0.0]
    evaluation = meter.evaluation_cost()
    assert evaluation is not None
    assert (meter.cost(0).seconds, evaluation.seconds) == (16.0, 4.0)
    assert meter.cost(0).energy.joules == pytest.approx(1600.0)
    assert evaluation.energy.joules == pytest.approx(400.0)


def test_bounds_of_parts_that_share_a_window_hold_whatever_each_drew() -> None:
    """A training at 400 W and evaluations at 100 W, 9 s each: the device's limits bound the parts."""
    constant = Constant(250.0)
    constant.floor_w, constant.limit_w = 50.0, 450.0
    with RunningMeter(constant, now=constant.time) as meter:
        for _ in range(10):
            constant.time.now += 9.0
            with meter.evaluating():
                constant.time.now += 9.0
    evaluation = meter.evaluation_cost()
    assert evaluation is not None
    for energy, truth in ((meter.cost(0).energy, 36_000.0), (evaluation.energy, 9_000.0)):
        assert energy.joules == pytest.approx(22_500.0)
        assert energy.interval is not None
        assert energy.interval[0] <= truth <= energy.interval[1]


def test_a_model_of_processor_time_divides_a_window_by_that() -> None:
    with running.using(Requested("model:10")), running.open_running("cpu", hardware="x") as meter:
        until = time.process_time() + 0.2
        while time.process_time() < until:
            pass
        with meter.evaluating():
            time.sleep(0.3)
    evaluation = meter.evaluation_cost()
    assert evaluation is not None
    for cost in (meter.cost(0), evaluation):
        assert cost.energy.joules == pytest.approx(10 * cost.cpu_s, abs=0.02)


def test_a_meter_that_fails_does_not_stop_the_computation() -> None:
    def fail(number: int, reading: Reading) -> Reading:
        raise RuntimeError("the driver is gone")

    meter = Constant(100.0, fail)
    energy = run(meter, 50.0, 50.0).cost(0).energy
    assert meter.closed
    assert "the driver is gone" in str(energy.reason)


def test_no_evaluation_has_no_cost() -> None:
    assert run(Constant(1.0)).evaluation_cost() is None


def test_processor_time_is_that_of_this_process() -> None:
    with RunningMeter(None) as meter:
        until = time.process_time() + 0.2
        while time.process_time() < until:
            pass
        time.sleep(0.2)
    cost = meter.cost(None)
    assert 0.2 <= cost.cpu_s < cost.seconds
    assert cost.sequences is None


def test_peak_memory_is_that_of_the_computation() -> None:
    size = 400 << 20
    # pages are given back when they are closed, unlike memory of the interpreter
    with RunningMeter(None, device_peak_bytes=lambda: 42) as meter, mmap.mmap(-1, size) as pages:
        for offset in range(0, size, mmap.PAGESIZE):
            pages[offset] = 1
    cost = meter.cost(0)
    assert cost.device_peak_bytes == 42
    if cost.host_peak_bytes is None:
        pytest.skip("this system does not reset the peak of a process")
    with RunningMeter(None) as without:
        pass
    assert (without.cost(0).host_peak_bytes or 0) <= cost.host_peak_bytes - size // 2


def _first_fails(number: int, reading: Reading) -> Reading:
    return Reading(None, "the counter was reset") if number == 0 else reading


def test_a_window_that_failed_takes_the_power_of_the_others_if_it_is_short() -> None:
    energy = run(Constant(100.0, _first_fails), 4.0, 96.0).cost(0).energy
    assert energy.joules == pytest.approx(10_000.0)
    assert energy.interval == pytest.approx((0.9 * 9600.0, 1.1 * 9600.0 + 2 * 400.0))


def test_windows_that_failed_for_long_leave_no_energy() -> None:
    energy = run(Constant(100.0, _first_fails), 6.0, 94.0).cost(0).energy
    assert energy.joules is None
    assert energy.reason == "not read in 6 of 100 s: the counter was reset"


@pytest.mark.parametrize(
    ("flags", "known"),
    [
        (("short window",), True),
        (("throttled: power cap",), True),
        (("the power sensor measures 25 of every 100 ms: a load that ...",), True),
        ((f"foreign process 77{gpus.AMBIGUOUS}",), True),
        ((f"foreign process 7{gpus.AMBIGUOUS}", f"foreign process 8{gpus.AMBIGUOUS}"), False),
        (("foreign process 77",), False),
        (("suspect: counter and integrated power differ by 30 %",), False),
    ],
)  # fmt: skip
def test_flags_that_mean_another_computation_leave_no_energy(flags: tuple[str, ...], known: bool) -> None:
    flagged = Constant(100.0, lambda _, reading: replace(reading, flags=flags))
    energy = run(flagged, own_gpu=True).cost(0).energy
    assert (energy.joules is not None) == known
    assert known or flags[0] in str(energy.reason)


@pytest.mark.parametrize(("floor", "limit"), [(150.0, None), (None, 80.0)])
def test_implausible_power_leaves_no_energy(floor: float | None, limit: float | None) -> None:
    meter = Constant(100.0)
    meter.floor_w, meter.limit_w = floor, limit
    assert "100 W is not plausible" in str(run(meter).cost(0).energy.reason)


@pytest.mark.parametrize("others", [0.0, 1.0])
def test_other_processes_count_if_the_meter_reads_the_whole_machine(
    others: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    meter = Constant(100.0)
    monkeypatch.setattr(cpu, "busy_s", lambda: time.process_time() + others * meter.time())
    alone = run(meter, whole_machine=True).cost(0).energy
    assert (alone.joules is None) == bool(others)
    assert not others or "other processes used 1 of" in str(alone.reason)
    assert run(Constant(100.0)).cost(0).energy.joules is not None


def test_an_unknown_process_is_this_one_only_on_its_gpu() -> None:
    flags = (f"foreign process 77{gpus.AMBIGUOUS}",)
    flagged = Constant(100.0, lambda _, reading: replace(reading, flags=flags))
    assert run(flagged).cost(0).energy.joules is None


@pytest.mark.parametrize(("processes", "known"), [(1, False), (2, True)])
def test_processes_of_one_training_are_not_others(
    processes: int, known: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each of two processes uses one processor all the time."""
    meter = Constant(100.0)
    monkeypatch.setattr(running.time, "process_time", meter.time)
    monkeypatch.setattr(cpu, "busy_s", lambda: 2 * meter.time())
    energy = run(meter, whole_machine=True, processes=processes).cost(0).energy
    assert (energy.joules is not None) == known


@pytest.mark.parametrize(
    ("meter", "opened"), [("auto", "nvml:GPU-abc"), ("nvml", "nvml:GPU-abc"), ("nvml:1", "nvml:1")]
)
def test_a_process_reads_the_gpu_that_it_computes_on(
    meter: str, opened: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its UUID, not an index, which CUDA_VISIBLE_DEVICES does not change for NVML."""
    from effx import meters

    names: list[str] = []

    def open_(name: str, device: str, **_: object) -> Constant:
        names.append(name)
        return Constant(1.0)

    monkeypatch.setattr(meters, "open", open_)
    with running.using(Requested(meter)), running.open_running("cuda", hardware="a GPU", gpu="GPU-abc"):
        pass
    assert names == [opened]


def test_without_a_meter_the_reason_is_recorded() -> None:
    with RunningMeter(Unavailable("rapl: no counters")) as meter:
        pass
    energy = meter.cost(0).energy
    assert (energy.joules, energy.source, energy.reason) == (None, "none", "rapl: no counters")


def test_the_requested_meter_measures() -> None:
    with running.using(Requested("model:10", required=True)):
        meter = running.open_running("cpu", hardware="a processor")
    with meter:
        until = time.process_time() + 0.1
        while time.process_time() < until:
            pass
    cost = meter.cost(1)
    assert cost.energy.source == "model"
    assert cost.energy.joules == pytest.approx(10.0 * cost.cpu_s, abs=0.02)
    assert running.requested() == Requested()


def test_a_meter_that_cannot_be_read_is_an_error_only_if_required(tmp_path: object) -> None:
    missing = f"replay:{tmp_path}/no-trace.json"
    with pytest.raises(UsageError, match="no-trace"), running.using(Requested(missing, required=True)):
        pytest.fail("expected an error before the computation")
    with running.using(Requested(missing)):
        meter = running.open_running("cpu", hardware="a processor")
    with meter:
        pass
    assert "no-trace" in str(meter.cost(0).energy.reason)


@pytest.mark.parametrize("meter", ["model:10", "rapl"])
def test_meters_of_processors_do_not_measure_a_gpu(meter: str) -> None:
    with running.using(Requested(meter)):
        opened = running.open_running("cuda", hardware="a GPU")
    with opened:
        pass
    assert "does not read the GPU" in str(opened.cost(0).energy.reason)


def test_a_meter_of_the_engines_gpu_does_not_measure_a_training_on_the_processor() -> None:
    with running.using(Requested("nvml")), running.open_running("cpu", hardware="a processor") as meter:
        pass
    assert "does not read the processor" in str(meter.cost(0).energy.reason)


def test_only_the_first_process_of_a_machine_reads_what_is_common(monkeypatch: pytest.MonkeyPatch) -> None:
    from effx import meters

    opened: list[Constant] = []

    def open_(name: str, device: str, **_: object) -> Constant:
        opened.append(Constant(100.0))
        opened[-1].name = "rapl"
        return opened[-1]

    monkeypatch.setattr(meters, "open", open_)
    monkeypatch.setattr(cpu, "busy_s", lambda: 2 * time.process_time())  # of two processes
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "2")
    costs = []
    for rank in ("0", "1"):
        monkeypatch.setenv("LOCAL_RANK", rank)
        with running.open_running("cpu", hardware="a processor") as meter:
            opened[-1].time.now += 10.0
        costs.append(meter.cost(1))
    assert costs[0].energy.source == "counter"
    assert costs[1].energy.reason == "read by another process of this training"
    assert all(meter.closed for meter in opened)

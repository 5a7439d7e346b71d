"""The table of meters, and the meters model, hwmon and replay."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pytest

from effx import meters
from effx.errors import UsageError
from effx.host.sensors import UnavailableError
from effx.meters import hwmon, model, nvml, rapl, replay
from tests.meters.test_powercap import Time, domain

HEADER = {"device": "a GPU", "recorded": "2026-01-01", "command": "effx profile"}


@pytest.fixture
def time() -> Time:
    return Time()


def test_model_is_cpu_seconds_times_watts() -> None:
    meter = meters.open("model:7.5")
    meter.start()
    assert meter.stop(cpu_s=2.0).joules == pytest.approx(15.0)
    assert meter.source == "model"
    assert meter.describe()["watts_per_core"] == 7.5


@pytest.mark.parametrize("device", ["cpu", "cuda"])
def test_auto_tries_the_meters_of_the_device_and_never_a_model(
    device: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    tried = []

    def refuse(name: str) -> object:
        def open_(argument: str = "", **keywords: object) -> meters.Meter:
            tried.append(name)
            raise UnavailableError(f"no {name} here")

        return open_

    for module in (nvml, rapl, hwmon, model, replay):
        monkeypatch.setattr(module, "open", refuse(module.__name__.rpartition(".")[2]))
    meter = meters.open("auto", device)
    first = "rapl" if device == "cpu" else "nvml"
    assert tried == [first, "hwmon"]
    assert meter.source == "none"
    assert meter.reason == f"{first}: no {first} here; hwmon: no hwmon here"
    meter.start()
    assert meter.stop(0.0).reason == meter.reason


def test_the_reason_for_the_choice_of_a_meter_is_recorded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    domain(tmp_path, "intel-rapl:0", "package-0", 0)
    open_rapl, open_hwmon = rapl.open, hwmon.open
    monkeypatch.setattr(rapl, "open", lambda argument, worker_pids: open_rapl(root=tmp_path))
    assert meters.open("auto", "cpu").describe()["chosen_because"] == "auto: the first for cpu"
    assert meters.open("rapl").describe()["chosen_because"] == "requested (meter rapl)"
    tree = board(tmp_path / "board", {"VDD_IN": (5000, 2000)})
    monkeypatch.setattr(rapl, "open", lambda argument, worker_pids: open_rapl(root=tmp_path / "none"))
    monkeypatch.setattr(hwmon, "open", lambda argument, worker_pids: open_hwmon(root=tree))
    because = meters.open("auto", "cpu").describe()["chosen_because"]
    assert because.startswith("auto: the first for cpu; rapl: no CPU energy counters")


def test_a_requested_meter_that_cannot_be_read_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="unknown meter 'rpal'. Did you mean 'rapl'"):
        meters.open("rpal")
    with pytest.raises(UsageError, match="meter replay:.*cannot be read"):
        meters.open(f"replay:{tmp_path}/none.json")
    with pytest.raises(UsageError, match="watts of one busy core"):
        meters.open("model")
    assert meters.open("none").reason == "energy was not requested (meter none)"


@pytest.mark.parametrize(
    ("meter", "device", "told"),
    [
        ("rapl", "cuda", "meter rapl does not read the GPU that computes. Use nvml, hwmon or auto."),
        ("nvml:0", "cpu", "meter nvml:0 does not read the processor that computes. Use rapl, hwmon or auto."),
    ],
)
def test_a_meter_of_another_device_than_what_computes_is_refused(
    meter: str, device: str, told: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened: list[str] = []
    for module in (nvml, rapl):
        monkeypatch.setattr(module, "open", lambda argument, worker_pids: opened.append(argument))
    with pytest.raises(UsageError, match=re.escape(told)):
        meters.open(meter, device)
    assert not opened


def test_a_meter_of_a_board_or_of_no_hardware_measures_both_devices(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tree, open_hwmon = board(tmp_path / "board", {"VDD_IN": (5000, 2000)}), hwmon.open
    monkeypatch.setattr(hwmon, "open", lambda argument, worker_pids: open_hwmon(root=tree))
    for device in ("cpu", "cuda"):
        assert meters.open("hwmon", device).name == "hwmon"
        assert meters.open("model:5", device).name == "model:5"


def board(root: Path, rails: dict[str, tuple[int, int]], *, power: bool = False) -> Path:
    """Write monitors with three channels each: label to millivolts and milliamperes."""
    for number, (label, (millivolts, milliamperes)) in enumerate(rails.items()):
        channel = number % 3 + 1
        directory = root / f"1-004{number // 3}" / "hwmon" / f"hwmon{number // 3}"
        directory.mkdir(parents=True, exist_ok=True)
        (directory / f"in{channel}_label").write_text(label + "\n")
        if power:
            (directory / f"power{channel}_input").write_text(f"{millivolts * milliamperes}\n")
        else:
            (directory / f"in{channel}_input").write_text(f"{millivolts}\n")
            (directory / f"curr{channel}_input").write_text(f"{milliamperes}\n")
        (directory / "in7_label").write_text("sum of shunt voltages\n")
    return root


@pytest.mark.parametrize("power", [False, True])
@pytest.mark.parametrize(
    "rails, chosen, watts",
    [
        ({"VDD_IN": (5000, 2000), "VDD_CPU_GPU_CV": (5000, 700), "VDD_SOC": (5000, 400)}, ["VDD_IN"], 10.0),
        ({"POM_5V_IN": (5000, 1000), "POM_5V_GPU": (5000, 100)}, ["POM_5V_IN"], 5.0),
        (
            {"VDD_GPU_SOC": (20_000, 500), "VDD_CPU_CV": (20_000, 100), "VIN_SYS_5V0": (5000, 600),
             "VDDQ_VDD2_1V8AO": (5000, 300)},
            ["VDD_GPU_SOC", "VDD_CPU_CV", "VIN_SYS_5V0"],
            15.0,
        ),
    ],
)  # fmt: skip
def test_the_rails_of_a_board_are_summed_and_integrated(
    tmp_path: Path,
    time: Time,
    rails: dict[str, tuple[int, int]],
    chosen: list[str],
    watts: float,
    power: bool,
) -> None:
    meter = hwmon.open(root=board(tmp_path, rails, power=power), clock=time.clock, threaded=False)
    assert meter.source == "integrated"
    assert meter.describe()["domains"] == chosen
    measured = sorted(tmp_path.glob(f"*/hwmon/*/{'power' if power else 'curr'}*_input"))
    nominal = {path: int(path.read_text()) for path in measured}
    meter.start()
    for number in range(550):
        for path, value in nominal.items():  # a sensor that always shows the same is stuck
            path.write_text(f"{value + (1 if number % 2 else -1)}\n")
        time.advance(0.02)
        meter.sampler.sample()
    reading = meter.stop(0.0)
    assert reading.joules == pytest.approx(11 * watts, rel=1e-4)
    assert reading.interval is not None
    assert reading.interval[0] < 11 * watts < reading.interval[1]
    assert reading.flags == ()


def test_changing_power_and_a_lost_monitor_of_a_board(tmp_path: Path, time: Time) -> None:
    tree = board(tmp_path, {"VDD_IN": (5000, 1000)})
    current = next(tree.glob("*/hwmon/hwmon*/curr1_input"))
    meter = hwmon.open(root=tree, clock=time.clock, threaded=False)
    rng = np.random.default_rng(0)
    truth = 0.0
    meter.start()
    for _ in range(600):
        milliamperes = int(rng.integers(500, 5000))
        current.write_text(f"{milliamperes}\n")
        meter.sampler.sample()
        time.advance(0.02)
        truth += 5e-3 * milliamperes * 0.02
    reading = meter.stop(0.0)
    assert reading.joules == pytest.approx(truth, rel=0.05)
    assert reading.interval is not None
    assert reading.interval[0] < truth < reading.interval[1]
    meter.start()
    current.unlink()
    assert "could not be read" in str(meter.stop(0.0).reason)


def test_an_unknown_board_needs_a_named_rail(tmp_path: Path) -> None:
    tree = board(tmp_path, {"VIN_SYS_5V0": (5000, 1000), "OTHER": (5000, 100)})
    with pytest.raises(
        UnavailableError, match="unknown board: which of the rails .*OTHER, VIN_SYS_5V0 add up"
    ):
        hwmon.open(root=tree)
    assert hwmon.open("VIN_SYS_5V0", root=tree).describe()["domains"] == ["VIN_SYS_5V0"]
    with pytest.raises(UnavailableError, match="unknown rail 'VDD'"):
        hwmon.open("VDD", root=tree)
    with pytest.raises(UnavailableError, match="no INA3221"):
        hwmon.open(root=tmp_path / "none")


def recorded(path: Path, *, counter: bool = True, power: bool = True) -> Path:
    """Write 30 s at 200 W, read every 20 ms, the counter ticking every 100 ms."""
    times = np.arange(0, 30, 0.02).round(2)
    columns = {"t_s": times.tolist()}
    if counter:
        columns["counter_j"] = (200 * np.floor(times / 0.1 + 1e-9) * 0.1).round(3).tolist()
    if power:
        columns["power_w"] = (200 + 0.5 * np.sin(times)).round(3).tolist()
    if path.suffix == ".csv":
        rows = zip(*columns.values(), strict=True)
        lines = [f"# {key}: {value}" for key, value in HEADER.items()] + [",".join(columns)]
        path.write_text("\n".join(lines + [",".join(map(str, row)) for row in rows]) + "\n")
    else:
        path.write_text(json.dumps({**HEADER, **columns}))
    return path


@pytest.mark.parametrize("name", ["trace.json", "trace.csv"])
def test_windows_of_a_recorded_trace_have_its_energy(tmp_path: Path, time: Time, name: str) -> None:
    meter = replay.open(str(recorded(tmp_path / name)), clock=time.clock)
    assert meter.source == "counter"
    assert {key: meter.describe()[key] for key in HEADER} == HEADER
    assert meter.describe()["tick_s"] == pytest.approx(0.1)
    for _ in range(2):
        meter.start()
        time.advance(12.0)
        reading = meter.stop(0.0)
        assert reading.seconds is not None
        assert reading.joules == pytest.approx(200 * reading.seconds)
        assert reading.integrated_joules == pytest.approx(reading.joules, rel=0.003)
        assert reading.flags == ()
    meter.start()
    time.advance(12.0)
    assert "the trace ends at 30 s" in str(meter.stop(0.0).reason)


def test_a_trace_with_power_only_is_integrated(tmp_path: Path, time: Time) -> None:
    meter = replay.open(str(recorded(tmp_path / "trace.csv", counter=False)), clock=time.clock)
    assert meter.source == "integrated"
    meter.start()
    time.advance(10.0)
    assert meter.stop(0.0).joules == pytest.approx(2000, rel=0.01)


@pytest.mark.parametrize("stated", [True, False])
def test_the_averaging_time_of_a_trace_is_taken_into_account(
    tmp_path: Path, time: Time, stated: bool
) -> None:
    """100 W, then 500 W after 5 s; each reading is the mean of the previous second, so it is 1 s late."""
    times = np.arange(0, 30, 0.02).round(2)
    watts = 100 + 400 * np.clip(times - 5, 0, 1) + 0.01 * np.sin(times)
    header = {**HEADER, "power_window_s": 1.0} if stated else HEADER
    path = tmp_path / "trace.json"
    path.write_text(json.dumps({**header, "t_s": times.tolist(), "power_w": watts.tolist()}))
    meter = replay.open(str(path), clock=time.clock)
    meter.start()
    time.advance(20.0)
    true_j = 100 * 5 + 500 * 15
    assert meter.stop(0.0).joules == pytest.approx(true_j if stated else true_j - 200, rel=0.003)
    assert meter.describe()["power_window_s"] == (1.0 if stated else 0.0)


@pytest.mark.parametrize(
    "content",
    [
        "no JSON",
        json.dumps({**HEADER, "t_s": [0, 1]}),
        json.dumps({**HEADER, "t_s": [1, 0], "power_w": [1, 1]}),
        json.dumps({**HEADER, "t_s": [0, 1], "power_w": [1]}),
        json.dumps({"t_s": [0, 1], "power_w": [1, 1]}),
        json.dumps({**HEADER, "t_s": [0, 1], "power_w": [1, float("nan")]}),
    ],
)
def test_a_damaged_trace_is_refused(tmp_path: Path, content: str) -> None:
    path = tmp_path / "trace.json"
    path.write_text(content)
    with pytest.raises(UnavailableError, match="trace"):
        replay.open(str(path))

"""The NVML meter and the unmodified pynvml on a fake library (tests/meters/fake_nvml.c).

All windows are run by one process, for pynvml loads its library once; what they gave is judged here.
"""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from effx.host import gpus
from tests.meters import fake
from tests.meters.drive_nvml import UUIDS

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    built = fake.build(tmp_path_factory.mktemp("nvml"))
    if built is None:
        pytest.skip("no C compiler (cc) to build the fake NVML")
    return built


@pytest.fixture(scope="module")
def result(library: Path) -> dict[str, Any]:
    command = [sys.executable, "-m", "tests.meters.drive_nvml"]
    done = subprocess.run(
        command, cwd=ROOT, env=fake.environment(library), capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_a_window_ends_at_ticks_and_its_interval_contains_the_true_energy(result: dict[str, Any]) -> None:
    plain = result["plain"]
    reading = plain["reading"]
    assert plain["source"] == "counter"
    assert reading["joules"] == pytest.approx(300 * reading["seconds"], rel=1e-3)
    assert 9.7 < reading["seconds"] < 10.1
    assert reading["interval"][0] < plain["truth"] < reading["interval"][1]
    assert reading["integrated_joules"] == pytest.approx(plain["truth"], rel=1e-3)
    assert reading["flags"] == []
    assert plain["short"]["flags"] == ["short window"]


def test_the_thread_samples_windows_one_after_another(result: dict[str, Any]) -> None:
    for reading in result["threaded"]["readings"]:
        assert 0.3 < reading["seconds"] < 0.9
        low, high = reading["interval"]
        assert low < 300 * reading["seconds"] < high
        assert reading["flags"] == ["short window"]
    assert result["threaded"]["left"] == []


def test_device_and_conditions_are_reported(result: dict[str, Any]) -> None:
    described, conditions = result["plain"]["describe"], result["plain"]["reading"]["conditions"]
    assert described["uuid"] == UUIDS[0]
    assert (described["device"], described["driver"]) == ("Fake H200", "999.99")
    assert described["tick_s"] == pytest.approx(0.1, rel=0.05)
    assert described["power_by"] == "NVML_FI_DEV_POWER_AVERAGE"
    assert described["chosen_because"]
    assert result["plain"]["floor_w"] == pytest.approx(300 * 0.9)
    assert result["plain"]["lag_s"] == 2.0 + result["plain"]["describe"]["power_window_s"] > 2.0
    assert result["plain"]["limit_w"] == pytest.approx(700 * 1.05)
    assert conditions["sm_clock_mhz"] == 1980
    assert conditions["memory_clock_mhz"] == 3201
    assert conditions["power_limit_w"] == 700
    assert conditions["pstate"] == 0
    assert conditions["temperature_after_c"] != conditions["temperature_before_c"]
    assert conditions["mean_w"] == pytest.approx(300, rel=1e-3)


@pytest.mark.parametrize(
    "mode, reason",
    [
        ("lost", "the GPU was lost"),
        ("unsupported", "not supported"),
        ("forbidden", "no permission"),
        ("stuck", "was stuck: no change in 5 s at 300 W"),
        ("stuck throughout", "was stuck: no change in 10 s at 300 W"),
        ("reset", "was reset"),
        ("backwards", "ran backwards by 50 J"),
    ],
)
def test_a_failed_window_has_no_joules_and_a_reason(result: dict[str, Any], mode: str, reason: str) -> None:
    reading = result["faults"][mode]
    assert reading["joules"] is None
    assert reading["integrated_joules"] is None
    assert reason in reading["reason"]


def test_the_identity_of_a_lost_gpu_remains_known(result: dict[str, Any]) -> None:
    assert result["faults"]["lost"]["uuid"] == UUIDS[0]


def test_a_failed_window_does_not_affect_the_next(result: dict[str, Any]) -> None:
    assert result["faults"]["after"]["joules"] == pytest.approx(2970, rel=0.02)


def test_throttling_and_foreign_processes_are_flagged(result: dict[str, Any]) -> None:
    marks = result["marks"]
    assert marks["workers"] == []
    assert marks["foreign"] == ["foreign process 4242"]
    assert marks["visible"] == [f"foreign process {marks['stranger']}"]
    assert marks["hidden"] == ["foreign process 2222222, unless it is a worker under another pid (container)"]
    assert marks["graphics"] == ["foreign process 4343"]
    assert marks["throttled"] == ["throttled: SW power cap"]
    assert marks["busy floor"] is None


def test_windows_in_which_the_driver_lists_no_worker_are_unchecked(result: dict[str, Any]) -> None:
    seen, unseen, flags = result["marks"]["unchecked"]
    assert seen == [] and flags == []
    assert unseen == ["the driver lists no worker among the processes on the GPU: others may be hidden, too"]


def test_a_driver_that_lists_no_processes_leaves_them_unchecked() -> None:
    moment = gpus.Condition(None, None, None, None, None, None, None)
    assert gpus.unseen_processes([moment, moment], {123}) == (
        "the driver does not list the processes on the GPU",
    )
    assert gpus.unseen_processes([moment, replace(moment, pids=frozenset({7, 123}))], {123}) == ()


def test_a_load_synchronous_with_the_sensor_makes_the_reading_suspect(result: dict[str, Any]) -> None:
    reading = result["marks"]["suspect"]
    assert any(
        flag.startswith("suspect: counter and integrated power differ by") for flag in reading["flags"]
    )
    assert reading["interval"][0] < reading["joules"] < reading["integrated_joules"]
    assert reading["integrated_joules"] <= reading["interval"][1]


@pytest.mark.parametrize(
    "way, device",
    [
        ("default", 0),
        ("index", 1),
        ("uuid", 1),
        ("beginning", 1),
        ("bus", 1),
        ("long bus", 1),
        ("cuda index", 1),
        ("cuda uuid", 1),
        ("cuda beginning", 1),
        ("two kinds, ordered", 1),
    ],
)
def test_the_gpu_is_selected_as_cuda_would(result: dict[str, Any], way: str, device: int) -> None:
    assert result["devices"][way] == UUIDS[device]


@pytest.mark.parametrize(
    "way, reason",
    [
        ("MIG", "is a MIG slice"),
        ("cuda MIG", "is a MIG slice"),
        ("mig", "in MIG mode"),
        ("vgpu", "is a vGPU"),
        ("cuda none", "shows no GPU"),
        ("cuda empty", "shows no GPU"),
        ("unknown", "0 GPUs match"),
        ("ambiguous", "2 GPUs match"),
        ("index 7", "no readable NVIDIA GPU 7"),
        ("cuda index 7", "NVML lists 2"),
        ("two kinds", "set CUDA_DEVICE_ORDER=PCI_BUS_ID"),
    ],
)
def test_slices_and_ambiguous_gpus_are_refused(result: dict[str, Any], way: str, reason: str) -> None:
    assert reason in result["devices"][way]


def test_auto_uses_nvml_and_records_the_reason(result: dict[str, Any]) -> None:
    assert result["devices"]["auto"] == ["nvml", "counter", "auto: the first for cuda"]
    source, reason = result["devices"]["auto in vGPU"]
    assert source == "none"
    assert "nvml: the GPU is a vGPU" in reason
    assert "hwmon: no INA3221" in reason


def test_the_interval_contains_the_true_energy_of_random_loads(result: dict[str, Any]) -> None:
    windows = result["coverage"]["windows"]
    assert len(windows) >= 200
    for shape in ("step", "sine", "pulse", "duty"):
        of_shape = [window for window in windows if window["shape"] == shape]
        assert np.mean([window["covered"] for window in of_shape]) >= 0.95, shape
        assert np.mean([window["aligned"] for window in of_shape]) >= 0.95, shape
    # intervals are not arbitrarily wide: 5 % are the sensor's tolerance, the rest is one tick and one gap
    assert np.median([window["half_width"] for window in windows]) < 0.07
    assert max(window["half_width"] for window in windows) < 0.15
    assert max(abs(window["error"]) for window in windows) < 0.01
    assert max(abs(window["tick"]) for window in windows) < 0.35
    assert np.mean([window["suspect"] for window in windows]) < 0.05
    assert np.percentile([abs(window["integral"]) for window in windows], 95) < 0.05


def test_asynchronous_repetitions_correct_a_part_time_sensor_within_six_percent(
    result: dict[str, Any],
) -> None:
    power = result["windows_of_power"]
    naive = [abs(error) for error in power["naive"]]
    assert min(naive) > 0.2
    assert max(naive) > 0.9
    trials = power["trials"]
    assert {trial["source"] for trial in trials} == {"integrated"}
    assert max(abs(trial["error"]) for trial in trials) < 0.06
    assert np.mean([covered for trial in trials for covered in trial["covered"]]) >= 0.95
    assert "the power sensor measures 25 of every 100 ms" in trials[0]["flags"][0]


def test_averages_that_include_time_before_the_window_are_not_used(result: dict[str, Any]) -> None:
    average = result["windows_of_power"]["average"]
    assert abs(average["naive"]) > 0.1
    assert abs(average["steady"]) < 0.01
    assert abs(average["falling"]) < 0.03


def test_no_driver_is_unavailable(tmp_path: Path) -> None:
    code = "from effx import meters\nmeter = meters.open('auto', 'cuda')\nprint(meter.source, meter.reason)\n"
    (tmp_path / "libnvidia-ml.so.1").write_bytes(b"not a library")
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=ROOT,
        env=fake.environment(tmp_path / "libnvidia-ml.so.1"),
        capture_output=True,
        text=True,
    )
    assert done.stdout.startswith("none nvml: no NVIDIA driver"), done.stderr

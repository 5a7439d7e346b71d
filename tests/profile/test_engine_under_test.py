"""What becomes of a worker's answers: windows of energy and processor time beside others."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from effx import meters
from effx.host import cpu
from effx.profile import energy, gates
from effx.profile.engine_under_test import EngineUnderTest
from effx.results import GateResult
from effx.specs.measurement import MeasurementPlan
from effx.specs.workloads import SINGLE_STREAM


class Answering:
    """Stands for a worker: every request but the warm-up gets the same answer."""

    def __init__(self, **block: Any) -> None:
        self._block = {"samples_s": [0.1] * 100, "elapsed_s": 10.0, "examples": 100, "cpu_s": 10.0, **block}

    def request(self, action: str, **_: object) -> dict[str, Any]:
        warmed = {"seconds": 0.0, "windows": 3, "steady": True}
        return warmed if action == "warm_up" else self._block


def answering(**block: Any) -> EngineUnderTest:
    engine: Any = SimpleNamespace(name="engine")
    rows: Any = None
    client: Any = Answering(**block)
    return EngineUnderTest(engine, rows, MeasurementPlan(), _client=client)


class Constant(meters.Unavailable):
    """Counts 50 W."""

    source, floor_w, limit_w = "counter", 10.0, 300.0

    def __init__(self, name: str) -> None:
        super().__init__("")
        self.name = name

    def stop(self, cpu_s: float, during: meters.Period | None = None) -> meters.Reading:
        return meters.Reading(500.0, seconds=10.0)


def undisturbed(meter: str, others_s: float | None) -> GateResult:
    """Return the gate of a window of 10 s in which others worked for so many processor seconds."""
    under_test, read = answering(others_s=others_s), Constant(meter)
    under_test.run_window(SINGLE_STREAM, 0.0, read, 10.0)
    measured = energy.of_windows(under_test.samples(SINGLE_STREAM).windows, read, None)
    (gate,) = [each for each in gates.energy(measured, read, 0.0) if each.name == "undisturbed-windows"]
    return gate


@pytest.mark.parametrize(
    ("meter", "others_s", "passed", "detail"),
    [
        ("rapl", 70.0, False, "other processes used 7 processors, which the meter reads too"),
        ("hwmon:VDD_IN", 70.0, False, "other processes used 7 processors, which the meter reads too"),
        ("rapl", 0.5, True, "no throttling, no other process"),
        ("nvml", 70.0, True, "no throttling, no other process"),
        ("rapl", None, None, "this system does not report how much other processes used"),
    ],
)
def test_other_work_disturbs_windows_of_meters_that_read_it_too(
    monkeypatch: pytest.MonkeyPatch, meter: str, others_s: float | None, passed: bool | None, detail: str
) -> None:
    monkeypatch.setattr(cpu, "installed_processors", lambda: 8)
    gate = undisturbed(meter, others_s)
    assert gate.passed is passed and detail in gate.detail

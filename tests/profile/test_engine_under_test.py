"""What becomes of a worker's answers: windows of energy and processor time beside others."""

from __future__ import annotations

from collections.abc import Mapping
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from effx import meters
from effx.encoding import Encoded
from effx.host import cpu
from effx.profile import energy, gates
from effx.profile.engine_under_test import EngineUnderTest
from effx.profile.protocol import BlockLimits
from effx.profile.worker import Worker
from effx.results import GateResult
from effx.specs.measurement import MeasurementPlan
from effx.specs.tasks import TASKS
from effx.specs.workloads import SINGLE_STREAM


class Answering:
    """Stands for a worker: every request but the warm-up gets the same answer."""

    def __init__(self, **block: Any) -> None:
        self._block = {"samples_s": [0.1] * 100, "elapsed_s": 10.0, "examples": 100, "cpu_s": 10.0, **block}
        self.idle, self.asked = True, list[str]()

    def request(self, action: str, **_: object) -> dict[str, Any]:
        self.asked.append(action)
        if action == "warm_up":
            return {"seconds": 0.0, "windows": 3, "steady": True}
        return {"idle": self.idle} if action == "rest" else self._block


def answering(**block: Any) -> EngineUnderTest:
    engine: Any = SimpleNamespace(name="engine")
    rows: Any = None
    client: Any = Answering(**block)
    return EngineUnderTest(engine, rows, MeasurementPlan(), _client=client)


@pytest.mark.parametrize("idle", [True, False])
def test_an_engine_comes_to_rest_before_the_next_one_is_measured(idle: bool) -> None:
    under_test = answering(others_s=None)
    client: Any = under_test._client
    client.idle = idle
    under_test.run_block(SINGLE_STREAM, 0, 20, BlockLimits(1, 0.0, 1.0))
    assert client.asked == ["warm_up", "block", "rest"]
    flags = under_test.samples(SINGLE_STREAM).flags
    assert flags == ([] if idle else ["its threads compute between queries, which slows engines after it"])
    under_test.serve(5.0, 0, 20, BlockLimits(1, 0.0, 1.0))
    assert client.asked[3:] == ["serve", "rest"]


def test_a_meter_reads_no_rest() -> None:
    under_test, read = answering(others_s=None), Constant("rapl")
    client: Any = under_test._client
    asked: list[str] = []
    stop = read.stop
    read.stop = lambda *work: asked.extend(client.asked) or stop(*work)  # type: ignore[method-assign]
    under_test.run_window(SINGLE_STREAM, 0.0, read, 10.0)
    assert asked == ["warm_up", "block"] and client.asked == [*asked, "rest"]


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


def test_the_host_is_busy_if_the_few_processors_that_the_engine_may_use_are(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Another job has 2 of the 4 processors that this process may use, of 64."""
    monkeypatch.setattr(cpu, "installed_processors", lambda: 64)
    monkeypatch.setattr(cpu, "allowed_processors", lambda: 4)
    under_test = answering(others_s=20.0, others_allowed_s=20.0)
    under_test.run_block(SINGLE_STREAM, 0, 1, BlockLimits(100, 0.0, 10.0))
    gate = gates.host_idle(under_test.others_s, under_test.available_s)
    assert (gate.passed, gate.detail) == (False, "other processes took 50.0% of the processors")
    elsewhere = answering(others_s=40.0, others_allowed_s=0.0)
    elsewhere.run_block(SINGLE_STREAM, 0, 1, BlockLimits(100, 0.0, 10.0))
    assert gates.host_idle(elsewhere.others_s, elsewhere.available_s).passed
    unknown = answering(others_s=40.0)
    unknown.run_block(SINGLE_STREAM, 0, 1, BlockLimits(100, 0.0, 10.0))
    assert unknown.available_s == 640.0


def test_a_worker_counts_others_on_the_processors_that_it_may_use(monkeypatch: pytest.MonkeyPatch) -> None:
    busy_s = {0: 0.0, 1: 0.0}

    class Session:
        def infer(self, inputs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
            busy_s[0] += 1.0
            busy_s[1] += 5.0
            return {"logits": np.zeros((len(inputs["input_ids"]), 2), dtype=np.float32)}

    monkeypatch.setattr(cpu, "busy_s", lambda: sum(busy_s.values()))
    monkeypatch.setattr(cpu, "busy_s_of", lambda processors: sum(busy_s[number] for number in processors))
    ids = np.arange(30, dtype=np.int32)
    rows = Encoded(ids, np.zeros(30, dtype=np.int8), np.arange(0, 31, 3), 0)
    session: Any = Session()
    worker = Worker(session, rows, TASKS["sst2"], longest=8, processors={1})
    block = worker.block(SINGLE_STREAM, 0.0, 10, 0.0, 5.0)
    assert block.others_s == pytest.approx(60.0 - block.cpu_s)
    assert block.others_allowed_s == pytest.approx(50.0 - block.cpu_s)

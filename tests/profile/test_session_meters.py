"""Whether a session's meters read what its engines run on, with mock engines that name a GPU."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from effx import data, meters
from effx.engines import mock
from effx.engines.mock import MockBehavior
from effx.errors import UsageError
from effx.host import identity
from effx.profile import energy, journal, profile, resume
from effx.profile.client import WorkerClient
from effx.profile.engine_under_test import EngineUnderTest
from effx.results import Idle, Run
from effx.specs.tasks import TASKS
from tests.conftest import QUICK

PLAN = QUICK.replace(grid=(), windows=2, limit=40)
METERED, OTHER = "GPU-aaaaaaaa-0000-1111-2222-333333333333", "GPU-bbbbbbbb-0000-1111-2222-333333333333"


class GpuMeter(meters.Unavailable):
    """Counts 300 W of one GPU."""

    name, source, limit_w = "nvml", "counter", 700.0

    def __init__(self) -> None:
        super().__init__("")
        self.reason, self.windows = None, 0

    def describe(self) -> dict[str, Any]:
        return {"uuid": METERED}

    def start(self) -> None:
        self.windows += 1

    def stop(self, cpu_s: float, during: meters.Period | None = None) -> meters.Reading:
        return meters.Reading(300.0, seconds=1.0)


@pytest.fixture
def engine(tmp_path: Path, rows_folder: Path) -> Path:
    record = data.recorded(TASKS["sst2"], rows_folder)
    return mock.write_engine(tmp_path / "engines" / "a", MockBehavior(latency_s=0.001), data=record)


@pytest.fixture
def on_gpu(monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    """Let workers say that their engine runs on a GPU."""
    real = WorkerClient.request

    def called(uuid: str) -> None:
        def request(self: WorkerClient, action: str, **arguments: Any) -> Any:
            answer = real(self, action, **arguments)
            if "runtime" in answer:
                answer["runtime"]["uuid"] = uuid
            return answer

        monkeypatch.setattr(WorkerClient, "request", request)

    return called


def measured(engine: Path, out: Path) -> Run:
    (run,), errors = profile([engine], out=out, plan=PLAN)
    assert not errors
    return run


def test_an_engine_on_another_gpu_than_the_metered_one_has_no_energy(
    engine: Path,
    on_gpu: Callable[[str], None],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    meter = GpuMeter()
    monkeypatch.setattr("effx.profile.run.meters.open", lambda *_, **__: meter)
    on_gpu(METERED)
    assert measured(engine, tmp_path / "same").workloads[0].energy.source == "counter"
    used = meter.windows
    on_gpu(OTHER)
    found = measured(engine, tmp_path / "other").workloads[0].energy
    told = f"meter nvml reads {METERED}, but the engine runs on {OTHER} (CUDA_VISIBLE_DEVICES)"
    assert (found.source, found.reason) == ("none", told)
    assert meter.windows == used + 3  # of the idle power
    assert f"a: energy unavailable: {told}" in " ".join(capsys.readouterr().err.split())


def test_a_meter_of_another_device_is_refused_before_anything_is_measured(
    engine: Path, tmp_path: Path
) -> None:
    with pytest.raises(UsageError, match="meter nvml:0 does not read the processor that computes"):
        profile([engine], out=tmp_path / "results", plan=PLAN, meter="nvml:0")
    assert not list(tmp_path.glob("results/**/*.json*"))


def interrupted(engine: Path, out: Path, monkeypatch: pytest.MonkeyPatch, at: int) -> str:
    """Return the id of a session that was stopped in an energy window."""
    real, windows = EngineUnderTest.run_window, []

    def run_window(self: EngineUnderTest, *arguments: Any) -> None:
        windows.append(1)
        if len(windows) == at:
            raise KeyboardInterrupt
        real(self, *arguments)

    with monkeypatch.context() as patch:
        patch.setattr(EngineUnderTest, "run_window", run_window)
        with pytest.raises(KeyboardInterrupt):
            profile([engine], out=out, plan=PLAN)
    (path,) = (out / journal.FOLDER).glob("*.jsonl")
    return path.stem


def test_a_session_is_not_resumed_on_another_gpu(
    engine: Path, on_gpu: Callable[[str], None], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("effx.profile.run.meters.open", lambda *_, **__: GpuMeter())
    on_gpu(METERED)
    session = interrupted(engine, tmp_path, monkeypatch, at=2)
    with monkeypatch.context() as patch:
        patch.setattr(GpuMeter, "describe", lambda self: {"uuid": OTHER})
        with pytest.raises(UsageError, match=f"changed: metered GPU \\({METERED}, now {OTHER}\\)"):
            resume(session, out=tmp_path)
    on_gpu(OTHER)  # no meter sees it
    runs, errors = resume(session, out=tmp_path)
    assert not runs and "uuid differ from those before the interruption" in str(errors[0])


def test_a_session_whose_engines_run_on_another_visible_gpu_is_not_resumed() -> None:
    header = journal.SessionHeader("s", identity.host(None), PLAN, "none", ["none"], None, [], gpu=METERED)
    assert header.differences(header) == []
    assert header.differences(replace(header, gpu=OTHER)) == [f"GPU of the engines ({METERED}, now {OTHER})"]
    assert header.differences(replace(header, metered=[OTHER])) == []  # of an earlier version


@pytest.mark.parametrize(("at", "watts"), [(1, 20.0), (2, 15.0)])
def test_the_idle_power_is_measured_again_after_an_interruption(
    engine: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, at: int, watts: float
) -> None:
    """It is 10 W before the interruption and 20 W after it; windows on both sides count both."""
    monkeypatch.setattr("effx.profile.run.meters.open", lambda *_, **__: GpuMeter())
    measured_w = iter((Idle(10.0, (9.0, 11.0), 1.0), Idle(20.0, (19.0, 21.0), 1.0)))
    monkeypatch.setattr(energy, "idle", lambda *_: next(measured_w))
    session = interrupted(engine, tmp_path, monkeypatch, at)
    (run,), errors = resume(session, out=tmp_path)
    idle = run.workloads[0].energy.idle
    assert not errors and idle is not None and idle.watts == pytest.approx(watts)

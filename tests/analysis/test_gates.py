"""A number behind a failed hard gate is unavailable everywhere, with the gate as the reason."""

from __future__ import annotations

from dataclasses import replace

import pytest

from effx.analysis import wording
from effx.analysis.baseline import baseline_of
from effx.analysis.comparison import compare
from effx.analysis.frontier import frontier
from effx.analysis.objectives import OBJECTIVES, measures
from effx.analysis.recommend import recommend
from effx.analysis.recommendation import Recommendation
from effx.analysis.summary import summary
from effx.errors import UsageError
from effx.report import tables
from effx.report.contents import collect_contents, energy_unavailable
from effx.report.groups import group_runs
from effx.report.tracking import metrics
from effx.results import GateResult, Run
from effx.specs.constraints import RecommendSettings
from effx.specs.gates import GATES
from tests.analysis.simulated_run import simulated_run

ANY = RecommendSettings.of(max_drop=None)


def failed(run: Run, gate: str, workload: str | None = None) -> Run:
    return replace(run, gates=[GateResult(gate, False, "3.0 W, idle 10.0 W", workload)], flags=[gate])


def runs(gate: str, workload: str | None = None) -> list[Run]:
    cheap = simulated_run("cheap", range(3), 0.01, 0.1)
    return [
        simulated_run("fp32", range(2), 0.03, 3.0, precision="fp32"),
        simulated_run("int8", range(3), 0.02, 1.5),
        failed(cheap, gate, workload),
    ]


@pytest.mark.parametrize(
    "gate", [name for name, gate in GATES.items() if gate.hard and gate.concerns == "energy"]
)
def test_energy_behind_a_hard_gate_is_unavailable(gate: str) -> None:
    measured = runs(gate)
    cheap = measured[-1]
    reason = f"gate failed: {GATES[gate].label}: 3.0 W, idle 10.0 W"
    values = measures(cheap)
    assert (values["energy"], values["energy_per_correct"]) == (None, None)
    assert OBJECTIVES["energy"].missing(cheap) == reason
    assert OBJECTIVES["energy"].interval(cheap) is None
    assert values["latency"] is not None and values["quality"] is not None
    (answer,) = recommend(measured, "energy", ANY)
    assert isinstance(answer, Recommendation)
    assert answer.engine == "int8"
    assert "cheap is left out: without energy" in wording.recommendation(answer)
    names = [point.run.name for point in frontier(measured, ("quality", "energy")).points]
    assert sorted(names) == ["fp32", "int8"]
    assert len(frontier(measured, ("quality", "latency")).points) == 3
    assert compare(measured[0], cheap).energy is None
    (entry,) = summary(measured).values()
    assert "cheap" not in entry.energy_per_correct
    assert "energy_j_per_example" not in metrics(cheap)
    assert energy_unavailable(measured) == [reason]
    assert tables.energy_sources([cheap]) == []


def test_energy_that_was_missing_before_is_not_said_to_be_now() -> None:
    before = simulated_run("fp32", precision="fp32", started="2025")
    now = simulated_run("fp32", precision="fp32", joules=0.02, started="2026")
    assert energy_unavailable([before]) == ["no meter"]
    for measured in ([before, now], [now, before]):
        assert collect_contents(measured, group_runs(measured)).energy_unavailable == []


def test_a_gate_concerns_its_own_workload() -> None:
    (*_, other) = runs("power-range", "offline 32xreal")
    assert measures(other)["energy"] == 0.1
    (*_, single) = runs("power-range", other.workloads[0].workload.name)
    assert measures(single)["energy"] is None


def test_a_soft_gate_marks_the_result() -> None:
    measured = runs("host-idle")
    (answer,) = recommend(measured, "energy", ANY)
    assert isinstance(answer, Recommendation)
    assert answer.engine == "cheap"
    assert "cheap: gate failed: host otherwise idle" in answer.remarks


def test_a_score_of_other_predictions_than_were_timed_is_unavailable() -> None:
    measured = runs("prediction-agreement")
    cheap = measured[-1]
    values = measures(cheap)
    assert (values["quality"], values["f1"], values["energy_per_correct"]) == (None, None, None)
    assert values["latency"] is not None
    (answer,) = recommend(measured, "latency", ANY)
    assert isinstance(answer, Recommendation)
    assert answer.engine == "int8"
    assert answer.remarks[0] == "cheap is left out: its quality is unavailable"
    assert len(frontier(measured).points) == 2
    with pytest.raises(UsageError, match="cheap: its quality is unavailable: gate failed: timed predictions"):
        compare(measured[0], cheap)
    best = failed(simulated_run("best", precision="fp32"), "prediction-agreement")
    assert baseline_of([*measured, best]).name == "fp32"
    assert "accuracy" not in metrics(cheap)

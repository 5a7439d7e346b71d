"""Costs of single queries and of other workloads come from one table."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from effx.analysis import objectives
from effx.analysis.objectives import OBJECTIVES, OF_WORKLOADS
from effx.errors import UsageError
from effx.results import WorkloadResult
from effx.specs.workloads import SINGLE_STREAM, grid
from tests.analysis.simulated_run import simulated_run

RUN = simulated_run("one", joules=0.1)
SINGLE = replace(RUN.workloads[0], cpu_s=[0.5 + 0.01 * number for number in range(6)])
WITH_GRID = replace(RUN, workloads=[SINGLE, replace(SINGLE, workload=grid(4, 32))])


@pytest.mark.parametrize("name", OF_WORKLOADS)
def test_a_cost_of_a_workload_is_that_of_its_samples(name: str) -> None:
    """The same samples have the same cost, as single queries and as a shape of the grid with rows of one."""
    single, of_grid = OBJECTIVES[name], objectives.at(name, grid(4, 32))
    again = objectives.at(name, SINGLE_STREAM)
    rows = {"cpu_time": 1 / 4, "throughput": 4.0}.get(name, 1.0)
    value = single.value(WITH_GRID)
    if name == "latency_p99":
        assert value is None and single.missing(WITH_GRID).endswith("profile with more rounds")
        assert of_grid.missing(WITH_GRID).endswith("profile with more grid_rounds")
        return
    assert value is not None and again.value(WITH_GRID) == value
    assert of_grid.value(WITH_GRID) == pytest.approx(rows * value)
    expected = np.array(single.interval(WITH_GRID))
    assert of_grid.interval(WITH_GRID) == pytest.approx(tuple(rows * expected))
    assert of_grid.draws([WITH_GRID]) == pytest.approx(rows * single.draws([WITH_GRID]))
    assert objectives.rounds(of_grid, WITH_GRID) == 6
    assert of_grid.maximise is single.maximise and "grid 4x32" in of_grid.label


@pytest.mark.parametrize("name", OF_WORKLOADS)
def test_a_workload_that_was_not_measured_has_no_value(name: str) -> None:
    cost = objectives.at(name, grid(8, 64))
    assert cost.value(WITH_GRID) is None and cost.interval(WITH_GRID) is None
    assert cost.missing(WITH_GRID) == "grid 8x64 was not measured; profile the engine with it"
    assert objectives.rounds(cost, WITH_GRID) == 0 and objectives.energy(cost, WITH_GRID) is None


def test_costs_that_are_not_of_a_workload_are_refused() -> None:
    for name in ("size", "memory", "quality", "throughput_offline", "energy"):
        with pytest.raises(UsageError, match=f"{name} is not measured for each workload: choose latency"):
            objectives.at(name, grid(1, 32))
    with pytest.raises(UsageError, match="latency"):
        objectives.at("latenci", grid(1, 32))


def test_offline_throughput_has_the_rounds_of_its_workload() -> None:
    run = simulated_run("one", offline_per_s=100.0)
    offline: WorkloadResult = run.workloads[1]
    cost = OBJECTIVES["throughput_offline"]
    assert objectives.rounds(cost, run) == len(offline.rounds) != len(run.workloads[0].rounds)
    assert cost.missing(RUN) == "the offline scenario was not measured; profile with scenario offline"

"""Metrics as functions of weights, against the metrics themselves on the rows that were drawn."""

from __future__ import annotations

import gc
from dataclasses import replace

import numpy as np
import pytest

from effx.analysis import resampling
from effx.stats import intervals
from tests.analysis.simulated_run import simulated_run


def test_every_engine_sees_the_same_rows() -> None:
    runs = [simulated_run("a", range(30)), simulated_run("b", range(30)), simulated_run("c", range(30, 60))]
    result = resampling.scores("accuracy", runs)
    assert np.array_equal(result[0], result[1])
    assert not np.array_equal(result[0], result[2])
    assert resampling.example_weights(9).sum(axis=1).tolist() == [9] * 1000


def test_percentiles_equal_those_of_the_drawn_blocks() -> None:
    run = simulated_run("a", rounds=7, queries=13, spread=0.4)
    workload = run.workloads[0]
    weights = resampling._round_weights(run, 7)
    for share in (0.5, 0.9):
        result = resampling.latencies(run, workload, share)
        assert result is not None
        for row in range(50):
            drawn = np.concatenate(
                [
                    block
                    for block, count in zip(workload.blocks_s, weights[row], strict=True)
                    for _ in range(count)
                ]
            )
            assert result[row] == np.percentile(drawn, 100 * share, method="inverted_cdf")
    assert (
        resampling.latencies(simulated_run("a", rounds=2), simulated_run("a", rounds=2).workloads[0], 0.5)
        is None
    )


def test_energy_fills_its_interval() -> None:
    run = simulated_run("a", joules=2.0, energy_spread=0.1)
    result = resampling.energies(run, run.workloads[0].energy)
    assert result is not None
    assert np.mean((result >= 1.8) & (result <= 2.2)) == pytest.approx(0.95, abs=0.02)
    assert resampling.energies(simulated_run("b"), simulated_run("b").workloads[0].energy) is None


def test_the_tolerance_of_a_meter_is_common_to_its_runs() -> None:
    drawn = []
    for name, joules in (("a", 2.0), ("b", 1.88)):
        run = simulated_run(name, joules=joules, energy_spread=0.1)
        precise = replace(run.workloads[0].energy, interval_without_gain=(0.99 * joules, 1.01 * joules))
        drawn.append(resampling.energies(run, precise))
    assert drawn[0] is not None and drawn[1] is not None
    assert np.quantile(drawn[0], 0.025) == pytest.approx(1.8, rel=0.02)  # each varies as before
    ratio = drawn[1] / drawn[0]
    assert np.quantile(ratio, 0.975) < 0.96


def test_nothing_is_remembered_of_runs_that_are_gone() -> None:
    gc.collect()
    before = len(resampling._REMEMBERED)
    run = simulated_run("a")
    first = resampling.latencies(run, run.workloads[0], 0.5)
    assert resampling.latencies(run, run.workloads[0], 0.5) is first
    assert len(resampling._REMEMBERED) == before + 1
    del run, first
    gc.collect()
    assert len(resampling._REMEMBERED) <= before


def test_a_high_percentile_of_few_rounds_has_no_interval() -> None:
    """Interval of p99: none with 19 rounds; with 20 it holds that of the counts above it."""
    for rounds, has in ((19, False), (20, True)):
        run = simulated_run("a", rounds=rounds, queries=60, spread=0.5)
        workload = run.workloads[0]
        assert (resampling.latency_interval(run, workload, 0.99) is not None) is has
        assert resampling.latency_interval(run, workload, 0.9) is not None
    interval = resampling.latency_interval(run, workload, 0.99)
    counted = intervals.block_quantile(workload.blocks_s, 0.99)
    assert interval is not None and counted is not None
    assert interval[0] <= counted[0] and interval[1] >= counted[1]

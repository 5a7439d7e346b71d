"""Tests of limits repeated in resamplings of rows and rounds."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from effx.analysis import certification
from effx.analysis.constraints import of_constraints
from effx.analysis.objectives import OBJECTIVES
from effx.results import Run
from effx.specs.constraints import Constraints
from effx.stats.metrics import METRICS
from tests.analysis.simulated_run import simulated_run

CONFIDENCE = 0.95


def repeated(
    runs: list[Run], constraints: Constraints, objective: str = "size"
) -> tuple[certification.Certification, np.ndarray]:
    """Return the certification, and which engine is proven in which resampling."""
    limits, chosen = of_constraints(constraints, runs[0]), OBJECTIVES[objective]
    certified = certification.certify(runs, limits, chosen, CONFIDENCE)
    draws = chosen.draws(runs)
    return certified, certification.proven_in_resamplings(runs, limits, chosen, certified, draws)


def test_the_p_values_of_a_loss_are_those_of_the_resampled_rows() -> None:
    """A row counts as often as it was drawn: the test of the repeated rows gives the same verdict."""
    from effx.analysis import limits as limit_tests
    from effx.analysis import resampling

    base = simulated_run("base", range(20), size=2, n=600)
    small = simulated_run("small", range(4, 22), size=1, n=600)
    _, proven = repeated([base, small], Constraints(max_drop=0.02))
    weights = resampling.example_weights(600)
    (limit,) = of_constraints(Constraints(max_drop=0.02), base)
    for draw in range(20):
        rows = np.repeat(np.arange(600), weights[draw].astype(int))

        def drawn(run: Run, rows: np.ndarray = rows) -> Run:
            quality = run.quality
            labels, predictions = quality.label_array[rows], quality.prediction_array[rows]
            value = METRICS["accuracy"](labels, predictions)
            again = replace(quality, value=value, predictions=predictions.tolist(), labels=labels.tolist())
            return replace(run, quality=again)

        of_rows = replace(limit, baseline=drawn(base))
        assert proven[1, draw] == (limit_tests.p_value(drawn(small), of_rows) <= 1 - CONFIDENCE)


@pytest.mark.parametrize(
    ("constraints", "metric"),
    [
        (Constraints(min_accuracy=0.9), "accuracy"),
        (Constraints(max_p90_s=0.0118), "accuracy"),
        (Constraints(max_drop=0.03), "f1"),
    ],
)
def test_other_limits_are_proven_more_often_the_further_they_are_met(
    constraints: Constraints, metric: str
) -> None:
    """Far within it is proven in all resamplings, near in some, beyond in none or few."""
    shares = []
    for wrong, seconds in ((8, 0.009), (30, 0.0107), (70, 0.013)):
        base = simulated_run("base", range(8), seconds=0.01, size=3, metric=metric)
        small = simulated_run("small", range(wrong), seconds=seconds, size=1, metric=metric)
        certified, proven = repeated([base, small], constraints)
        shares.append(float(proven[1].mean()))
        if shares[-1] in (0.0, 1.0):
            assert bool(certified.proven[1]) is (shares[-1] == 1.0)
    assert shares[0] >= 0.95 and shares[2] <= 0.05
    assert shares[0] >= shares[1] >= shares[2]


def test_an_engine_without_a_value_is_never_proven() -> None:
    base = simulated_run("base", range(8), joules=0.02, size=2)
    bare = simulated_run("bare", range(8), size=1)
    _, proven = repeated([base, bare], Constraints(max_joules=0.05))
    assert not proven[1].any()

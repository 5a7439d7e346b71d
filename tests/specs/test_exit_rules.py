"""Exit rules against row-by-row readings of their papers."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from effx.errors import UsageError
from effx.specs import exit_rules
from effx.specs.exit_rules import ExitRule

RULES = [
    ExitRule("entropy", 0.4),
    ExitRule("max-probability", 0.8),
    ExitRule("patience", patience=2),
    ExitRule("consecutive-entropy", 0.5, patience=2),
]


def probabilities(logits: list[float]) -> list[float]:
    top = max(logits)
    powers = [math.exp(value - top) for value in logits]
    return [power / sum(powers) for power in powers]


def leaves_at(rule: ExitRule, ramps: list[list[float]]) -> int:
    """One row, one ramp after the other, written as the papers say it."""
    streak, last = 0, None
    for ramp_index, logits in enumerate(ramps):
        p = probabilities(logits)
        h = -sum(x * math.log(x) for x in p if x > 0)
        if rule.name == "entropy":
            if h < rule.threshold:
                return ramp_index
        elif rule.name == "max-probability":
            if max(p) > rule.threshold:
                return ramp_index
        elif rule.name == "patience":
            now = p.index(max(p))
            streak = streak + 1 if now == last else 0
            last = now
            if streak == rule.patience:
                return ramp_index
        else:
            streak = streak + 1 if h / math.log(len(p)) < rule.threshold else 0
            if streak == rule.patience:
                return ramp_index
    return len(ramps)


@settings(deadline=None)
@given(st.integers(0, 10_000), st.sampled_from(RULES), st.integers(1, 6), st.integers(2, 4))
def test_rules_match_row_by_row_readings_of_their_papers(
    seed: int, rule: ExitRule, ramps: int, classes: int
) -> None:
    logits = np.random.default_rng(seed).normal(0, 2, (ramps + 1, 20, classes)).astype(np.float32)
    expected = [leaves_at(rule, logits[:-1, row].tolist()) for row in range(20)]
    assert exit_rules.simulate(rule, logits).tolist() == expected


def test_entropy_is_in_nats_and_finite_where_a_probability_is_zero() -> None:
    logits = np.array([[0.0, 0.0], [1e4, -1e4], [np.log(3.0), 0.0]])
    expected = [math.log(2), 0.0, -(0.75 * math.log(0.75) + 0.25 * math.log(0.25))]
    assert np.allclose(exit_rules.entropy(logits), expected)


def test_the_last_head_is_never_an_early_exit() -> None:
    logits = np.zeros((3, 4, 2))
    logits[-1] = [100.0, -100.0]  # sure at the end only
    point = exit_rules.evaluate(ExitRule("entropy", 0.1), logits, np.array([1, 2, 3]), lambda out: 1.0)
    assert point.mean_depth == 3.0


@pytest.mark.parametrize("name", exit_rules.RULES)
def test_calibration_meets_its_target(name: str) -> None:
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 2, 400)
    sure = np.linspace(0.3, 3, 6)[:, None] * rng.gamma(2, 1, 400)  # deeper heads are surer and better
    signal = np.where(labels == 1, 1.0, -1.0) * sure + rng.normal(0, 1, (6, 400))
    logits = np.stack([-signal, signal], -1)
    depths = np.arange(1, 7)

    def score(out: np.ndarray) -> float:
        return float((out.argmax(-1) == labels).mean())

    for depth in (3.0, 4.5, 6.0):
        point = exit_rules.calibrate(name, logits, depths, score, depth=depth)
        assert point.mean_depth <= depth
    with pytest.raises(UsageError, match="more than 0.50"):
        exit_rules.calibrate(name, logits, depths, score, depth=0.5)


def test_regression_exits_by_patience_with_a_threshold() -> None:
    logits = np.array([[[1.0], [1.0]], [[1.05], [2.0]], [[1.2], [2.05]], [[3.0], [3.0]]])
    assert exit_rules.simulate(ExitRule("patience", 0.1), logits).tolist() == [1, 2]
    assert exit_rules.simulate(ExitRule("patience", 0.2, patience=2), logits).tolist() == [2, 3]
    for rule in (ExitRule("entropy", 0.5), ExitRule("patience")):
        with pytest.raises(UsageError, match="regression supports only patience with a threshold"):
            exit_rules.simulate(rule, logits)
    point = exit_rules.calibrate("patience", logits, np.arange(1, 5), lambda out: 1.0, depth=3.5)
    assert point.mean_depth < 4


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"name": "entropi"}, "unknown exit rule 'entropi'. Did you mean 'entropy'"),
        ({"name": "entropy"}, "expected a threshold from 0 to inf, got None"),
        ({"name": "max-probability", "threshold": 1.2}, "expected a threshold from 0 to 1, got 1.2"),
        ({"name": "entropy", "threshold": 0.1, "patience": 2}, "expected patience 1"),
        ({"name": "patience", "patience": 0}, "expected patience an integer >= 1, got 0"),
    ],
)
def test_invalid_rules_are_refused(settings: dict[str, object], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        ExitRule(**settings)  # type: ignore[arg-type]

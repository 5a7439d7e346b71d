"""The loss of a calibrated exit rule against its true loss, in repetition."""

from __future__ import annotations

import numpy as np
import pytest

from effx.specs import exit_calibration, exit_rules
from effx.stats import intervals, noninferiority
from effx.stats.metrics import METRICS

DEPTHS = np.arange(1, 7)


def rows(rng: np.random.Generator, n: int) -> tuple[np.ndarray, np.ndarray]:
    """Return labels [n] and logits [6 heads, n, 2]: deeper heads are surer and better."""
    labels = rng.integers(0, 2, n)
    strength = np.linspace(0.5, 1.5, 6)[:, None]
    noise = 0.8 * rng.standard_normal(n) + 0.6 * rng.standard_normal((6, n))
    signal = np.where(labels == 1, 1.0, -1.0) * strength + noise
    return labels, np.stack([-signal, signal], -1)


def predict(logits: np.ndarray) -> np.ndarray:
    return logits.argmax(-1)


@pytest.mark.parametrize("name", exit_rules.RULES)
def test_settings_that_share_decisions_exit_where_each_alone_does(name: str) -> None:
    _, logits = rows(np.random.default_rng(0), 50)
    rules = exit_rules.candidates(name, logits, thresholds=9)
    heads = exit_rules.heads_of(rules, logits)
    for rule, of_rule in zip(rules, heads, strict=True):
        assert np.array_equal(of_rule, exit_rules.simulate(rule, logits))
    never = exit_rules.never(name, logits)
    assert set(exit_rules.simulate(never, logits).tolist()) == {5}


@pytest.mark.parametrize("name", exit_rules.RULES)
def test_what_is_proven_holds_on_other_rows(name: str) -> None:
    """A true loss beyond the limit may occur in 1 of 20 calibrations, hardly in 5."""
    labels, logits = rows(np.random.default_rng(1), 6000)
    full = np.mean(predict(logits[-1]) == labels)
    rng = np.random.default_rng(2)
    broken, depths = 0, []
    for _ in range(20):
        drawn = rng.integers(0, len(labels), 500)
        proven = exit_calibration.prove(
            name, logits[:, drawn], DEPTHS, labels[drawn], predict, METRICS["accuracy"], max_drop=0.02
        )
        heads = exit_rules.simulate(proven.rule, logits)
        chosen = predict(logits[heads, np.arange(len(labels))])
        broken += full - np.mean(chosen == labels) > 0.02
        depths.append(DEPTHS[heads].mean())
        assert not proven.proven or proven.loss <= proven.bound <= 0.02 + 1e-9
    assert broken <= 4
    assert min(depths) < 5.9  # it is not safe by never exiting


def test_the_bound_is_that_of_the_same_rows() -> None:
    labels, logits = rows(np.random.default_rng(3), 3000)
    proven = exit_calibration.prove(
        "entropy", logits, DEPTHS, labels, predict, METRICS["accuracy"], max_drop=0.02, confidence=0.9
    )
    heads = exit_rules.simulate(proven.rule, logits)
    chosen = predict(logits[heads, np.arange(3000)])
    low, _ = intervals.paired_accuracy_interval(
        predict(logits[-1]) == labels, chosen == labels, confidence=0.8
    )
    assert proven.bound == pytest.approx(max(0.0, -low))
    matthews = exit_calibration.prove(
        "entropy", logits, DEPTHS, labels, predict, METRICS["matthews"], max_drop=0.04
    )
    assert matthews.proven and matthews.loss <= matthews.bound <= 0.04 + 1e-3


def test_too_few_rows_prove_nothing() -> None:
    labels, logits = rows(np.random.default_rng(4), 200)
    proven = exit_calibration.prove(
        "entropy", logits, DEPTHS, labels, predict, METRICS["accuracy"], max_drop=0.01
    )
    assert not proven.proven
    assert set(exit_rules.simulate(proven.rule, logits).tolist()) == {5}
    assert noninferiority.rows_needed(0.01, 0.95) == 268

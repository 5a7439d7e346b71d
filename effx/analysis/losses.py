"""Which engines are certified to lose little against the baseline: all engines of a report at once.

The engines on a frontier were chosen on the rows that score them, so their scores are, on average, a little
lucky. Here each engine's loss is tested one-sided on the same rows (:mod:`effx.analysis.limits`), adjusted by
Holm's rule for the number of engines: with confidence 0.95, in at most 5 % of reports any certified engine
loses more than the limit, whichever is picked afterwards.

    certified     a larger loss is ruled out
    not proven    a larger loss is not ruled out; more rows may do so
    loses more    a loss within the limit is ruled out, for this engine alone
    unavailable   a gate failed, or the result has no predictions
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

import numpy as np

from effx import formatting
from effx.analysis import cohorts
from effx.analysis import limits as limit_tests
from effx.analysis.constraints import of_constraints
from effx.analysis.limits import Verdict
from effx.formatting import fixed, limit_points, outwards
from effx.results import Run
from effx.specs.constraints import MAX_DROP, Constraints
from effx.stats import CONFIDENCE, tests
from effx.stats.metrics import METRICS

_DECIMALS = 1
"""Of losses in points."""
_MOST_BOOTSTRAPPED = 60
"""Engines that are tested where every test is a bootstrap, which takes a tenth of a second."""


class LossStatus(StrEnum):
    """What is known of an engine's loss."""

    BASELINE = "baseline"
    CERTIFIED = "certified"
    NOT_PROVEN = "not proven"
    LOSES_MORE = "loses more"
    UNAVAILABLE = "unavailable"
    NOT_TESTED = "not tested"


@dataclass(frozen=True)
class LossOutcome:
    """What is known of one engine's loss against the baseline."""

    status: LossStatus
    explanation: str
    """One sentence."""


def outcomes(
    runs: Sequence[Run], baseline: Run, *, max_drop: float = MAX_DROP, confidence: float = CONFIDENCE
) -> list[LossOutcome]:
    """Return the outcome of each run.

    Args:
        runs: of one cohort, the baseline among them.
        baseline: that losses are against.
        max_drop: the limit: the largest loss of the primary metric.
        confidence: one-sided, of all certified engines together.
    """
    missing = {run.id: reason for run in runs if (reason := _missing(run)) is not None}
    (threshold,) = of_constraints(Constraints(max_drop=max_drop), baseline)
    able = [run for run in runs if run is not baseline and run.id not in missing]
    if baseline.id in missing:
        able = []
    few = METRICS[baseline.quality.metric].is_share or len(able) <= _MOST_BOOTSTRAPPED
    able = able if few else []
    p_values = np.array([limit_tests.p_value(run, threshold) for run in able])
    levels = tests.holm_levels(p_values, 1 - confidence) if able else np.empty(0)
    result = {
        run.id: _outcome(limit_tests.outcome(run, threshold, 1 - level), p <= level, max_drop, confidence)
        for run, p, level in zip(able, p_values.tolist(), levels.tolist(), strict=True)
    }
    for run in able:
        alone = limit_tests.outcome(run, threshold, confidence)
        if alone.verdict is Verdict.VIOLATED and alone.difference is not None:
            result[run.id] = LossOutcome(
                LossStatus.LOSES_MORE,
                f"It loses {_points(-alone.difference)} as measured, and more than {limit_points(max_drop)} "
                f"with {formatting.confidence(confidence)} confidence (for this engine alone).",
            )
    return [_stated(run, baseline, missing, result) for run in runs]


def _stated(run: Run, baseline: Run, missing: dict[str, str], tested: dict[str, LossOutcome]) -> LossOutcome:
    if run.id in missing:
        return LossOutcome(LossStatus.UNAVAILABLE, f"Its score is unavailable: {missing[run.id]}.")
    if run is baseline:
        return LossOutcome(LossStatus.BASELINE, "The other engines are compared with this engine.")
    if run.id in tested:
        return tested[run.id]
    reason = f"with {baseline.quality.metric}, losses of at most {_MOST_BOOTSTRAPPED} engines are tested"
    if baseline.id in missing:
        reason = f"the baseline's score is unavailable: {missing[baseline.id]}"
    return LossOutcome(LossStatus.NOT_TESTED, f"Its loss was not tested: {reason}.")


def _missing(run: Run) -> str | None:
    """Return why a run's loss cannot be tested."""
    if reason := run.withdrawn("quality"):
        return reason
    return None if cohorts.has_predictions(run) else "the result was shared without predictions"


def _outcome(
    outcome: limit_tests.LimitOutcome, proven: bool, max_drop: float, confidence: float
) -> LossOutcome:
    assert outcome.difference is not None
    loss = -outcome.difference
    bound = None if outcome.interval is None else max(0.0, -outcome.interval[0])
    if proven:
        up = None if bound is None else outwards(100 * bound, _DECIMALS, up=True) / 100
        most = limit_points(max_drop) if up is None or up > max_drop else _points(up)
        return LossOutcome(
            LossStatus.CERTIFIED,
            f"It loses at most {most} ({formatting.confidence(confidence)}, adjusted for the number of "
            f"engines); "
            f"measured: {_points(loss)}.",
        )
    ruled = outcome.reason or ("" if bound is None else f"a loss of {_points(bound)} is not ruled out")
    needed = "" if outcome.needed is None else f"; about {outcome.needed.count} rows in total would decide"
    return LossOutcome(
        LossStatus.NOT_PROVEN,
        f"Measured {'gain' if loss < 0 else 'loss'} {_points(abs(loss))}; {ruled or 'no interval'}{needed}.",
    )


def _points(difference: float) -> str:
    return f"{fixed(100 * difference, _DECIMALS)} points"

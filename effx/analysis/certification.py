"""Which engines are proven to meet every limit, adjusted for how many were considered.

The best of several engines on the rows that chose it looks better than it is (winner's curse). So an engine
counts as proven only if the one-sided tests of its limits (:mod:`effx.analysis.limits`) reject at a level
that is adjusted for the number of engines: with confidence 0.95, in at most 5 % of sessions any engine that
misses a limit is proven, whichever is chosen then.

    certain    every limit is decided by a single reading, such as the size, or is relative to the engine
               itself; no test is needed
    tested     every engine that is better by the objective than the best certain one, as only these can be
               chosen
    p-value    of an engine: the largest of its limits' (all must hold: Berger 1982, Technometrics 24:295-300)
    order      the costliest first, by the fallback procedure: each proven engine passes its level on to the
               next cheaper one. The order may not depend on the data of the tests, so where objective and
               limits are of the same kind (an objective that contains a score, or a limit on latency or
               energy) Holm's rule replaces it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from effx.analysis import limits as limit_tests
from effx.analysis import resampling
from effx.analysis.constraints import ROUNDING, Threshold
from effx.analysis.limits import LimitOutcome
from effx.analysis.objectives import Objective
from effx.results import Run
from effx.stats import noninferiority, tests
from effx.stats.metrics import METRICS, same_rows

_SCORED = ("energy_per_correct",)
"""Objectives that are not scores and depend on predictions."""


@dataclass(frozen=True)
class Certification:
    """Which of several engines are proven to meet every limit."""

    confidence: float
    certain: np.ndarray
    """Engines that meet every limit without a test, bool [engines]."""
    tested: np.ndarray
    """Engines that were considered, bool [engines]."""
    p_values: np.ndarray
    """The largest of each engine's limits, [engines]."""
    levels: np.ndarray
    """Level at which each engine was tested, [engines]; 1 - confidence for those that were not."""

    @property
    def proven(self) -> np.ndarray:
        """Engines that meet every limit with the confidence, adjusted; bool [engines]."""
        return self.certain | (self.tested & (self.p_values <= self.levels))

    @property
    def count(self) -> int:
        """Number of engines that were tested."""
        return int(self.tested.sum())


def certify(
    runs: Sequence[Run], limits: Sequence[Threshold], objective: Objective, confidence: float
) -> Certification:
    """Return which engines are proven to meet every limit.

    Args:
        runs: engines with a value of the objective.
        limits: what they must meet; none: all are certain.
        objective: by which one of them is chosen.
        confidence: one-sided, of all answers together.
    """
    p_values = np.array([_p_value(run, limits) for run in runs])
    chance = [[limit_tests.is_tested(run, limit) for limit in limits] for run in runs]
    certain = (p_values == 0.0) & ~np.array([any(each) for each in chance], dtype=bool)
    costs = _costs(objective, np.array([[objective.value(run)] for run in runs], dtype=float))[:, 0]
    best = float(costs[certain].min()) if certain.any() else np.inf
    tested = ~certain & (costs < best)
    levels = np.full(len(runs), 1 - confidence)
    if tested.any():
        levels[tested] = _levels(
            p_values[tested], costs[tested], 1 - confidence, ordered=_ordered(objective, limits)
        )
    return Certification(confidence, certain, tested, p_values, levels)


def outcomes(run: Run, limits: Sequence[Threshold], level: float) -> list[LimitOutcome]:
    """Return the outcome of each limit of an engine that was tested at a level."""
    return [limit_tests.outcome(run, limit, 1 - level) for limit in limits]


def proven_in_resamplings(
    runs: Sequence[Run],
    limits: Sequence[Threshold],
    objective: Objective,
    certification: Certification,
    draws: np.ndarray,
) -> np.ndarray:
    """Return which engine is proven in which joint resampling, tests and adjustment included; bool [engines,
    .].

    Args:
        runs: as for :func:`certify`.
        limits: likewise.
        objective: likewise.
        certification: of the runs as measured; the same engines are tested.
        draws: values of the objective [engines, resamples].
    """
    proven = np.repeat(certification.certain[:, None], draws.shape[1], axis=1)
    members = np.flatnonzero(certification.tested).tolist()
    if members:
        of_members = [runs[index] for index in members]
        p_values = np.zeros((len(members), draws.shape[1]))
        for limit in limits:
            np.maximum(p_values, _resampled(of_members, limit, certification.levels[members]), out=p_values)
        levels = _levels(
            p_values,
            _costs(objective, draws[members]),
            1 - certification.confidence,
            ordered=_ordered(objective, limits),
        )
        proven[members] = p_values <= levels
    return proven


def kept_in_resamplings(runs: Sequence[Run], limits: Sequence[Threshold]) -> np.ndarray:
    """Return the share of joint resamplings in which each engine meets every limit, [engines]."""
    if not limits:
        return np.ones(len(runs))
    kept = np.ones((len(runs), resampling.RESAMPLES), dtype=bool)
    for limit in limits:
        baseline = None if limit.baseline is None else limit.objective.draws([limit.baseline])[0]
        able = [index for index, run in enumerate(runs) if limit.objective.value(run) is not None]
        draws = limit.objective.draws([runs[index] for index in able])
        meets = np.zeros(kept.shape, dtype=bool)
        meets[able] = limit.slack(draws, baseline) >= -ROUNDING * abs(limit.value)
        kept &= meets
    return np.asarray(kept.mean(axis=1))


def _p_value(run: Run, limits: Sequence[Threshold]) -> float:
    return max((limit_tests.p_value(run, limit) for limit in limits), default=0.0)


def _costs(objective: Objective, values: np.ndarray) -> np.ndarray:
    return -values if objective.maximise else values


def _ordered(objective: Objective, limits: Sequence[Threshold]) -> bool:
    """Return whether the order by the objective does not depend on the data of the tests."""
    of_scores = all(limit.objective.is_score for limit in limits if limit_tests.by_chance(limit))
    return of_scores and not objective.is_score and objective.name not in _SCORED


def _levels(p_values: np.ndarray, costs: np.ndarray, alpha: float, *, ordered: bool) -> np.ndarray:
    """Return the level of each hypothesis, [engines, ...]."""
    if not ordered:
        return tests.holm_levels(p_values, alpha)
    order = np.argsort(-costs, axis=0, kind="stable")
    levels = tests.fallback_levels(np.take_along_axis(p_values, order, axis=0), alpha)
    result = np.empty(levels.shape)
    np.put_along_axis(result, order, levels, axis=0)
    return result


def _resampled(runs: Sequence[Run], limit: Threshold, levels: np.ndarray) -> np.ndarray:
    """Return each engine's p-value of a limit in every joint resampling, [engines, resamples].

    For a loss of accuracy it is the test itself. For other limits the test is taken as a normal one, with the
    standard error that the engine's bound as measured implies.
    """
    from scipy import stats

    if limit.baseline is not None and METRICS[runs[0].quality.metric].is_share:
        return _resampled_accuracy(runs, limit)
    result = np.ones((len(runs), resampling.RESAMPLES))
    able = [index for index, run in enumerate(runs) if limit.objective.value(run) is not None]
    draws = limit.objective.draws([runs[index] for index in able])
    baseline = None if limit.baseline is None else limit.objective.draws([limit.baseline])[0]
    for index, drawn in zip(able, draws, strict=True):
        if not limit_tests.is_tested(runs[index], limit):
            result[index] = 0.0 if limit.meets(runs[index]) else 1.0
            continue
        outcome = limit_tests.outcome(runs[index], limit, 1 - levels[index])
        if outcome.interval is None or outcome.value is None:
            continue
        centre = outcome.value if outcome.difference is None else outcome.difference
        bound = outcome.interval[0 if limit.objective.maximise else 1]
        error = max(abs(centre - bound) / float(stats.norm.isf(levels[index])), np.finfo(float).tiny)
        result[index] = stats.norm.sf(limit.slack(drawn, baseline) / error)
    return result


def _resampled_accuracy(runs: Sequence[Run], limit: Threshold) -> np.ndarray:
    assert limit.baseline is not None
    labels = limit.baseline.quality.label_array
    before = same_rows(limit.baseline.quality.prediction_array, labels)
    after = np.array([same_rows(run.quality.prediction_array, labels) for run in runs])
    weights = resampling.example_weights(len(labels)).T
    only_before = (before & ~after).astype(np.float32) @ weights
    only_after = (~before & after).astype(np.float32) @ weights
    return noninferiority.accuracy_p_values(only_before, only_after, len(labels), limit.limit)

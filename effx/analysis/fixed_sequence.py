"""The cheapest engine that is proven to lose at most a margin, by tests in an order that was fixed before.

    rows that choose    other rows: an engine that a cheaper one clearly beats there is not tested
    rows that prove     the validation rows: one test after the other, the costliest engine first, until one
                        fails

Which engines are tested, and in which order, is fixed before the rows that prove are looked at, and testing
ends at the first failure. So every test has the whole level, and the chance that an engine that loses more
than the margin is proven is at most that level, whichever engine is taken (fixed-sequence testing:
Angelopoulos et al. 2021, "Learn then Test", section 4; with other rows that choose: Laufer-Goldshtein et al.
2023, "Efficiently Controlling Multiple Risks with Pareto Testing", section 4).

Pareto testing leaves out every engine that is dominated on the rows that choose. On a thousand rows that is
often by chance, and the sequence then begins with an engine that is harder to prove. So here an engine is
left out only if a cheaper one is better by more than one standard error; benchmarks/answers.py compares the
rules.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

import numpy as np

from effx.stats import bootstrap, noninferiority
from effx.stats.metrics import Metric


class State(StrEnum):
    """What the tests say of an engine."""

    PROVEN = "proven"
    NOT_PROVEN = "not proven"
    NOT_TESTED = "not tested"
    """A costlier engine could not be proven before."""
    BEATEN = "beaten"
    """On the rows that choose, a cheaper engine is better by more than one standard error."""
    NOT_CHEAPER = "not cheaper"
    """It costs as much as the baseline, or more."""


@dataclass(frozen=True)
class ChoosingRows:
    """Rows that choose which engines are tested; none of them proves."""

    labels: np.ndarray
    """As metrics take them."""
    predictions: Mapping[str, np.ndarray]
    """Of each engine, by its name."""
    unseen: Collection[str]
    """Engines whose last training left these rows out; no other one is taken to beat another."""


@dataclass(frozen=True)
class Choosing:
    """The same for the engines of a test, in their order."""

    labels: np.ndarray
    """[n], or as the metric takes them; the first axis is rows."""
    baseline: np.ndarray
    """The baseline's predictions."""
    engines: Sequence[np.ndarray]
    """Predictions of each engine."""
    may_beat: Sequence[bool]
    """Of each engine; False: it may have been trained on these rows, so that it looks too good."""


@dataclass(frozen=True)
class Outcome:
    """What the rows say of an engine; differences are its metric minus the baseline's."""

    state: State
    chosen_on: float | None
    """Difference on the rows that choose; None: there are none."""
    difference: float
    """On the rows that prove."""
    bound: float | None
    """The difference is at least this with the confidence, on its own; None: too few predictions differ."""
    p_value: float
    """Of the hypothesis that the engine loses more than the margin."""

    def to_json(self) -> dict[str, Any]:
        return {**vars(self), "state": str(self.state)}


def prove(
    metric: Metric,
    labels: np.ndarray,
    baseline: np.ndarray,
    engines: Sequence[np.ndarray],
    costs: Sequence[float],
    baseline_cost: float,
    *,
    max_drop: float,
    confidence: float,
    choosing: Choosing | None = None,
) -> list[Outcome]:
    """Test engines in the order of their costs.

    Args:
        metric: of labels and predictions.
        labels: [n], or as the metric takes them; the first axis is rows. All of them prove.
        baseline: the baseline's predictions.
        engines: predictions of each engine.
        costs: of each engine, lower is better; they must not depend on these labels.
        baseline_cost: only engines that cost less are tested.
        max_drop: accepted loss of the metric.
        confidence: one-sided, of the whole answer.
        choosing: other rows, that choose which engines are tested; None: all that are cheaper.

    Returns:
        An outcome for each engine; the cheapest proven one is the answer.
    """
    states = [State.NOT_CHEAPER] * len(costs)
    cheaper = [index for index, cost in enumerate(costs) if cost < baseline_cost]
    chosen_on = (
        None
        if choosing is None
        else [
            float(metric(choosing.labels, predictions) - metric(choosing.labels, choosing.baseline))
            for predictions in choosing.engines
        ]
    )
    beaten = _beaten(metric, choosing, chosen_on, costs) if choosing is not None and chosen_on else set()
    p_values = [
        noninferiority.p_value(metric, labels, baseline, predictions, max_drop) for predictions in engines
    ]
    failed = False
    for index in sorted(cheaper, key=lambda index: -costs[index]):
        if index in beaten:
            states[index] = State.BEATEN
        elif failed:
            states[index] = State.NOT_TESTED
        else:
            failed = p_values[index] > 1 - confidence
            states[index] = State.NOT_PROVEN if failed else State.PROVEN
    result = []
    for index, predictions in enumerate(engines):
        bounds = noninferiority.bounds(metric, labels, baseline, predictions, confidence)
        result.append(
            Outcome(
                state=states[index],
                chosen_on=None if chosen_on is None else chosen_on[index],
                difference=float(metric(labels, predictions) - metric(labels, baseline)),
                bound=None if bounds is None else float(bounds[0]),
                p_value=p_values[index],
            )
        )
    return result


def _beaten(metric: Metric, rows: Choosing, differences: Sequence[float], costs: Sequence[float]) -> set[int]:
    """Return the engines that a cheaper one beats by more than one standard error of their difference."""
    draws = bootstrap.paired_differences(metric, rows.labels, rows.baseline, np.stack(rows.engines))
    result = set()
    for index, cost in enumerate(costs):
        for other, less in enumerate(costs):
            error = float(np.std(draws[other] - draws[index]))
            if rows.may_beat[other] and less < cost and differences[other] - differences[index] > error:
                result.add(index)
    return result

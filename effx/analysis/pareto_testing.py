"""The cheapest engine that is proven to lose at most a margin, in an order that was fixed before.

    rows that choose    the frontier of cost and score: which engines are tested, and in which order
    rows that prove     one test after the other along it, the costliest engine first, until one fails

The order is fixed before the rows that prove are looked at, and testing ends at the first failure. So every
test has the whole level, and the chance that an engine that loses more than the margin is proven is at most
that level, whichever engine is taken (fixed-sequence testing: Angelopoulos et al. 2021, "Learn then Test",
section 4; along the frontier: Laufer-Goldshtein et al. 2023, "Efficiently Controlling Multiple Risks with
Pareto Testing", section 4). Without rows that choose, all prove: engines are then tested in the order of
their costs, which do not depend on the rows either.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

import numpy as np

from effx.stats import noninferiority
from effx.stats.metrics import Metric

LEAST_CHOOSING_ROWS = 100
"""Rows that may choose, below which all rows prove."""


class State(StrEnum):
    """What the tests say of an engine."""

    PROVEN = "proven"
    NOT_PROVEN = "not proven"
    NOT_TESTED = "not tested"
    """A costlier engine could not be proven before."""
    DOMINATED = "dominated"
    """On the rows that choose, another engine is as good and costs no more."""
    NOT_CHEAPER = "not cheaper"
    """It costs as much as the baseline, or more."""


@dataclass(frozen=True)
class Split:
    """Which rows choose, and which prove."""

    choose: np.ndarray
    """Row numbers, int64; empty: all rows prove."""
    prove: np.ndarray

    @classmethod
    def of(cls, rows: int, share: float, seed: int) -> Split:
        """Divide ``rows`` rows at random.

        Args:
            rows: number of rows.
            share: of the rows, for choosing; if that is fewer than :data:`LEAST_CHOOSING_ROWS`, all prove.
            seed: of the division.
        """
        count = int(share * rows)
        if count < LEAST_CHOOSING_ROWS:
            return cls(np.arange(0), np.arange(rows))
        order = np.random.default_rng((seed, 11)).permutation(rows)
        return cls(np.sort(order[:count]), np.sort(order[count:]))


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
    split: Split,
) -> list[Outcome]:
    """Test engines along the frontier.

    Args:
        metric: of labels and predictions.
        labels: [n], or as the metric takes them; the first axis is rows.
        baseline: the baseline's predictions.
        engines: predictions of each engine.
        costs: of each engine, lower is better; they must not be computed from these rows.
        baseline_cost: only engines that cost less are tested.
        max_drop: accepted loss of the metric.
        confidence: one-sided, of the whole answer.
        split: rows that choose and rows that prove.

    Returns:
        An outcome for each engine; the cheapest proven one is the answer.
    """

    def difference(rows: np.ndarray, predictions: np.ndarray) -> float:
        return float(metric(labels[rows], predictions[rows]) - metric(labels[rows], baseline[rows]))

    chosen_on = [difference(split.choose, each) if len(split.choose) else None for each in engines]
    cheaper = [index for index, cost in enumerate(costs) if cost < baseline_cost]
    kept = [index for index in cheaper if not _is_dominated(index, cheaper, costs, chosen_on)]
    order = sorted(kept, key=lambda index: -costs[index])
    of_labels, of_baseline = labels[split.prove], baseline[split.prove]
    p_values = [
        noninferiority.p_value(metric, of_labels, of_baseline, each[split.prove], max_drop)
        for each in engines
    ]
    states = [State.NOT_CHEAPER] * len(costs)
    for index in cheaper:
        states[index] = State.DOMINATED
    failed = False
    for index in order:
        if failed:
            states[index] = State.NOT_TESTED
            continue
        failed = p_values[index] > 1 - confidence
        states[index] = State.NOT_PROVEN if failed else State.PROVEN
    result = []
    for index, each in enumerate(engines):
        bounds = noninferiority.bounds(metric, of_labels, of_baseline, each[split.prove], confidence)
        result.append(
            Outcome(
                state=states[index],
                chosen_on=chosen_on[index],
                difference=difference(split.prove, each),
                bound=None if bounds is None else float(bounds[0]),
                p_value=p_values[index],
            )
        )
    return result


def _is_dominated(
    index: int, others: Sequence[int], costs: Sequence[float], scores: Sequence[float | None]
) -> bool:
    """Return whether another engine costs no more and is as good on the rows that choose, and not equal."""
    mine = scores[index]
    if mine is None:
        return False
    for other in others:
        theirs = scores[other]
        assert theirs is not None
        as_good = costs[other] <= costs[index] and theirs >= mine
        if as_good and (costs[other] < costs[index] or theirs > mine):
            return True
    return False

"""One option for each part of a model, with the least total loss under a budget of cost.

The choice is a knapsack with one item of each group. It is solved by dynamic programming over the
non-dominated sums of cost and loss: exact as long as there are no more than ``max_sums`` of them. With more,
the sums are thinned to the best of each interval of cost; the choice may then lose a little, but it never
exceeds the budget, since sums are not rounded.

How much the loss of one part counts in the whole model is unknown, so :func:`search` varies coefficients at
random and keeps what a score of the whole model prefers (Frantar and Alistarh 2022, "SPDY", section 3.3:
random candidates first, then random changes of a tenth of the best one's coefficients).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from effx.errors import UsageError

MAX_SUMS = 20_000
_RANDOM_SHARE = 0.1  # of the candidates: coefficients drawn anew
_CHANGED_SHARE = 0.1  # of the coefficients, in each of the other candidates
_ROUNDING = 1e-9  # relative; a budget that a choice meets exactly is met in floating point too

Groups = Sequence[np.ndarray]
"""One array per part: float64 [options]."""


def choose(costs: Groups, losses: Groups, budget: float, *, max_sums: int = MAX_SUMS) -> list[int] | None:
    """Return the option of each part with the least sum of losses and a sum of costs within a budget.

    Args:
        costs: of the options of each part, at least one each, >= 0.
        losses: of the same options, finite.
        budget: maximum sum of the costs.
        max_sums: the most non-dominated sums that are kept after each part.

    Returns:
        The number of an option for each part; None: even the cheapest options exceed the budget.
    """
    limit = budget + _ROUNDING * abs(budget)
    cheapest = np.array([float(np.min(options)) for options in costs])
    later = np.append(np.cumsum(cheapest[::-1])[::-1][1:], 0.0)  # least cost of the parts that follow
    cost, loss = np.zeros(1), np.zeros(1)
    steps: list[tuple[np.ndarray, np.ndarray]] = []
    for part, (part_costs, part_losses) in enumerate(zip(costs, losses, strict=True)):
        options = len(part_costs)
        sums = np.add.outer(cost, part_costs).ravel()
        added = np.add.outer(loss, part_losses).ravel()
        within = np.flatnonzero(sums + later[part] <= limit)
        if not len(within):
            return None
        best = _non_dominated(sums[within], added[within], max_sums)
        chosen = within[best]
        cost, loss = sums[chosen], added[chosen]
        steps.append((chosen // options, chosen % options))
    at = int(loss.argmin())
    result = []
    for before, option in reversed(steps):
        result.append(int(option[at]))
        at = int(before[at])
    return result[::-1]


def _non_dominated(costs: np.ndarray, losses: np.ndarray, limit: int) -> np.ndarray:
    """Return the indices of the non-dominated sums by rising cost, at most about ``limit`` of them."""
    order = np.lexsort((losses, costs))
    least = np.minimum.accumulate(losses[order])
    first = np.append(True, least[1:] < least[:-1])
    order = order[first]
    if len(order) <= limit:
        return np.asarray(order)
    low, high = costs[order[0]], costs[order[-1]]
    interval = ((costs[order] - low) / (high - low) * (limit - 1)).astype(np.int64)
    last = np.append(interval[1:] != interval[:-1], True)  # the least loss of an interval of cost
    last[0] = True  # the cheapest of all leaves the most budget to the parts that follow
    return np.asarray(order[last])


@dataclass(frozen=True)
class Candidate:
    """A choice and how the whole model scores with it."""

    options: tuple[int, ...]
    """The option of each part."""
    score: float
    """Lower is better."""


def search(
    costs: Groups,
    terms: Sequence[np.ndarray],
    budget: float,
    score: Callable[[tuple[int, ...]], float],
    *,
    candidates: int,
    seed: int = 0,
    max_sums: int = 2_000,
) -> Candidate:
    """Return the best choice under a budget that a random search over coefficients finds.

    Args:
        costs: of the options of each part.
        terms: float64 [options, terms] for each part; the loss of an option is the sum of its terms, each
            times a coefficient from 0 to 1.
        budget: maximum sum of the costs.
        score: options of all parts -> loss of the whole model; called once for each choice.
        candidates: number of coefficient vectors that are tried; the first has equal coefficients.
        seed: of the coefficients.
        max_sums: as :func:`choose` takes it.

    Raises:
        UsageError: even the cheapest options exceed the budget.
    """
    rng = np.random.default_rng(seed)
    counts = [array.shape[1] for array in terms]
    ends = np.cumsum(counts)
    scored: dict[tuple[int, ...], float] = {}

    def tried(coefficients: np.ndarray) -> Candidate:
        of_parts = np.split(coefficients, ends[:-1])
        weighted = [array @ weights for array, weights in zip(terms, of_parts, strict=True)]
        chosen = choose(costs, weighted, budget, max_sums=max_sums)
        if chosen is None:
            least = sum(float(np.min(options)) for options in costs)
            raise UsageError(f"a cost of {budget:.4g} cannot be reached: the least possible is {least:.4g}.")
        options = tuple(chosen)
        if options not in scored:
            scored[options] = score(options)
        return Candidate(options, scored[options])

    coefficients = np.ones(int(ends[-1]))
    best = tried(coefficients)
    drawn = math.ceil(_RANDOM_SHARE * candidates)
    for number in range(1, candidates):
        if number < drawn:
            proposal = rng.random(len(coefficients))
        else:
            proposal = coefficients.copy()
            count = max(1, round(_CHANGED_SHARE * len(coefficients)))
            changed = rng.choice(len(coefficients), count, replace=False)
            proposal[changed] = rng.random(len(changed))
        if (candidate := tried(proposal)).score < best.score:
            best, coefficients = candidate, proposal
    return best

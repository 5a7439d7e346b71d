"""Successive halving over levels: short runs for all of them, longer ones for the better half.

    rung 1   every level       one seed, few steps      (Jamieson and Talwalkar 2016, with
    rung 2   the better half   twice the steps each      steps times seeds as the resource)
    ...
    last     one level         every seed, all steps: the same cells as the grid's

A run of fewer steps has its whole schedule, warm-up to zero, within them. A rung's budget goes into
longer runs first, to an epoch, then into more seeds, then into more epochs.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from effx.train.tickets.plan import Level
from effx.train.tickets.selection import Candidate, ranked

SHARE = 1 / 3
"""Of the grid's training steps, that the search spends at most where its least runs allow."""
_LEAST_EPOCHS = 0.25  # a shorter run says nothing about a level


@dataclass(frozen=True)
class Rung:
    """Runs of one length."""

    levels: int
    seeds: int
    steps: int


def rungs(levels: int, seeds: int, steps: int, steps_per_epoch: int, share: float = SHARE) -> list[Rung]:
    """Return the rungs before the last.

    Args:
        levels: how many there are.
        seeds: of a whole cell's level.
        steps: of a whole cell.
        steps_per_epoch: likewise.
        share: of the grid's steps, full models included, that may be spent on full models, rungs
            and the last level together.
    """
    if levels == 1:
        return []
    number = math.ceil(math.log2(levels))
    budget = math.floor(share * (levels + 1) * seeds * steps) - 2 * seeds * steps
    least = min(steps, max(1, math.floor(steps_per_epoch * _LEAST_EPOCHS)))
    result = []
    for rung in range(number):
        here = math.ceil(levels / 2**rung)
        each = max(budget // (number * here), least)
        runs = min(max(each // steps_per_epoch, 1), seeds)
        result.append(Rung(here, runs, min(steps, each // runs)))
    return result


def search(
    levels: Sequence[Level], plan: Sequence[Rung], run: Callable[[Level, int, int], Candidate]
) -> tuple[Level, list[dict[str, Any]]]:
    """Return the level that remains, and what every rung saw.

    Args:
        levels: at least one.
        plan: of :func:`rungs`.
        run: level, seeds, steps -> its scores on the rows that select.
    """
    left, seen = list(levels), []
    for rung in plan:
        found = ranked([run(level, rung.seeds, rung.steps) for level in left])
        seen.append(
            {
                "seeds": rung.seeds,
                "steps": rung.steps,
                "levels": [{"level": one.level.text, "scores": list(one.scores)} for one in found],
            }
        )
        left = [one.level for one in found[: math.ceil(len(found) / 2)]]
    return left[0], seen

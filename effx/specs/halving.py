"""Successive halving over levels: all of them train a while, the better half continues.

    rung 1   every level       the first steps of the first seed's run   (Jamieson and Talwalkar
    rung 2   the better half   that run continued, to twice the steps     2016, with steps, one seed
    ...                                                                   after the other, as the
    last     one level         every seed, all steps                      resource)

A training run that is continued is the grid's run of that level and seed, paused: its learning-rate schedule
is that of the complete run. So the last level's tickets equal the grid's, and no step is taken twice.
"""

from __future__ import annotations

import bisect
import math
from collections.abc import Sequence
from dataclasses import dataclass

MAX_GRID_SHARE = 1 / 3
"""Maximum share of the grid's training steps that the search takes, unless its shortest runs need more."""
_MIN_WARM_UPS = 2  # while the learning rate still rises, scores say nothing about a level


@dataclass(frozen=True)
class Rung:
    """How far levels train before the worse half of them is stopped."""

    levels: int
    steps: int
    """Of each level so far: those of its seeds' runs, one after the other."""


def rungs(
    levels: int, seeds: int, steps: int, warmup_steps: int, share: float = MAX_GRID_SHARE
) -> list[Rung]:
    """Return the rungs before the last.

    Args:
        levels: how many there are.
        seeds: of a level.
        steps: of a complete run, that is of one level and seed.
        warmup_steps: of a complete run.
        share: of the grid's steps, full models included, that may be spent on full models, rungs
            and the last level together.
    """
    if levels == 1:
        return []
    complete = seeds * steps
    budget = math.floor(share * (levels + 1) * complete) - complete  # without the full models
    shortest = min(steps, max(1, _MIN_WARM_UPS * warmup_steps))

    def plan(first: int) -> list[Rung]:
        """Return rungs that double; past one run, complete runs only, so that scores are comparable."""
        result = []
        for rung in range(math.ceil(math.log2(levels))):
            reached = min(first * 2**rung, complete)
            if reached > steps:
                reached -= reached % steps
            result.append(Rung(math.ceil(levels / 2**rung), reached))
        return result

    starts = range(complete + 1)
    affordable = bisect.bisect_right(starts, budget, key=lambda first: cost(plan(first), complete)) - 1
    return plan(max(affordable, shortest))


def cost(plan: Sequence[Rung], complete: int) -> int:
    """Return the steps that rungs and the last level take, the full models' not included.

    Args:
        plan: of :func:`rungs`.
        complete: steps of the complete runs of one level, over its seeds.
    """
    total, before = 0, 0
    for rung in plan:
        total += rung.levels * (rung.steps - before)
        before = rung.steps
    return total + complete - before

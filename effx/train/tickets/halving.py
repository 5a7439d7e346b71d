"""Successive halving over levels: all of them train a while, the better half goes on training.

    rung 1   every level       the first steps of the first seed's run   (Jamieson and Talwalkar
    rung 2   the better half   that run continued, to twice the steps     2016, with steps, one seed
    ...                                                                   after the other, as the
    last     one level         every seed, all steps                      resource)

A run that is continued is the grid's own run of that level and seed, paused: its schedule is the
whole one's, so the last level's cells are the grid's, and no step of theirs is taken twice.
"""

from __future__ import annotations

import bisect
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from effx.specs.levels import Level
from effx.train.tickets.selection import Candidate, ranked

SHARE = 1 / 3
"""Of the grid's training steps, that the search spends at most where its least runs allow."""
_LEAST_WARM_UPS = 2  # while the learning rate still rises, a run says nothing about its level


@dataclass(frozen=True)
class Rung:
    """How far levels train before the worse half of them goes."""

    levels: int
    steps: int
    """Of each level so far: those of its seeds' runs, one after the other."""


def rungs(levels: int, seeds: int, steps: int, warmup_steps: int, share: float = SHARE) -> list[Rung]:
    """Return the rungs before the last.

    Args:
        levels: how many there are.
        seeds: of a level.
        steps: of a whole run, that is of one level and seed.
        warmup_steps: of a whole run.
        share: of the grid's steps, full models included, that may be spent on full models, rungs
            and the last level together.
    """
    if levels == 1:
        return []
    whole = seeds * steps
    budget = math.floor(share * (levels + 1) * whole) - whole  # without the full models
    least = min(steps, max(1, _LEAST_WARM_UPS * warmup_steps))

    def plan(first: int) -> list[Rung]:
        """Return rungs that double; past one run, only whole ones, so that scores are comparable."""
        result = []
        for rung in range(math.ceil(math.log2(levels))):
            reached = min(first * 2**rung, whole)
            if reached > steps:
                reached -= reached % steps
            result.append(Rung(math.ceil(levels / 2**rung), reached))
        return result

    affordable = bisect.bisect_right(range(whole + 1), budget, key=lambda first: cost(plan(first), whole)) - 1
    return plan(max(affordable, least))


def cost(plan: Sequence[Rung], whole: int) -> int:
    """Return the steps that rungs and the last level's ``whole`` take, the full models' apart."""
    total, before = 0, 0
    for rung in plan:
        total += rung.levels * (rung.steps - before)
        before = rung.steps
    return total + whole - before


def search(
    levels: Sequence[Level], plan: Sequence[Rung], run: Callable[[Level, int], Candidate]
) -> tuple[Level, list[dict[str, Any]]]:
    """Return the level that remains, and what every rung saw.

    Args:
        levels: at least one.
        plan: of :func:`rungs`.
        run: level, steps so far -> its scores on the rows that select.
    """
    left, seen = list(levels), []
    for rung in plan:
        found = ranked([run(level, rung.steps) for level in left])
        seen.append(
            {
                "steps": rung.steps,
                "levels": [{"level": one.level.text, "scores": list(one.scores)} for one in found],
            }
        )
        left = [one.level for one in found[: math.ceil(len(found) / 2)]]
    return left[0], seen

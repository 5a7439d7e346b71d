"""What the scores of a sweep say: the super ticket, its test against the full model, the phases.

The super ticket is the winning level with the best mean score over seeds on a seeded part of the
validation rows; it is reported on the rest, which did not choose it, and on all of them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy import stats

from effx.specs.levels import Level
from effx.specs.tasks import Task
from effx.stats.intervals import standard_error
from effx.train.tickets.result import TicketResult

PHASES_RULE = (
    "I: from the lightest level on, as long as winning tickets are not below the full model by more than "
    "the standard error of their paired difference over seeds; III: up to the heaviest level, where they "
    "do not exceed random tickets by more than that; II: between. One seed has no standard error: any "
    "difference counts"
)


def split(n: int, share: float, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Return row numbers that select and the rest, both rising and neither empty, of ``n`` >= 2 rows."""
    cut = min(max(round(n * share), 1), n - 1)
    order = np.random.default_rng((seed, 6)).permutation(n)
    return np.sort(order[:cut]), np.sort(order[cut:])


@dataclass(frozen=True)
class Spread:
    """Scores over seeds."""

    mean: float
    std: float | None
    """With n - 1 in the denominator; None: one seed has none."""
    low: float
    high: float
    n: int

    @classmethod
    def of(cls, values: Sequence[float]) -> Spread:
        """Return the spread of at least one score."""
        std = float(np.std(values, ddof=1)) if len(values) > 1 else None
        return cls(float(np.mean(values)), std, min(values), max(values), len(values))


@dataclass(frozen=True)
class Candidate:
    """A level that might be the super ticket."""

    level: Level
    weight_remaining: float
    scores: tuple[float, ...]
    """On the rows that select, one per seed."""


def best(candidates: Sequence[Candidate]) -> Candidate:
    """Return the candidate with the highest mean score; of equal ones that with fewer weights."""
    return ranked(candidates)[0]


def ranked(candidates: Sequence[Candidate]) -> list[Candidate]:
    """Return candidates, the best first."""
    return sorted(candidates, key=lambda each: (-float(np.mean(each.scores)), each.weight_remaining))


def candidate(
    level: Level, results: Sequence[TicketResult], task: Task, labels: np.ndarray, rows: np.ndarray
) -> Candidate:
    """Return a level with the scores of its winning tickets.

    Args:
        level: the level.
        results: its winning tickets, one per seed.
        task: whose primary metric is the score.
        labels: [n], of the validation rows.
        rows: numbers of those that select.
    """
    scores = tuple(result.score(task, labels, rows)[task.metric] for result in results)
    return Candidate(level, float(np.mean([result.weight_remaining for result in results])), scores)


def paired_test(full: Sequence[float], other: Sequence[float]) -> dict[str, Any]:
    """Return the paired Student's t-test of ``other`` against ``full`` over seeds, as in the paper.

    Returns:
        difference (mean), std, p (two-sided), n, and reason where std or p is None.
    """
    differences = np.asarray(other) - np.asarray(full)
    n = len(differences)
    result: dict[str, Any] = {"difference": float(differences.mean()), "std": None, "p": None, "n": n}
    if n < 2:
        return {**result, "reason": "one seed has no spread: use 2 or more seeds"}
    result["std"] = float(differences.std(ddof=1))
    if np.ptp(differences) < 1e-12:
        return {**result, "reason": "the difference is the same for every seed"}
    return {**result, "p": float(stats.ttest_rel(other, full).pvalue), "reason": None}


def phases(
    levels: Sequence[Level],
    full: Sequence[float],
    winning: Mapping[Level, Sequence[float]],
    random: Mapping[Level, Sequence[float]] | None,
) -> dict[str, Any]:
    """Return which levels lie in which phase (Liang et al. 2021, section 4.3), by :data:`PHASES_RULE`.

    Args:
        levels: the lightest first.
        full: the full model's scores, one per seed.
        winning: those of winning tickets.
        random: those of random tickets; None: none were trained, and II goes on to the end.

    Returns:
        ``I``, ``II`` and ``III`` (texts of levels; III is None without random tickets), and ``rule``.
    """
    first = 0
    while first < len(levels) and not _below(winning[levels[first]], full):
        first += 1
    third = len(levels)
    if random is not None:
        while third > first and not _below(random[levels[third - 1]], winning[levels[third - 1]]):
            third -= 1
    texts = [level.text for level in levels]
    last = None if random is None else texts[third:]
    return {"I": texts[:first], "II": texts[first:third], "III": last, "rule": PHASES_RULE}


def _below(a: Sequence[float], b: Sequence[float]) -> bool:
    """Whether a lies below b by more than the standard error of the paired difference."""
    differences = np.asarray(a) - np.asarray(b)
    error = standard_error(differences) if len(differences) > 1 else 0.0
    return bool(differences.mean() < -error)

"""Evaluation of a search: the super ticket, its test against the full model, the phases.

The super ticket is the winning level with the best mean score over seeds on the selection rows, a random
part of the validation rows. Its score is reported on the other rows and on all rows. With cross-fitting,
every row is reported on: its level is the one that is best on the rows of the other folds.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from effx.specs.levels import Level
from effx.specs.tasks import Task
from effx.stats.intervals import standard_error
from effx.train.tickets.result import TicketResult

PHASES_RULE = (
    "e is the standard error of the paired difference over seeds (0 for one seed); levels are ordered from "
    "the lightest to the heaviest. I: levels before the first at which winning tickets are worse than the "
    "full model by more than e; III: levels after the last at which winning tickets are better than random "
    "tickets by more than e; II: levels in between"
)


def split(n: int, share: float, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Split ``n`` >= 2 row numbers at random into selection rows and the rest; both sorted, neither empty."""
    cut = min(max(round(n * share), 1), n - 1)
    order = np.random.default_rng((seed, 6)).permutation(n)
    return np.sort(order[:cut]), np.sort(order[cut:])


FOLDS = 5
"""Folds of the validation rows, for cross-fitting."""


def folds(n: int, seed: int) -> list[np.ndarray]:
    """Divide ``n`` row numbers at random into :data:`FOLDS` parts of (almost) equal size; each sorted."""
    order = np.random.default_rng((seed, 7)).permutation(n)
    return [np.sort(part) for part in np.array_split(order, FOLDS)]


@dataclass(frozen=True)
class CrossFitted:
    """The super ticket on all validation rows, none of which chose the level that it is answered by."""

    levels: dict[Level, int]
    """Level -> the number of folds that are answered by it."""
    scores: tuple[dict[str, float], ...]
    """Metric -> value on all rows, one for each seed."""


def cross_fitted(
    levels: Sequence[Level], winning: Sequence[TicketResult], task: Task, labels: np.ndarray, seed: int
) -> CrossFitted | None:
    """Choose the level of every fold by the rows of the others, and score the answers of all folds together.

    This estimates how good a super ticket is whose level is chosen on 4 of 5 rows. The metrics are computed
    once, on the answers of all folds (Chernozhukov et al. 2018, section 3, calls this cross-fitting).

    Args:
        levels: of the search.
        winning: its winning tickets, of every level and seed.
        task: its primary metric chooses.
        labels: [n], of the validation rows.
        seed: of the division into folds.

    Returns:
        None: there are fewer than two rows for each fold.
    """
    if len(labels) < 2 * FOLDS:
        return None
    of_levels = {
        level: sorted((each for each in winning if each.level == level), key=lambda each: each.seed)
        for level in levels
    }
    chosen: dict[Level, int] = {}
    first = next(iter(of_levels.values()))
    texts = any(result.predictions.dtype.kind == "U" for result in winning)  # a fixed length would cut them
    answers = [each.predictions.astype(object if texts else each.predictions.dtype) for each in first]
    for rows in folds(len(labels), seed):
        others = np.setdiff1d(np.arange(len(labels)), rows)
        level = best(
            [candidate(level, results, task, labels, others) for level, results in of_levels.items()]
        ).level
        chosen[level] = chosen.get(level, 0) + 1
        for answer, result in zip(answers, of_levels[level], strict=True):
            answer[rows] = result.predictions[rows]
    return CrossFitted(chosen, tuple(task.score(labels, answer) for answer in answers))


@dataclass(frozen=True)
class Candidate:
    """A level that might be the super ticket."""

    level: Level
    weight_remaining: float
    scores: tuple[float, ...]
    """On the selection rows, one per seed."""


def best(candidates: Sequence[Candidate]) -> Candidate:
    """Return the candidate with the highest mean score; on a tie, the one with fewer weights."""
    return ranked(candidates)[0]


def ranked(candidates: Sequence[Candidate]) -> list[Candidate]:
    """Return candidates, the best first."""
    return sorted(candidates, key=lambda entry: (-float(np.mean(entry.scores)), entry.weight_remaining))


def candidate(
    level: Level, results: Sequence[TicketResult], task: Task, labels: np.ndarray, rows: np.ndarray
) -> Candidate:
    """Return a level with the scores of its winning tickets.

    Args:
        level: the level.
        results: its winning tickets, one per seed.
        task: its primary metric is the score.
        labels: [n], of the validation rows.
        rows: numbers of the selection rows.
    """
    scores = tuple(result.score(task, labels, rows)[task.metric] for result in results)
    return Candidate(level, float(np.mean([result.weight_remaining for result in results])), scores)


def phases(
    levels: Sequence[Level],
    full: Sequence[float],
    winning: Mapping[Level, Sequence[float]],
    random: Mapping[Level, Sequence[float]] | None,
) -> dict[str, Any]:
    """Return the phase of each level (Liang et al. 2021, section 4.3), by :data:`PHASES_RULE`.

    Args:
        levels: the lightest first.
        full: the full model's scores, one per seed.
        winning: level -> scores of winning tickets, one per seed.
        random: level -> scores of random tickets; None: none were trained; then II ends at the last level.

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
    """Whether a is less than b by more than the standard error of the paired difference."""
    differences = np.asarray(a) - np.asarray(b)
    error = standard_error(differences) if len(differences) > 1 else 0.0
    return bool(differences.mean() < -error)

"""Which structures matter to which task: importance over tasks, and how much tickets overlap."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np
from scipy import stats

from effx.analysis.tickets.searches import TicketSearch
from effx.errors import UsageError

WHAT = ("heads", "FFNs")
"""Kinds of structures, compared apart: heads are normalised within their layer, FFNs over all layers."""


@dataclass(frozen=True)
class SharedImportance:
    """Importance of an encoder's heads or FFNs over tasks (Liang et al. 2021, figure 6)."""

    what: str
    """``heads`` or ``FFNs``."""
    names: tuple[str, ...]
    """Structures, the most important first, such as ``layer 1 head 2``; both from 1."""
    tasks: tuple[str, ...]
    importance: np.ndarray
    """[n]: mean over tasks of the normalised scores, which are means over seeds."""
    share: np.ndarray
    """[tasks, n]: score of a task divided by the sum over tasks; columns sum to 1."""


@dataclass(frozen=True)
class Agreement:
    """How alike two tasks rank and prune the structures of one encoder."""

    what: str
    a: str
    b: str
    """The same as ``a``: between seeds of one task, the most that can be expected of two tasks."""
    spearman: float
    """Rank correlation of the scores, mean over pairs of seeds."""
    overlap: float | None
    """Jaccard index of what winning tickets of the level lose, mean over pairs of seeds; None: nothing is
    removed at that level."""
    overlap_by_chance: float | None
    """Expected Jaccard index of two random sets of these sizes."""


def check_same_encoder(searches: Sequence[TicketSearch]) -> None:
    """Raise :class:`UsageError` if searches have no scores, or are of different encoders."""
    for search in searches:
        if not search.importance:
            raise UsageError(
                f"{search.folder} has no importance-sSEED.json: its importance scores cannot be compared."
            )
    models = {search.model for search in searches}
    shapes = {scored.heads.shape for search in searches for scored in search.importance.values()}
    if len(models) > 1 or len(shapes) > 1:
        sizes = "" if len(models) > 1 else ", of different sizes"
        raise UsageError(
            "importance scores can be compared only if all searches have the same encoder, got "
            f"{', '.join(sorted(models))}{sizes}."
        )


def shared_importance(searches: Sequence[TicketSearch], what: str) -> SharedImportance:
    """Return the importance of heads or FFNs over tasks, the most important structures first."""
    scores = np.stack(
        [np.mean([_scores(search, seed, what) for seed in search.importance], 0) for search in searches]
    )
    totals = scores.sum(0)
    share = np.divide(scores, totals, out=np.full_like(scores, 1 / len(searches)), where=totals > 0)
    order = np.argsort(-scores.mean(0), kind="stable")
    names = _names(searches[0], what)
    return SharedImportance(
        what,
        tuple(names[index] for index in order),
        tuple(search.task for search in searches),
        scores.mean(0)[order],
        share[:, order],
    )


def agreements(searches: Sequence[TicketSearch], what: str, level: str) -> list[Agreement]:
    """Return how alike every two tasks, and the seeds of every task, rank and prune heads or FFNs."""
    result = []
    pairs = [(search, search) for search in searches] + list(combinations(searches, 2))
    for a, b in pairs:
        seeds = (
            list(combinations(a.importance, 2))
            if a is b
            else [(one, other) for one in a.importance for other in b.importance]
        )
        if not seeds:
            continue  # one seed has nothing to be compared with
        ranks = [
            stats.spearmanr(_scores(a, one, what), _scores(b, other, what)).statistic for one, other in seeds
        ]
        sets = [(_removed(a, level, one, what), _removed(b, level, other, what)) for one, other in seeds]
        known = [(one, other) for one, other in sets if one and other]
        n = _scores(a, seeds[0][0], what).size
        result.append(
            Agreement(
                what,
                a.task,
                b.task,
                float(np.mean(ranks)),
                float(np.mean([len(one & other) / len(one | other) for one, other in known]))
                if known
                else None,
                float(np.mean([chance_overlap(n, len(one), len(other)) for one, other in known]))
                if known
                else None,
            )
        )
    return result


def chance_overlap(n: int, a: int, b: int) -> float:
    """Return the expected Jaccard index of two random subsets of sizes ``a`` and ``b`` of ``n`` structures.

    The size of the intersection is hypergeometric.
    """
    sizes = np.arange(max(0, a + b - n), min(a, b) + 1)
    return float((stats.hypergeom(n, a, b).pmf(sizes) * sizes / (a + b - sizes)).sum())


def _scores(search: TicketSearch, seed: int, what: str) -> np.ndarray:
    scored = search.importance[seed]
    return scored.heads.ravel() if what == "heads" else scored.ffns


def _names(search: TicketSearch, what: str) -> list[str]:
    layers, heads = next(iter(search.importance.values())).heads.shape
    if what == "heads":
        return [f"layer {layer + 1} head {head + 1}" for layer in range(layers) for head in range(heads)]
    return [f"layer {layer + 1} FFN" for layer in range(layers)]


def _removed(search: TicketSearch, level: str, seed: int, what: str) -> set[tuple[int, int]]:
    removal = search.removed(level, seed)
    if what == "heads":
        return {(layer, head) for layer, heads in removal.heads.items() for head in heads}
    return {(layer, 0) for layer in removal.ffns}

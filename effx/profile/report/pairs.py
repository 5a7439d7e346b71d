"""Paired comparisons for the page: as many as stay quick, the rest is told to be missing."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from itertools import combinations
from typing import Any

from effx.errors import UsageError
from effx.profile.comparison import compare
from effx.profile.report.groups import Group
from effx.results import Run

ALL_PAIRS = 30
"""Engines of a group up to which each is compared with each."""
AGAINST_BASELINE = 300
"""Engines of a group that are compared with its baseline, beyond that."""
AT_MOST = 1000
"""Comparisons in one report."""


def pairs(groups: Sequence[Group]) -> tuple[list[dict[str, Any]], list[tuple[str, str, str]]]:
    """Return comparisons as their ``to_json`` gives them, and (a, b, why there is none).

    ``a`` is the baseline, else the slower of the two as the group orders them.
    """
    found: list[dict[str, Any]] = []
    refused: list[tuple[str, str, str]] = []
    left = AT_MOST
    for group in groups:
        for a, b in _take(_wanted(group), left):
            left -= 1
            try:
                found.append(compare(a, b).to_json())
            except UsageError as error:
                refused.append((a.id, b.id, str(error)))
    return found, refused


def _wanted(group: Group) -> Iterator[tuple[Run, Run]]:
    """Yield the pairs of a group, those with the baseline first."""
    assert group.baseline is not None
    first = group.baseline
    others = [run for run in _interesting_first(group) if run is not first]
    yield from ((first, other) for other in others[:AGAINST_BASELINE])
    yield from combinations(others[: ALL_PAIRS - 1], 2)


def _interesting_first(group: Group) -> list[Run]:
    """Return the runs, those on a frontier first, then those that cannot be told from it."""
    rank = {run.id: 2 for run in group.runs}
    for one in group.frontiers:
        for point in one.points:
            own = 0 if point.non_dominated else 1 if point.tied_with else 2
            rank[point.run.id] = min(rank[point.run.id], own)
    return sorted(group.runs, key=lambda run: rank[run.id])


def _take(pairs: Iterable[tuple[Run, Run]], count: int) -> Iterator[tuple[Run, Run]]:
    for _, pair in zip(range(count), pairs, strict=False):
        yield pair

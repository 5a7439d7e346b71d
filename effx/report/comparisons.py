"""Paired comparisons for the page: as many as stay quick, the rest is told to be missing."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import combinations, islice
from typing import Any

from effx.analysis.comparison import Comparison, adjusted, compare
from effx.errors import UsageError
from effx.report.groups import Group
from effx.results import Run

ALL_PAIRS = 30
"""Engines of a group up to which each is compared with each."""
AGAINST_BASELINE = 300
"""Engines of a group that are compared with its baseline, beyond that."""
AT_MOST = 1000
"""Comparisons in one report."""


def pairs(groups: Sequence[Group]) -> tuple[list[dict[str, Any]], list[tuple[str, str, str]]]:
    """Return comparisons as their ``to_json`` gives them, and (a, b, why there is none).

    ``a`` is the baseline, else the slower of the two as the group orders them. Comparisons with the
    baseline have their p-values adjusted for their number within the group.
    """
    found: list[Comparison] = []
    refused: list[tuple[str, str, str]] = []
    for group in groups:
        assert group.baseline is not None
        first = group.baseline
        others = [run for run in _interesting_first(group) if run is not first]
        with_first = ((first, other) for other in others[:AGAINST_BASELINE])
        found += adjusted(_compared(islice(with_first, AT_MOST - len(found) - len(refused)), refused))
        rest = combinations(others[: ALL_PAIRS - 1], 2)
        found += _compared(islice(rest, AT_MOST - len(found) - len(refused)), refused)
    return [one.to_json() for one in found], refused


def _compared(pairs: Iterable[tuple[Run, Run]], refused: list[tuple[str, str, str]]) -> list[Comparison]:
    """Compare what can be; ``refused`` gets the rest, and why."""
    found = []
    for a, b in pairs:
        try:
            found.append(compare(a, b))
        except UsageError as error:
            refused.append((a.id, b.id, str(error)))
    return found


def _interesting_first(group: Group) -> list[Run]:
    """Return the runs, those on a frontier first, then those that cannot be told from it."""
    rank = {run.id: 2 for run in group.runs}
    for one in group.frontiers:
        for point in one.points:
            own = 0 if point.non_dominated else 1 if point.tied_with else 2
            rank[point.run.id] = min(rank[point.run.id], own)
    return sorted(group.runs, key=lambda run: rank[run.id])

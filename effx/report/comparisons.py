"""Paired comparisons for the page, limited in number so that a report stays quick."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import combinations, islice

from effx.analysis.comparison import Comparison, adjusted, compare
from effx.errors import UsageError
from effx.report.groups import Group
from effx.results import Run

ALL_PAIRS = 30
"""In groups of at most so many engines, every engine is compared with every other."""
AGAINST_BASELINE = 300
"""In larger groups, so many engines are compared with the baseline."""
AT_MOST = 1000
"""Comparisons in one report."""


@dataclass(frozen=True)
class RefusedPair:
    """Two results that cannot be compared."""

    a: str
    """Id of the result."""
    b: str
    reason: str


def compare_groups(groups: Sequence[Group]) -> tuple[list[Comparison], list[RefusedPair]]:
    """Return the comparisons within groups, and the pairs that could not be compared.

    In a comparison, ``a`` is the baseline, or the engine that is listed first in its group. P-values of
    comparisons with the baseline are adjusted for their number within the group.
    """
    comparisons: list[Comparison] = []
    refused: list[RefusedPair] = []
    for group in groups:
        others = [run for run in _frontier_first(group) if run is not group.baseline]
        with_baseline = ((group.baseline, other) for other in others[:AGAINST_BASELINE])
        left = AT_MOST - len(comparisons) - len(refused)
        comparisons += adjusted(_compare(islice(with_baseline, left), refused))
        left = AT_MOST - len(comparisons) - len(refused)
        comparisons += _compare(islice(combinations(others[: ALL_PAIRS - 1], 2), left), refused)
    return comparisons, refused


def _compare(pairs: Iterable[tuple[Run, Run]], refused: list[RefusedPair]) -> list[Comparison]:
    """Return the comparisons that are possible; the other pairs are appended to ``refused``."""
    comparisons = []
    for a, b in pairs:
        try:
            comparisons.append(compare(a, b))
        except UsageError as error:
            refused.append(RefusedPair(a.id, b.id, str(error)))
    return comparisons


def _frontier_first(group: Group) -> list[Run]:
    """Return the runs: first those on a frontier, then those indistinguishable from it, then the rest."""
    rank = {run.id: 2 for run in group.runs}
    for frontier in group.frontiers:
        for point in frontier.points:
            point_rank = 0 if point.non_dominated else 1 if point.tied_with else 2
            rank[point.run.id] = min(rank[point.run.id], point_rank)
    return sorted(group.runs, key=lambda run: rank[run.id])

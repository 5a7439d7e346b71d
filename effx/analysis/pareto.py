"""Dominance among points: non-dominated points, hypervolume, knee, diminishing returns.

Pure NumPy, no results. Points are rows [n, objectives] of two or three objectives, every one to be
minimised (negate what is to be maximised). A point dominates another if it is at most as large in
every objective and smaller in one; equal points do not dominate each other.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from dataclasses import dataclass

import numpy as np

DIMINISHING_SHARE = 0.25
"""A unit of cost that buys less than this share of the frontier's average is a diminishing return."""


def non_dominated(points: np.ndarray) -> np.ndarray:
    """Return which points [n, 2 or 3] no other dominates, as booleans [n].

    By sorting and one sweep (Kung, Luccio and Preparata 1975, J. ACM 22:469-476), O(n log n)
    comparisons. With three objectives the sweep keeps a sorted list, whose insertions move memory:
    that is felt beyond some 100,000 points of which none dominates another.

    Raises:
        ValueError: the points are not [n, 2] or [n, 3], or hold NaN.
    """
    points = _checked(points)
    keep = np.zeros(len(points), dtype=bool)
    if not len(points):
        return keep
    order = np.lexsort(points.T[::-1])  # by the first objective, then the second, ...
    ranked = points[order]
    first = np.ones(len(points), dtype=bool)
    first[1:] = np.any(ranked[1:] != ranked[:-1], axis=1)
    distinct = ranked[first]
    # Among distinct points in this order only an earlier one can dominate a later one, and does if
    # it is at most as large in the remaining objectives.
    best = _sweep_two(distinct[:, 1]) if points.shape[1] == 2 else _sweep_three(distinct)
    keep[order] = best[np.cumsum(first) - 1]  # duplicates share their fate
    return keep


def dominates(point: np.ndarray, other: np.ndarray) -> np.ndarray:
    """Return where points [..., objectives] dominate others, all to be minimised."""
    nowhere_worse = np.asarray(
        point[..., 0] <= other[..., 0]
    )  # an axis of two or three: no reduction over it
    better = np.asarray(point[..., 0] < other[..., 0])
    for axis in range(1, point.shape[-1]):
        nowhere_worse &= point[..., axis] <= other[..., axis]
        better |= point[..., axis] < other[..., axis]
    return nowhere_worse & better


def hypervolume(points: np.ndarray, reference: np.ndarray) -> float:
    """Return the exact volume that points dominate up to a reference point.

    Args:
        points: [n, 2 or 3]; those not below the reference in every objective add nothing.
        reference: [2 or 3].

    In the product of the objectives' units. Two objectives: a sum over the sorted frontier. Three: a
    sweep along the first with the area under the staircase of the others kept up to date (Beume,
    Fonseca, Lopez-Ibanez, Paquete and Vahrenhold 2009, IEEE Trans. Evol. Comput. 13:1075-1082).

    Raises:
        ValueError: the points are not [n, 2] or [n, 3], or hold NaN, or the reference does not fit.
    """
    points = _checked(points)
    reference = np.asarray(reference, dtype=float)
    if reference.shape != (points.shape[1],):
        raise ValueError(f"expected a reference of {points.shape[1]} numbers, got shape {reference.shape}")
    inside = points[np.all(points < reference, axis=1)]
    if not len(inside):
        return 0.0
    inside = inside[np.lexsort(inside.T[::-1])]
    if inside.shape[1] == 2:
        floor = np.minimum.accumulate(inside[:, 1])
        above = np.concatenate([[reference[1]], floor[:-1]])
        return float(np.sum((reference[0] - inside[:, 0]) * (above - floor)))
    return _volume(inside, reference)


def knee(points: np.ndarray) -> int | None:
    """Return the index of the point furthest below the line between the frontier's two ends.

    Args:
        points: non-dominated points [n, 2].

    The bulge of Das (1999, Struct. Optim. 18:107-115) with both objectives scaled to the
    frontier's extent, so that units do not matter. None with fewer than three different points, or
    where no point is below the line. On a tie, the first.
    """
    if len(points) < 3:
        return None
    low, high = points.min(axis=0), points.max(axis=0)
    if not np.all(high > low):
        return None
    below = 1 - ((points - low) / (high - low)).sum(axis=1)
    best = int(np.argmax(below))
    return best if below[best] > 1e-12 else None  # rounding does not make a knee


@dataclass(frozen=True)
class Region:
    """A part of a frontier on which cost buys little."""

    start: int
    """Index of the point at which it starts."""
    end: int
    """Index of the point at which it ends, the costlier one."""
    share: float
    """Gain per unit of cost on it, over that of the whole frontier."""


def diminishing(gains: np.ndarray, costs: np.ndarray, share: float = DIMINISHING_SHARE) -> list[Region]:
    """Return the parts of a frontier on which a unit of cost buys less than ``share`` of the average.

    Args:
        gains: of the frontier's points, rising [n].
        costs: of the same points, rising [n].
        share: of the average slope, which is the frontier's whole gain over its whole cost.

    Neighbouring segments below it are one region. Fewer than three different points have none:
    the one segment of two is the average itself.
    """
    distinct = np.concatenate([[0], 1 + np.flatnonzero(np.diff(costs) > 0)]) if len(costs) else np.array([])
    if len(distinct) < 3:
        return []
    along, up = costs[distinct], gains[distinct]
    average = (up[-1] - up[0]) / (along[-1] - along[0])
    low = np.diff(up) / np.diff(along) < share * average
    edges = np.flatnonzero(np.diff(np.concatenate([[0], low.astype(int), [0]])))
    return [
        Region(
            start=int(distinct[start]),
            end=int(distinct[end]),
            share=float((up[end] - up[start]) / (along[end] - along[start]) / average),
        )
        for start, end in zip(edges[::2], edges[1::2], strict=True)
    ]


def _checked(points: np.ndarray) -> np.ndarray:
    points = np.asarray(points, dtype=float)
    if points.ndim != 2 or points.shape[1] not in (2, 3):
        raise ValueError(f"expected points of two or three objectives, got shape {points.shape}")
    if np.isnan(points).any():
        raise ValueError("points contain NaN: leave out engines without a value")
    return points


def _sweep_two(second: np.ndarray) -> np.ndarray:
    keep = np.ones(len(second), dtype=bool)
    keep[1:] = second[1:] < np.minimum.accumulate(second)[:-1]
    return keep


def _sweep_three(points: np.ndarray) -> np.ndarray:
    """Sweep distinct points [n, 3] in lexicographic order, with the staircase of what came before."""
    keep = np.zeros(len(points), dtype=bool)
    left = np.flatnonzero(~_dominated_by_few(points))  # what they dominate changes nothing for others
    xs: list[float] = []  # rising
    ys: list[float] = []  # falling: the least y of all points so far with at most this x
    for index, x, y in zip(left.tolist(), *points[left, 1:].T.tolist(), strict=True):
        position = bisect_right(xs, x)
        if position and ys[position - 1] <= y:
            continue
        keep[index] = True
        start = position - 1 if position and xs[position - 1] == x else position
        end = position
        while end < len(ys) and ys[end] >= y:
            end += 1
        xs[start:end] = [x]
        ys[start:end] = [y]
    return keep


def _dominated_by_few(points: np.ndarray, few: int = 16) -> np.ndarray:
    """Return which distinct points [n, 3] one of a few good ones dominates: most, in most sets."""
    low, extent = points.min(axis=0), np.ptp(points, axis=0)
    with np.errstate(invalid="ignore", divide="ignore"):
        scaled = np.where(extent > 0, (points - low) / extent, 0.0)
    dominated = np.zeros(len(points), dtype=bool)
    rest = np.arange(len(points))
    for _ in range(few):
        if len(rest) < 1000:  # the sweep itself is as quick
            break
        best = rest[np.argmin(scaled[rest].sum(axis=1))]
        # the pivot is not dominated by itself, and is done with
        behind = np.all(points[rest] >= points[best], axis=1) & (rest != best)
        dominated[rest[behind]] = True
        rest = rest[~behind & (rest != best)]
    return dominated


def _volume(points: np.ndarray, reference: np.ndarray) -> float:
    """Return the volume of points [n, 3] in order of the first objective, all below the reference."""
    right, top = float(reference[1]), float(reference[2])
    xs, ys = [right], [-np.inf]  # the last step ends at the reference
    area = volume = 0.0
    ends = np.concatenate([points[1:, 0], reference[:1]])
    for (z, x, y), end in zip(points.tolist(), ends.tolist(), strict=True):
        position = bisect_left(xs, x)
        ceiling = ys[position - 1] if position else top
        if ceiling > y and not (xs[position] == x and ys[position] <= y):
            # The area that it adds is between it and the steps that it replaces, from left to right.
            stop, left, height = position, x, ceiling
            while ys[stop] >= y:
                area += (xs[stop] - left) * (height - y)
                left, height = xs[stop], ys[stop]
                stop += 1
            area += (xs[stop] - left) * (height - y)
            xs[position:stop] = [x]
            ys[position:stop] = [y]
        volume += area * (end - z)
    return volume

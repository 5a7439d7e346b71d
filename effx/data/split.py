"""Training and validation rows from one file: stratified, seeded, equal texts on one side."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Hashable, Sequence

import numpy as np

from effx.errors import UsageError

_BINS = 10


def split(
    groups_of_rows: Sequence[Hashable], labels: np.ndarray, share: float, seed: int
) -> tuple[np.ndarray, np.ndarray]:
    """Return the indices of training rows and of validation rows, each ascending.

    Each class is divided in the same proportion; numbers are divided within tenths of their range, sets and
    tags by the rarest of their labels. Rows with equal texts are in the same part, with the class of the
    first of them. A class with two different texts or more is in both parts; one with a single text is in the
    training rows.

    Args:
        groups_of_rows: of each row, its texts, or what it has in common with others.
        labels: int64 [n] classes, float64 [n] numbers, bool [n, labels] sets, int64 [n, words] tags,
            or objects, which are not stratified.
        share: of the rows to train on, in (0, 1).
        seed: of the draw.

    Raises:
        UsageError: one part would be empty.
    """
    groups: dict[Hashable, list[int]] = defaultdict(list)
    for index, group in enumerate(groups_of_rows):
        groups[group].append(index)
    strata: dict[int, list[list[int]]] = defaultdict(list)
    classes = _strata(labels)
    for rows in groups.values():
        strata[int(classes[rows[0]])].append(rows)
    rng = np.random.default_rng(seed)
    train: list[int] = []
    validation: list[int] = []
    for stratum in sorted(strata):
        members = [strata[stratum][index] for index in rng.permutation(len(strata[stratum]))]
        first, rest = _divide(members, share)
        train += first
        validation += rest
    if not train or not validation:
        raise UsageError(
            f"split {share:g}: {len(train)} training rows and {len(validation)} validation rows of "
            f"{len(groups_of_rows)}: expected at least 1 of each",
            settings="split",
        )
    return np.sort(np.array(train, dtype=np.int64)), np.sort(np.array(validation, dtype=np.int64))


def _strata(labels: np.ndarray) -> np.ndarray:
    """Return the class of each row, the tenth that its number is in, or the rarest of its labels.

    Rows without any label are a class of their own.
    """
    if labels.dtype == object:
        return np.zeros(len(labels), dtype=np.int64)
    if labels.ndim == 2 and labels.dtype.kind == "i":  # tags; 0 is that of words outside of entities
        labels = np.stack([(labels == tag).any(axis=1) for tag in range(1, max(2, labels.max() + 1))], axis=1)
    if labels.ndim == 2:
        counts = np.where(labels, labels.sum(axis=0), len(labels) + 1)
        return np.asarray(np.where(labels.any(axis=1), counts.argmin(axis=1), labels.shape[1]))
    if labels.dtype.kind != "f":
        return labels
    edges = np.quantile(labels, np.linspace(0, 1, _BINS + 1)[1:-1])
    return np.searchsorted(edges, labels, side="right")


def _divide(members: list[list[int]], share: float) -> tuple[list[int], list[int]]:
    """Return the rows of the groups up to ``share`` of the rows, and those of the other groups."""
    if len(members) == 1:
        return members[0], []
    wanted = share * sum(map(len, members))
    count = total = 0
    for rows in members:
        if total + len(rows) / 2 >= wanted:
            break
        count += 1
        total += len(rows)
    count = min(max(count, 1), len(members) - 1)
    return (
        [index for rows in members[:count] for index in rows],
        [index for rows in members[count:] for index in rows],
    )

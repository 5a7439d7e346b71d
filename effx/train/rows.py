"""Which training rows are held out, to choose settings on them, and whether a checkpoint has seen them.

Thresholds and schedules are chosen on training rows that the ramps are not trained on, never on the
validation split. Rows that the checkpoint itself was not trained on are preferred, because a model is
more confident on rows it was trained on:

    rows left out by the checkpoint's ``limit``, or held out for its early stopping    unseen
    if those are fewer than a tenth of the training rows, some of the latter as well   seen: reported,
                                                                                       and in the manifest
Rows are compared by their digest, not by their path. Without a digest in the manifest, or with that of
other rows, which may overlap, it is unknown whether they were seen.
"""

from __future__ import annotations

import hashlib

import numpy as np

from effx.data import Rows
from effx.errors import UsageError
from effx.manifests import TrainingRecord

_LEAST_HELD_OUT = 500


def split(
    rows: Rows, training: TrainingRecord, limit: int | None, seed: int
) -> tuple[np.ndarray, np.ndarray, int | None]:
    """Return row numbers to train on, row numbers held out, and how many of the latter were trained on.

    The last is None where it is not known. Without a digest, as in checkpoints of older releases, the
    rows are taken to be the same ones, but that any of them is unseen is not claimed.

    Args:
        rows: all training rows.
        training: the checkpoint's manifest entry of that name.
        limit: rows to train on at most; None: as the checkpoint.
        seed: of the draw.
    """
    digest = training.rows_digest
    same = rows_digest(rows) == digest if digest else None
    before = rows.subset(None if same is False else training.limit)
    fit = rows.subset(limit if limit is not None else training.limit)
    unseen = np.setdiff1d(np.arange(len(rows)), before)
    if same is not False and not len(unseen) and training.held_out_rows:
        unseen = before[held_out(len(before), training.seed)]
    rng = np.random.default_rng((seed, 2))
    held = rng.permutation(unseen)[: max(_LEAST_HELD_OUT, len(fit) // 10)]
    fit = np.setdiff1d(fit, held)
    more = rng.permutation(fit)[: max(0, max(1, len(fit) // 10) - len(held))]
    fit, held = np.setdiff1d(fit, more), np.sort(np.concatenate([held, more]))
    if not len(fit):
        raise UsageError(f"expected at least 2 training rows, to hold some out, got {len(rows)}.")
    taken_for_seen = same is None and len(more) and training.source == rows.recorded_source
    return fit, held, len(more) if same or taken_for_seen else None


def rows_digest(rows: Rows) -> str:
    """Return the SHA-256 of rows' texts and labels; the same wherever their files are."""
    digest = hashlib.sha256()
    for text, label in zip(rows.texts, rows.labels.tolist(), strict=True):
        digest.update(repr((text, label)).encode())
    return digest.hexdigest()


def held_out(n: int, seed: int) -> np.ndarray:
    """Return the numbers of a tenth of ``n`` rows, rising: those that fine-tuning stops early on.

    Raises:
        UsageError: there are too few rows.
    """
    count = max(1, n // 10)
    if count >= n:
        raise UsageError(f"early stopping needs held-out rows: expected at least 2 training rows, got {n}.")
    return np.sort(np.random.default_rng((seed, 1)).permutation(n)[:count])

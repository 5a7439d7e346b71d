"""Which training rows are held out, to choose settings on them, and whether a checkpoint has seen them.

Thresholds and schedules are chosen on training rows that the ramps are not trained on, never on the
validation split. Rows that the checkpoint itself was not trained on are preferred, because a model is
more confident on rows it was trained on:

    rows left out by ``limit`` and ``share`` of the checkpoint's trainings, or held    unseen
    out for its early stopping
    if those are fewer than a tenth of the training rows, some of the latter as well   seen: reported,
                                                                                       and in the manifest
Rows are compared by their digest, not by their path. Without a digest in the manifest, or with that of
other rows, which may overlap, it is unknown whether they were seen.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping

import numpy as np

from effx.data import DataSummary, Rows
from effx.errors import UsageError
from effx.manifests import BaselineRecord, CheckpointFacts, RowDraw, TrainingRecord
from effx.specs.tasks import Task
from effx.specs.training import TrainingSettings, rows_share_text

_LEAST_HELD_OUT = 500


def chosen(rows: Rows, training: TrainingSettings) -> np.ndarray:
    """Return the numbers of the rows that limit and share leave, rising.

    With a share, the rows are the first ones of a random order that the seed decides, so that a smaller share
    of the same seed is a part of a larger one.

    Args:
        rows: all training rows.
        training: its ``limit``, ``share`` and ``seed`` decide.

    Raises:
        UsageError: the share leaves no row.
    """
    limited = rows.subset(training.limit)
    if training.share is None:
        return limited
    count = training.rows_of(len(rows))
    if count < 1:
        raise UsageError(
            f"share {rows_share_text(training.share)} of {len(limited)} training rows leaves no row: use a "
            f"larger share, at least {rows_share_text(1 / len(limited))}.", settings="share",
        )  # fmt: skip
    order = np.random.default_rng((training.seed, 3)).permutation(len(limited))
    return limited[np.sort(order[:count])]


def left_out(rows: Rows, training: TrainingSettings, count: int) -> np.ndarray:
    """Return the numbers of ``count`` rows at most that limit and share leave out, rising, drawn by the seed.

    Args:
        rows: all training rows.
        training: its ``limit``, ``share`` and ``seed`` say which rows are trained on.
        count: how many are wanted.
    """
    others = np.setdiff1d(np.arange(len(rows)), chosen(rows, training))
    return np.sort(np.random.default_rng((training.seed, 13)).permutation(others)[:count])


def check_classes(task: Task, rows: int, training: TrainingSettings) -> None:
    """Raise :class:`UsageError` if a share or limit leaves fewer rows than the task has labels."""
    if rows >= len(task.labels):
        return
    for name, text in (("share", rows_share_text), ("limit", str)):
        value = getattr(training, name)
        if value is not None:
            raise UsageError(
                f"{name} {text(value)} leaves {rows} training rows, fewer than the {len(task.labels)} labels "
                f"of task {task.name}: use a larger {name}.", settings=name,
            )  # fmt: skip


def split(
    rows: Rows, training: TrainingRecord, settings: TrainingSettings, apart: np.ndarray | None = None
) -> tuple[np.ndarray, np.ndarray, int | None]:
    """Return row numbers to train on, row numbers held out, and how many of the latter were trained on.

    The last is None where it is not known. Without a digest, as in checkpoints of older releases, the
    rows are taken to be the same ones, but that any of them is unseen is not claimed.

    Args:
        rows: all training rows.
        training: the checkpoint's manifest entry of that name.
        settings: its ``limit`` and ``share`` are the rows to train on, default those of the checkpoint; its
            ``seed`` decides which rows are held out.
        apart: numbers of rows that are neither trained on nor held out; None: there are none.
    """
    apart = np.arange(0) if apart is None else apart
    digest = training.rows_digest if _draws_are_known(training) else None
    same = rows_digest(rows) == digest if digest else None
    trained = _trained(rows, training)
    before = np.arange(len(rows)) if same is False else trained
    fit = chosen(rows, settings) if _are_given(settings) else trained
    unseen, fit = (np.setdiff1d(part, apart) for part in (np.setdiff1d(np.arange(len(rows)), before), fit))
    if same is not False and not len(unseen) and training.held_out_rows:
        unseen = np.setdiff1d(before[held_out(len(before), training.seed)], apart)
    rng = np.random.default_rng((settings.seed, 2))
    held = rng.permutation(unseen)[: max(_LEAST_HELD_OUT, len(fit) // 10)]
    fit = np.setdiff1d(fit, held)
    more = rng.permutation(fit)[: max(0, max(1, len(fit) // 10) - len(held))]
    fit, held = np.setdiff1d(fit, more), np.sort(np.concatenate([held, more]))
    if not len(fit):
        raise UsageError(f"expected at least 2 training rows, to hold some out, got {len(rows)}.")
    taken_for_seen = same is None and len(more) and training.source == rows.recorded_source
    return fit, held, len(more) if same or taken_for_seen else None


def _trained(rows: Rows, training: TrainingRecord) -> np.ndarray:
    """Return the numbers of the rows that a checkpoint was trained on, if ``rows`` are those it had."""
    draws = (chosen(rows, TrainingSettings.of(**draw.to_json())) for draw in draws_of(training))
    return np.unique(np.concatenate([*draws]))


def draws_of(training: TrainingRecord, settings: TrainingSettings | None = None) -> tuple[RowDraw, ...]:
    """Return the draws of a checkpoint's rows, and that of a training that continues from it.

    Args:
        training: the checkpoint's manifest entry of that name.
        settings: of the training that continues; None: there is none.
    """
    recorded = TrainingSettings.of(
        limit=training.limit, share=training.settings.get("share"), seed=training.seed
    )
    draws = training.draws or (_draw(recorded),)
    if settings is not None and _are_given(settings):
        draws = (*draws, _draw(settings))
    return tuple(dict.fromkeys(draws))


def _draw(settings: TrainingSettings) -> RowDraw:
    seed = 0 if settings.share is None else settings.seed
    return RowDraw(limit=settings.limit, share=settings.share, seed=seed)


def _are_given(settings: TrainingSettings) -> bool:
    """Whether settings say which rows to train on; otherwise they are those of the checkpoint."""
    return settings.limit is not None or settings.share is not None


def _draws_are_known(training: TrainingRecord) -> bool:
    """Whether a manifest says all rows that were trained on.

    Without draws, as in checkpoints of older releases, it says the limit of all trainings, but the share of
    the last one alone; the checkpoint before may have seen more.
    """
    continued = training.kind in ("exits", "tokens")
    return bool(training.draws) or not continued or training.settings.get("share") is None


def validation_facts(
    validation: Rows, metrics: Mapping[str, float], summary: DataSummary | None = None
) -> CheckpointFacts:
    """Return what a checkpoint's manifest says about its validation rows.

    Args:
        validation: the rows.
        metrics: the scores on them.
        summary: of the rows, with baseline and overlap; None: those are left out.
    """
    facts: CheckpointFacts = {
        "metrics": metrics,
        "validation_rows": len(validation),
        "validation_source": validation.recorded_source,
    }
    if summary is not None:
        facts["baseline"] = BaselineRecord(answer=summary.baseline.answer, score=summary.baseline.score)
        facts["validation_overlap"] = summary.overlap
    return facts


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

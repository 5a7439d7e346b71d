"""Which training rows are held out, to choose settings on them, and whether a checkpoint has seen them.

Thresholds and schedules are chosen on training rows that the ramps are not trained on, never on the
validation split. Rows that the checkpoint itself was not trained on are preferred, because a model is
more confident on rows it was trained on:

    rows left out by ``limit`` and ``share`` of the checkpoint's trainings, or held    unseen
    out for its early stopping
    if those are fewer than a tenth of the training rows, some of the latter as well   seen: reported,
                                                                                       and in the manifest
Rows that have their text in common, or what else their task groups them by (questions: the context), are
held out together, and count as seen if one of them was trained on. The number of rows is met as far as whole
groups allow.

Rows are compared by their digest, not by their path. Without a digest in the manifest, or with that of
other rows, which may overlap, it is unknown whether they were seen. A training that has seen the text of a
left-out row, without its label or as a row of another task, records no digest.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Hashable, Mapping

import numpy as np

from effx.data import DataSummary, Rows
from effx.errors import UsageError
from effx.manifests import BaselineRecord, CheckpointFacts, RowDraw, TrainingRecord
from effx.specs.tasks import Task
from effx.specs.training import TrainingSettings, rows_share_text

Group = Callable[[tuple[str, ...]], Hashable]
"""Texts of a row -> what it has in common with rows that are held out together."""
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

    Rows whose texts are not among those that are trained on come first.

    Args:
        rows: all training rows.
        training: its ``limit``, ``share`` and ``seed`` say which rows are trained on.
        count: how many are wanted.
    """
    fit = chosen(rows, training)
    others = np.setdiff1d(np.arange(len(rows)), fit)
    order = np.random.default_rng((training.seed, 13)).permutation(others)
    groups = _groups(rows, tuple)
    taken = _whole_groups(_without(order, fit, groups), groups, count)
    rest = order[~np.isin(order, taken)]
    return np.sort(np.concatenate([taken, rest[: count - len(taken)]]))


def check_classes(task: Task, rows: int, training: TrainingSettings) -> None:
    """Raise :class:`UsageError` if a share or limit leaves fewer rows than the task has classes.

    Rows of other kinds have several labels, or none of a few.
    """
    if rows >= len(task.labels) or not (task.behavior.one_value and task.behavior.has_classes):
        return
    for name, text in (("share", rows_share_text), ("limit", str)):
        value = getattr(training, name)
        if value is not None:
            raise UsageError(
                f"{name} {text(value)} leaves {rows} training rows, fewer than the {len(task.labels)} labels "
                f"of task {task.name}: use a larger {name}.", settings=name,
            )  # fmt: skip


def split(
    rows: Rows,
    training: TrainingRecord,
    settings: TrainingSettings,
    apart: np.ndarray | None = None,
    group: Group = tuple,
) -> tuple[np.ndarray, np.ndarray, int | None]:
    """Return row numbers to train on, row numbers held out, and how many of the latter were trained on.

    A row of whose group another one was trained on counts too. The last is None where it is not known.
    Without a digest, as in checkpoints of older releases, the rows are taken to be the same ones, but that
    any of them is unseen is not claimed.

    Args:
        rows: all training rows.
        training: the checkpoint's manifest entry of that name.
        settings: its ``limit`` and ``share`` are the rows to train on, default those of the checkpoint, and
            for a share without limit, of those within the checkpoint's limit; its ``seed`` decides which rows
            are held out.
        apart: numbers of rows that are neither trained on nor held out; None: there are none.
        group: of the task.
    """
    apart = np.arange(0) if apart is None else apart
    digest = training.rows_digest if _draws_are_known(training) else None
    same = rows_digest(rows) == digest if digest else None
    trained = _trained(rows, training)
    before = np.arange(len(rows)) if same is False else trained
    fit = chosen(rows, _within(training, settings)) if _are_given(settings) else trained
    fit, groups = np.setdiff1d(fit, apart), _groups(rows, group)
    unseen = np.setdiff1d(np.arange(len(rows)), before)
    unseen = _without(_without(unseen, before, groups), apart, groups)
    if same is not False and not len(unseen) and training.held_out_rows:
        stopped_on = before[_stopped_on(rows.take(before), training, group)]
        before = np.setdiff1d(before, stopped_on)
        unseen = _without(_without(stopped_on, before, groups), apart, groups)
    rng = np.random.default_rng((settings.seed, 2))
    held = _whole_groups(rng.permutation(unseen), groups, max(_LEAST_HELD_OUT, len(fit) // 10))
    fit = _without(fit, held, groups)
    more = _whole_groups(rng.permutation(fit), groups, max(1, len(fit) // 10) - len(held))
    fit, held = np.setdiff1d(fit, more), np.sort(np.concatenate([held, more]))
    if not len(fit):
        raise UsageError(
            f"expected at least 2 training rows with different texts, to hold some out, got {len(rows)} rows."
        )
    seen = len(held) - len(_without(held, before, groups))
    taken_for_seen = same is None and seen and training.source == rows.recorded_source
    return fit, held, seen if same or taken_for_seen else None


def _groups(rows: Rows, group: Group) -> np.ndarray:
    """Return the number of each row's group, int64 [n]."""
    numbers: dict[Hashable, int] = {}
    return np.array([numbers.setdefault(group(texts), len(numbers)) for texts in rows.texts], dtype=np.int64)


def _without(rows: np.ndarray, others: np.ndarray, groups: np.ndarray) -> np.ndarray:
    """Return the row numbers that are in no group of ``others``, in the same order."""
    return rows[~np.isin(groups[rows], groups[others])]


def _whole_groups(order: np.ndarray, groups: np.ndarray, count: int) -> np.ndarray:
    """Return the first ``count`` of some row numbers, but only whole groups of them, at least one.

    Without rows that have a group in common, these are the first ``count`` rows. A group that does not fit
    any more is left out.
    """
    if count < 1 or not len(order):
        return order[:0]
    _, first, number_of, sizes = np.unique(
        groups[order], return_index=True, return_inverse=True, return_counts=True
    )
    taken, total = [], 0
    for number in np.argsort(first):
        if total + sizes[number] <= count:
            taken.append(number)
            total += sizes[number]
        if total == count:
            break
    return order[np.isin(number_of, taken or [np.argmin(sizes)])]


def _stopped_on(rows: Rows, training: TrainingRecord, group: Group) -> np.ndarray:
    """Return the numbers of the rows that early stopping was decided on, of the rows of a training."""
    if training.held_out_in_groups:
        return held_out(rows, training.seed, group)
    return np.sort(_order(len(rows), training.seed)[: max(1, len(rows) // 10)])


def weights_saw(rows: Rows, training: TrainingRecord, group: Group = tuple) -> np.ndarray | None:
    """Return the numbers of the rows that :func:`split` takes for those that decided a checkpoint's weights.

    Rows that early stopping was decided on are not among them. None: the checkpoint was trained on other
    rows, or it is not known on which.

    Args:
        rows: all training rows.
        training: the checkpoint's manifest entry of that name.
        group: of the task.
    """
    digest = training.rows_digest if _draws_are_known(training) else None
    if digest is None or rows_digest(rows) != digest:
        return None
    trained = _trained(rows, training)
    if not training.held_out_rows:
        return trained
    return np.delete(trained, _stopped_on(rows.take(trained), training, group))


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
        draws = (*draws, _draw(_within(training, settings)))
    return tuple(dict.fromkeys(draws))


def _draw(settings: TrainingSettings) -> RowDraw:
    seed = 0 if settings.share is None else settings.seed
    return RowDraw(limit=settings.limit, share=settings.share, seed=seed)


def _are_given(settings: TrainingSettings) -> bool:
    """Whether settings say which rows to train on; otherwise they are those of the checkpoint."""
    return settings.limit is not None or settings.share is not None


def _within(training: TrainingRecord, settings: TrainingSettings) -> TrainingSettings:
    """Return settings with the limit of the checkpoint, where they have none."""
    return settings.replace(limit=training.limit) if settings.limit is None else settings


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


def held_out(rows: Rows, seed: int, group: Group = tuple) -> np.ndarray:
    """Return the numbers of a tenth of ``rows``, rising: those that fine-tuning stops early on.

    Args:
        rows: to train on.
        seed: of the draw.
        group: of the task.

    Raises:
        UsageError: there are too few rows.
    """
    n = len(rows)
    taken = _whole_groups(_order(n, seed), _groups(rows, group), max(1, n // 10))
    if len(taken) >= n:
        raise UsageError(
            "early stopping needs held-out rows: expected at least 2 training rows with different texts, got "
            f"{n} rows."
        )
    return np.sort(taken)


def _order(n: int, seed: int) -> np.ndarray:
    return np.random.default_rng((seed, 1)).permutation(n)

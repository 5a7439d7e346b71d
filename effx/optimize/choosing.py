"""Training rows that no pruned model is trained on, and what engines predict for them.

``effx optimize`` compares engines on them before the validation rows prove, see
:mod:`effx.analysis.fixed_sequence`. They are rows of the task, so that no row of the proof is spent. Neither
the pruning and recovery of a model nor the training or calibration of exits and token schedules has them. But
the unreduced model may have been trained on them: it then looks better there than it is, so none of its own
engines, with exits or without, is taken to beat another one.
"""

from __future__ import annotations

from collections.abc import Sequence

from effx.artifacts import Engine
from effx.data import Rows
from effx.optimize.choosing_predictions import ChoosingPredictions
from effx.profile.worker import Worker
from effx.records import StoredLabel
from effx.specs.training import TrainingSettings
from effx.specs.workloads import SINGLE_STREAM, Workload
from effx.train import rows as row_numbers

LEAST = 100
"""Rows that may choose; with fewer, every engine is tested."""
_MOST_SHARE = 0.1
"""Of the training rows."""


def share(
    training_rows: int, limit: int | None, wanted: int, *, calibrated: bool = False
) -> tuple[float | None, int]:
    """Return the share of the limited training rows to train on, and how many rows then choose.

    Args:
        training_rows: how many there are.
        limit: to train on at most; None: all.
        wanted: rows to choose on.
        calibrated: whether exits or token schedules are calibrated: as many rows more are left out for that.

    Returns:
        The share is None if all are trained on, or the limit leaves enough others; 0 rows choose if that
        would be fewer than :data:`LEAST`.
    """
    count = min(wanted, int(_MOST_SHARE * training_rows))
    if count < LEAST:
        return None, 0
    trained = min(limit or training_rows, training_rows)
    missing = (2 if calibrated else 1) * count - (training_rows - trained)
    return (None if missing <= 0 else (trained - missing) / trained), count


def choose(every_row: Rows, training: TrainingSettings, count: int) -> Rows:
    """Return ``count`` rows at most of those that a training with these settings leaves out."""
    return every_row.take(row_numbers.left_out(every_row, training, count))


def predict(
    engines: Sequence[Engine], rows: Rows, workload: Workload, unseen: Sequence[str] = ()
) -> ChoosingPredictions:
    """Run every engine on the rows, as a measurement scores them.

    Args:
        engines: of one task.
        rows: with labels.
        workload: the batches in which rows run.
        unseen: names of the engines whose last training left the rows out.
    """
    documents = None
    if rows.documents is not None:
        documents = {"ids": rows.documents.ids, "texts": rows.documents.texts}
    at_real_lengths = workload if workload.length == "real" else SINGLE_STREAM
    found = {}
    for engine in engines:
        worker = Worker.open(
            str(engine.folder), rows.texts, None, 0, documents=documents, digest=engine.digest
        )
        predictions: dict[int, StoredLabel] = {}
        batch: int | None = 0
        while batch is not None:
            scored = worker.score(at_real_lengths, batch)
            predictions |= zip(scored.rows, scored.predictions, strict=True)
            batch = scored.next_batch
        found[engine.folder.name] = tuple(predictions[row] for row in range(len(rows)))
    task = engines[0].task
    return ChoosingPredictions(
        schema=1,
        kind=task.kind,
        label_names=tuple(task.labels),
        labels=tuple(task.behavior.store(rows.labels)),
        predictions=found,
        unseen=tuple(name for name in found if name in unseen),
    )

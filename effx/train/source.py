"""Training that continues from a checkpoint: the model, its rows, and the checkpoint that results."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Unpack

import numpy as np
from transformers import PreTrainedModel

from effx import data, progress
from effx.artifacts import Checkpoint
from effx.costs import united
from effx.data import Rows
from effx.encoding import Encoded, Encoder
from effx.manifests import (
    CheckpointFacts,
    RowDraw,
    TokensRecord,
    TokensValidation,
    TrainingRecord,
    TrainingStage,
)
from effx.models import checkpoints, evaluate, sparse, structure
from effx.specs.data import DataLocation, DataRecord
from effx.specs.exits import EarlyExitSettings
from effx.specs.tasks import Task
from effx.specs.tokens import TokenPruningSettings
from effx.specs.training import TrainingSettings
from effx.train import distributed, loop
from effx.train.distillation import Distillation, Teacher
from effx.train.rows import draws_of, left_out, split, validation_facts


@dataclass(frozen=True)
class ContinuedTraining:
    """A checkpoint, its model and its rows."""

    checkpoint: Checkpoint
    model: PreTrainedModel
    encoder: Encoder
    rows: Rows
    """Rows to train on."""
    held_out: Rows
    """Rows to choose settings on."""
    limit: int | None
    """Number of rows that the result was trained on (subsets are nested); None: all."""
    seen: bool | None
    """Whether the checkpoint was trained on any of the held-out rows; None: unknown."""
    rows_digest: str | None
    """Digest of all training rows; None: the checkpoint may have been trained on others."""
    draws: tuple[RowDraw, ...]
    """Which of them the result was trained on."""
    validation: Rows
    data_record: DataRecord | None

    @property
    def task(self) -> Task:
        return self.checkpoint.task

    @functools.cached_property
    def encoded_validation(self) -> Encoded:
        """The validation rows as the checkpoint reads them."""
        return self.encode(self.validation)

    def encode(self, rows: Rows) -> Encoded:
        """Return the rows as the checkpoint reads them."""
        return self.encoder(rows.texts)

    def batches(
        self, teacher: Teacher | None = None, limit_s: float | None = None
    ) -> tuple[np.ndarray, loop.Collate]:
        """Return lengths and collate function of the training rows, with a teacher's predictions for them.

        With a time limit (seconds) the teacher predicts batch by batch, within it.
        """
        encoded = self.encode(self.rows)
        collate = loop.labelled(encoded, self.rows.labels, checkpoints.input_names(self.model))
        if teacher is not None:
            teacher.prepare(self.model, encoded, self.rows.texts, in_batches=limit_s is not None)
            collate = teacher.collated(collate, encoded, np.ones(len(encoded), dtype=bool))
        return encoded.lengths, collate

    def teacher(self, distillation: Distillation | None) -> Teacher | None:
        """Return the teacher whose predictions the heads learn; None: there is none.

        Raises:
            UsageError: it was trained for other labels.
            ArtifactError: it is not a checkpoint, or it is damaged.
        """
        if distillation is None:
            return None
        return Teacher(distillation.of_predictions(), self.task, self.checkpoint.manifest.model)

    def score(self, logits: np.ndarray, rows: Rows) -> float:
        """Return the task's primary metric."""
        return self.task.score(rows.labels, self.task.predict(logits))[self.task.metric]

    def with_tokens(self) -> tuple[np.ndarray, TokensRecord]:
        """Return the validation rows' logits with tokens pruned, and the manifest's entry ``tokens``."""
        encoded, remaining = self.encoded_validation, structure(self.model)
        logits, _, tokens = evaluate.reduced(self.model, encoded)
        before = self.checkpoint.manifest.tokens
        return logits, TokensRecord(
            rule=before.rule if before else "share" if remaining.tokens else "threshold",
            target=before.target if before else None,
            calibration=before.calibration if before else None,
            validation=TokensValidation(
                scores=self.task.score(self.validation.labels, self.task.predict(logits)),
                kept=tuple(float(share) for share in (tokens / encoded.lengths[:, None]).mean(0)),
            ),
        )

    def save(
        self,
        folder: Path,
        settings: EarlyExitSettings | TokenPruningSettings,
        stages: Sequence[TrainingStage],
        logits: np.ndarray,
        *,
        kind: Literal["exits", "tokens"],
        overwrite: bool,
        teacher: Teacher | None = None,
        **facts: Unpack[CheckpointFacts],
    ) -> Checkpoint:
        """Write the trained model; ``logits`` are its plain forward pass on the validation rows."""
        before = self.checkpoint.manifest
        derived: CheckpointFacts = {
            "model": before.model,
            "seed": settings.training.seed,
            "training": TrainingRecord(
                kind=kind,
                settings=settings.to_json(),
                stages=tuple(stages),
                learning_rate=settings.learning_rate,
                limit=self.limit,
                regime=before.training.regime,
                rows=len(self.rows),
                source=self.rows.recorded_source,
                rows_digest=self.rows_digest,
                draws=self.draws,
                distillation=None if teacher is None else teacher.record(0),
            ),
            **validation_facts(
                self.validation, self.task.score(self.validation.labels, self.task.predict(logits))
            ),
            "parent": self.checkpoint.digest,
            "expenses": united(self.checkpoint.expenses(), () if teacher is None else teacher.expenses()),
            "max_length": self.checkpoint.max_length,
            "data": self.data_record,
            "ticket": before.ticket,
            "layer_reductions": before.layer_reductions,
        }
        if before.sparsity:
            derived["sparsity"] = sparse.counted_again(before.sparsity, self.model)
        derived.update(facts)
        return checkpoints.save(
            self.model.cpu(),
            folder,
            tokenizer=checkpoints.tokenizer(self.checkpoint.folder),
            task=self.task,
            overwrite=overwrite,
            **derived,
        )


def open_source(
    checkpoint: str | Path, data_folder: DataLocation, settings: TrainingSettings, rows_apart: int = 0
) -> ContinuedTraining:
    """Open a checkpoint and its rows; ``settings`` are those of :func:`effx.train.rows.split`.

    Of the rows that limit and share of the settings leave out, ``rows_apart`` are kept apart from the
    training and from the rows that are held out (:func:`effx.train.rows.left_out`).

    Raises:
        ArtifactError: the checkpoint is missing or damaged.
        DataError: its rows cannot be had.
    """
    distributed.refuse("training that continues from a checkpoint")
    opened = Checkpoint.open(checkpoint)
    task = opened.task
    check_trainable(task)
    rows_source = data.locate(data_folder, task, opened.data)
    cache: data.Cache = {}
    everything = data.load(task, "train", rows_source, cache=cache)
    validation = data.load(task, "validation", rows_source, cache=cache)
    cache.clear()
    training = opened.manifest.training
    before = training.limit
    apart = left_out(everything, settings, rows_apart) if rows_apart else None
    fit, held_out, seen = split(everything, training, settings, apart, task.behavior.group)
    if seen is None:
        progress.say(
            f"{opened.name}: it is unknown whether it was trained on the {len(held_out)} held-out rows; "
            "if so, settings chosen on them may be too optimistic"
        )
    elif seen:
        progress.say(
            f"{opened.name} was trained on {seen} of the {len(held_out)} held-out rows: settings chosen on "
            "them may be too optimistic"
        )
    model = checkpoints.load(opened)
    if opened.manifest.sparsity:
        sparse.hold_zeros(model)
    return ContinuedTraining(
        opened,
        model,
        Encoder(opened.folder, opened.max_length, form=task.behavior.form),
        everything.take(fit),
        everything.take(held_out),
        max(before, settings.limit or before) if before is not None else None,
        None if seen is None else seen > 0,
        training.rows_digest if seen is not None else None,
        draws_of(training, settings),
        validation,
        data.recorded(task, rows_source),
    )


def check_trainable(task: Task) -> None:
    """Raise :class:`UsageError` for a task that effx exports but does not train."""
    task.behavior.check_supported("training", task.name)

"""The result of one training run of a search for tickets, as the table and the selection read it."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from effx import records
from effx.artifacts import Checkpoint
from effx.costs import Expense
from effx.errors import ArtifactError, one_line
from effx.manifests import RemovedCounts
from effx.specs.kinds.values import objects
from effx.specs.levels import Level
from effx.specs.tasks import Task

FULL = "full"
"""The kind of the full model, in addition to the kinds of tickets."""


def _array(predictions: Sequence[Any]) -> np.ndarray:
    """Return the predictions of rows from JSON; those of a row may be a list, of another length in each."""
    if len({len(each) if isinstance(each, list) else -1 for each in predictions}) > 1:
        return objects([tuple(each) for each in predictions])
    array = np.array(predictions)
    return array.astype(object) if array.dtype.kind == "U" else array  # or longer texts would be cut later


@dataclass(frozen=True)
class TicketResult:
    """Result of a full model, of a ticket, or of a ticket whose training run is paused."""

    name: str
    """Name of its checkpoint."""
    kind: str
    """``full``, or a kind of ticket."""
    level: Level | None
    """None: nothing is pruned."""
    seed: int
    paused_at: int | None
    """Optimizer steps after which the training run was paused; None: it is complete."""
    checkpoint: str
    """Digest of the checkpoint."""
    steps: int
    """Optimizer steps so far."""
    seconds: float
    parameters: int
    weight_remaining: float
    removed: RemovedCounts
    metrics: dict[str, float]
    """On all validation rows."""
    predictions: np.ndarray
    """Of the validation rows, first axis n: classes, numbers, or sets of labels."""
    expenses: tuple[Expense, ...] | None = None
    """What had to be computed to have the checkpoint; None: an earlier version wrote the result."""

    @classmethod
    def of(
        cls, checkpoint: Checkpoint, kind: str, level: Level | None, seed: int, paused_at: int | None = None
    ) -> TicketResult:
        """Return the result in a checkpoint's manifest, which must have predictions."""
        manifest = checkpoint.manifest
        return cls(
            checkpoint.name,
            kind,
            level,
            seed,
            paused_at,
            checkpoint.digest,
            manifest.training.steps,
            manifest.training.seconds,
            manifest.parameters,
            manifest.weight_remaining,
            manifest.ticket.removed if manifest.ticket else RemovedCounts(),
            dict(manifest.metrics),
            checkpoint.task.behavior.restore(manifest.predictions or (), checkpoint.task.labels),
            checkpoint.expenses(),
        )

    def score(self, task: Task, labels: np.ndarray, rows: np.ndarray) -> dict[str, float]:
        """Return the task's metrics on some of the validation rows, by their numbers."""
        return task.score(labels[rows], self.predictions[rows])

    def to_json(self) -> dict[str, Any]:
        """Return the result as JSON."""
        level = None if self.level is None else self.level.text
        return {
            **vars(self),
            "level": level,
            "removed": self.removed.to_json(),
            "predictions": self.predictions.tolist(),
            "expenses": None if self.expenses is None else [each.to_json() for each in self.expenses],
        }

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> TicketResult:
        """Return the result from JSON."""
        level = None if value["level"] is None else Level.parse(value["level"])
        removed, predictions = RemovedCounts(**value["removed"]), _array(value["predictions"])
        expenses = value.get("expenses")
        if expenses is not None:
            expenses = tuple(Expense.model_validate_json(json.dumps(each)) for each in expenses)
        return cls(
            **{
                **value,
                "level": level,
                "removed": removed,
                "predictions": predictions,
                "expenses": expenses,
            }
        )

    @classmethod
    def read(cls, path: Path) -> TicketResult:
        """Read a result's file.

        Raises:
            ArtifactError: the file is missing or damaged.
        """
        try:
            return cls.from_json(records.read_json(path))
        except (ArtifactError, ValueError, KeyError, TypeError, AttributeError) as error:
            reason = one_line(error, None).rstrip(".")
            raise ArtifactError(
                f"{path} cannot be read ({reason}). Delete its folder; the ticket is then trained again."
            ) from error

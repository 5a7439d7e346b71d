"""The results of a search for lottery tickets: of a fine-tuning, as the table reads it, and of a mask."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from effx import files, records
from effx.artifacts import Checkpoint
from effx.costs import Expense
from effx.errors import ArtifactError

FULL, GIVEN = "full", "given"
"""Kinds in addition to those of :data:`effx.specs.lottery.MASK_KINDS`: the full model, and a given mask."""
IDENTITY = ("label", "kind", "objective", "init", "rewind", "percent")
"""What tickets of one row have in common."""
EXACT = 1e-3
"""Difference of two shares of zeros up to which tables do not show it."""


@dataclass(frozen=True)
class LotteryResult:
    """One fine-tuning under a mask, or of the full model."""

    name: str
    """Of its checkpoint."""
    label: str
    """How its mask was found, and to which weights it was applied, in words."""
    kind: str
    objective: str | None
    """What the rounds trained; None: nothing, or unknown."""
    init: str
    rewind: int | None
    percent: int
    """Percentage of the weights that the mask sets to zero; of a given mask, rounded."""
    seed: int
    steps: int
    """Optimizer steps."""
    checkpoint: str
    """Digest of the checkpoint."""
    zeros: float
    """Share of the weights that are zero."""
    metrics: dict[str, float]
    """On all validation rows."""

    @classmethod
    def of(cls, checkpoint: Checkpoint, percent: int | None) -> LotteryResult:
        """Return the result in a checkpoint's manifest.

        Args:
            checkpoint: of a ticket or of the full model.
            percent: percentage of zeros in the mask; 0: it is the full model; None: the mask was given.

        Raises:
            ArtifactError: the manifest says nothing about zeros.
        """
        manifest = checkpoint.manifest
        sparsity = manifest.sparsity
        if sparsity is None:
            raise ArtifactError(
                f"{checkpoint.folder}: effx.json has no sparsity: it is not a lottery ticket."
            )
        return cls(
            checkpoint.name,
            "full model" if percent == 0 else sparsity.described,
            FULL if percent == 0 else sparsity.found_by or GIVEN,
            sparsity.objective,
            sparsity.init,
            sparsity.rewind,
            round(100 * sparsity.share) if percent is None else percent,
            manifest.seed,
            manifest.training.steps,
            checkpoint.digest,
            sparsity.share,
            dict(manifest.metrics),
        )

    @classmethod
    def read(cls, path: Path) -> LotteryResult:
        """Read a result's file; :class:`ArtifactError`: it is missing or damaged."""
        return records.read_result(cls, path, "the ticket")

    @property
    def identity(self) -> tuple[Any, ...]:
        """The same for tickets that differ in their seed alone."""
        return tuple(getattr(self, name) for name in IDENTITY)


@dataclass(frozen=True)
class MaskResult:
    """Where a mask is from, for the checkpoints that are trained under it."""

    parent: str | None
    """Digest of the checkpoint that it was found in; None: it was found without one."""
    expenses: tuple[Expense, ...] | None
    """What had to be computed for it; None: an earlier version wrote it, and did not record that."""

    def write(self, path: Path) -> None:
        """Write the result's file."""
        expenses = None if self.expenses is None else [expense.to_json() for expense in self.expenses]
        files.write_json(path, {"parent": self.parent, "expenses": expenses})

    @classmethod
    def read(cls, path: Path) -> MaskResult:
        """Read a result's file.

        Raises:
            ArtifactError: the file is missing or damaged.
        """
        value = records.read_json(path)
        try:
            expenses = value["expenses"]
            if expenses is not None:
                expenses = tuple(records.build(Expense, expense, path) for expense in expenses)
            return cls(value["parent"], expenses)
        except (KeyError, TypeError) as error:
            raise ArtifactError(
                f"{path} is damaged. Delete its folder; the mask is then searched again."
            ) from error

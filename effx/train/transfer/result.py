"""The result of one fine-tuning of a transfer, as the table reads it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from effx.specs.transfer import STRUCTURED, TransferRun
from effx.train.lottery.result import LotteryResult
from effx.train.tickets.result import TicketResult


@dataclass(frozen=True)
class TransferResult:
    """One fine-tuning under a mask, of a ticket, or of the full model."""

    run: TransferRun
    steps: int
    """Optimizer steps."""
    checkpoint: str
    """Digest of the checkpoint."""
    weight_remaining: float
    """Share of the weights that are neither pruned nor masked: of all weights for tickets of heads and FFNs,
    of the weights that masks can set to zero for others."""
    metrics: dict[str, float]
    """On all validation rows of the target."""

    @classmethod
    def read(cls, run: TransferRun, path: Path) -> TransferResult:
        """Read a result's file, that of a ticket or of a lottery ticket.

        Raises:
            ArtifactError: the file is missing or damaged.
        """
        if run.family == STRUCTURED:
            pruned = TicketResult.read(path)
            return cls(run, pruned.steps, pruned.checkpoint, pruned.weight_remaining, pruned.metrics)
        masked = LotteryResult.read(path)
        return cls(run, masked.steps, masked.checkpoint, 1 - masked.zeros, masked.metrics)

    def to_json(self) -> dict[str, Any]:
        """Return the result as the table has it."""
        of_run = {name: getattr(self.run, name) for name in ("family", "amount", "source", "target", "seed")}
        own = {name: value for name, value in vars(self).items() if name != "run"}
        return {**of_run, **own}

"""The decision of a rung of successive halving; :mod:`effx.specs.halving` says which rungs there are."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from effx import records
from effx.errors import ArtifactError, one_line
from effx.specs.levels import Level
from effx.specs.tasks import Task
from effx.train.tickets.result import TicketResult
from effx.train.tickets.selection import Candidate, candidate, ranked, split


@dataclass(frozen=True)
class RungDecision:
    """The ranking of levels at the end of a rung."""

    steps: int
    """Optimizer steps of each level so far, over its seeds."""
    ranked: tuple[Candidate, ...]
    """The best first."""
    used: tuple[tuple[Level, int, int], ...]
    """Level, seed and steps so far of each training run."""

    @property
    def remaining(self) -> tuple[Level, ...]:
        """The better half of the levels, rounded up, the best first."""
        return tuple(candidate.level for candidate in self.ranked[: math.ceil(len(self.ranked) / 2)])

    def table_entry(self) -> dict[str, Any]:
        """Return the rung's entry in the table of a search."""
        return {
            "steps": self.steps,
            "levels": [
                {"level": candidate.level.text, "scores": list(candidate.scores)} for candidate in self.ranked
            ],
        }

    def to_json(self) -> dict[str, Any]:
        """Return the decision as JSON."""
        return {
            "steps": self.steps,
            "ranked": [
                {
                    "level": candidate.level.text,
                    "weight_remaining": candidate.weight_remaining,
                    "scores": list(candidate.scores),
                }
                for candidate in self.ranked
            ],
            "remaining": [level.text for level in self.remaining],
            "used": [[level.text, seed, steps] for level, seed, steps in self.used],
        }

    @classmethod
    def read(cls, path: Path) -> RungDecision:
        """Read a decision's file.

        Raises:
            ArtifactError: the file is missing or damaged.
        """
        try:
            value = records.read_json(path)
            return cls(
                int(value["steps"]),
                tuple(
                    Candidate(Level.parse(entry["level"]), entry["weight_remaining"], tuple(entry["scores"]))
                    for entry in value["ranked"]
                ),
                tuple((Level.parse(level), int(seed), int(steps)) for level, seed, steps in value["used"]),
            )
        except (ArtifactError, ValueError, KeyError, TypeError) as error:
            reason = one_line(error, None).rstrip(".")
            raise ArtifactError(f"{path} cannot be read ({reason}). Delete its folder.") from error


def decide(
    results: Sequence[TicketResult],
    task: Task,
    labels: np.ndarray,
    *,
    steps: int,
    selection: float,
    seed: int,
) -> RungDecision:
    """Rank the levels of a rung by their mean score on the selection rows.

    Args:
        results: winning tickets, the same seeds for each level. Results of a paused training run are its
            scores at the pause.
        task: levels are ranked by its primary metric.
        labels: [n], of the validation rows.
        steps: optimizer steps of each level so far.
        selection: share of the validation rows that are selection rows.
        seed: of the choice of those rows.
    """
    rows, _ = split(len(labels), selection, seed)
    levels = list(dict.fromkeys(result.level for result in results if result.level is not None))
    candidates = [
        candidate(level, [result for result in results if result.level == level], task, labels, rows)
        for level in levels
    ]
    used = tuple((result.level, result.seed, result.steps) for result in results if result.level is not None)
    return RungDecision(steps, tuple(ranked(candidates)), used)

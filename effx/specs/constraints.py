"""What an engine must meet: settings of ``effx recommend`` and ``effx check``."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from effx.specs.gates import GATES
from effx.specs.quantities import CONFIDENCE_LEVEL, DURATION, ENERGY, LOSS, SCORE, SHARE, SIZE
from effx.specs.settings import OneOf, Settings

MAX_DROP = 0.01
"""Accepted loss of a recommendation that names no constraints."""

Confidence = Annotated[float, CONFIDENCE_LEVEL]
Loss = Annotated[float, Field(ge=0), LOSS]
"""Of a metric, which may be a correlation: more than 1 is possible."""
GateName = Annotated[str, OneOf("gate", tuple(GATES))]


class Constraints(Settings):
    """What an engine must meet; None: no such constraint."""

    max_drop: Annotated[float, SHARE] | None = None
    """Maximum loss of the task's metric compared with the baseline; 0.01 or 1% is one percentage point."""
    min_accuracy: Annotated[float, SCORE] | None = None
    """Minimum value of the task's metric on rows with labels, e.g. 0.91 or 91%."""
    min_agreement: Annotated[float, SCORE] | None = None
    """On rows without labels: minimum agreement with the reference engine, e.g. 0.99 or 99%."""
    max_p90_s: Annotated[float, DURATION] | None = None
    """Maximum p90 latency of single queries, e.g. 5ms."""
    max_p99_s: Annotated[float, DURATION] | None = None
    """Maximum p99 latency of single queries."""
    max_memory_bytes: Annotated[float, SIZE] | None = None
    """Maximum peak memory of the process, e.g. 500MB."""
    max_size_bytes: Annotated[float, SIZE] | None = None
    """Maximum size on disk, e.g. 64MiB."""
    max_joules: Annotated[float, ENERGY] | None = None
    """Maximum energy per example of single queries, e.g. 20mJ."""


class RecommendSettings(Settings):
    """What a recommended engine must meet, and with which confidence."""

    constraints: Constraints = Constraints(max_drop=MAX_DROP)
    confidence: Confidence = 0.95
    """Confidence with which the recommended engine meets every limit (one-sided, adjusted for the number of
    tested engines)."""


class TechniqueComparisonSettings(Settings):
    """What a technique may lose on each task, and with which confidence."""

    max_drop: Annotated[float, SHARE] = MAX_DROP
    """Maximum loss compared with the task's unreduced engine, in the task's own metric; 0.01 or 1% is one
    percentage point."""
    confidence: Confidence = 0.95
    """Confidence with which a technique loses at most that to be called proven (one-sided, adjusted for the
    number of techniques)."""


class CheckSettings(Settings):
    """What one engine must meet to pass a check, and with which confidence."""

    constraints: Constraints = Constraints()
    confidence: Confidence = 0.95
    """Confidence with which each limit must hold (one-sided)."""
    ignore_gates: tuple[GateName, ...] | None = None
    """Quality gates whose failure is ignored, e.g. host-idle on a shared machine."""

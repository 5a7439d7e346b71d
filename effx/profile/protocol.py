"""Requests to a worker process and its answers: one JSON line each.

    open      engine folder, digest, texts -> OpenedEngine
    score     workload, first batch, rows  -> Scored: answers to some rows, and the batch to continue with
    warm_up   workload                     -> WarmedUp: whether latency became steady
    block     workload, offset, limits     -> Block: seconds per query of queries back to back
    serve     rate, offset, limits, lead   -> Block: seconds from scheduled arrival to answer
    rest                                   -> Rested: its threads have stopped waiting busily for work
    memory                                 -> MemoryUse: peak resident bytes, and the GPU's

After each block the worker rests: threads of a runtime wait busily for more work for a while, which would
slow the engine that is measured next. An energy window is a long ``block`` while a meter reads. The queries
of a workload have one circular order, and a block begins at ``offset`` in it, from 0 to 1: every engine gets
the same queries in the same round, however fast it is and whether it stayed loaded or not.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class BlockLimits:
    """When a block ends: after ``queries`` and ``least_s``, but never later than ``limit_s``."""

    queries: int
    least_s: float
    limit_s: float


@dataclass(frozen=True)
class OpenedEngine:
    """An engine is loaded."""

    runtime: Mapping[str, object]
    """How it runs: provider, threads, versions; keys differ by backend."""
    lengths: list[int]
    """Tokens of each row."""


@dataclass(frozen=True)
class Scored:
    """A part of the accuracy pass."""

    rows: list[int]
    """Row numbers, in the order of ``predictions``."""
    predictions: list[Any]
    """As results store them."""
    logits: list[list[float]]
    """Of each row; for tags those of all its words, one after the other."""
    depths: list[int]
    """Layers that each row ran through; empty for engines without early exits."""
    next_batch: int | None
    """The batch to continue with; None: all rows are scored."""


@dataclass(frozen=True)
class WarmedUp:
    """A warm-up has ended."""

    seconds: float
    windows: int
    """Groups of queries that were compared."""
    steady: bool | None
    """Whether the last windows agree; None: too few windows to decide."""


@dataclass(frozen=True)
class Block:
    """Queries timed in a row."""

    samples_s: list[float]
    """Seconds of each query."""
    elapsed_s: float
    examples: int
    cpu_s: float = 0.0
    """Processor seconds of the worker."""
    others_s: float | None = None
    """Processor seconds of all other processes; None: this system does not report them."""
    others_allowed_s: float | None = None
    """Those on the processors that the worker may use; None: this system does not report each processor."""
    checked: int = 0
    """Timed rows whose predictions were compared with those that were scored."""
    agreed: int = 0
    """Those of them with the same prediction."""
    during: tuple[float, float] | None = None
    """Begin and end of the work: seconds of the system's monotonic clock, which processes of a host share."""
    load: float | None = None
    """While queries arrive: their rate times the mean time that the engine took for one."""


@dataclass(frozen=True)
class Rested:
    """The engine had time to come to rest."""

    idle: bool
    """Whether its process computes nothing any more."""


@dataclass(frozen=True)
class MemoryUse:
    """The most memory that a worker has used so far."""

    host_peak_bytes: int | None
    device_peak_bytes: int | None
    device_memory_by: str | None
    """How the device's figure was obtained, or why there is none."""
    runtime: Mapping[str, object]
    """As in :class:`OpenedEngine`, with what is known only after queries have run."""

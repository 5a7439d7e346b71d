"""Constraints on an engine as bars on objectives: what meets them, by how much the rest misses."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from effx.analysis.objectives import OBJECTIVES, Objective
from effx.errors import UsageError
from effx.results import Run

MAX_DROP = 0.01
_ROUNDING = 1e-9  # 0.91 meets a bar of 0.92 - 0.01


@dataclass(frozen=True)
class Limits:
    """What an engine must meet; None: no such limit."""

    max_drop: float | None = MAX_DROP
    """Of the task's primary metric beside the baseline, 0.01 is a point."""
    min_accuracy: float | None = None
    max_p90_s: float | None = None
    max_p99_s: float | None = None
    max_memory_bytes: float | None = None
    max_size_bytes: float | None = None


@dataclass(frozen=True)
class Bar:
    """A limit as a bar on an objective."""

    option: str
    objective: Objective
    limit: float
    bar: float
    beside: Run | None = None
    """The engine whose value the bar moves with."""

    def lacks(self, value: float) -> float:
        """Return by what share of the bar a value misses it; at most 0: it does not."""
        over = self.bar - value if self.objective.maximise else value - self.bar
        return over / abs(self.bar) if self.bar else over

    def meets(self, run: Run) -> bool:
        """Return whether a run meets it as measured; what was not measured does not."""
        value = self.objective.value(run)
        return value is not None and self.lacks(value) <= _ROUNDING

    def needed(self, value: float) -> float:
        """Return the limit that would admit a value."""
        return self.limit + (self.bar - value) if self.beside is not None else value

    def met(self, draws: np.ndarray, beside: np.ndarray | None) -> np.ndarray:
        """Return where values [..., resamples] meet it."""
        bar = self.bar if beside is None else beside - self.limit
        slack = _ROUNDING * abs(self.bar)
        return np.asarray(draws >= bar - slack if self.objective.maximise else draws <= bar + slack)


def bars_of(limits: Limits, base: Run, runs: Sequence[Run], remarks: list[str]) -> list[Bar]:
    """Return the bars that limits set beside a baseline; ``remarks`` gets the engines without a value.

    Raises:
        UsageError: no engine was measured by what a limit is about.
    """
    found = []
    if limits.max_drop is not None:
        bar = base.accuracy.value - limits.max_drop
        found.append(Bar("--max-drop", OBJECTIVES["accuracy"], limits.max_drop, bar, base))
    for option, name, limit in (
        ("--min-accuracy", "accuracy", limits.min_accuracy),
        ("--max-p90", "latency_p90", limits.max_p90_s),
        ("--max-p99", "latency_p99", limits.max_p99_s),
        ("--max-memory", "memory", limits.max_memory_bytes),
        ("--max-size", "size", limits.max_size_bytes),
    ):
        if limit is None:
            continue
        objective = OBJECTIVES[name]
        without = [run for run in runs if objective.value(run) is None]
        if len(without) == len(runs):
            raise UsageError(f"{option}: no engine can be held to it: {objective.missing(runs[0])}.")
        leave_out(without, f"without {objective.label}, which {option} needs", remarks)
        found.append(Bar(option, objective, limit, limit))
    return found


def leave_out(runs: Sequence[Run], why: str, remarks: list[str]) -> None:
    """Remark that engines are left out, by name if it is one."""
    if len(runs) == 1:
        remarks.append(f"{runs[0].name} is left out: {why}")
    elif runs:
        remarks.append(f"{len(runs)} engines are left out: {why}")


def met(runs: Sequence[Run], bars: Sequence[Bar]) -> np.ndarray:
    """Return which engine meets which bar in which resampling, [bars or 1, runs, resamples]."""
    found: list[np.ndarray] = [np.ones(OBJECTIVES["size"].draws(runs).shape, dtype=bool)] if not bars else []
    for bar in bars:
        beside = bar.objective.draws([bar.beside])[0] if bar.beside is not None else None
        able = [index for index, run in enumerate(runs) if bar.objective.value(run) is not None]
        draws = bar.objective.draws([runs[index] for index in able])
        own = np.zeros((len(runs), draws.shape[1]), dtype=bool)
        own[able] = bar.met(draws, beside)
        found.append(own)
    return np.array(found)

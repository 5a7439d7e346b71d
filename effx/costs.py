"""What computations took: time, processor time, energy and memory.

A training is measured while it runs (:mod:`effx.meters.running`) and recorded in the checkpoint's manifest. A
checkpoint also lists what the computations before it took: the trainings of the checkpoints that it was made
from, and of its teacher. The sum is what it costs to have the checkpoint, and the difference of two such sums
is what a reduction costs in addition to the unreduced model (:mod:`effx.analysis.break_even`).
"""

from __future__ import annotations

import functools
import operator
from collections.abc import Iterable, Sequence
from typing import Annotated, Self

from pydantic import Field, model_validator

from effx.records import Record
from effx.specs.meters import EnergySource

_NotNegative = Annotated[float, Field(ge=0)]
_Count = Annotated[int, Field(ge=0)]
TRAINING, IMPORTANCE, ONE_SHOT, PREDICTIONS, FIRST_STEPS, MASK_ROUND = (
    "training", "importance", "one-shot pruning", "predictions", "first steps", "mask search",
)  # fmt: skip
READ_ELSEWHERE = "read by another process of this training"
"""Why a process has no energy: another one reads the meter that is common to all on its machine."""
KINDS = (TRAINING, IMPORTANCE, ONE_SHOT, PREDICTIONS, FIRST_STEPS, MASK_ROUND)
"""Kinds of computations; importance: the pass over the training rows that scores heads, FFNs and neurons;
predictions: a teacher's; first steps: those that the rounds of a lottery ticket are rewound to; mask search:
a round of masked language modelling, which leaves a mask and no checkpoint."""


class EnergySpent(Record):
    """Joules of a computation, idle power of the device included, or why there are none."""

    source: EnergySource
    meter: str
    """Name of the meter, for a model with its watts."""
    joules: _NotNegative | None = None
    interval: tuple[_NotNegative, _NotNegative] | None = None
    """Bounds by the uncertainty of the meter; None: it states none."""
    reason: str | None = None
    """Why there is no number; None if there is one."""

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if (self.joules is None) != (self.source == "none") or (self.joules is None) != bool(self.reason):
            raise ValueError("expected either joules with their source, or the reason why there are none")
        if self.interval and (self.joules is None or not self._contains(self.interval, self.joules)):
            raise ValueError("interval: does not contain joules")
        return self

    @staticmethod
    def _contains(interval: tuple[float, float], value: float) -> bool:
        slack = 1e-6 * max(value, 1e-9)
        return interval[0] - slack <= value <= interval[1] + slack

    def __add__(self, other: EnergySpent) -> EnergySpent:
        for part in (self, other):
            if part.joules is None:
                return part
        assert self.joules is not None and other.joules is not None
        if "model" in (self.source, other.source) and self.meter != other.meter:
            return EnergySpent(
                source="none", meter=self.meter,
                reason=f"one part is an estimate, the other is not: {self.meter} and {other.meter}",
            )  # fmt: skip
        bounds = None
        if self.interval and other.interval:
            bounds = (self.interval[0] + other.interval[0], self.interval[1] + other.interval[1])
        return EnergySpent(
            source=self.source if self.source == other.source else "integrated",
            meter=self.meter if self.meter == other.meter else f"{self.meter}, {other.meter}",
            joules=self.joules + other.joules,
            interval=bounds,
        )


class Cost(Record):
    """What a computation took. Evaluations within a training are counted apart from it."""

    seconds: _NotNegative
    """Wall-clock time."""
    cpu_s: _NotNegative
    """Processor seconds of all processes and threads together."""
    sequences: _Count | None
    """Sequences that were computed, each as often as it was: rows, windows of contexts, or candidates; None:
    not counted."""
    energy: EnergySpent
    host_peak_bytes: _Count | None = None
    """Largest resident size of a process; None: unknown."""
    device_peak_bytes: _Count | None = None
    """Most memory that a process allocated on its GPU; None: it used none."""
    hardware: str | None = None
    """The GPU, or without one the processor; None: several kinds."""

    def __add__(self, other: Cost) -> Cost:
        """Return the cost of one computation after the other."""
        return Cost(
            seconds=round(self.seconds + other.seconds, 3),
            cpu_s=round(self.cpu_s + other.cpu_s, 3),
            sequences=_sum(self.sequences, other.sequences),
            energy=self.energy + other.energy,
            host_peak_bytes=_largest(self.host_peak_bytes, other.host_peak_bytes),
            device_peak_bytes=_largest(self.device_peak_bytes, other.device_peak_bytes),
            hardware=self.hardware if self.hardware == other.hardware else None,
        )


def _sum(one: int | None, other: int | None) -> int | None:
    return None if one is None or other is None else one + other


def _largest(*values: int | None) -> int | None:
    return max((value for value in values if value is not None), default=None)


def total(costs: Iterable[Cost | None]) -> Cost | None:
    """Return the cost of several computations, one after the other; None: none, or one is unknown."""
    known = list(costs)
    if not known or None in known:
        return None
    return functools.reduce(operator.add, [cost for cost in known if cost is not None])


def together(costs: Sequence[Cost]) -> Cost:
    """Return the cost of one computation by several processes at the same time, each with its own."""
    energies = [cost.energy for cost in costs if cost.energy.reason != READ_ELSEWHERE]
    return functools.reduce(operator.add, costs).model_copy(
        update={
            "seconds": max(cost.seconds for cost in costs),
            "energy": functools.reduce(operator.add, energies),
        }
    )


class Expense(Record):
    """A computation that had to be done to have a checkpoint."""

    kind: Annotated[str, Field(pattern=f"^({'|'.join(KINDS)})$")]
    checkpoint: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
    """Digest of the checkpoint that it wrote, or that it read without writing a checkpoint. Checkpoints of
    one training of several tasks share the digest of their encoder. Of first steps and a mask search: SHA-256
    of the state or mask that they wrote."""
    name: str = ""
    """Of that checkpoint."""
    settings: str = ""
    """Digest of what tells computations of one kind on one checkpoint apart; empty: there is one."""
    cost: Cost | None = None
    """None: unknown; the checkpoint was imported, or written by an earlier version."""

    @property
    def key(self) -> tuple[str, str, str]:
        """Identifies the computation: an expense of two checkpoints is paid once."""
        return self.kind, self.checkpoint, self.settings


def united(*lists: Iterable[Expense]) -> tuple[Expense, ...]:
    """Return the expenses of several lists, each computation once, in their order."""
    return tuple({expense.key: expense for each in lists for expense in each}.values())

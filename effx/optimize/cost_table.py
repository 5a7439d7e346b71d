"""What attention and FFN of every size cost on a runtime, measured; and what a structure costs by them.

    T(structure) = T(unreduced) - sum over layers of (c(H, M) - c(h, m)),    c(h, m) = e + a(h) + f(m)

a(h) and f(m) are the seconds of h heads and m neurons beyond those of none, e those of a layer without
either; a layer that is removed costs 0 (Kurtic et al. 2023, "ZipLM", section 3.2). Sizes between measured
ones are interpolated. That costs add up is an assumption, so a table contains a check: structures that were
drawn at random, each predicted and measured.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, Self

import numpy as np
from pydantic import Field, model_validator

from effx import files, records
from effx.errors import UsageError
from effx.records import Record
from effx.specs.backends import BACKENDS
from effx.specs.settings import OneOf
from effx.structure import Structure

LIMITS = {"batch": 0.05, "single": 0.10}
"""Median error of predicted against measured structures that a table may have: in batches, and for single
rows, where starting each product takes a part of the time."""

Seconds = float
Count = Annotated[int, Field(ge=0)]


class SizeCost(Record):
    """The cost of a part of a layer."""

    size: Count
    """Heads, or FFN neurons."""
    seconds: Seconds
    """Per query and layer, beyond the cost of size 0; the median over rounds, made to rise with the size."""
    low: Seconds
    high: Seconds
    """95 % interval of the median itself."""


class LayerSize(Record):
    """Size of a layer."""

    heads: Count
    neurons: Count


class CheckedStructure(Record):
    """A structure whose cost was predicted and measured."""

    layers: tuple[LayerSize, ...]
    """The layers that remain."""
    predicted_s: Seconds
    measured_s: Seconds

    @property
    def error(self) -> float:
        """Relative error of the prediction."""
        return self.predicted_s / self.measured_s - 1


class CostTable(Record):
    """Measured costs of the parts of one encoder in one variant, on one runtime, workload and host."""

    schema_: Literal[1] = Field(1, alias="schema")
    created: str
    host: Mapping[str, Any]
    versions: Mapping[str, str]
    checkpoint: str
    """Name of the checkpoint whose layers were measured."""
    checkpoint_digest: str
    model: str
    """The pretrained encoder of the checkpoint."""
    head_size: Annotated[int, Field(ge=1)]
    variant: str
    scheme: str
    """How the variant was built, as int8-dynamic."""
    backend: Annotated[str, OneOf("backend", tuple(BACKENDS))]
    device: str | None = None
    """What the graphs ran on; None: the backend's default device."""
    threads: Count
    workload: str
    """``single``, ``BxL`` or ``offline``."""
    layers: Annotated[int, Field(ge=1)]
    """Layers of the checkpoint."""
    unreduced_s: Seconds
    """Seconds per query of the checkpoint's engine."""
    empty_layer_s: Seconds
    """Seconds per query of a layer without heads and FFN: its LayerNorms."""
    heads: tuple[SizeCost, ...]
    """By rising size; the last is that of the checkpoint's layers."""
    neurons: tuple[SizeCost, ...]
    checks: tuple[CheckedStructure, ...]
    measured_in_s: Seconds
    """Seconds that the measurement took."""
    built_in_s: Seconds
    """Seconds that building the graphs took."""

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.device is not None and self.device not in BACKENDS[self.backend].devices:
            raise ValueError(f"device: {self.backend} does not build for {self.device[:40]!r}")
        for name, costs in (("heads", self.heads), ("neurons", self.neurons)):
            sizes = [cost.size for cost in costs]
            if len(sizes) < 2 or sizes[0] != 0 or sizes != sorted(set(sizes)):
                raise ValueError(f"{name}: expected at least two rising sizes from 0")
        for check in self.checks:
            if check.measured_s <= 0:
                raise ValueError("checks: expected measured_s > 0")
            again = self.predicted((layer.heads, layer.neurons) for layer in check.layers)
            if abs(again - check.predicted_s) > 1e-6 * check.measured_s:
                raise ValueError(f"checks: expected predicted_s {again:g}, which follows from the table")
        return self

    def heads_s(self, heads: int) -> Seconds:
        """Return the seconds of some heads of a layer, beyond those of none."""
        return _interpolated(self.heads, heads)

    def neurons_s(self, neurons: int) -> Seconds:
        """Return the seconds of some FFN neurons of a layer, beyond those of none."""
        return _interpolated(self.neurons, neurons)

    def layer_s(self, heads: int, neurons: int) -> Seconds:
        """Return the seconds of a layer."""
        return self.empty_layer_s + self.heads_s(heads) + self.neurons_s(neurons)

    def predicted(self, layers: Iterable[tuple[int, int]]) -> Seconds:
        """Return the seconds per query of an encoder with these layers, as (heads, neurons)."""
        full = self.layer_s(self.heads[-1].size, self.neurons[-1].size)
        rest = self.unreduced_s - self.layers * full
        return rest + sum(self.layer_s(heads, neurons) for heads, neurons in layers)

    def of_structure(self, structure: Structure) -> Seconds:
        """Return the seconds per query of an encoder with a structure."""
        return self.predicted((len(layer.heads), layer.intermediate) for layer in structure.layers)

    @property
    def median_error(self) -> float | None:
        """Median relative error of the checked structures, without sign; None: none was checked."""
        return float(np.median([abs(check.error) for check in self.checks])) if self.checks else None

    @property
    def limit(self) -> float:
        """The largest median error with which the table may be used."""
        return LIMITS["single" if self.workload == "single" or self.workload.startswith("1x") else "batch"]

    @property
    def passed(self) -> bool:
        """Whether costs add up: the median error is within the limit."""
        return self.median_error is not None and self.median_error <= self.limit

    def to_json(self) -> dict[str, Any]:
        return self.model_dump(mode="json", by_alias=True)

    @classmethod
    def read(cls, path: Path) -> CostTable:
        """Read a table.

        Raises:
            ArtifactError: the file is damaged.
        """
        return records.build(cls, records.read_json(path), path)

    def write(self, path: Path) -> None:
        """Write the table as JSON."""
        files.write_json(path, self.to_json())


def _interpolated(costs: tuple[SizeCost, ...], size: int) -> Seconds:
    if not 0 <= size <= costs[-1].size:
        raise UsageError(f"size {size}: the cost table has sizes from 0 to {costs[-1].size}.")
    return float(np.interp(size, [cost.size for cost in costs], [cost.seconds for cost in costs]))


def neuron_sizes(neurons: int, *, step: int = 16, factor: float = 0.8) -> list[int]:
    """Return sizes of an FFN from 0 to ``neurons``, rising: a geometric sequence, in multiples of ``step``.

    Args:
        neurons: of the unreduced FFN.
        step: width of the products' inner loops; sizes between its multiples cost as much as the next one.
        factor: between a size and the next larger one.
    """
    sizes = {0, neurons}
    size = neurons
    while size > 2 * step:
        size = min(size - step, round(size * factor / step) * step)
        sizes.add(size)
    if neurons > step:
        sizes.add(step)
    return sorted(sizes)

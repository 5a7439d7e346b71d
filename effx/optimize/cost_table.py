"""What attention and FFN of every size cost on a runtime, measured: in seconds, and with a meter in joules.

How the cost of a structure follows from them is in :mod:`effx.optimize.layer_costs`. That costs add up is an
assumption, so structures that were drawn at random are measured as whole encoders. The sum is fitted to them,
and checked: each is predicted by a fit to the others.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, Self

import numpy as np
from pydantic import Field, model_validator

from effx import files, records
from effx.errors import UsageError
from effx.optimize.layer_costs import Fitted, LayerCosts, fit
from effx.records import Record
from effx.specs.backends import BACKENDS
from effx.specs.meters import EnergySource
from effx.specs.settings import OneOf

LIMITS = {"batch": 0.05, "single": 0.10}
"""Median error of predicted against measured structures that a table may have: in batches, and for single
rows, where starting each product takes a part of the time."""

_SAME = 1e-6
"""Relative difference of a number in a file from what it follows from, at most."""

Seconds = float
Joules = float
Count = Annotated[int, Field(ge=0)]


class SizeCost(Record):
    """The time of a part of a layer."""

    size: Count
    """Heads, or FFN neurons."""
    seconds: Seconds
    """Per query and layer, beyond the cost of size 0; the median over rounds, made to rise with the size."""
    low: Seconds
    high: Seconds
    """95 % interval of the median itself."""


class SizeEnergy(Record):
    """The energy of a part of a layer."""

    size: Count
    """Heads, or FFN neurons."""
    joules: Joules
    """Per query and layer, beyond the energy of size 0; the mean of windows, made to rise with the size."""
    low: Joules
    high: Joules
    """95 % interval of the mean itself, by the spread of the windows; the tolerance of the meter, which all
    windows share, is not in it."""


class LayerSize(Record):
    """Size of a layer."""

    heads: Count
    neurons: Count


class CheckedStructure(Record):
    """A structure whose time was predicted and measured."""

    layers: tuple[LayerSize, ...]
    """The layers that remain."""
    predicted_s: Seconds
    measured_s: Seconds

    @property
    def error(self) -> float:
        """Relative error of the prediction."""
        return self.predicted_s / self.measured_s - 1


class CheckedEnergy(Record):
    """A structure whose energy was predicted and measured."""

    layers: tuple[LayerSize, ...]
    """The layers that remain."""
    predicted_j: Joules
    measured_j: Joules

    @property
    def error(self) -> float:
        """Relative error of the prediction."""
        return self.predicted_j / self.measured_j - 1


class EnergyCosts(Record):
    """The same costs in joules, idle power included; a model has none."""

    source: EnergySource
    """How joules are known."""
    meter: str
    about: Mapping[str, Any]
    """What the meter reads, and how."""
    windows: Annotated[int, Field(ge=2)]
    """Of each graph."""
    window_s: Annotated[float, Field(gt=0)]
    """Seconds of a window, at least."""
    measured_in_s: Seconds
    """Seconds that all windows took."""
    unreduced_j: Joules
    """Joules per query of the checkpoint's engine."""
    empty_layer_j: Joules
    """Joules per query of a layer without heads and FFN, by the graphs of equal layers."""
    heads: tuple[SizeEnergy, ...]
    """By rising size, as those of the times."""
    neurons: tuple[SizeEnergy, ...]
    fitted: Fitted | None = None
    """As that of the times, in joules."""
    checks: tuple[CheckedEnergy, ...]

    @property
    def median_error(self) -> float | None:
        """Median relative error of the checked structures, without sign; None: none was checked."""
        return _median_error(self.checks)


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
    """Seconds per query of a layer without heads and FFN, its LayerNorms, by the graphs of equal layers."""
    heads: tuple[SizeCost, ...]
    """By rising size; the last is that of the checkpoint's layers."""
    neurons: tuple[SizeCost, ...]
    fitted: Fitted | None = None
    """How these add up in whole encoders, in seconds. None: to the unreduced engine's time, as too few
    structures were measured to fit anything, or the table is older than this field."""
    checks: tuple[CheckedStructure, ...]
    """Each predicted by a fit to the others."""
    energy: EnergyCosts | None = None
    """None: not measured."""
    no_energy: str | None = None
    """Why there is no energy; None: there is, or the table is older than this field."""
    at_rest: bool | None = None
    """Whether threads of a graph had stopped whenever the next graph's turn began; if not, they may have
    shared the processors with it. None: the table is older than this field."""
    measured_in_s: Seconds
    """Seconds that measuring the times took."""
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
            if self.energy is not None and [cost.size for cost in getattr(self.energy, name)] != sizes:
                raise ValueError(f"energy.{name}: expected the sizes of {name}")
        _check("_s", self._differences_s, self.layers, self.fitted,
               [(one.layers, one.predicted_s, one.measured_s) for one in self.checks])  # fmt: skip
        if self.energy is not None:
            _check("_j", self._differences_j(self.energy), self.layers, self.energy.fitted,
                   [(one.layers, one.predicted_j, one.measured_j) for one in self.energy.checks])  # fmt: skip
        return self

    @property
    def _differences_s(self) -> LayerCosts:
        return LayerCosts.of_differences(
            self.layers, self.unreduced_s, self.empty_layer_s,
            *(tuple((cost.size, cost.seconds) for cost in costs) for costs in (self.heads, self.neurons)),
        )  # fmt: skip

    def _differences_j(self, energy: EnergyCosts) -> LayerCosts:
        return LayerCosts.of_differences(
            self.layers, energy.unreduced_j, energy.empty_layer_j,
            *(tuple((cost.size, cost.joules) for cost in costs) for costs in (energy.heads, energy.neurons)),
        )  # fmt: skip

    @property
    def seconds(self) -> LayerCosts:
        """The times, as they add up in whole encoders."""
        return self._differences_s.fitted(self.fitted)

    @property
    def joules(self) -> LayerCosts | None:
        """The energies, as they add up in whole encoders; None: not measured."""
        energy = self.energy
        return None if energy is None else self._differences_j(energy).fitted(energy.fitted)

    def costs(self, objective: str) -> LayerCosts:
        """Return the times, or the energies.

        Args:
            objective: one of :data:`effx.specs.optimize.PRUNING_OBJECTIVES`.

        Raises:
            UsageError: energy was not measured.
        """
        if objective == "latency":
            return self.seconds
        if self.joules is None:
            raise UsageError(
                f"the cost table has no energy: {self.no_energy or 'it was measured without a meter'}. "
                "Measure it with one, or reduce latency.", settings=("costs", "objective"),
            )  # fmt: skip
        return self.joules

    @property
    def median_error(self) -> float | None:
        """Median relative error of the checked structures' times, without sign; None: none was checked."""
        return _median_error(self.checks)

    def error_of(self, objective: str) -> float | None:
        """Return the median error of the times or the energies; None: none was checked, or measured."""
        if objective == "latency":
            return self.median_error
        return None if self.energy is None else self.energy.median_error

    @property
    def limit(self) -> float:
        """The largest median error with which the table may be used."""
        return LIMITS["single" if self.workload == "single" or self.workload.startswith("1x") else "batch"]

    def passed_for(self, objective: str) -> bool:
        """Return whether the times or the energies add up: their median error is within the limit."""
        error = self.error_of(objective)
        return error is not None and error <= self.limit

    @property
    def passed(self) -> bool:
        """Whether times add up."""
        return self.passed_for("latency")

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


def _median_error(checks: Sequence[CheckedStructure | CheckedEnergy]) -> float | None:
    return float(np.median([abs(check.error) for check in checks])) if checks else None


def sizes_of(layers: Iterable[LayerSize]) -> list[tuple[int, int]]:
    """Return (heads, neurons) of layers."""
    return [(layer.heads, layer.neurons) for layer in layers]


def _check(
    unit: str, costs: LayerCosts, layers: int, fitted: Fitted | None,
    checks: Sequence[tuple[Sequence[LayerSize], float, float]],
) -> None:  # fmt: skip
    """Raise ValueError if the fit, or a prediction of (layers, predicted, measured), does not follow."""
    structures, measured = [sizes_of(one) for one, _, _ in checks], [value for _, _, value in checks]
    if any(value <= 0 for value in measured) or (fitted is not None and costs.unreduced <= 0):
        raise ValueError(f"checks: expected measured{unit} > 0 and unreduced{unit} > 0")
    if fitted is None:
        again = [costs.of_layers(one) for one in structures]
    else:
        found, again = fit(costs, layers, structures, measured)
        if found is None:
            raise ValueError("fitted: expected none, as the checked structures do not determine it")
        for one, value in zip(structures, measured, strict=True):
            by_fit, stored = (costs.fitted(each).of_layers(one) for each in (found, fitted))
            if abs(by_fit - stored) > _SAME * value:
                raise ValueError(f"fitted: expected the fit to the checked structures, {found.to_json()}")
    for expected, (_, predicted, value) in zip(again, checks, strict=True):
        if abs(expected - predicted) > _SAME * value:
            raise ValueError(
                f"checks: expected predicted{unit} {expected:g}, which follows from the table, "
                f"got {predicted:g}"
            )


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

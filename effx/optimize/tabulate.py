"""From what graphs took, and the joules that they needed, to a cost table.

The cost of a part of a layer is the difference of two graphs within each round, divided by their layers. How
parts add up in whole encoders is fitted to the random structures.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.optimize import isotonic_regression

from effx.optimize import probes
from effx.optimize.cost_table import (
    CheckedEnergy,
    CheckedStructure,
    CostTable,
    EnergyCosts,
    LayerSize,
    SizeCost,
    SizeEnergy,
    sizes_of,
)
from effx.optimize.energy_windows import Windows
from effx.optimize.layer_costs import fit
from effx.stats.intervals import mean_interval, median_interval
from effx.structure import Structure


@dataclass
class Measured:
    """What was measured of a workload."""

    seconds: dict[str, np.ndarray]
    """Name -> float64 [rounds], per query."""
    joules: dict[str, np.ndarray]
    """Name -> float64 [windows], per query; empty: not measured."""
    no_energy: str | None = None
    """Why the windows gave no energy."""
    windows_s: float = 0.0
    """Seconds that the windows took."""
    at_rest: bool = True
    """Whether no thread computed when the blocks and the windows of the graphs began."""


def joined(before: dict[str, np.ndarray], values: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Return what two groups cost at one speed of the machine, that of the first.

    The ratio of their speeds is the median over the graphs that are in both.
    """
    steady = at_one_speed(values)
    shared = [np.median(before[name]) / np.median(steady[name]) for name in steady if name in before]
    scale = np.median(shared) if before else 1.0
    return {name: scale * each for name, each in steady.items()} | before


def at_one_speed(timed: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Return times without the changes of a machine's speed from round to round.

    The speed of a round is the median over all graphs of the time in it, relative to the graph's median.

    Args:
        timed: name -> float64 [rounds], seconds.
    """
    relative = [values / np.median(values) for values in timed.values()]
    speed = np.median(relative, axis=0)
    return {name: values / speed for name, values in timed.items()}


def table(
    layers: int,
    sizes: tuple[Sequence[int], Sequence[int]],
    measured: Measured,
    windows: Windows | None,
    drawn: Sequence[Structure],
    **facts: Any,
) -> CostTable:
    """Return the table of what was measured.

    Args:
        layers: of the checkpoint.
        sizes: numbers of heads, and of neurons, that were measured, rising.
        measured: times and energies.
        windows: how energy was measured; None: it was not.
        drawn: the random structures.
        facts: the other fields of the table.
    """
    times = _Differences(measured.seconds, np.median, layers)
    heads, neurons = times.of_sizes(sizes, median_interval)
    facts |= {
        "layers": layers,
        "unreduced_s": times.of_graph(probes.UNREDUCED),
        "empty_layer_s": times.empty_layer(heads, neurons),
        "heads": tuple(SizeCost(size=n, seconds=s, low=low, high=high) for n, s, (low, high) in heads),
        "neurons": tuple(SizeCost(size=n, seconds=s, low=low, high=high) for n, s, (low, high) in neurons),
    }
    facts["at_rest"] = measured.at_rest
    if measured.no_energy is not None:
        facts["no_energy"] = measured.no_energy
    energies = _Differences(measured.joules, np.mean, layers)
    if measured.joules and windows is not None:
        heads, neurons = energies.of_sizes(sizes, _mean_interval)
        facts["energy"] = EnergyCosts(
            source=windows.meter.source,
            meter=windows.meter.name,
            about=windows.meter.describe(),
            windows=windows.count,
            window_s=windows.length_s,
            measured_in_s=round(measured.windows_s, 1),
            unreduced_j=energies.of_graph(probes.UNREDUCED),
            empty_layer_j=energies.empty_layer(heads, neurons),
            heads=tuple(SizeEnergy(size=n, joules=j, low=low, high=high) for n, j, (low, high) in heads),
            neurons=tuple(SizeEnergy(size=n, joules=j, low=low, high=high) for n, j, (low, high) in neurons),
            checks=(),
        )
    of_drawn = [
        tuple(LayerSize(heads=len(part.heads), neurons=part.intermediate) for part in one.layers)
        for one in drawn
    ]
    structures = [sizes_of(one) for one in of_drawn]
    names = [f"{probes.CHECK}{number}" for number in range(len(drawn))]
    found = CostTable(**facts, checks=())
    of_times = [times.of_graph(name) for name in names]
    facts["fitted"], predicted = fit(found.seconds, layers, structures, of_times)
    facts["checks"] = tuple(
        CheckedStructure(layers=one, predicted_s=value, measured_s=of_time)
        for one, value, of_time in zip(of_drawn, predicted, of_times, strict=True)
    )
    if found.energy is not None and found.joules is not None:
        of_energies = [energies.of_graph(name) for name in names]
        fitted, predicted = fit(found.joules, layers, structures, of_energies)
        checks = tuple(
            CheckedEnergy(layers=one, predicted_j=value, measured_j=of_energy)
            for one, value, of_energy in zip(of_drawn, predicted, of_energies, strict=True)
        )
        facts["energy"] = found.energy.model_copy(update={"fitted": fitted, "checks": checks})
    return CostTable(**facts)


_Costs = list[tuple[int, float, tuple[float, float]]]
"""Size, cost of a layer beyond size 0, 95 % interval; by rising size."""


class _Differences:
    """Costs of the parts of a layer: differences of graphs, within rounds."""

    def __init__(
        self, measured: Mapping[str, np.ndarray], average: Callable[[np.ndarray], Any], layers: int
    ) -> None:
        """Take name -> float64 [rounds], their average, and the layers of the checkpoint."""
        self._measured, self._average = measured, average
        self._count = probes.count_of_layers(layers)

    def of_graph(self, name: str) -> float:
        """Return the cost of a graph."""
        return float(self._average(self._measured[name]))

    def of_sizes(
        self, sizes: tuple[Sequence[int], Sequence[int]],
        interval: Callable[[np.ndarray], tuple[float, float]],
    ) -> tuple[_Costs, _Costs]:  # fmt: skip
        """Return the costs of heads, and of neurons."""
        heads, neurons = sizes
        return self._of_part("heads", heads, interval), self._of_part("neurons", neurons, interval)

    def _of_part(
        self, part: str, sizes: Sequence[int], interval: Callable[[np.ndarray], tuple[float, float]]
    ) -> _Costs:
        differences = [self._beyond_none(part, size, last=size == sizes[-1]) for size in sizes]
        averages = [max(0.0, float(self._average(of_size))) for of_size in differences]
        rising = isotonic_regression(averages).x  # noise would make a size cheaper than a smaller one
        intervals = map(interval, differences)
        return [(size, float(cost), ends) for size, cost, ends in zip(sizes, rising, intervals, strict=True)]

    def empty_layer(self, heads: _Costs, neurons: _Costs) -> float:
        """Return the cost of a layer without heads and FFN; 0 if noise would make it negative."""
        if self._count == 1:
            return 0.0
        layers = float(self._average(self._measured[probes.FULL] - self._measured[probes.FEWER]))
        return max(0.0, layers / (self._count - self._count // 2) - heads[-1][1] - neurons[-1][1])

    def _beyond_none(self, part: str, size: int, *, last: bool) -> np.ndarray:
        """Return float64 [rounds], the cost of a layer beyond that without the part; ``last``: of all."""
        beyond = self._measured[probes.FULL if last else probes.of_size(part, size)]
        none = self._measured[probes.of_size(part, 0)]
        return np.asarray((beyond - none) / self._count)


def _mean_interval(values: np.ndarray) -> tuple[float, float]:
    interval = mean_interval(values.tolist())
    assert interval is not None  # of at least two windows
    return interval

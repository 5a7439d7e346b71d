"""What a structure costs, from what the parts of a layer cost.

    C(structure) = C(unreduced) - sum over layers of (c(H, M) - c(h, m)),    c(h, m) = e + a(h) + f(m)

a(h) and f(m) are the costs of h heads and m neurons beyond those of none, e that of a layer without either; a
layer that is removed costs 0 (Kurtic et al. 2023, "ZipLM", section 3.2). Sizes between measured ones are
interpolated.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from effx.errors import UsageError
from effx.structure import Structure

Amount = float
"""Seconds or joules per query."""


@dataclass(frozen=True)
class LayerCosts:
    """Costs of the parts of an encoder's layers, all in seconds or all in joules per query."""

    layers: int
    """Of the unreduced encoder."""
    unreduced: Amount
    """Of the unreduced encoder's engine."""
    empty_layer: Amount
    """Of a layer without heads and FFN: its LayerNorms."""
    heads: tuple[tuple[int, Amount], ...]
    """(heads, cost beyond that of none), by rising number; the last is that of the unreduced layers."""
    neurons: tuple[tuple[int, Amount], ...]
    """The same of FFN neurons."""

    def of_heads(self, count: int) -> Amount:
        """Return the cost of some heads of a layer, beyond that of none."""
        return _interpolated(self.heads, count)

    def of_neurons(self, count: int) -> Amount:
        """Return the cost of some FFN neurons of a layer, beyond that of none."""
        return _interpolated(self.neurons, count)

    def of_layer(self, heads: int, neurons: int) -> Amount:
        """Return the cost of a layer."""
        return self.empty_layer + self.of_heads(heads) + self.of_neurons(neurons)

    @property
    def full_layer(self) -> Amount:
        """The cost of an unreduced layer."""
        return self.of_layer(self.heads[-1][0], self.neurons[-1][0])

    def of_layers(self, layers: Iterable[tuple[int, int]]) -> Amount:
        """Return the cost of an encoder with these layers, as (heads, neurons)."""
        rest = self.unreduced - self.layers * self.full_layer
        return rest + sum(self.of_layer(heads, neurons) for heads, neurons in layers)

    def of_structure(self, structure: Structure) -> Amount:
        """Return the cost of an encoder with a structure."""
        return self.of_layers((len(layer.heads), layer.intermediate) for layer in structure.layers)


def _interpolated(costs: tuple[tuple[int, Amount], ...], size: int) -> Amount:
    sizes, amounts = zip(*costs, strict=True)
    if not 0 <= size <= sizes[-1]:
        raise UsageError(f"size {size}: the cost table has sizes from 0 to {sizes[-1]}.")
    return float(np.interp(size, sizes, amounts))

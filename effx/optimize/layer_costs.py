"""What a structure costs, from what the parts of a layer cost.

    C(structure) = C0 + sum over its layers of c(h, m),    c(h, m) = e + p a(h) + q f(m)

a(h) and f(m) are the costs of h heads and m neurons beyond those of none, as graphs of equal layers have
them; a layer that is removed costs 0 (Kurtic et al. 2023, "ZipLM", section 3.2). Sizes between measured ones
are interpolated. C0, e, p and q are fitted to whole encoders with random structures (:func:`fit`), since
parts cost something else there: by differences from the unreduced encoder alone, all of 20 structures of an
int8 MiniLM were predicted too cheap, by 13 % in the median.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Annotated, Self

import numpy as np
from pydantic import Field
from scipy.optimize import nnls

from effx.errors import UsageError
from effx.records import Record
from effx.structure import Structure

Amount = float
"""Seconds or joules per query."""
Sizes = Sequence[tuple[int, int]]
"""(heads, neurons) of each layer of an encoder."""
_LEAST_FITTED = 6
"""Structures at least: five of them and the unreduced encoder are two more than there are parameters."""


class Fitted(Record):
    """How the measured costs of parts add up in whole encoders, in the unit of these costs."""

    outside: Annotated[float, Field(ge=0)]
    """Per query, of what is not in a layer: embeddings, head, and what each query costs."""
    empty_layer: Annotated[float, Field(ge=0)]
    """Per query, of a layer without heads and FFN."""
    heads_factor: Annotated[float, Field(ge=0)]
    """Of the measured costs of heads."""
    neurons_factor: Annotated[float, Field(ge=0)]
    """Of the measured costs of neurons."""


@dataclass(frozen=True)
class LayerCosts:
    """Costs of the parts of an encoder's layers, all in seconds or all in joules per query."""

    unreduced: Amount
    """Of the unreduced encoder's engine, as measured."""
    outside: Amount
    """Of what is not in a layer."""
    empty_layer: Amount
    """Of a layer without heads and FFN: its LayerNorms."""
    heads: tuple[tuple[int, Amount], ...]
    """(heads, cost beyond that of none), by rising number; the last is that of the unreduced layers."""
    neurons: tuple[tuple[int, Amount], ...]
    """The same of FFN neurons."""

    @classmethod
    def of_differences(
        cls, layers: int, unreduced: Amount, empty_layer: Amount, heads: tuple[tuple[int, Amount], ...],
        neurons: tuple[tuple[int, Amount], ...],
    ) -> Self:  # fmt: skip
        """Return costs that add up to the unreduced encoder's, which has so many layers."""
        whole = empty_layer + heads[-1][1] + neurons[-1][1]
        return cls(unreduced, unreduced - layers * whole, empty_layer, heads, neurons)

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
        return self.outside + sum(self.of_layer(heads, neurons) for heads, neurons in layers)

    def of_structure(self, structure: Structure) -> Amount:
        """Return the cost of an encoder with a structure."""
        return self.of_layers((len(layer.heads), layer.intermediate) for layer in structure.layers)

    def fitted(self, to: Fitted | None) -> LayerCosts:
        """Return the costs as they add up in whole encoders; None: these."""
        if to is None:
            return self
        heads, neurons = (
            tuple((size, factor * amount) for size, amount in part)
            for part, factor in ((self.heads, to.heads_factor), (self.neurons, to.neurons_factor))
        )
        return LayerCosts(self.unreduced, to.outside, to.empty_layer, heads, neurons)


def fit(
    costs: LayerCosts, layers: int, structures: Sequence[Sizes], measured: Sequence[Amount]
) -> tuple[Fitted | None, list[Amount]]:
    """Fit how parts add up, and predict each structure by a fit to the other ones.

    The fit is by least squares of the relative errors, without negative costs.

    Args:
        costs: of the parts, from graphs of equal layers.
        layers: of the unreduced encoder, which every fit includes.
        structures: of whole encoders.
        measured: what each of these cost.

    Returns:
        The fit to all, and the predictions. There are too few structures, or they are too much alike, to tell
        the four parameters apart, or a measured cost is not positive: None, and predictions by ``costs`` as
        they are.
    """
    whole = [(costs.heads[-1][0], costs.neurons[-1][0])] * layers
    sums = np.array([
        (1.0, len(one), sum(costs.of_heads(h) for h, _ in one), sum(costs.of_neurons(m) for _, m in one))
        for one in (whole, *structures)
    ])  # fmt: skip
    known = np.array([costs.unreduced, *measured])
    fits: list[Fitted | None] = [None]
    if len(structures) >= _LEAST_FITTED and (known > 0).all():
        relative = sums / known[:, None]
        left_out = (np.delete(relative, 1 + number, axis=0) for number in range(len(structures)))
        fits = [_fitted(relative), *map(_fitted, left_out)]
    if None in fits:
        return None, [costs.of_layers(one) for one in structures]
    return fits[0], [costs.fitted(to).of_layers(one) for to, one in zip(fits[1:], structures, strict=True)]


def _fitted(relative: np.ndarray) -> Fitted | None:
    """Solve for what makes the sums of each row 1; float64 [structures, 4]. None: it is not determined."""
    scale = relative.max(axis=0)
    if not (scale > 0).all() or np.linalg.matrix_rank(relative / scale) < len(scale):
        return None
    outside, empty_layer, heads_factor, neurons_factor = (
        nnls(relative / scale, np.ones(len(relative)))[0] / scale
    )
    return Fitted(
        outside=outside, empty_layer=empty_layer, heads_factor=heads_factor, neurons_factor=neurons_factor
    )


def _interpolated(costs: tuple[tuple[int, Amount], ...], size: int) -> Amount:
    sizes, amounts = zip(*costs, strict=True)
    if not 0 <= size <= sizes[-1]:
        raise UsageError(f"size {size}: the cost table has sizes from 0 to {sizes[-1]}.")
    return float(np.interp(size, sizes, amounts))

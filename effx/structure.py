"""Which heads, FFN neurons and layers of an encoder remain, and what it leaves out while running.

Indices are those of the unreduced model and do not change, however often a model is reduced.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace

from effx.errors import UsageError

Indices = Mapping[int, Iterable[int]]
"""Layer -> heads or neurons, all by their original index."""


@dataclass(frozen=True)
class Layer:
    """What remains of one layer."""

    index: int
    """Index of the layer in the unreduced model, from 0."""
    heads: tuple[int, ...]
    """Remaining heads by their original index; empty: the attention is removed except its output bias."""
    intermediate: int
    """Number of remaining FFN neurons; 0: the FFN is removed."""
    neurons: tuple[int, ...] | None = None
    """Remaining FFN neurons by their original index; None: all of them, or none."""

    @property
    def neuron_indices(self) -> tuple[int, ...]:
        """The remaining FFN neurons by their original index."""
        return self.neurons or tuple(range(self.intermediate))


@dataclass(frozen=True)
class Structure:
    """What remains of an encoder, and what it may leave out while running."""

    layers: tuple[Layer, ...]
    exits: tuple[int, ...] = ()
    """Original layers, counted from 1, that are followed by an early-exit ramp."""
    exit_pooling: str = "mean"
    """Input of a ramp: the ``mean`` of the real tokens, or the first token (``cls``)."""
    head_pooling: str = "cls"
    """Input of the task head: the first token (``cls``), or the ``mean`` of the real tokens."""
    tokens: tuple[float, ...] | None = None
    """Share of the input's tokens that enter each remaining layer's FFN; None: all."""
    token_thresholds: tuple[float, ...] | None = None
    """Attention that a token must receive to enter each remaining layer's FFN; None: no thresholds."""

    @property
    def prunes_tokens(self) -> bool:
        """Whether the structure has a token schedule."""
        return bool(self.tokens or self.token_thresholds)

    @property
    def numbers(self) -> tuple[int, ...]:
        """The remaining layers by their original number, counted from 1."""
        return tuple(layer.index + 1 for layer in self.layers)

    def position(self, layer: int) -> int:
        """Return the position of an original layer among the remaining layers, both from 0.

        Raises:
            UsageError: the model never had the layer, or it was removed.
        """
        for position, remaining in enumerate(self.layers):
            if remaining.index == layer:
                return position
        known = ", ".join(str(remaining.index) for remaining in self.layers)
        raise UsageError(f"this model has no layer {layer}. Layers, from 0: {known}.")

    def without(
        self,
        *,
        heads: Indices | None = None,
        ffns: Iterable[int] = (),
        neurons: Indices | None = None,
        layers: Iterable[int] = (),
    ) -> Structure:
        """Return the structure with parts removed; parts that were removed before are ignored.

        The exit ramp and token share of a removed layer are removed too. So is the ramp of the layer
        that becomes the last: the model's task head follows it.

        Raises:
            UsageError: a layer is not in the model, or none would remain.
        """
        reduced = list(self.layers)
        for layer, removed in (heads or {}).items():
            position, out = self.position(layer), set(removed)
            remaining_heads = tuple(head for head in reduced[position].heads if head not in out)
            reduced[position] = replace(reduced[position], heads=remaining_heads)
        for layer, removed in (neurons or {}).items():
            position, out = self.position(layer), set(removed)
            before = reduced[position].neuron_indices
            after = tuple(neuron for neuron in before if neuron not in out)
            if len(after) < len(before):
                reduced[position] = replace(reduced[position], intermediate=len(after), neurons=after or None)
        for layer in ffns:
            position = self.position(layer)
            reduced[position] = replace(reduced[position], intermediate=0, neurons=None)
        dropped = {self.position(layer) for layer in layers}
        positions = [position for position in range(len(reduced)) if position not in dropped]
        if not positions:
            raise UsageError("no layer would remain: keep at least one.")
        remaining = tuple(reduced[position] for position in positions)
        inner = {layer.index + 1 for layer in remaining[:-1]}
        return replace(
            self,
            layers=remaining,
            exits=tuple(number for number in self.exits if number in inner),
            tokens=_at(self.tokens, positions),
            token_thresholds=_at(self.token_thresholds, positions),
        )


def _at(values: tuple[float, ...] | None, positions: list[int]) -> tuple[float, ...] | None:
    return None if values is None else tuple(values[position] for position in positions)

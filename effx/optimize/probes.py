"""Which graphs are measured for a cost table: layers of every size, and random structures.

full, fewer   the first layers of the checkpoint, and half as many, for the cost of a layer
headsN        those layers, each with N heads
neuronsN      those layers, each with N FFN neurons
checkN        the checkpoint with random heads, neurons and layers, to check that costs add up
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from transformers import PreTrainedModel

from effx.errors import UsageError
from effx.models import families, structure
from effx.optimize.cost_table import neuron_sizes
from effx.structure import Structure

UNREDUCED, FULL, FEWER, CHECK = "unreduced", "full", "fewer", "check"
"""Names of the checkpoint's own graph, of its first layers, of half of these, and of random structures, which
have a number too."""
_PROBE_LAYERS = 6
"""With fewer than the checkpoint has, a layer is understated: more of the weights fit into the caches."""
_FACTOR, _COARSE_FACTOR = 0.8, 0.6
"""Between numbers of neurons that are measured."""
_LEAST_SHARE = 0.1
"""Of the heads and neurons, in the smallest of the random structures, at most."""
_REMOVED = 0.15
"""Probability that a layer of a random structure is removed, and that its attention or FFN is."""


def structures(whole: Structure, heads: Sequence[int], neurons: Sequence[int]) -> dict[str, Structure]:
    """Return name -> structure of equal layers, with each number of heads and of neurons.

    Args:
        whole: the unreduced structure.
        heads: numbers of heads, rising; the last is that of the unreduced layers.
        neurons: numbers of FFN neurons, likewise.
    """
    count = count_of_layers(len(whole.layers))
    first = whole.without(layers=[layer.index for layer in whole.layers[count:]])
    named = {FULL: first}
    if count > 1:
        named[FEWER] = first.without(layers=[layer.index for layer in first.layers[count // 2 :]])
    for size in heads[:-1]:
        named[of_size("heads", size)] = _with_sizes(first, heads=size)
    for size in neurons[:-1]:
        named[of_size("neurons", size)] = _with_sizes(first, neurons=size)
    return named


def count_of_layers(layers: int) -> int:
    """Return how many layers a graph of equal layers has, of the checkpoint's."""
    return min(_PROBE_LAYERS, layers)


def of_size(part: str, size: int) -> str:
    """Return the name of the graph whose layers have so many heads or neurons."""
    return f"{part}{size}"


def anchors() -> list[str]:
    """Return the names of the graphs that are measured with the equal layers, and with the random structures.

    They tell how much faster or slower the machine was then.
    """
    return [UNREDUCED, FULL, FEWER, of_size("heads", 0), of_size("neurons", 0)]


def sizes(whole: Structure, *, coarse: bool = False) -> tuple[list[int], list[int]]:
    """Return the numbers of heads and of neurons that are measured, rising.

    Args:
        whole: the unreduced structure.
        coarse: one head and every third number of heads, and a coarser sequence of neurons. The first head
            costs more than the others, since it brings the attention's nodes along.

    Raises:
        UsageError: the layers differ, or lack a part.
    """
    shapes = {(len(layer.heads), layer.intermediate) for layer in whole.layers}
    if len(shapes) != 1 or 0 in (shape := shapes.pop()):
        raise UsageError("a cost table needs a checkpoint whose layers are all equal: expected one that lost "
                         "no heads and neurons.", settings="checkpoint")  # fmt: skip
    heads = sorted({0, 1, *range(0, shape[0], 3 if coarse else 1), shape[0]})
    return heads, neuron_sizes(shape[1], factor=_COARSE_FACTOR if coarse else _FACTOR)


def _with_sizes(whole: Structure, *, heads: int | None = None, neurons: int | None = None) -> Structure:
    """Return a structure whose layers all have the first heads or neurons."""
    out_heads = {layer.index: layer.heads[heads:] for layer in whole.layers} if heads is not None else None
    out_neurons = (
        {layer.index: layer.neuron_indices[neurons:] for layer in whole.layers}
        if neurons is not None
        else None
    )
    return whole.without(heads=out_heads, neurons=out_neurons)


def random_structures(model: PreTrainedModel, count: int, seed: int) -> list[Structure]:
    """Return random structures, from small ones to nearly the whole: a search chooses among all of them.

    Layers have random heads and neurons, some lack a part, some are removed.
    """
    rng, whole, family = np.random.default_rng((seed, 7)), structure(model), families.of(model)
    heads, neurons = sizes(whole)
    found: list[Structure] = []
    while len(found) < count:
        drawn, share = whole, rng.uniform(_LEAST_SHARE, 1.0)
        most = [max(1, round(share * part[-1])) for part in (heads, neurons)]
        for layer in whole.layers:
            left = 0 if rng.random() < _REMOVED else int(rng.integers(1, most[0] + 1))
            drawn = drawn.without(heads={layer.index: layer.heads[left:]})
            size = 0 if rng.random() < _REMOVED else int(rng.integers(most[1] // 8, most[1] + 1))
            size = size if size == neurons[-1] else size // 16 * 16
            drawn = drawn.without(neurons={layer.index: layer.neuron_indices[size:]})
        removed = [layer.index for layer in whole.layers[1:] if rng.random() < _REMOVED]
        try:
            drawn = drawn.without(layers=removed)
            family.check_layers([whole.position(layer.index) for layer in drawn.layers])
        except UsageError:
            continue
        found.append(drawn)
    return found

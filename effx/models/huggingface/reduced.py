"""Models with fewer heads or neurons in some layers than their config says, read from the tensor shapes.

transformers 4 records heads that were removed as ``pruned_heads``; CoFi, nn_pruning and TextPruner also write
FFNs with fewer neurons. transformers 5 loads none of these. Here the tensors are filled up with zeros to the
size that the config describes, which changes no output, and the added heads and neurons are then removed by
:func:`effx.models.surgery.prune`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from transformers import PreTrainedModel

from effx.models.families import Family, Matrix
from effx.models.huggingface.weights import Tensors


class UnknownStructureError(Exception):
    """The tensors do not say which reduced model they are; the message says why."""


@dataclass(frozen=True)
class Reduction:
    """What a model lacks, by original indices."""

    heads: dict[int, list[int]] = field(default_factory=dict)
    """Layer -> heads that were removed."""
    neurons: dict[int, list[int]] = field(default_factory=dict)
    """Layer -> FFN neurons that were removed."""

    def __bool__(self) -> bool:
        return bool(self.heads or self.neurons)

    def describe(self, heads: int, neurons: int, layers: int) -> str:
        """Return the remaining structure in words; the arguments are the unreduced model's."""
        kept_heads = [heads - len(self.heads.get(layer, ())) for layer in range(layers)]
        kept_neurons = [neurons - len(self.neurons.get(layer, ())) for layer in range(layers)]
        return (
            f"heads per layer {', '.join(map(str, kept_heads))} of {heads}; "
            f"FFN neurons per layer {', '.join(map(str, kept_neurons))} of {neurons}"
        )


def filled_up(
    model: PreTrainedModel, family: Family, tensors: Tensors, config: Mapping[str, Any]
) -> tuple[Tensors, Reduction]:
    """Return the tensors at the size that the config describes, and what has to be removed again.

    Args:
        model: the task model that the config describes; its weights are not read.
        family: of the model.
        tensors: by the model's parameter names.
        config: config.json; its ``pruned_heads`` names the heads that were removed.

    Raises:
        UnknownStructureError: part of a layer is missing, or the shapes fit no structure, or more than one.
    """
    tensors, reduction = dict(tensors), Reduction()
    pruned = {
        int(layer): sorted(map(int, heads)) for layer, heads in (config.get("pruned_heads") or {}).items()
    }
    heads, size, neurons = family.heads(model), family.head_size(model), family.neurons(model)
    layers = [f"{family.layers_path}.{index}" for index in range(len(family.layers(model)))]
    widths = [_width(tensors, layer, family.head_matrices, "attention heads") for layer in layers]
    _check_head_size(widths, heads, size, bool(pruned))
    for index, (layer, width) in enumerate(zip(layers, widths, strict=True)):
        remaining = _kept_heads(index, width, heads, size, pruned.get(index, []))
        if len(remaining) < heads:
            if family.has_head_biases and index not in pruned:
                raise UnknownStructureError(
                    f"layer {index} has {len(remaining)} of {heads} heads, and config.json does not say "
                    "which (pruned_heads): the relative position bias differs between heads"
                )
            rows = [head * size + i for head in remaining for i in range(size)]
            _fill(tensors, layer, family.head_matrices, rows, heads * size)
            reduction.heads[index] = [head for head in range(heads) if head not in remaining]
        count = _width(tensors, layer, family.neuron_matrices, "FFN")
        if count < neurons:
            _fill(tensors, layer, family.neuron_matrices, range(count), neurons)
            # a neuron of zeros stays where none does: without it the FFN's output bias would be removed too
            reduction.neurons[index] = list(range(max(1, count), neurons))
    return tensors, reduction


def _width(tensors: Tensors, layer: str, matrices: Sequence[Matrix], what: str) -> int:
    """Return how many rows or columns a layer's matrices have for their heads or neurons."""
    names = [f"{layer}.{matrix.path}.weight" for matrix in matrices]
    absent = [name for name in names if name not in tensors]
    if len(absent) == len(names):
        raise UnknownStructureError(
            f"{layer} has no weights for its {what}: models differ in what such a layer computes (CoFi "
            "leaves out the LayerNorm too)"
        )
    if absent:
        raise UnknownStructureError(f"{absent[0]} is missing")
    sizes = {
        tensors[name].shape[matrix.axis] // matrix.blocks
        for name, matrix in zip(names, matrices, strict=True)
    }
    if any(
        tensors[name].shape[matrix.axis] % matrix.blocks for name, matrix in zip(names, matrices, strict=True)
    ):
        raise UnknownStructureError(f"the fused matrices of the {what} of {layer} have no equal parts")
    if len(sizes) > 1:
        raise UnknownStructureError(
            f"the shapes of the {what} of {layer} contradict one another: {sorted(sizes)}"
        )
    return sizes.pop()


def _check_head_size(widths: Sequence[int], heads: int, size: int, pruned: bool) -> None:
    """Raise where all layers are equally narrow, so that the size of a head is open."""
    width = widths[0]
    if pruned or width == 0 or width >= heads * size or len(set(widths)) > 1 or width % heads:
        return
    raise UnknownStructureError(
        f"the heads of every layer have {width} rows: {width // size} heads of {size}, or {heads} of "
        f"{width // heads}? Add pruned_heads (layer: removed heads) to config.json"
    )


def _kept_heads(index: int, width: int, heads: int, size: int, pruned: list[int]) -> list[int]:
    if width % size or width > heads * size:
        raise UnknownStructureError(
            f"the heads of layer {index} have {width} rows; expected a multiple of {size}, at most "
            f"{heads * size}"
        )
    if not pruned:
        return list(range(width // size))
    remaining = [head for head in range(heads) if head not in pruned]
    if len(remaining) * size != width:
        raise UnknownStructureError(
            f"by config.json (pruned_heads), layer {index} has {len(remaining)} heads; by its "
            f"tensors, {width // size}"
        )
    return remaining


def _fill(
    tensors: Tensors, layer: str, matrices: Sequence[Matrix], indices: Sequence[int], full: int
) -> None:
    """Replace matrices by larger ones: zeros but for ``indices`` of their heads or neurons."""
    for matrix in matrices:
        blocks = range(matrix.blocks)
        chosen = torch.tensor(
            [block * full + index for block in blocks for index in indices], dtype=torch.long
        )
        size = matrix.blocks * full
        weight, bias = f"{layer}.{matrix.path}.weight", f"{layer}.{matrix.path}.bias"
        small = tensors[weight]
        shape = (size, small.shape[1]) if matrix.axis == 0 else (small.shape[0], size)
        tensors[weight] = torch.zeros(shape).index_copy(matrix.axis, chosen, small)
        if matrix.axis == 0 and bias in tensors:
            tensors[bias] = torch.zeros(size).index_copy(0, chosen, tensors[bias])

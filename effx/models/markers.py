"""Empty tensors among the weights of a model that plain transformers would run otherwise, so that it refuses.

transformers initialises missing tensors at random and prints a warning. A model without the attention or the
FFN of a layer would load and give wrong answers. So for each of these parts, one of the missing tensors is
saved with no elements: transformers raises an error for tensors of another shape. With the error it prints
the names of unknown tensors; one of them is :data:`NOTICE`.

A head that reads the mean of the tokens would read the first token: there the bias of its output is saved
under another name, and the empty tensor under its own. A model without a head needs none: its pooling is in
the files of sentence-transformers.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from transformers import PreTrainedModel

from effx.models import families
from effx.models.families import Matrix
from effx.models.structure import structure

NOTICE = "reduced_model.load_it_with.effx.models.load"
MEAN = "head_reads_the_mean_of_the_tokens."


def markers(model: PreTrainedModel) -> dict[str, torch.Tensor]:
    """Return tensors to save with a model, by name; none if transformers runs the model as it is."""
    family, remaining = families.of(model), structure(model)
    layers, full_size = remaining.layers, (family.heads(model), family.neurons(model))
    tensors = {}
    names = [NOTICE]
    output_path = family.output_path(model)
    told = (
        family.head_pooling(model) == remaining.head_pooling
    )  # the config says it, so transformers pools so
    if remaining.head_pooling == "mean" and output_path is not None and not told:
        bias = f"{output_path}.bias"
        tensors[MEAN + bias] = model.get_parameter(bias).detach().contiguous()
        names.append(bias)
    elif all((len(layer.heads), layer.intermediate) == full_size for layer in layers):
        return {}
    for position, layer in enumerate(layers):
        path = f"{family.layers_path}.{position}"
        if not layer.heads:
            names.append(f"{path}.{_missing(family.head_matrices[0])}")
        if not layer.intermediate:
            names.append(f"{path}.{_missing(family.neuron_matrices[0])}")
    return {**tensors, **{name: torch.empty(0) for name in names}}


def _missing(matrix: Matrix) -> str:
    return f"{matrix.path}.{'bias' if matrix.biased else 'weight'}"


def unmarked(tensors: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Return saved tensors with those that were saved under another name under their own."""
    renamed = {name.removeprefix(MEAN): tensor for name, tensor in tensors.items() if name.startswith(MEAN)}
    return {**{name: tensor for name, tensor in tensors.items() if not name.startswith(MEAN)}, **renamed}

"""Empty tensors among the weights of a reduced model, because of which plain transformers refuses them.

transformers initialises missing tensors at random and prints a warning. A model without the attention or the
FFN of a layer would load and give wrong answers. So for each of these parts, one of the missing tensors is
saved with no elements: transformers raises an error for tensors of another shape. With the error it prints
the names of unknown tensors; one of them is :data:`NOTICE`.
"""

from __future__ import annotations

import torch
from transformers import PreTrainedModel

from effx.models import families
from effx.models.structure import structure

NOTICE = "reduced_model.load_it_with.effx.models.load"


def markers(model: PreTrainedModel) -> dict[str, torch.Tensor]:
    """Return the empty tensors to save with a model, by name; none if no layer was reduced."""
    family, layers = families.of(model), structure(model).layers
    full_size = family.heads(model), family.neurons(model)
    if all((len(layer.heads), layer.intermediate) == full_size for layer in layers):
        return {}
    names = [NOTICE]
    for position, layer in enumerate(layers):
        path = f"{family.layers_path}.{position}"
        if not layer.heads:
            names.append(f"{path}.{family.head_matrices[0].path}.bias")
        if not layer.intermediate:
            names.append(f"{path}.{family.neuron_matrices[0].path}.bias")
    return {name: torch.empty(0) for name in names}

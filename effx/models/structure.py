"""The structure and parameter counts of a model, recorded on the model itself while it is reduced."""

from __future__ import annotations

from transformers import PreTrainedModel

from effx.models import families
from effx.structure import Layer, Structure


def structure(model: PreTrainedModel) -> Structure:
    """Return the structure that a model was reduced to, or the full structure."""
    recorded = getattr(model, "effx_structure", None)
    return recorded if isinstance(recorded, Structure) else full(model)


def full(model: PreTrainedModel) -> Structure:
    """Return the structure that the model's config describes, nothing removed."""
    family = families.of(model)
    heads, neurons = tuple(range(family.heads(model))), family.neurons(model)
    layers = tuple(Layer(i, heads, neurons) for i in range(len(family.layers(model))))
    return Structure(layers, head_pooling=family.head_pooling(model))


def parameters(model: PreTrainedModel) -> int:
    """Count the parameters of a model, embeddings, ramps and task head included, shared tensors once."""
    return sum(parameter.numel() for parameter in model.parameters())


def parameters_left(model: PreTrainedModel) -> int:
    """Count the parameters except those of ramps: what remains of :func:`full_parameters`."""
    ramps = getattr(model, "ramps", None)
    return parameters(model) - (sum(p.numel() for p in ramps.parameters()) if ramps is not None else 0)


def full_parameters(model: PreTrainedModel) -> int:
    """Return how many parameters ``model`` had before anything was removed or added."""
    return int(getattr(model, "effx_full_parameters", parameters_left(model)))


def record(model: PreTrainedModel, remaining: Structure) -> None:
    """Record the model's structure on it and, at the first reduction, its full size."""
    model.effx_full_parameters = full_parameters(model)
    model.effx_structure = remaining

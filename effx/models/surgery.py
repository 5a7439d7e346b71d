"""Physical removal: the smaller model gives the logits that the masked one gave.

    removed                    what remains
    some heads                 the other rows of W_Q, W_K, W_V and columns of W_O; all of b_O
    all heads of a layer       a = LN1(x + b_O)
    the FFN                    y = LN2(a)
    both                       y = LN2(LN1(x + b_O))
    intermediate neurons       the other rows of W1 and columns of W2; all of b2
    a layer                    y = x

No module of width zero is left: a part that is removed entirely is replaced by a module that computes
what remains. Names of the remaining parameters do not change. How a family's modules are cut is in
:mod:`effx.models.families`.
"""

from __future__ import annotations

from collections.abc import Iterable

from torch import nn
from transformers import PreTrainedModel

from effx.errors import UsageError
from effx.models import families
from effx.models.families import Family
from effx.models.masks import checked
from effx.models.structure import record, structure
from effx.structure import Indices, Layer, Structure


def prune(
    model: PreTrainedModel,
    heads: Indices | None = None,
    ffns: Iterable[int] = (),
    neurons: Indices | None = None,
    layers: Iterable[int] = (),
) -> PreTrainedModel:
    """Remove heads, FFNs, FFN neurons and layers from ``model``, in place.

    All indices are those of the unreduced model, from 0, however often it was pruned before; parts that
    were removed before are ignored. A layer whose last neuron is removed loses its FFN, b2 included.

    Args:
        model: a task model of a supported family.
        heads: layer -> heads to remove; all heads of a layer may be removed.
        ffns: layers whose FFN is removed.
        neurons: layer -> FFN neurons to remove.
        layers: layers to remove.

    Returns:
        The same model, smaller. It is unchanged if an error is raised.

    Raises:
        UsageError: something is not in the model, or no layer would remain.
    """
    family = families.of(model)
    target = structure(model).without(
        heads=checked(heads, "head", family.heads(model)),
        neurons=checked(neurons, "neuron", family.neurons(model)),
        ffns=ffns,
        layers=layers,
    )
    return reduce_to(model, target)


def reduce_to(model: PreTrainedModel, target: Structure) -> PreTrainedModel:
    """Reduce ``model`` to ``target``, in place; ramps are removed where ``target`` has none, never added.

    Raises:
        UsageError: ``target`` keeps something that the model does not have.
    """
    before = structure(model)
    positions = [before.position(layer.index) for layer in target.layers]
    families.of(model).check_layers(positions)
    for position, layer in zip(positions, target.layers, strict=True):
        _check(before.layers[position], layer)
    record(model, target)
    family = families.of(model)
    modules = family.layers(model)
    for position, layer in zip(positions, target.layers, strict=True):
        _reduce_heads(family, family.head_size(model), modules[position], before.layers[position], layer)
        _reduce_ffn(family, modules[position], before.layers[position], layer)
    family.keep_layers(model, positions)
    ramps = getattr(model, "ramps", {})
    for number in [name for name in ramps if int(name) not in target.exits]:
        del ramps[number]
    return model


def _check(before: Layer, after: Layer) -> None:
    if missing := sorted(set(after.heads) - set(before.heads)):
        raise UsageError(f"head {missing[0]} of layer {after.index} was removed before.")
    if missing := sorted(set(after.neuron_indices) - set(before.neuron_indices)):
        raise UsageError(f"neuron {missing[0]} of layer {after.index} was removed before.")


def _reduce_heads(family: Family, head_size: int, module: nn.Module, before: Layer, after: Layer) -> None:
    if after.heads == before.heads:
        return
    if after.heads:
        positions = [before.heads.index(head) for head in after.heads]
        family.keep_heads(module, positions, after.heads, head_size)
    else:
        family.remove_heads(module)


def _reduce_ffn(family: Family, module: nn.Module, before: Layer, after: Layer) -> None:
    if after.intermediate == before.intermediate:
        return
    if after.intermediate:
        position_of = {neuron: position for position, neuron in enumerate(before.neuron_indices)}
        family.keep_neurons(module, [position_of[neuron] for neuron in after.neuron_indices])
    else:
        family.remove_ffn(module)

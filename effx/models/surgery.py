"""Physical removal: the smaller model gives the logits that the masked one gave.

    removed                    what stays
    some heads                 the other rows of W_Q, W_K, W_V and columns of W_O; all of b_O
    all heads of a layer       a = LN1(x + b_O)
    the FFN                    y = LN2(a)
    both                       y = LN2(LN1(x + b_O))
    intermediate neurons       the other rows of W1 and columns of W2; all of b2
    a whole layer              y = x

Nothing of zero width is left behind: what is gone entirely is replaced by a module that does the
little that stays. Names of the remaining parameters do not change.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import torch
from torch import nn
from transformers import PreTrainedModel

from effx.errors import UsageError
from effx.models import families
from effx.models.masks import checked
from effx.models.structure import Indices, Layer, Structure, record, structure


def prune(
    model: PreTrainedModel,
    heads: Indices | None = None,
    ffns: Iterable[int] = (),
    neurons: Indices | None = None,
    layers: Iterable[int] = (),
) -> PreTrainedModel:
    """Remove heads, FFNs, FFN neurons and whole layers from ``model``, in place.

    All indices are those of the unreduced model, from 0, however often it was pruned before; what
    is gone already stays gone. A layer whose last neuron goes loses its FFN, b2 included.

    Args:
        model: a task model of a supported family.
        heads: layer -> heads to remove; all of a layer's may go.
        ffns: layers whose FFN goes.
        neurons: layer -> FFN neurons to remove.
        layers: layers to remove.

    Returns:
        The same model, smaller. Nothing has changed if an error is raised.

    Raises:
        UsageError: something is not in the model, or no layer would remain.
    """
    target = structure(model).without(
        heads=checked(heads, "head", families.heads(model)),
        neurons=checked(neurons, "neuron", families.neurons(model)),
        ffns=ffns,
        layers=layers,
    )
    return reduce_to(model, target)


def reduce_to(model: PreTrainedModel, target: Structure) -> PreTrainedModel:
    """Cut ``model`` down to ``target``, in place; its ramps are cut, none is added.

    Raises:
        UsageError: ``target`` keeps something that the model does not have.
    """
    before = structure(model)
    places = [before.place(layer.index) for layer in target.layers]
    for place, layer in zip(places, target.layers, strict=True):
        _check(before.layers[place], layer)
    record(model, target)
    modules = families.layers(model)
    for place, layer in zip(places, target.layers, strict=True):
        _cut_heads(model, modules[place], before.layers[place], layer)
        _cut_ffn(model, modules[place], before.layers[place], layer)
    for place in reversed([place for place in range(len(modules)) if place not in places]):
        del modules[place]
    body = families.encoder(model)
    for module in (body, body.get_submodule(families.family(model).layers.rsplit(".", 1)[0])):
        if hasattr(module, "n_layers"):
            module.n_layers = len(modules)  # type: ignore[assignment]
    model.config.num_hidden_layers = len(modules)
    ramps = getattr(model, "ramps", {})
    for number in [name for name in ramps if int(name) not in target.exits]:
        del ramps[number]
    return model


class NoHeads(nn.Module):
    """Attention without heads: the contexts are gone, the output bias stays.

    Where the family's attention holds the output projection, its place is kept here.
    """

    def __init__(self, output: tuple[str, OnlyBias] | None = None) -> None:
        super().__init__()
        self._output = output[0] if output else None
        if output:
            self.add_module(*output)

    def forward(self, hidden_states: torch.Tensor, *_: Any, **__: Any) -> tuple[torch.Tensor, None]:
        if self._output is None:
            return hidden_states, None  # what follows is OnlyBias, which looks at the shape alone
        return getattr(self, self._output)(hidden_states), None


class OnlyBias(nn.Module):
    """What remains of W_O c + b_O without heads."""

    def __init__(self, bias: nn.Parameter) -> None:
        super().__init__()
        self.bias = bias

    def forward(self, context: torch.Tensor) -> torch.Tensor:
        # dropout, which follows, must draw per position; in eval mode broadcasting saves the copy
        return self.bias.expand(context.shape) if self.training else self.bias


class OnlyNorm(nn.Module):
    """LN2(a): what remains of an FFN's output block."""

    def __init__(self, name: str, norm: nn.Module) -> None:
        super().__init__()
        self._name = name
        self.add_module(name, norm)

    def forward(self, _: torch.Tensor, residual: torch.Tensor) -> torch.Tensor:
        return getattr(self, self._name)(residual)  # type: ignore[no-any-return]


class NoFFN(nn.Module):
    """An FFN that adds nothing to the residual."""

    def forward(self, _: torch.Tensor) -> float:
        return 0.0


def _check(before: Layer, after: Layer) -> None:
    known = set(before.neurons or range(before.intermediate))
    kept = set(after.neurons or range(after.intermediate))
    if missing := sorted(set(after.heads) - set(before.heads)):
        raise UsageError(f"layer {after.index} has no head {missing[0]} any more.")
    if missing := sorted(kept - known):
        raise UsageError(f"layer {after.index} has no neuron {missing[0]} any more.")


def _cut_heads(model: PreTrainedModel, layer: nn.Module, before: Layer, after: Layer) -> None:
    if after.heads == before.heads:
        return
    names, size = families.family(model), families.head_size(model)
    attention = layer.get_submodule(names.attention)
    output = _linear(layer, names.attention_output)
    inside = names.attention_output.removeprefix(names.attention + ".")
    if not after.heads:
        if inside != names.attention_output:
            layer.set_submodule(names.attention, NoHeads((inside, OnlyBias(output.bias))))
        else:
            layer.set_submodule(names.attention, NoHeads())
            layer.set_submodule(names.attention_output, OnlyBias(output.bias))
        return
    places = [before.heads.index(head) for head in after.heads]
    rows = [place * size + i for place in places for i in range(size)]
    for path in (names.query, names.key, names.value):
        layer.set_submodule(path, _sliced(_linear(layer, path), rows=rows))
    layer.set_submodule(names.attention_output, _sliced(output, columns=rows))
    for attribute, value in (
        ("num_attention_heads", len(after.heads)),
        ("n_heads", len(after.heads)),
        ("all_head_size", len(rows)),
    ):
        if hasattr(attention, attribute):
            setattr(attention, attribute, value)
    if names.position_bias:
        _narrow_bias(attention, after.heads)


def _narrow_bias(attention: nn.Module, heads: tuple[int, ...]) -> None:
    """Let ``attention`` see only its own heads of the encoder's position bias, from now on."""
    if not hasattr(attention, "effx_heads"):
        attention.register_forward_pre_hook(_own_bias)
    attention.effx_heads = list(heads)  # type: ignore[assignment]


def _own_bias(attention: nn.Module, inputs: tuple[Any, ...]) -> tuple[Any, ...]:
    hidden, mask, bias, *rest = inputs
    return (hidden, mask, None if bias is None else bias[:, attention.effx_heads], *rest)


def _cut_ffn(model: PreTrainedModel, layer: nn.Module, before: Layer, after: Layer) -> None:
    if after.intermediate == before.intermediate:
        return
    names = families.family(model)
    if after.intermediate:
        known = before.neurons or tuple(range(before.intermediate))
        at = {neuron: place for place, neuron in enumerate(known)}
        places = [at[neuron] for neuron in (after.neurons or range(after.intermediate))]
        layer.set_submodule(names.ffn_in, _sliced(_linear(layer, names.ffn_in), rows=places))
        layer.set_submodule(names.ffn_out, _sliced(_linear(layer, names.ffn_out), columns=places))
        return
    block, norm_block = (path.rpartition(".")[0] for path in (names.ffn_out, names.ffn_norm))
    if block == norm_block:  # the block adds the residual and normalises
        name = names.ffn_norm.rpartition(".")[2]
        layer.set_submodule(block, OnlyNorm(name, layer.get_submodule(names.ffn_norm)))
        layer.set_submodule(names.ffn_in.rpartition(".")[0], nn.Identity())
    else:
        layer.set_submodule(block, NoFFN())


def _linear(layer: nn.Module, path: str) -> nn.Linear:
    module = layer.get_submodule(path)
    assert isinstance(module, nn.Linear), f"{path} is {type(module).__name__}"
    return module


def _sliced(
    linear: nn.Linear, *, rows: Sequence[int] | None = None, columns: Sequence[int] | None = None
) -> nn.Linear:
    """Return a Linear with some output rows or input columns of ``linear``."""
    weight = linear.weight.detach()
    bias = None if linear.bias is None else linear.bias.detach()
    if rows is not None:
        weight, bias = weight[list(rows)], None if bias is None else bias[list(rows)]
    if columns is not None:
        weight = weight[:, list(columns)]
    made = nn.Linear(
        weight.shape[1], weight.shape[0], bias=bias is not None, device="meta", dtype=weight.dtype
    )
    made.weight = nn.Parameter(weight.clone(), requires_grad=linear.weight.requires_grad)
    if bias is not None:
        made.bias = nn.Parameter(bias.clone(), requires_grad=linear.bias.requires_grad)
    return made.train(linear.training)

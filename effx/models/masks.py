"""Differentiable masks over heads, FFNs and neurons of an unmodified Hugging Face model.

    a = LN1(x + sum_h xi_h c_h W_O^h + b_O)
    y = LN2(a + nu (W2 (m * gelu(W1 a + b1)) + b2))

xi_h multiplies the context of head h after attention dropout and before the output projection, so
b_O survives; nu multiplies the FFN's output, b2 included, before the residual (Liang et al. 2021,
"Super Tickets in Pre-Trained Language Models", section 3; Michel et al. 2019). m is per
intermediate neuron, after the activation. Dropout follows W2, but scaling by nu and dropout
commute, so nu multiplies the output of W2.

Masks are forward hooks: the model is not changed, and the hooks are removed when the context ends.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from transformers import PreTrainedModel

from effx.errors import UsageError
from effx.models import families
from effx.models.structure import structure
from effx.structure import Indices, Structure


@dataclass
class StructureMasks:
    """One factor per head, FFN and neuron; rows are the remaining layers, first to last.

    Each tensor may carry a leading batch dimension; its gradient is then one per example.
    """

    heads: torch.Tensor
    """[layers, heads] or [batch, layers, heads]; columns are original heads."""
    ffns: torch.Tensor
    """[layers] or [batch, layers]."""
    neurons: torch.Tensor | None = None
    """[layers, neurons] or [batch, layers, neurons]; columns are original neurons."""


def ones(
    model: PreTrainedModel, *, batch: int | None = None, neurons: bool = False, requires_grad: bool = False
) -> StructureMasks:
    """Return masks that change nothing, on the model's device."""
    family = families.of(model)
    layers = len(family.layers(model))
    lead = (layers,) if batch is None else (batch, layers)

    def factors(*shape: int) -> torch.Tensor:
        return torch.ones(*lead, *shape, device=model.device, requires_grad=requires_grad)

    return StructureMasks(
        factors(family.heads(model)), factors(), factors(family.neurons(model)) if neurons else None
    )


@contextmanager
def applied(model: PreTrainedModel, masks: StructureMasks) -> Iterator[None]:
    """Multiply the masks into every forward pass inside the ``with`` block."""
    family = families.of(model)
    size, layers = family.head_size(model), family.layers(model)
    handles = []
    try:
        for position, (remaining, layer) in enumerate(zip(structure(model).layers, layers, strict=True)):
            if remaining.heads:
                xi = masks.heads[..., position, list(remaining.heads)].repeat_interleave(size, dim=-1)
                handles.append(_scale_input(layer.get_submodule(family.context_path), xi))
            if remaining.intermediate:
                output = layer.get_submodule(family.ffn_output_path)
                handles.append(_scale_output(output, masks.ffns[..., position, None]))
                if masks.neurons is not None:
                    factors = masks.neurons[..., position, list(remaining.neuron_indices)]
                    handles.append(_scale_input(output, factors))
        yield
    finally:
        for handle in handles:
            handle.remove()


def leaving(model: PreTrainedModel, target: Structure) -> StructureMasks:
    """Return masks with which ``model`` computes as if only ``target`` remained of it.

    Args:
        model: a task model of a supported family.
        target: has the model's layers, and no head or neuron that the model has not.
    """
    masks = ones(model, neurons=True)
    assert masks.neurons is not None
    masks.heads.zero_(), masks.neurons.zero_()
    for position, layer in enumerate(target.layers):
        masks.heads[position, list(layer.heads)] = 1.0
        masks.neurons[position, list(layer.neuron_indices)] = 1.0
        masks.ffns[position] = float(layer.intermediate > 0)
    return masks


@contextmanager
def masked(
    model: PreTrainedModel,
    heads: Indices | None = None,
    ffns: Iterable[int] = (),
    neurons: Indices | None = None,
) -> Iterator[PreTrainedModel]:
    """Run ``model`` as if heads, FFNs and neurons were removed; the block's end restores them.

    All indices are those of the unreduced model, from 0.

    Raises:
        UsageError: a layer, head or neuron is not in the model.
    """
    family = families.of(model)
    target = structure(model).without(
        heads=checked(heads, "head", family.heads(model)),
        neurons=checked(neurons, "neuron", family.neurons(model)),
        ffns=ffns,
    )
    with applied(model, leaving(model, target)):
        yield model


def checked(indices: Indices | None, what: str, count: int) -> dict[int, list[int]]:
    """Return ``indices`` as lists after checking that they are from 0 to ``count`` - 1.

    Raises:
        UsageError: the unreduced model has no such head or neuron.
    """
    lists = {layer: list(parts) for layer, parts in (indices or {}).items()}
    for layer, parts in lists.items():
        for index in parts:
            if not 0 <= index < count:
                raise UsageError(f"layer {layer} has no {what} {index}: expected 0 to {count - 1}.")
    return lists


def _scale_input(module: nn.Module, factor: torch.Tensor) -> Any:
    def hook(_: nn.Module, inputs: tuple[torch.Tensor, ...]) -> tuple[torch.Tensor, ...]:
        return (_scaled(inputs[0], factor), *inputs[1:])

    return module.register_forward_pre_hook(hook)


def _scale_output(module: nn.Module, factor: torch.Tensor) -> Any:
    return module.register_forward_hook(lambda _module, _inputs, output: _scaled(output, factor))


def _scaled(values: torch.Tensor, factor: torch.Tensor) -> torch.Tensor:
    """Multiply [batch, length, width] by factors [width], [batch, width], [1] or [batch, 1]."""
    factor = factor.to(values.dtype)
    return values * (factor if factor.dim() == 1 else factor[:, None])

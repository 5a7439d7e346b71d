"""Unstructured pruning: masks that set single weights to zero; the structure of the model does not change.

Prunable are the matrices of Q, K, V, attention output and the FFN in every layer, and the encoder's
pooler where it has one; not embeddings, biases, norms or the task head (Chen et al. 2020,
"The Lottery Ticket Hypothesis for Pre-trained BERT Networks", section 3).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import nn
from transformers import PreTrainedModel

from effx.manifests import SparsityRecord
from effx.models import families
from effx.models.structure import structure

WeightMasks = Mapping[str, torch.Tensor]
"""Name of a parameter -> bool tensor of its shape; False: the weight is zero."""


def matrices(model: PreTrainedModel) -> dict[str, nn.Parameter]:
    """Return the prunable matrices by their name in ``model``."""
    family = families.of(model)
    named: dict[str, nn.Parameter] = {}
    layers = zip(structure(model).layers, family.layers(model), strict=True)
    for position, (remaining, layer) in enumerate(layers):
        attention = family.head_matrices if remaining.heads else ()
        ffn = family.neuron_matrices if remaining.intermediate else ()
        for matrix in (*attention, *ffn):
            name = f"{family.layers_path}.{position}.{matrix.path}.weight"
            named[name] = layer.get_parameter(f"{matrix.path}.weight")
    if family.encoder_pooler_path:
        name = f"{family.encoder_pooler_path}.weight"
        if (pooler := dict(model.named_parameters()).get(name)) is not None:
            named[name] = pooler  # a model for masked language modelling has none
    return named


def smallest(weights: Mapping[str, torch.Tensor], share: float) -> dict[str, torch.Tensor]:
    """Return masks that set the floor(``share`` n) smallest of all n weights to zero, by magnitude.

    Of equal magnitudes the first ones are masked, so that the number is exact.
    """
    flat = np.concatenate([value.detach().cpu().numpy().ravel() for value in weights.values()])
    np.abs(flat, out=flat)
    count = _count(share, len(flat))
    pruned = np.zeros(len(flat), dtype=bool)
    if count:
        limit = np.partition(flat, count - 1)[count - 1]
        pruned = flat < limit
        pruned[np.flatnonzero(flat == limit)[: count - int(pruned.sum())]] = True
    return _shaped(pruned, weights)


def drawn(weights: Mapping[str, torch.Tensor], share: float, seed: int) -> dict[str, torch.Tensor]:
    """Return masks that set floor(``share`` n) of all n weights to zero, drawn at random over all matrices.

    With the same seed, the zeros of a smaller share are among those of a larger one.
    """
    total = sum(value.numel() for value in weights.values())
    order = np.arange(total, dtype=np.min_scalar_type(total))  # few bytes: there are 85 million in BERT-base
    np.random.default_rng((seed, 11)).shuffle(order)
    pruned = np.zeros(total, dtype=bool)
    pruned[order[: _count(share, total)]] = True
    return _shaped(pruned, weights)


def _count(share: float, total: int) -> int:
    return int(share * total + 1e-9)  # 0.3 * 10 is 2.999...


def _shaped(pruned: np.ndarray, weights: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Return masks in the shapes of ``weights``; ``pruned``: bool [n], all weights one after the other."""
    masks, start = {}, 0
    for name, value in weights.items():
        part = pruned[start : start + value.numel()]
        masks[name] = torch.from_numpy(~part).reshape(value.shape)
        start += value.numel()
    return masks


def hold(model: PreTrainedModel, masks: WeightMasks) -> list[Any]:
    """Set masked weights to zero and keep them zero: their gradients are zero from now on.

    A weight of zero whose gradient was always zero is not changed by AdamW or Adamax, weight decay
    included. Returns handles of the hooks; removing them ends it.
    """
    parameters = matrices(model)
    handles = []
    for name, mask in masks.items():
        if name not in parameters:
            continue
        weight = parameters[name]
        remaining = mask.to(weight.device)
        with torch.no_grad():
            weight.mul_(remaining)
        if weight.requires_grad:
            handles.append(weight.register_hook(_masking(remaining)))  # type: ignore[no-untyped-call]
    return handles


def hold_zeros(model: PreTrainedModel) -> list[Any]:
    """Keep the weights zero that are zero now; see :func:`hold`."""
    return hold(model, {name: value.detach() != 0 for name, value in matrices(model).items()})


def _masking(remaining: torch.Tensor) -> Any:
    return lambda gradient: gradient * remaining.to(gradient.device)


def counts(model: PreTrainedModel) -> SparsityRecord:
    """Return how many weights of the matrices are zero, of how many, and their share."""
    prunable = matrices(model).values()
    zeros = sum(int((value == 0).sum()) for value in prunable)
    of = sum(value.numel() for value in prunable)
    return SparsityRecord(share=zeros / max(of, 1), zeros=zeros, of=of)


def counted_again(record: SparsityRecord, model: PreTrainedModel) -> SparsityRecord:
    """Return a checkpoint's record with the counts of a model that was derived from it."""
    counted = counts(model)
    return record.model_copy(update={"share": counted.share, "zeros": counted.zeros, "of": counted.of})

"""Single weights set to zero: masks over matrices, of a model whose structure stays whole.

What counts are the matrices of Q, K, V, attention output and both of the FFN in every layer, and the
encoder's pooler where it has one; not embeddings, biases, norms or the task head (Chen et al. 2020,
"The Lottery Ticket Hypothesis for Pre-trained BERT Networks", section 3).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import nn
from transformers import PreTrainedModel

from effx.models import families
from effx.models.structure import structure

Masks = Mapping[str, torch.Tensor]
"""Name of a parameter -> bool tensor of its shape; False: the weight is zero."""


def matrices(model: PreTrainedModel) -> dict[str, nn.Parameter]:
    """Return the parameters that count, by their name in ``model``."""
    names = families.family(model)
    found: dict[str, nn.Parameter] = {}
    for number, (kept, layer) in enumerate(zip(structure(model).layers, families.layers(model), strict=True)):
        attention = (names.query, names.key, names.value, names.attention_output) if kept.heads else ()
        ffn = (names.ffn_in, names.ffn_out) if kept.intermediate else ()
        for path in (*attention, *ffn):
            name = f"{names.encoder}.{names.layers}.{number}.{path}.weight"
            found[name] = layer.get_parameter(f"{path}.weight")
    if names.head_dense.startswith(names.encoder + "."):
        name = f"{names.head_dense}.weight"
        if (pooler := dict(model.named_parameters()).get(name)) is not None:
            found[name] = pooler  # a model for masked language modelling has none
    return found


def smallest(weights: Mapping[str, torch.Tensor], share: float) -> dict[str, torch.Tensor]:
    """Return masks that set the floor(``share`` n) weights of smallest magnitude to zero, over all of them.

    Of equal magnitudes the first go, so that exactly so many do.
    """
    flat = np.concatenate([value.detach().cpu().numpy().ravel() for value in weights.values()])
    np.abs(flat, out=flat)
    count = int(share * len(flat) + 1e-9)  # 0.3 * 10 is 2.999...
    gone = np.zeros(len(flat), dtype=bool)
    if count:
        limit = np.partition(flat, count - 1)[count - 1]
        gone = flat < limit
        gone[np.flatnonzero(flat == limit)[: count - int(gone.sum())]] = True
    masks, start = {}, 0
    for name, value in weights.items():
        part = gone[start : start + value.numel()]
        masks[name] = torch.from_numpy(~part).reshape(value.shape)
        start += value.numel()
    return masks


def hold(model: PreTrainedModel, masks: Masks) -> list[Any]:
    """Set masked weights to zero and keep them there: their gradients are zero from now on.

    An optimizer whose step on a weight of zero is zero for a gradient that never was anything else
    (all of effx's, weight decay included) leaves them alone. Returns handles that end it.
    """
    parameters = matrices(model)
    handles = []
    for name, mask in masks.items():
        if name not in parameters:
            continue
        weight = parameters[name]
        kept = mask.to(weight.device)
        with torch.no_grad():
            weight.mul_(kept)
        if weight.requires_grad:
            handles.append(weight.register_hook(_masking(kept)))  # type: ignore[no-untyped-call]
    return handles


def hold_zeros(model: PreTrainedModel) -> list[Any]:
    """Keep the weights that are zero now at zero, as :func:`hold` does."""
    return hold(model, {name: value.detach() != 0 for name, value in matrices(model).items()})


def _masking(kept: torch.Tensor) -> Any:
    return lambda gradient: gradient * kept.to(gradient.device)


def counts(model: PreTrainedModel) -> dict[str, Any]:
    """Return how many weights of the matrices are zero, of how many, and their share, as in manifests."""
    found = matrices(model).values()
    zeros = sum(int((value == 0).sum()) for value in found)
    of = sum(value.numel() for value in found)
    return {"share": zeros / max(of, 1), "zeros": zeros, "of": of}

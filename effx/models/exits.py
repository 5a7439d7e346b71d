"""Early-exit ramps: a pooler and a linear layer of their own after some of the layers.

    ramp_j(h) = W_j act(P_j h_CLS + b) + c      DeeBERT (Xin et al. 2020), PABEE (Zhou et al. 2020)

P_j starts as a copy of the model's own pooler, W_j afresh. Ramps stand in ``model.ramps`` by the
original number of their layer, counted from 1; the last layer has the model's own head.
"""

from __future__ import annotations

import copy
from collections.abc import Iterable
from dataclasses import replace
from typing import cast

import torch
from torch import nn
from transformers import PreTrainedModel

from effx.errors import UsageError
from effx.models import families, forward
from effx.models.structure import record, structure


class Ramp(nn.Module):
    """Pooler and classifier over the first token."""

    def __init__(self, dense: nn.Linear, activation: nn.Module, dropout: float, outputs: int) -> None:
        super().__init__()
        self.dense = copy.deepcopy(dense).requires_grad_(True)
        self.activation = activation
        self.dropout = nn.Dropout(dropout)
        self.out = nn.Linear(dense.out_features, outputs, device=dense.weight.device)

    def forward(self, hidden: torch.Tensor) -> torch.Tensor:
        """Return logits [batch, outputs] for hidden states [batch, length, width]."""
        return self.out(self.dropout(self.activation(self.dense(hidden[:, 0]))))  # type: ignore[no-any-return]


def add_ramps(model: PreTrainedModel, after: Iterable[int] | None = None) -> PreTrainedModel:
    """Give ``model`` fresh ramps, in place; those it had are replaced.

    Args:
        model: a task model of a supported family.
        after: original layers, counted from 1; default: all that remain but the last.

    Raises:
        UsageError: a layer is not there, or is the last one.
    """
    kept = structure(model)
    inner = kept.numbers[:-1]
    wanted = tuple(sorted(set(inner if after is None else after)))
    if wrong := [number for number in wanted if number not in inner]:
        could = ", ".join(map(str, inner)) or "none: it has one layer"
        raise UsageError(f"no exit can stand after layer {wrong[0]}. Layers, from 1: {could}.")
    dense = model.get_submodule(families.family(model).head_dense)
    assert isinstance(dense, nn.Linear)
    _, dropout = families.dropouts(model)
    outputs = int(model.config.num_labels)
    record(model, replace(kept, exits=wanted))
    model.ramps = nn.ModuleDict(
        {str(number): Ramp(dense, forward.activation(model), dropout, outputs) for number in wanted}
    )
    for ramp in model.ramps.values():
        nn.init.normal_(ramp.out.weight, std=float(model.config.initializer_range))
        nn.init.zeros_(ramp.out.bias)
    return model


def ramp_after(model: PreTrainedModel, place: int) -> Ramp | None:
    """Return the ramp that stands after the remaining layer ``place``, if one does."""
    ramps, key = getattr(model, "ramps", {}), str(structure(model).numbers[place])
    return cast(Ramp, ramps[key]) if key in ramps else None


def depths(model: PreTrainedModel) -> list[int]:
    """Return how many layers stand before each ramp and, last, before the model's own head."""
    kept = structure(model)
    return [kept.place(number - 1) + 1 for number in kept.exits] + [len(kept.layers)]

"""Early-exit ramps: a pooler and a linear layer of their own after some of the layers.

    ramp_j(h) = W_j act(P_j pool(h) + b) + c      DeeBERT (Xin et al. 2020), PABEE (Zhou et al. 2020)

P_j starts as a copy of the model's own pooler, W_j afresh. The papers pool by taking the first
token. Here the mean of the real tokens is the default: in encoders whose first token was never
trained in the lower layers (sentence encoders, for one) it hardly differs from row to row, and a
ramp on it learns nothing. ``cls`` is the papers' way.

Ramps stand in ``model.ramps`` by the original number of their layer, counted from 1; the last
layer has the model's own head.
"""

from __future__ import annotations

import copy
from collections.abc import Iterable
from dataclasses import replace
from typing import cast

import torch
from torch import nn
from transformers import PreTrainedModel

from effx.artifacts import Checkpoint
from effx.errors import UsageError, unknown
from effx.models import families, forward
from effx.models.structure import record, structure
from effx.specs.exit_rules import ExitRule

POOLINGS = ("mean", "cls")


class Ramp(nn.Module):
    """Pooler and classifier over the hidden states after one layer."""

    def __init__(
        self, dense: nn.Linear, activation: nn.Module, dropout: float, outputs: int, pooling: str
    ) -> None:
        super().__init__()
        self.pooling = pooling
        self.dense = copy.deepcopy(dense).requires_grad_(True)
        self.activation = activation
        self.dropout = nn.Dropout(dropout)
        self.out = nn.Linear(dense.out_features, outputs, device=dense.weight.device)

    def forward(self, hidden: torch.Tensor, alive: torch.Tensor) -> torch.Tensor:
        """Return logits [batch, outputs].

        Args:
            hidden: [batch, length, width] after the layer.
            alive: bool [batch, length]; False for padding and dropped tokens.
        """
        if self.pooling == "cls":
            pooled = hidden[:, 0]
        else:
            real = alive[..., None].to(hidden.dtype)
            pooled = (hidden * real).sum(1) / real.sum(1)
        return self.out(self.dropout(self.activation(self.dense(pooled))))  # type: ignore[no-any-return]


def add_ramps(
    model: PreTrainedModel, after: Iterable[int] | None = None, *, pooling: str = "mean"
) -> PreTrainedModel:
    """Give ``model`` fresh ramps, in place; those it had are replaced.

    Args:
        model: a task model of a supported family.
        after: original layers, counted from 1; default: all that remain but the last.
        pooling: ``mean`` of the real tokens, or ``cls``.

    Raises:
        UsageError: a layer is not there, or is the last one; the pooling is unknown.
    """
    if families.answers_spans(model):
        raise UsageError("exits are for classification and regression, not for question answering.")
    if pooling not in POOLINGS:
        raise unknown("pooling", pooling, POOLINGS)
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
    record(model, replace(kept, exits=wanted, exit_pooling=pooling))
    model.ramps = nn.ModuleDict(
        {str(number): Ramp(dense, forward.activation(model), dropout, outputs, pooling) for number in wanted}
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


def rule_of(checkpoint: Checkpoint) -> ExitRule:
    """Return the exit rule that a checkpoint was calibrated with.

    Raises:
        UsageError: it has no exits.
    """
    value = checkpoint.manifest.get("exits")
    if not value:
        raise UsageError(
            f"{checkpoint.folder} has no exits. Make some with: effx train exits {checkpoint.folder}"
        )
    return ExitRule.from_json(value)

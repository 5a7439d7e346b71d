"""Early-exit ramps: a pooler and a classifier after some of the layers.

    ramp_j(h) = W_j act(P_j pool(h) + b) + c      DeeBERT (Xin et al. 2020), PABEE (Zhou et al. 2020)

P_j starts as a copy of the task head's pooler, W_j with random weights. The papers pool by taking the
first token (``cls``). Here the mean of the real tokens is the default: in encoders whose first token was
not trained in the lower layers, such as sentence encoders, it hardly differs between rows, and a ramp
on it learns nothing.

``model.ramps`` has the ramps by the original number of their layer, counted from 1; the last layer is
followed by the task head.
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
from effx.models import families
from effx.models.stream import Stream
from effx.models.structure import record, structure
from effx.specs.exit_rules import ExitRule
from effx.specs.training import POOLINGS


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

    def forward(self, hidden: torch.Tensor, token_mask: torch.Tensor) -> torch.Tensor:
        """Return logits [batch, outputs].

        Args:
            hidden: [batch, length, width] after the layer.
            token_mask: bool [batch, length]; False for padding and dropped tokens.
        """
        if self.pooling == "cls":
            pooled = hidden[:, 0]
        else:
            real = token_mask[..., None].float()  # in fp16, a sum over 2,048 tokens stops to grow
            pooled = ((hidden.float() * real).sum(1) / real.sum(1)).to(hidden.dtype)
        return self.out(self.dropout(self.activation(self.dense(pooled))))  # type: ignore[no-any-return]


def add_ramps(
    model: PreTrainedModel, after: Iterable[int] | None = None, *, pooling: str = "mean"
) -> PreTrainedModel:
    """Add new ramps to ``model``, in place; existing ramps are replaced.

    Args:
        model: a task model of a supported family.
        after: original layers, counted from 1; default: all remaining layers but the last.
        pooling: ``mean`` of the real tokens, or ``cls``.

    Raises:
        UsageError: a layer is not in the model or is the last; the pooling is unknown; every token has
            logits.
    """
    family = families.of(model)
    if family.answers_spans(model) or family.tags_tokens(model):
        raise UsageError("exits decide on one prediction per row, and this model has logits for every token.")
    if family.embeds(model):
        raise UsageError("exits decide on a prediction, and this model has a vector.")
    if pooling not in POOLINGS:
        raise unknown("pooling", pooling, POOLINGS)
    remaining = structure(model)
    inner = remaining.numbers[:-1]
    numbers = tuple(sorted(set(inner if after is None else after)))
    if wrong := [number for number in numbers if number not in inner]:
        possible = ", ".join(map(str, inner)) or "none: the model has one layer"
        raise UsageError(
            f"layer {wrong[0]} cannot have an exit. Possible layers, from 1: {possible}", settings="after"
        )
    dense, dropout = family.pooler(model), family.hidden_dropout(model)
    outputs = int(model.config.num_labels)
    record(model, replace(remaining, exits=numbers, exit_pooling=pooling))
    model.ramps = nn.ModuleDict(
        {
            str(number): Ramp(dense, family.pooler_activation(model), dropout, outputs, pooling)
            for number in numbers
        }
    )
    for ramp in model.ramps.values():
        nn.init.normal_(ramp.out.weight, std=float(model.config.initializer_range))
        nn.init.zeros_(ramp.out.bias)
    return model


def answer(model: PreTrainedModel, ramp: Ramp, stream: Stream) -> torch.Tensor:
    """Return a ramp's logits [batch, outputs] for the output of its layer."""
    finished: torch.Tensor = families.of(model).finish(model, stream.hidden)
    return cast(torch.Tensor, ramp(finished, stream.token_mask))


def ramp_after(model: PreTrainedModel, position: int) -> Ramp | None:
    """Return the ramp after the remaining layer at ``position``, if there is one."""
    ramps, key = getattr(model, "ramps", {}), str(structure(model).numbers[position])
    return cast(Ramp, ramps[key]) if key in ramps else None


def depths(model: PreTrainedModel) -> list[int]:
    """Return the number of layers before each ramp and, last, before the task head."""
    remaining = structure(model)
    return [remaining.position(number - 1) + 1 for number in remaining.exits] + [len(remaining.layers)]


def rule_of(checkpoint: Checkpoint) -> ExitRule:
    """Return the exit rule that a checkpoint was calibrated with.

    Raises:
        UsageError: it has none.
    """
    exits = checkpoint.manifest.exits
    if exits is None:
        raise UsageError(
            f"{checkpoint.folder} has no exits. Train them with: effx train exits {checkpoint.folder}"
        )
    return exits.rule

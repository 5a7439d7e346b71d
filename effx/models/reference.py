"""The reference for reductions that act as the model runs: early exit and token pruning.

    embed -> layer 1 -> ramp? who leaves leaves -> layer 2 -> ...
             attention, LN1 -> tokens that leave are cut out -> FFN, LN2

Rows that exit and tokens that are dropped are really gone from the tensors of what follows, so the
time this takes is the time they save. Every row is treated as if it were alone.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from transformers import PreTrainedModel

from effx.errors import UsageError
from effx.models import exits, families, forward, tokens
from effx.models.structure import structure
from effx.specs.exit_rules import ExitRule


@dataclass(frozen=True)
class Inference:
    """What a batch of rows came to."""

    logits: torch.Tensor
    """[batch, outputs]"""
    depth: torch.Tensor
    """int64 [batch]; layers that each row ran through."""
    tokens: torch.Tensor
    """int64 [batch, layers]; tokens of each row in each layer's FFN, 0 where it did not get to."""


def layer(model: PreTrainedModel, place: int, stream: forward.Stream, *, prune: bool) -> forward.Stream:
    """Run one of the remaining layers, dropping tokens by the model's schedule if ``prune``."""
    kept = structure(model)
    dropping = prune and tokens.drops(kept, place)
    stream, probabilities = forward.attend(model, place, stream, explicit=dropping)
    if dropping:
        assert probabilities is not None
        stream = tokens.drop(kept, place, stream, probabilities)
    return forward.feed(model, place, stream)


@torch.inference_mode()
def infer(
    model: PreTrainedModel,
    inputs: dict[str, torch.Tensor],
    *,
    rule: ExitRule | None = None,
    prune_tokens: bool = True,
) -> Inference:
    """Run a batch with early exit and token pruning, as the model's structure has them.

    Args:
        model: a task model, in eval mode.
        inputs: input_ids, attention_mask and, where the family takes them, token_type_ids, each
            int64 [batch, length].
        rule: when rows leave; None: nobody does.
        prune_tokens: follow the model's token schedule, if it has one.

    Raises:
        UsageError: a rule is given and the model has no ramps.
    """
    kept = structure(model)
    if rule is not None and not kept.exits:
        raise UsageError("this model has no exits. Make some with: effx train exits CHECKPOINT")
    layers = len(families.layers(model))
    stream = forward.embed(model, inputs)
    n = len(stream.alive)
    rows = torch.arange(n, device=stream.alive.device)
    logits = stream.hidden.new_empty((n, model.config.num_labels))
    depth = torch.full((n,), layers, device=rows.device)
    used = torch.zeros((n, layers), dtype=torch.int64, device=rows.device)
    state = rule.start(n) if rule else None
    for place in range(layers):
        stream = layer(model, place, stream, prune=prune_tokens)
        used[rows, place] = stream.alive.sum(1)
        ramp = exits.ramp_after(model, place)
        if rule is None or state is None or ramp is None:
            continue
        out = ramp(stream.hidden, stream.alive)
        state, leaves = rule.step(state, out.float().cpu().numpy())
        if not leaves.any():
            continue
        now = torch.from_numpy(leaves).to(rows.device)
        logits[rows[now]], depth[rows[now]] = out[now], place + 1
        rows, state = rows[~now], state.rows(~leaves)
        if not len(rows):
            return Inference(logits, depth, used)
        stream = stream.rows(~now)
    logits[rows] = forward.head(model, stream.hidden)
    return Inference(logits, depth, used)


@torch.inference_mode()
def all_heads(
    model: PreTrainedModel, inputs: dict[str, torch.Tensor], *, prune_tokens: bool = True
) -> torch.Tensor:
    """Return what every ramp and, last, the model's own head say: [heads, batch, outputs]."""
    return torch.stack(heads_of(model, inputs, prune_tokens=prune_tokens))


def heads_of(
    model: PreTrainedModel, inputs: dict[str, torch.Tensor], *, prune_tokens: bool = True
) -> list[torch.Tensor]:
    """Return the logits of every ramp and of the model's own head, with gradients."""
    stream = forward.embed(model, inputs)
    outs = []
    for place in range(len(families.layers(model))):
        stream = layer(model, place, stream, prune=prune_tokens)
        if (ramp := exits.ramp_after(model, place)) is not None:
            outs.append(ramp(stream.hidden, stream.alive))
    return [*outs, forward.head(model, stream.hidden)]

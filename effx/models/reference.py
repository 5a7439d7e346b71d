"""The reference for reductions that act while the model runs: early exit and token pruning.

    embed -> layer 1 -> ramp: rows may exit -> layer 2 -> ...
             attention, LN1 -> tokens may be dropped -> FFN, LN2

Rows that exit and tokens that are dropped are removed from the tensors, so that this run time shows
what they save. Results of a row do not depend on the other rows of the batch.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from transformers import PreTrainedModel

from effx.errors import UsageError
from effx.models import exits, forward, tokens
from effx.models.stream import Stream
from effx.models.structure import structure
from effx.specs.exit_rules import ExitRule


@dataclass(frozen=True)
class Inference:
    """Results of a batch of rows."""

    logits: torch.Tensor
    """[batch, outputs]"""
    depth: torch.Tensor
    """int64 [batch]; layers that were run for each row."""
    tokens: torch.Tensor
    """int64 [batch, layers]; tokens of each row in each layer's FFN; 0 after the row's exit."""


def layer(model: PreTrainedModel, position: int, stream: Stream, *, prune: bool) -> Stream:
    """Run one of the remaining layers, dropping tokens by the model's schedule if ``prune``."""
    remaining = structure(model)
    dropping = prune and tokens.drops(remaining, position)
    stream, probabilities = forward.attend(model, position, stream, explicit=dropping)
    if dropping:
        assert probabilities is not None
        stream = tokens.drop(remaining, position, stream, probabilities)
    return forward.feed(model, position, stream)


@torch.inference_mode()
def infer(
    model: PreTrainedModel,
    inputs: dict[str, torch.Tensor],
    *,
    rule: ExitRule | None = None,
    prune_tokens: bool = True,
) -> Inference:
    """Run a batch with the early exits and token pruning of the model's structure.

    Args:
        model: a task model, in eval mode.
        inputs: input_ids, attention_mask and, where the family takes them, token_type_ids, each
            int64 [batch, length].
        rule: decides when rows exit; None: no row does.
        prune_tokens: follow the model's token schedule, if it has one.

    Raises:
        UsageError: a rule is given and the model has no ramps.
    """
    remaining = structure(model)
    if rule is not None and not remaining.exits:
        raise UsageError("this model has no exits. Train them with: effx train exits CHECKPOINT")
    layers = len(remaining.layers)
    stream = forward.embed(model, inputs)
    n = len(stream.token_mask)
    rows = torch.arange(n, device=stream.token_mask.device)
    logits = stream.hidden.new_empty((n, model.config.num_labels))
    depth = torch.full((n,), layers, device=rows.device)
    used = torch.zeros((n, layers), dtype=torch.int64, device=rows.device)
    state = rule.start(n) if rule else None
    for position in range(layers):
        stream = layer(model, position, stream, prune=prune_tokens)
        used[rows, position] = stream.token_mask.sum(1)
        ramp = exits.ramp_after(model, position)
        if rule is None or state is None or ramp is None:
            continue
        out = exits.answer(model, ramp, stream)
        state, leaves = rule.step(state, out.float().cpu().numpy())
        if not leaves.any():
            continue
        now = torch.from_numpy(leaves).to(rows.device)
        logits[rows[now]], depth[rows[now]] = out[now], position + 1
        rows, state = rows[~now], state.rows(~leaves)
        if not len(rows):
            return Inference(logits, depth, used)
        stream = stream.rows(~now)
    logits[rows] = forward.head(model, stream)
    return Inference(logits, depth, used)


@torch.inference_mode()
def all_heads(
    model: PreTrainedModel, inputs: dict[str, torch.Tensor], *, prune_tokens: bool = True
) -> torch.Tensor:
    """Return the logits of every ramp and, last, of the task head: [heads, batch, outputs]."""
    return torch.stack(heads_of(model, inputs, prune_tokens=prune_tokens))


def heads_of(
    model: PreTrainedModel, inputs: dict[str, torch.Tensor], *, prune_tokens: bool = True
) -> list[torch.Tensor]:
    """Return the logits [batch, outputs] of every ramp and, last, of the task head, with gradients."""
    stream = forward.embed(model, inputs)
    outs = []
    for position in range(len(structure(model).layers)):
        stream = layer(model, position, stream, prune=prune_tokens)
        if (ramp := exits.ramp_after(model, position)) is not None:
            outs.append(exits.answer(model, ramp, stream))
    return [*outs, forward.head(model, stream)]

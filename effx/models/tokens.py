"""Token pruning: which tokens are dropped between a layer's LN1 and its FFN.

The score of a token is the attention that it receives, averaged over the layer's heads and over the
real queries; padding tokens are neither queries nor keys. CLS always remains, and the remaining tokens
keep their order, so that later layers process shorter sequences. Two rules:

    share        layer j keeps the ceil(r_j n) highest of an input's n tokens    PoWER-BERT, Goyal et al. 2020
    threshold    layer j keeps the tokens with score >= theta_j                  LTP, Kim et al. 2022

n is the length of the row without padding, so a row keeps the same tokens in any batch and with any
padding. Shares are rounded to thousandths, and ceil is computed with integers, so that 0.7 of 10 tokens
is 7 in every runtime. Equal scores are ranked by position, as by ONNX's TopK.

A layer without heads has no scores and drops nothing; the next layer with heads drops more instead.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch
from transformers import PreTrainedModel

from effx.errors import UsageError
from effx.models import families
from effx.models.stream import Stream
from effx.models.structure import record, structure
from effx.specs.tokens import check_shares
from effx.structure import Structure

_PARTS = 1000  # shares are rounded to thousandths


def schedule(
    model: PreTrainedModel,
    *,
    shares: Sequence[float] | None = None,
    thresholds: Sequence[float] | None = None,
) -> PreTrainedModel:
    """Set the token schedule of ``model``, one number per remaining layer; without numbers remove it.

    The schedule acts in :func:`effx.models.infer`; the forward pass of transformers keeps all tokens.

    Args:
        model: a task model of a supported family.
        shares: of the input's tokens, 0 < r <= 1, not increasing from layer to layer.
        thresholds: minimum mean attention, from 0 (drop nothing) to 1.

    Raises:
        UsageError: both are given, or a number is missing, out of range or a share increases; or every token
            has logits.
    """
    family = families.of(model)
    if (shares or thresholds) and (family.answers_spans(model) or family.tags_tokens(model)):
        raise UsageError("token pruning drops tokens, and this model has logits for every token.")
    layers = len(structure(model).layers)
    if shares is not None and thresholds is not None:
        raise UsageError("a token schedule has shares or thresholds: give one of them.")
    for what, values in (("shares", shares), ("thresholds", thresholds)):
        if values is not None and len(values) != layers:
            raise UsageError(
                f"token {what}: expected {layers} numbers, one per layer, got {len(values)}.",
                settings="schedule",
            )
    if shares is not None:
        shares = [round(share, 3) for share in shares]
        check_shares(shares)
    if thresholds is not None and not all(0 <= value <= 1 for value in thresholds):
        raise UsageError("token thresholds: expected numbers from 0 to 1.", settings="schedule")
    remaining = replace(
        structure(model),
        tokens=None if shares is None else tuple(shares),
        token_thresholds=None if thresholds is None else tuple(thresholds),
    )
    record(model, remaining)
    return model


def drops(remaining: Structure, position: int) -> bool:
    """Whether the remaining layer at ``position`` drops tokens, so that it must compute scores."""
    if not remaining.layers[position].heads:
        return False
    if remaining.token_thresholds is not None:
        return remaining.token_thresholds[position] > 0
    if remaining.tokens is None:
        return False
    before = [remaining.tokens[i] for i in range(position) if remaining.layers[i].heads]
    return remaining.tokens[position] < (before[-1] if before else 1.0)


def scores(probabilities: torch.Tensor, token_mask: torch.Tensor) -> torch.Tensor:
    """Return the attention that each token receives, [batch, length].

    Args:
        probabilities: [batch, heads, queries, keys], rows of softmax.
        token_mask: bool [batch, length]; padding and dropped tokens are neither queries nor keys.
    """
    real = token_mask.to(probabilities.dtype)
    received = (probabilities.mean(1) * real[:, :, None]).sum(1) / real.sum(1, keepdim=True)
    return received * real


def counts(lengths: torch.Tensor, share: float) -> torch.Tensor:
    """Return ceil(share * lengths), int64 [batch]; at least 1 for lengths of at least 1."""
    return (lengths * round(share * _PARTS) + _PARTS - 1) // _PARTS


def keep_share(stream: Stream, received: torch.Tensor, share: float) -> Stream:
    """Return the tokens of each row with the highest scores; rows with fewer tokens are padded."""
    count = torch.minimum(counts(stream.lengths, share), stream.token_mask.sum(1))
    ranked = received.masked_fill(~stream.token_mask, -1.0)
    first = torch.arange(ranked.shape[1], device=ranked.device) == 0
    ranked = torch.where(first, 2.0, ranked)  # CLS: above any mean attention
    if torch.compiler.is_exporting():  # a width that depends on shapes alone
        width = (stream.width * round(share * _PARTS) + _PARTS - 1) // _PARTS
    else:
        width = int(count.max())
    order = _descending(ranked)[:, :width]
    token_mask = torch.arange(width, device=order.device) < count[:, None]
    order, ranks = order.sort(dim=1)
    return stream.take(order, token_mask.gather(1, ranks))


def keep_above(stream: Stream, received: torch.Tensor, threshold: float) -> Stream:
    """Return the tokens of each row that receive at least ``threshold`` attention."""
    first = torch.arange(received.shape[1], device=received.device) == 0
    token_mask = (stream.token_mask & (received >= threshold)) | first
    width = int(token_mask.sum(1).max().item())
    order = _descending(token_mask.float())[:, :width]
    return stream.take(order, token_mask.gather(1, order))


def _descending(values: torch.Tensor) -> torch.Tensor:
    """Return the descending order of each row, equal values by position."""
    if torch.compiler.is_exporting():  # ONNX has no sort; its TopK keeps equal values in order
        return values.topk(values.shape[1], dim=1).indices
    return values.sort(dim=1, descending=True, stable=True).indices


def drop(remaining: Structure, position: int, stream: Stream, probabilities: torch.Tensor) -> Stream:
    """Apply the schedule of ``remaining`` in the remaining layer at ``position``."""
    received = scores(probabilities, stream.token_mask)
    if remaining.token_thresholds is not None:
        return keep_above(stream, received, remaining.token_thresholds[position])
    assert remaining.tokens is not None
    return keep_share(stream, received, remaining.tokens[position])

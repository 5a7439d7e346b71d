"""Token pruning: which tokens go on, between a layer's LN1 and its FFN.

The score of a token is the attention that it receives, averaged over the layer's heads and over
the real queries: padding asks nothing and receives nothing. CLS always stays, and the kept tokens
keep their order, so the last layers work on short sequences. Two rules:

    share        layer j keeps the ceil(r_j n) best of an input of n tokens      PoWER-BERT, Goyal et al. 2020
    threshold    layer j keeps the tokens with score >= theta_j                  LTP, Kim et al. 2022

n is the row's own length, so a row keeps the same tokens in any batch and under any padding.
Shares are whole thousandths, and ceil is taken in integers: 0.7 of 10 tokens is 7 everywhere.
Equal scores are ranked by position, as ONNX's TopK does.

A layer without heads has no scores: it drops nothing, and the next layer with heads catches up.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch
from transformers import PreTrainedModel

from effx.errors import UsageError
from effx.models.forward import Stream
from effx.models.structure import Structure, record, structure
from effx.specs.training import check_shares

_PARTS = 1000  # shares are whole thousandths


def schedule(
    model: PreTrainedModel,
    *,
    shares: Sequence[float] | None = None,
    thresholds: Sequence[float] | None = None,
) -> PreTrainedModel:
    """Give ``model`` a token schedule, one number per remaining layer; neither: take it away.

    The schedule acts in :func:`effx.models.infer`; the model's own forward pass keeps all tokens.

    Args:
        model: a task model of a supported family.
        shares: of the input's tokens, 0 < r <= 1, not rising from layer to layer.
        thresholds: least mean attention, from 0 (drop nothing) to 1.

    Raises:
        UsageError: both are given, or a number is missing, out of range or rising.
    """
    layers = len(structure(model).layers)
    if shares is not None and thresholds is not None:
        raise UsageError("tokens are kept by share or by threshold: give one of them.")
    for what, values in (("shares", shares), ("thresholds", thresholds)):
        if values is not None and len(values) != layers:
            raise UsageError(f"token {what}: {len(values)} given, but the model has {layers} layers.")
    if shares is not None:
        shares = [round(share, 3) for share in shares]
        check_shares(shares)
    if thresholds is not None and not all(0 <= value <= 1 for value in thresholds):
        raise UsageError("token thresholds go from 0 to 1.")
    kept = replace(
        structure(model),
        tokens=None if shares is None else tuple(shares),
        token_thresholds=None if thresholds is None else tuple(thresholds),
    )
    record(model, kept)
    return model


def drops(kept: Structure, place: int) -> bool:
    """Whether tokens leave in the remaining layer ``place``, so that it must compute scores."""
    if not kept.layers[place].heads:
        return False
    if kept.token_thresholds is not None:
        return kept.token_thresholds[place] > 0
    if kept.tokens is None:
        return False
    before = [kept.tokens[i] for i in range(place) if kept.layers[i].heads]
    return kept.tokens[place] < (before[-1] if before else 1.0)


def scores(probabilities: torch.Tensor, alive: torch.Tensor) -> torch.Tensor:
    """Return the attention that each token receives, [batch, length].

    Args:
        probabilities: [batch, heads, queries, keys], rows of softmax.
        alive: bool [batch, length]; padding and dropped tokens count neither as query nor as key.
    """
    real = alive.to(probabilities.dtype)
    received = (probabilities.mean(1) * real[:, :, None]).sum(1) / real.sum(1, keepdim=True)
    return received * real


def counts(lengths: torch.Tensor, share: float) -> torch.Tensor:
    """Return ceil(share * lengths), int64 [batch]; at least 1 for lengths of at least 1."""
    return (lengths * round(share * _PARTS) + _PARTS - 1) // _PARTS


def keep_share(stream: Stream, received: torch.Tensor, share: float) -> Stream:
    """Cut the stream to the best tokens of each row; rows that keep fewer than others are padded."""
    count = torch.minimum(counts(stream.lengths, share), stream.alive.sum(1))
    ranked = received.masked_fill(~stream.alive, -1.0)
    first = torch.arange(ranked.shape[1], device=ranked.device) == 0
    ranked = torch.where(first, 2.0, ranked)  # CLS: above any share of attention
    if torch.compiler.is_exporting():  # a width that follows from shapes alone
        width = (stream.width * round(share * _PARTS) + _PARTS - 1) // _PARTS
    else:
        width = int(count.max())
    order = _descending(ranked)[:, :width]
    alive = torch.arange(width, device=order.device) < count[:, None]
    order, places = order.sort(dim=1)
    return stream.take(order, alive.gather(1, places))


def keep_above(stream: Stream, received: torch.Tensor, threshold: float) -> Stream:
    """Cut the stream to the tokens that receive enough attention."""
    first = torch.arange(received.shape[1], device=received.device) == 0
    alive = (stream.alive & (received >= threshold)) | first
    width = int(alive.sum(1).max().item())
    order = _descending(alive.float())[:, :width]
    return stream.take(order, alive.gather(1, order))


def _descending(values: torch.Tensor) -> torch.Tensor:
    """Return the order of each row, largest first, equal ones by position."""
    if torch.compiler.is_exporting():  # ONNX has no sort; its TopK keeps equal values in order
        return values.topk(values.shape[1], dim=1).indices
    return values.sort(dim=1, descending=True, stable=True).indices


def drop(kept: Structure, place: int, stream: Stream, probabilities: torch.Tensor) -> Stream:
    """Apply the schedule of ``kept`` in the remaining layer ``place``."""
    received = scores(probabilities, stream.alive)
    if kept.token_thresholds is not None:
        return keep_above(stream, received, kept.token_thresholds[place])
    assert kept.tokens is not None
    return keep_share(stream, received, kept.tokens[place])

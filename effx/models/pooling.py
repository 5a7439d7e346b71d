"""What the task head reads: the first token, or the mean of the real tokens.

Heads of transformers read the first position of the last layer's output. With pooling ``mean`` that position
is replaced by the mean over all tokens except padding and dropped ones, so that the head's modules stay what
they are. Encoders for sentence embeddings are usually trained so (Reimers and Gurevych 2019, Sentence-BERT,
section 3); their first token says little.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch
from torch import nn
from transformers import PreTrainedModel

from effx.errors import UsageError, unknown
from effx.models import families
from effx.models.structure import record, structure
from effx.specs.training import POOLINGS

_MASK = "effx_token_mask"


def set_pooling(model: PreTrainedModel, pooling: str) -> None:
    """Set what the task head of ``model`` reads, in place: ``cls`` or ``mean``.

    Raises:
        UsageError: the pooling is unknown, or the head answers per token.
    """
    if pooling not in POOLINGS:
        raise unknown("pooling", pooling, POOLINGS)
    remaining = structure(model)
    if pooling != remaining.head_pooling:
        family = families.of(model)
        if family.answers_spans(model) or family.tags_tokens(model):
            raise UsageError("a head that answers for every token has no pooling.", settings="head_pooling")
        record(model, replace(remaining, head_pooling=pooling))
    follow(model)  # also if only the structure had it


def follow(model: PreTrainedModel) -> None:
    """Let the model's forward pass follow the pooling of its structure; what was set before stays."""
    pooling, family = structure(model).head_pooling, families.of(model)
    if family.set_head_pooling(model, pooling):
        return
    if pooling == "cls" or getattr(model, "effx_pools", False):
        return
    model.effx_pools = True
    model.register_forward_pre_hook(_remember_mask, with_kwargs=True)
    for module in family.pooled_modules(model):
        module.register_forward_hook(_pool)


def pooled(model: PreTrainedModel, hidden: torch.Tensor, token_mask: torch.Tensor) -> torch.Tensor:
    """Return the last layer's output [batch, positions, width] as the head reads it: at its first position.

    Args:
        model: its structure has the pooling.
        hidden: output of the last layer.
        token_mask: bool [batch, length]; False for padding and dropped tokens.
    """
    return hidden if structure(model).head_pooling == "cls" else _mean(hidden, token_mask)


def _mean(hidden: torch.Tensor, token_mask: torch.Tensor) -> torch.Tensor:
    """Return the mean of the real tokens [batch, 1, width], computed in float32."""
    real = token_mask[..., None].float()
    return ((hidden.float() * real).sum(1, keepdim=True) / real.sum(1, keepdim=True)).to(hidden.dtype)


def _with_mean(hidden: torch.Tensor, token_mask: torch.Tensor) -> torch.Tensor:
    """Return hidden states with the mean of the real tokens at the first position."""
    return torch.cat([_mean(hidden, token_mask), hidden[:, 1:]], dim=1)


def _remember_mask(model: PreTrainedModel, arguments: tuple[Any, ...], named: dict[str, Any]) -> None:
    """Give the last layer the mask of the pass that begins; other layers do not pool."""
    ids = named.get("input_ids", arguments[0] if arguments else None)
    mask = named.get("attention_mask", arguments[1] if len(arguments) > 1 else None)
    modules = families.of(model).pooled_modules(model)
    for module in modules:
        setattr(module, _MASK, None)
    if structure(model).head_pooling == "mean":
        assert ids is not None
        setattr(modules[-1], _MASK, torch.ones_like(ids) if mask is None else mask)


def _pool(layer: nn.Module, _: object, output: Any) -> Any:
    mask = getattr(layer, _MASK, None)
    if mask is None:
        return None
    setattr(layer, _MASK, None)  # of this pass alone
    if isinstance(output, tuple):
        return (_with_mean(output[0], mask), *output[1:])
    return _with_mean(output, mask)

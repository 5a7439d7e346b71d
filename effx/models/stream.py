"""A task model's forward pass, layer by layer, written out as in the equations.

    a = LN1(x + dropout(concat_h(dropout(softmax(Q_h K_h^T / sqrt(d) + mask)) V_h) W_O + b_O))
    y = LN2(a + dropout(W2 act(W1 a + b1) + b2))

The weights are those of the Hugging Face model, called module by module, so masks act here too;
without reductions the logits are those of its own forward pass. Early exit and token pruning
need the pass in pieces: rows leave between layers, tokens between attention and FFN.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterator
from contextvars import ContextVar
from dataclasses import dataclass, replace
from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812 - the name everybody knows
from torch import nn
from transformers import PreTrainedModel
from transformers.activations import ACT2FN

from effx.models import families
from effx.models.structure import structure

_FUSED: ContextVar[bool] = ContextVar("fused", default=False)


@dataclass(frozen=True)
class Stream:
    """What flows from layer to layer."""

    hidden: torch.Tensor
    """[batch, length, width]"""
    alive: torch.Tensor
    """bool [batch, length]; False: padding, or a token that was dropped but not cut out."""
    lengths: torch.Tensor
    """int64 [batch]; tokens of the input, padding not counted."""
    positions: torch.Tensor
    """int64 [batch, length]; where the tokens stood in the input."""
    width: int
    """Length of the input's tensors, padding counted."""
    bias: torch.Tensor | None = None
    """[batch or 1, heads, length, length]; relative position bias of families that have one."""

    def rows(self, keep: torch.Tensor) -> Stream:
        """Return some of the rows (bool [batch]), cut to the longest of them."""
        alive = self.alive[keep]
        width = int(alive.any(0).nonzero().max()) + 1
        bias = self.bias
        if bias is not None:
            bias = (bias if bias.shape[0] == 1 else bias[keep])[:, :, :width, :width]
        return Stream(
            self.hidden[keep, :width],
            alive[:, :width],
            self.lengths[keep],
            self.positions[keep, :width],
            self.width,
            bias,
        )

    def take(self, indices: torch.Tensor, alive: torch.Tensor) -> Stream:
        """Return the tokens at ``indices`` [batch, kept] of each row; ``alive`` is theirs."""
        width = self.hidden.shape[-1]
        bias = self.bias
        if bias is not None:
            bias = bias.expand(indices.shape[0], -1, -1, -1)
            n, heads = bias.shape[:2]
            kept = indices.shape[1]
            rows = indices[:, None, :, None].expand(n, heads, kept, bias.shape[3])
            columns = indices[:, None, None, :].expand(n, heads, kept, kept)
            bias = bias.gather(2, rows).gather(3, columns)
        return Stream(
            self.hidden.gather(1, indices[..., None].expand(-1, -1, width)),
            alive,
            self.lengths,
            self.positions.gather(1, indices),
            self.width,
            bias,
        )


def embed(model: PreTrainedModel, inputs: dict[str, torch.Tensor]) -> Stream:
    """Return what enters the first layer.

    Args:
        model: a task model of a supported family.
        inputs: input_ids, attention_mask and, where the family takes them, token_type_ids, each
            int64 [batch, length]; rows may be padded on the right.
    """
    names = families.family(model)
    ids, mask = inputs["input_ids"], inputs["attention_mask"]
    first, *rest = families.embeddings(model)
    more = {"token_type_ids": inputs["token_type_ids"]} if names.token_types else {}
    hidden = first(input_ids=ids, **more)
    for module in rest:
        hidden = module(hidden)
    positions = torch.arange(ids.shape[1], device=ids.device).expand(ids.shape)
    return with_bias(model, Stream(hidden, mask.bool(), mask.sum(1), positions, ids.shape[1]))


def with_bias(model: PreTrainedModel, stream: Stream) -> Stream:
    """Return the stream with its family's relative position bias, for tokens not dropped yet."""
    path = families.family(model).position_bias
    if path is None:
        return stream
    module = families.encoder(model).get_submodule(path)
    return replace(stream, bias=module.compute_position_bias(stream.hidden[:1]))  # type: ignore[operator]


@contextlib.contextmanager
def fused_attention(wanted: bool) -> Iterator[None]:
    """Within it exported programs keep attention as one operation, for runtimes that have a kernel for it."""
    token = _FUSED.set(wanted)
    try:
        yield
    finally:
        _FUSED.reset(token)


def attend(
    model: PreTrainedModel, place: int, stream: Stream, *, explicit: bool = False
) -> tuple[Stream, torch.Tensor | None]:
    """Run the attention half of a layer, LN1 included.

    Args:
        model: the task model.
        place: which of the remaining layers, from 0.
        stream: what enters the layer.
        explicit: compute the probabilities, and return them; they cost a fused kernel.

    Returns:
        The stream, and probabilities [batch, heads, length, length] if they were asked for and
        the layer has a head.
    """
    names, layer = families.family(model), families.layers(model)[place]
    heads = structure(model).layers[place].heads
    drop_probabilities, drop_hidden = families.dropouts(model) if model.training else (0.0, 0.0)
    x, probabilities = stream.hidden, None
    if heads:
        shape = (*x.shape[:2], len(heads), families.head_size(model))
        query, key, value = (
            layer.get_submodule(path)(x).unflatten(2, shape[2:]).transpose(1, 2)
            for path in (names.query, names.key, names.value)
        )
        mask = _mask(stream, heads, query.dtype)
        if explicit or (torch.compiler.is_exporting() and not _FUSED.get()):
            # the scale goes to the query alone: length x size products less than on the scores
            scores = (query / math.sqrt(shape[-1])) @ key.transpose(2, 3)
            probabilities = (scores if mask is None else scores + mask).softmax(-1)
            context = F.dropout(probabilities, drop_probabilities) @ value
        else:
            context = F.scaled_dot_product_attention(
                query, key, value, attn_mask=mask, dropout_p=drop_probabilities
            )
        context = context.transpose(1, 2).flatten(2)
    else:
        context = x  # what stands in for W_O gives b_O and looks at the shape alone
    output = layer.get_submodule(names.attention_output)(context)
    a = layer.get_submodule(names.attention_norm)(x + F.dropout(output, drop_hidden))
    return replace(stream, hidden=a), probabilities


def _mask(stream: Stream, heads: tuple[int, ...], dtype: torch.dtype) -> torch.Tensor | None:
    """Return what is added to the scores, [batch, heads or 1, length or 1, length]; None: nothing."""
    mask = None
    if torch.compiler.is_exporting() or not bool(stream.alive.all()):
        zeros = torch.zeros_like(stream.alive, dtype=dtype)
        mask = zeros.masked_fill(~stream.alive, torch.finfo(dtype).min)[:, None, None, :]
    if stream.bias is None:
        return mask
    bias = stream.bias[:, list(heads)].to(dtype)
    return bias if mask is None else mask + bias


def feed(model: PreTrainedModel, place: int, stream: Stream) -> Stream:
    """Run the FFN half of a layer, LN2 included."""
    names, layer = families.family(model), families.layers(model)[place]
    a = stream.hidden
    if structure(model).layers[place].intermediate:
        inner = layer.get_submodule(names.activation)(layer.get_submodule(names.ffn_in)(a))
        output = layer.get_submodule(names.ffn_out)(inner)
        a = a + F.dropout(output, families.dropouts(model)[1], training=model.training)
    return replace(stream, hidden=layer.get_submodule(names.ffn_norm)(a))


def head(model: PreTrainedModel, hidden: torch.Tensor) -> torch.Tensor:
    """Return the logits [batch, outputs] of the model's own head over [batch, length, width]."""
    names = families.family(model)
    whole = names.head_dense.rpartition(".")[0]
    if names.head_out.startswith(whole + "."):  # RoBERTa's kind: one module, dropout included
        return model.get_submodule(whole)(hidden)  # type: ignore[no-any-return]
    dense, out = model.get_submodule(names.head_dense), model.get_submodule(names.head_out)
    pooled = activation(model)(dense(hidden[:, 0]))
    return out(model.get_submodule("dropout")(pooled))  # type: ignore[no-any-return]


def spans(model: PreTrainedModel, hidden: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Return start and end logits, each [batch, length], of a question-answering model in eval mode."""
    both = model.get_submodule(families.family(model).span_head)(hidden)
    return both[..., 0], both[..., 1]


def activation(model: PreTrainedModel) -> nn.Module:
    """Return the activation within the family's task head."""
    made: Any = ACT2FN[families.family(model).head_activation]
    return made  # type: ignore[no-any-return]

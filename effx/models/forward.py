"""A task model's forward pass, layer by layer: embed, attend, feed, head.

    a = LN1(x + dropout(concat_h(dropout(softmax(Q_h K_h^T / sqrt(d) + mask)) V_h) W_O + b_O))
    y = LN2(a + dropout(W2 act(W1 a + b1) + b2))

The equations are those of the BERT kind; how a family computes them is in :mod:`effx.models.families`.
The weights are those of the Hugging Face model, called module by module, so masks act here too;
without reductions the logits equal those of ``model(**inputs)``. Early exit and token pruning need
the pass in pieces: rows leave between layers, tokens between attention and FFN.
"""

from __future__ import annotations

import torch
from transformers import PreTrainedModel

from effx.models import families, pooling
from effx.models.stream import Stream
from effx.models.structure import structure


def embed(model: PreTrainedModel, inputs: dict[str, torch.Tensor]) -> Stream:
    """Return the input of the first layer.

    Args:
        model: a task model of a supported family.
        inputs: input_ids, attention_mask and, where the family takes them, token_type_ids, each
            int64 [batch, length]; rows may be padded on the right.
    """
    return families.of(model).embed(model, inputs)


def with_bias(model: PreTrainedModel, stream: Stream) -> Stream:
    """Return the stream with its family's relative position bias, before any token was dropped."""
    return families.of(model).with_bias(model, stream)


def attend(
    model: PreTrainedModel, position: int, stream: Stream, *, explicit: bool = False
) -> tuple[Stream, torch.Tensor | None]:
    """Run the attention half of a layer, LN1 included.

    Args:
        model: the task model.
        position: of the layer among the remaining layers, from 0.
        stream: the layer's input.
        explicit: compute the attention probabilities and return them, instead of using a fused kernel.

    Returns:
        The stream, and probabilities [batch, heads, length, length] if ``explicit`` and the layer has a
        head.
    """
    family = families.of(model)
    heads = structure(model).layers[position].heads
    return family.attend(model, family.layers(model)[position], heads, stream, explicit=explicit)


def feed(model: PreTrainedModel, position: int, stream: Stream) -> Stream:
    """Run the FFN half of a layer, LN2 included."""
    family = families.of(model)
    has_ffn = structure(model).layers[position].intermediate > 0
    return family.feed(model, family.layers(model)[position], stream, has_ffn=has_ffn)


def head(model: PreTrainedModel, stream: Stream) -> torch.Tensor:
    """Return the task head's logits for the last layer's output.

    Returns:
        [batch, outputs]; [batch, length, outputs] if the model tags tokens; or vectors [batch, width].
    """
    family = families.of(model)
    hidden = family.finish(model, stream.hidden)
    if family.tags_tokens(model):
        return family.head(model, hidden)
    return family.head(model, pooling.pooled(model, hidden, stream.token_mask))


def spans(model: PreTrainedModel, hidden: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Return start and end logits, each [batch, length], of a question-answering model in eval mode."""
    family = families.of(model)
    return family.spans(model, family.finish(model, hidden))


def finish(model: PreTrainedModel, hidden: torch.Tensor) -> torch.Tensor:
    """Return the last layer's output as transformers gives it, [batch, length, width]."""
    return families.of(model).finish(model, hidden)

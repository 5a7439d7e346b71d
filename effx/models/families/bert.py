"""Encoder families, each described as data: where its parts live in the Hugging Face module tree.

Paths of a layer's parts are relative to the layer. A new family is one table entry.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, cast

from torch import nn
from transformers import PreTrainedModel

from effx.errors import UsageError


@dataclass(frozen=True)
class Family:
    """Where the parts of one architecture live, and what its config calls its sizes."""

    encoder: str
    """The encoder within the task model."""
    embeddings: tuple[str, ...]
    """Modules before the first layer, within the encoder."""
    layers: str
    """The list of layers, within the encoder."""
    attention: str
    """The module that turns hidden states into contexts; it may hold the output projection."""
    query: str
    key: str
    value: str
    attention_output: str
    attention_norm: str
    ffn_in: str
    activation: str
    ffn_out: str
    """With ``ffn_norm`` as its sibling where the family adds the residual beside it."""
    ffn_norm: str
    head_dense: str
    """The task head's first Linear (BERT's pooler), within the task model."""
    head_activation: str
    head_out: str
    """The task head's last Linear, within the task model."""
    span_head: str
    """The Linear to start and end logits of a question-answering model, within the task model."""
    token_types: bool
    """Whether the model takes token_type_ids."""
    position_bias: str | None = None
    """The encoder's module that makes a relative position bias [1, heads, length, length]."""
    intermediate_size: str = "intermediate_size"
    attention_dropout: str = "attention_probs_dropout_prob"
    hidden_dropout: str = "hidden_dropout_prob"


_BERT = Family(
    encoder="bert",
    embeddings=("embeddings",),
    layers="encoder.layer",
    attention="attention.self",
    query="attention.self.query",
    key="attention.self.key",
    value="attention.self.value",
    attention_output="attention.output.dense",
    attention_norm="attention.output.LayerNorm",
    ffn_in="intermediate.dense",
    activation="intermediate.intermediate_act_fn",
    ffn_out="output.dense",
    ffn_norm="output.LayerNorm",
    head_dense="bert.pooler.dense",
    head_activation="tanh",
    head_out="classifier",
    span_head="qa_outputs",
    token_types=True,
)
_ROBERTA = replace(
    _BERT,
    encoder="roberta",
    head_dense="classifier.dense",
    head_out="classifier.out_proj",
    token_types=False,
)

FAMILIES: dict[str, Family] = {
    "bert": _BERT,
    "roberta": _ROBERTA,
    "xlm-roberta": _ROBERTA,
    "camembert": _ROBERTA,
    "electra": replace(
        _ROBERTA,
        encoder="electra",
        embeddings=("embeddings", "embeddings_project"),
        head_activation="gelu",
        token_types=True,
    ),
    "mpnet": replace(
        _ROBERTA,
        encoder="mpnet",
        attention="attention.attn",
        query="attention.attn.q",
        key="attention.attn.k",
        value="attention.attn.v",
        attention_output="attention.attn.o",
        attention_norm="attention.LayerNorm",
        position_bias="encoder",
    ),
    "distilbert": Family(
        encoder="distilbert",
        embeddings=("embeddings",),
        layers="transformer.layer",
        attention="attention",
        query="attention.q_lin",
        key="attention.k_lin",
        value="attention.v_lin",
        attention_output="attention.out_lin",
        attention_norm="sa_layer_norm",
        ffn_in="ffn.lin1",
        activation="ffn.activation",
        ffn_out="ffn.lin2",
        ffn_norm="output_layer_norm",
        head_dense="pre_classifier",
        head_activation="relu",
        head_out="classifier",
        span_head="qa_outputs",
        token_types=False,
        intermediate_size="hidden_dim",
        attention_dropout="attention_dropout",
        hidden_dropout="dropout",
    ),
}


def family(model: PreTrainedModel) -> Family:
    """Return the family of a model.

    Raises:
        UsageError: the architecture is not in the table; the message lists those that are.
    """
    return family_of(str(model.config.model_type))


def family_of(model_type: str) -> Family:
    """Return the family for a ``model_type`` as it stands in config.json."""
    if model_type not in FAMILIES:
        raise UsageError(f"architecture '{model_type}' is not supported. Supported: {', '.join(FAMILIES)}.")
    return FAMILIES[model_type]


def answers_spans(model: PreTrainedModel) -> bool:
    """Whether the model's own head gives start and end logits for every token."""
    return hasattr(model, family(model).span_head)


def encoder(model: PreTrainedModel) -> nn.Module:
    """Return the encoder within a task model."""
    return cast(nn.Module, model.get_submodule(family(model).encoder))


def layers(model: PreTrainedModel) -> nn.ModuleList:
    """Return the encoder's layers, first to last."""
    return cast(nn.ModuleList, encoder(model).get_submodule(family(model).layers))


def embeddings(model: PreTrainedModel) -> list[nn.Module]:
    """Return the modules before the first layer (a projection is there only if sizes differ)."""
    body = encoder(model)
    return [getattr(body, name) for name in family(model).embeddings if hasattr(body, name)]


def head_size(model: PreTrainedModel) -> int:
    """Return the width of one attention head."""
    return int(model.config.hidden_size) // heads(model)


def heads(model: PreTrainedModel) -> int:
    """Return the attention heads per layer of the unreduced model."""
    return int(model.config.num_attention_heads)


def neurons(model: PreTrainedModel) -> int:
    """Return the FFN neurons per layer of the unreduced model."""
    return int(getattr(model.config, family(model).intermediate_size))


def dropouts(model: PreTrainedModel) -> tuple[float, float]:
    """Return the dropout of attention probabilities and that of hidden states."""
    config: Any = model.config
    names = family(model)
    return float(getattr(config, names.attention_dropout)), float(getattr(config, names.hidden_dropout))


def head_dropouts(model: PreTrainedModel) -> list[nn.Dropout]:
    """Return the dropouts of the task head."""
    names = family(model)
    whole = names.head_dense.rpartition(".")[0]
    inside = names.head_out.startswith(whole + ".")  # RoBERTa's kind: one module holds the head
    part = model.get_submodule(whole if inside else "dropout")
    return [module for module in part.modules() if isinstance(module, nn.Dropout)]

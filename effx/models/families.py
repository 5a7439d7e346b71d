"""Encoder families, each described as data: where its parts live in the Hugging Face module tree.

Paths are relative to one encoder layer unless said otherwise. A new family is one table entry.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import cast

from torch import nn
from transformers import PreTrainedModel

from effx.errors import UsageError


@dataclass(frozen=True)
class Family:
    """Where the parts of one architecture live."""

    encoder: str
    """The encoder within the task model."""
    embeddings: tuple[str, ...]
    """Modules before the first layer, within the encoder."""
    layers: str
    """The list of layers, within the encoder."""
    query: str
    key: str
    value: str
    attention_output: str
    attention_norm: str
    ffn_in: str
    ffn_out: str
    ffn_norm: str
    token_types: bool
    """Whether the model takes token_type_ids."""


_BERT = Family(
    encoder="bert",
    embeddings=("embeddings",),
    layers="encoder.layer",
    query="attention.self.query",
    key="attention.self.key",
    value="attention.self.value",
    attention_output="attention.output.dense",
    attention_norm="attention.output.LayerNorm",
    ffn_in="intermediate.dense",
    ffn_out="output.dense",
    ffn_norm="output.LayerNorm",
    token_types=True,
)


def _like_bert(encoder: str, *, token_types: bool, embeddings: tuple[str, ...] = ("embeddings",)) -> Family:
    values = {**_BERT.__dict__, "encoder": encoder, "token_types": token_types, "embeddings": embeddings}
    return Family(**values)


FAMILIES: dict[str, Family] = {
    "bert": _BERT,
    "roberta": _like_bert("roberta", token_types=False),
    "xlm-roberta": _like_bert("roberta", token_types=False),
    "camembert": _like_bert("roberta", token_types=False),
    "electra": _like_bert("electra", token_types=True, embeddings=("embeddings", "embeddings_project")),
    "distilbert": Family(
        encoder="distilbert",
        embeddings=("embeddings",),
        layers="transformer.layer",
        query="attention.q_lin",
        key="attention.k_lin",
        value="attention.v_lin",
        attention_output="attention.out_lin",
        attention_norm="sa_layer_norm",
        ffn_in="ffn.lin1",
        ffn_out="ffn.lin2",
        ffn_norm="output_layer_norm",
        token_types=False,
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
    return int(model.config.hidden_size) // int(model.config.num_attention_heads)

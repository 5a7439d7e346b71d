"""BERT and similar encoders: post-LayerNorm, learned or relative positions, one FFN per layer.

    a = LN1(x + dropout(concat_h(dropout(softmax(Q_h K_h^T / sqrt(d) + mask)) V_h) W_O + b_O))
    y = LN2(a + dropout(W2 act(W1 a + b1) + b2))

These architectures differ only in names: each is a table of paths in the Hugging Face module tree, with a
common implementation. Paths of a layer's parts are relative to the layer.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, cast

import torch
import torch.nn.functional as F  # noqa: N812 - the usual name
from torch import nn
from transformers import PreTrainedModel
from transformers.activations import ACT2FN

from effx.models import embedder
from effx.models.attention import attention, mask_of
from effx.models.families.common import CommonFamily
from effx.models.families.protocol import Matrix
from effx.models.families.removal import NoFFN, NoHeads, OnlyBias, OnlyNorm, linear, sliced
from effx.models.stream import Stream


@dataclass(frozen=True)
class BertFamily(CommonFamily):
    """Paths of the parts of one architecture, and the names of sizes in its config."""

    encoder_path: str
    """The encoder within the task model."""
    embedding_paths: tuple[str, ...]
    """Modules before the first layer, within the encoder; one that is absent in a model is left out."""
    layer_list: str
    """The list of layers, within the encoder."""
    attention: str
    """The module that computes contexts from hidden states; it may contain the output projection."""
    query: str
    key: str
    value: str
    attention_output: str
    attention_norm: str
    ffn_in: str
    activation: str
    ffn_out: str
    """A sibling of ``ffn_norm`` where one module adds the residual and normalises."""
    ffn_norm: str
    head_dense: str
    """The task head's first Linear (BERT's pooler), within the task model."""
    head_activation: str
    """A name in transformers' table of activations."""
    head_out: str
    """The task head's last Linear, within the task model."""
    span_head: str | None
    """The Linear to start and end logits of a question-answering model, within the task model; None:
    there is no such model in transformers."""
    token_types: bool
    token_head: str = "classifier"
    """The Linear to the logits of a token-classification model, within the task model."""
    position_bias: str | None = None
    """The encoder's module that computes a relative position bias [1, heads, length, length]."""
    intermediate_size: str = "intermediate_size"
    attention_dropout: str = "attention_probs_dropout_prob"
    hidden_dropout_name: str = "hidden_dropout_prob"
    pretraining_head: str | None = None

    @property
    def has_head_biases(self) -> bool:
        return self.position_bias is not None

    @property
    def relative_positions(self) -> bool:
        return self.position_bias is not None

    def refusal(self, config: Mapping[str, Any]) -> str | None:
        return None

    def prepare(self, model: PreTrainedModel) -> None:
        """Nothing: all releases build these families alike."""

    # modules and sizes

    @property
    def layers_path(self) -> str:
        return f"{self.encoder_path}.{self.layer_list}"

    def encoder(self, model: PreTrainedModel) -> nn.Module:
        return cast(nn.Module, model.get_submodule(self.encoder_path))

    def embeddings(self, model: PreTrainedModel) -> list[nn.Module]:
        encoder = self.encoder(model)
        return [getattr(encoder, path) for path in self.embedding_paths if hasattr(encoder, path)]

    def neurons(self, model: PreTrainedModel) -> int:
        return int(getattr(model.config, self.intermediate_size))

    def position_limit(self, model: PreTrainedModel) -> int:
        limit = int(model.config.max_position_embeddings)
        positions = getattr(self.embeddings(model)[0], "position_embeddings", None)
        padding = getattr(positions, "padding_idx", None)
        return limit - padding - 1 if padding is not None else limit  # RoBERTa counts from padding + 1

    # the task head

    def answers_spans(self, model: PreTrainedModel) -> bool:
        return self.span_head is not None and hasattr(model, self.span_head)

    def output_path(self, model: PreTrainedModel) -> str | None:
        if self.embeds(model):
            return None
        if self.tags_tokens(model):
            return self.token_head
        return self.span_head if self.answers_spans(model) else self.head_out

    def pooler(self, model: PreTrainedModel) -> nn.Linear:
        return linear(model, self.head_dense)

    @property
    def encoder_pooler_path(self) -> str | None:
        return self.head_dense if self.head_dense.startswith(self.encoder_path + ".") else None

    def pooler_activation(self, model: PreTrainedModel) -> nn.Module:
        activations: Any = ACT2FN
        return activations[self.head_activation]  # type: ignore[no-any-return]

    def hidden_dropout(self, model: PreTrainedModel) -> float:
        return float(getattr(model.config, self.hidden_dropout_name))

    def head_dropouts(self, model: PreTrainedModel) -> list[nn.Dropout]:
        if self.embeds(model) or (self.answers_spans(model) and not hasattr(model, "dropout")):
            return []
        path = None if self.tags_tokens(model) else self._head_module
        module = model.get_submodule(path or "dropout")
        return [part for part in module.modules() if isinstance(part, nn.Dropout)]

    @property
    def _head_module(self) -> str | None:
        """Name of the module that is the task head, as in RoBERTa; None: the model has its parts directly."""
        path = self.head_dense.rpartition(".")[0]
        return path if self.head_out.startswith(path + ".") else None

    def pooled_modules(self, model: PreTrainedModel) -> list[nn.Module]:
        return [*self.layers(model)]

    def head_pooling(self, model: PreTrainedModel) -> str:
        return "cls"

    def set_head_pooling(self, model: PreTrainedModel, pooling: str) -> bool:
        return False

    # the forward pass

    def embed(self, model: PreTrainedModel, inputs: dict[str, torch.Tensor]) -> Stream:
        ids, mask = inputs["input_ids"], inputs["attention_mask"]
        first, *rest = self.embeddings(model)
        types = {"token_type_ids": inputs["token_type_ids"]} if self.token_types else {}
        hidden = first(input_ids=ids, **types)
        for module in rest:
            hidden = module(hidden)
        positions = torch.arange(ids.shape[1], device=ids.device).expand(ids.shape)
        return self.with_bias(model, Stream(hidden, mask.bool(), mask.sum(1), positions, ids.shape[1]))

    def with_bias(self, model: PreTrainedModel, stream: Stream) -> Stream:
        if self.position_bias is None:
            return stream
        module: Any = self.encoder(model).get_submodule(self.position_bias)
        return replace(stream, bias=module.compute_position_bias(stream.hidden[:1]))

    def attend(
        self,
        model: PreTrainedModel,
        layer: nn.Module,
        heads: Sequence[int],
        stream: Stream,
        *,
        explicit: bool,
    ) -> tuple[Stream, torch.Tensor | None]:
        x, probabilities = stream.hidden, None
        dropout = float(getattr(model.config, self.attention_dropout)) if model.training else 0.0
        if heads:
            shape = (len(heads), self.head_size(model))
            query, key, value = (
                torch.unflatten(stream.padded(layer.get_submodule(path)(x)), 2, shape).transpose(1, 2)
                for path in (self.query, self.key, self.value)
            )
            query, key = self.with_positions(model, stream, query, key)
            mask = mask_of(stream, heads, query.dtype)
            context, probabilities = attention(query, key, value, mask, dropout=dropout, explicit=explicit)
            context = stream.unpadded(context.transpose(1, 2).flatten(2))
        else:
            context = x  # OnlyBias in place of W_O uses the shape alone
        output = layer.get_submodule(self.attention_output)(context)
        dropped = F.dropout(output, self.hidden_dropout(model) if model.training else 0.0)
        return replace(stream, hidden=layer.get_submodule(self.attention_norm)(x + dropped)), probabilities

    def with_positions(
        self, model: PreTrainedModel, stream: Stream, query: torch.Tensor, key: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Return queries and keys [batch, heads, length, size], with positions where they carry them."""
        return query, key

    def feed(self, model: PreTrainedModel, layer: nn.Module, stream: Stream, *, has_ffn: bool) -> Stream:
        a = stream.hidden
        if has_ffn:
            inner = layer.get_submodule(self.activation)(layer.get_submodule(self.ffn_in)(a))
            output = layer.get_submodule(self.ffn_out)(inner)
            a = a + F.dropout(output, self.hidden_dropout(model), training=model.training)
        return replace(stream, hidden=layer.get_submodule(self.ffn_norm)(a))

    def finish(self, model: PreTrainedModel, hidden: torch.Tensor) -> torch.Tensor:
        return hidden

    def head(self, model: PreTrainedModel, hidden: torch.Tensor) -> torch.Tensor:
        if self.embeds(model):
            return embedder.vector(hidden)
        if self.tags_tokens(model):
            dropped = model.get_submodule("dropout")(hidden)
            return model.get_submodule(self.token_head)(dropped)  # type: ignore[no-any-return]
        if self._head_module:  # dropout included
            return model.get_submodule(self._head_module)(hidden)  # type: ignore[no-any-return]
        pooled = self.pooler_activation(model)(self.pooler(model)(hidden[:, 0]))
        out = model.get_submodule(self.head_out)
        return out(model.get_submodule("dropout")(pooled))  # type: ignore[no-any-return]

    def spans(self, model: PreTrainedModel, hidden: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        both = model.get_submodule(self.span_head or "")(hidden)
        return both[..., 0], both[..., 1]

    def norm_names(self, model: PreTrainedModel) -> list[str]:
        layers = range(len(self.layers(model)))
        halves = [
            f"layer {index} (from 0), after {half}" for index in layers for half in ("attention", "the FFN")
        ]
        return ["the embeddings", *halves]

    # weights

    @property
    def head_matrices(self) -> tuple[Matrix, ...]:
        rows = (Matrix(self.query, 0), Matrix(self.key, 0), Matrix(self.value, 0))
        return (*rows, Matrix(self.attention_output, 1))

    @property
    def neuron_matrices(self) -> tuple[Matrix, ...]:
        return Matrix(self.ffn_in, 0), Matrix(self.ffn_out, 1)

    @property
    def context_path(self) -> str:
        return self.attention_output

    @property
    def ffn_output_path(self) -> str:
        return self.ffn_out

    # surgery

    def keep_heads(
        self, layer: nn.Module, positions: Sequence[int], heads: Sequence[int], head_size: int
    ) -> None:
        for matrix in self.head_matrices:
            module = linear(layer, matrix.path)
            indices = matrix.indices(matrix.width(module), positions, head_size)
            layer.set_submodule(matrix.path, sliced(module, indices, matrix.axis))
        attention = layer.get_submodule(self.attention)
        sizes = {"num_attention_heads": len(heads), "n_heads": len(heads), "all_head_size": len(indices)}
        for attribute, value in sizes.items():
            if hasattr(attention, attribute):
                setattr(attention, attribute, value)
        if self.position_bias:
            _select_bias(attention, heads)

    def remove_heads(self, layer: nn.Module) -> None:
        bias = OnlyBias(linear(layer, self.attention_output).bias)
        inside = self.attention_output.removeprefix(self.attention + ".")
        if inside != self.attention_output:
            layer.set_submodule(self.attention, NoHeads((inside, bias)))
        else:
            layer.set_submodule(self.attention, NoHeads())
            layer.set_submodule(self.attention_output, bias)

    def keep_neurons(self, layer: nn.Module, positions: Sequence[int]) -> None:
        for matrix in self.neuron_matrices:
            layer.set_submodule(matrix.path, sliced(linear(layer, matrix.path), positions, matrix.axis))

    def remove_ffn(self, layer: nn.Module) -> None:
        block, norm_block = (path.rpartition(".")[0] for path in (self.ffn_out, self.ffn_norm))
        if block == norm_block:  # the block adds the residual and normalises
            name = self.ffn_norm.rpartition(".")[2]
            layer.set_submodule(block, OnlyNorm(name, layer.get_submodule(self.ffn_norm)))
            layer.set_submodule(self.ffn_in.rpartition(".")[0], nn.Identity())
        else:
            layer.set_submodule(block, NoFFN())

    def check_layers(self, positions: Sequence[int]) -> None:
        """Any layers can remain."""

    def keep_layers(self, model: PreTrainedModel, positions: Sequence[int]) -> None:
        layers, encoder = self.layers(model), self.encoder(model)
        for position in reversed([index for index in range(len(layers)) if index not in positions]):
            del layers[position]
        for module in (encoder, encoder.get_submodule(self.layer_list.rpartition(".")[0])):
            if hasattr(module, "n_layers"):
                module.n_layers = len(layers)  # type: ignore[assignment]
        model.config.num_hidden_layers = len(layers)


def _select_bias(attention: nn.Module, heads: Sequence[int]) -> None:
    """Make ``attention`` use only the position bias of its remaining heads, from now on."""
    if not hasattr(attention, "effx_heads"):
        attention.register_forward_pre_hook(_selected_bias)
    attention.effx_heads = list(heads)  # type: ignore[assignment]


def _selected_bias(attention: nn.Module, inputs: tuple[Any, ...]) -> tuple[Any, ...]:
    hidden, mask, bias, *rest = inputs
    return (hidden, mask, None if bias is None else bias[:, attention.effx_heads], *rest)


BERT = BertFamily(
    encoder_path="bert",
    embedding_paths=("embeddings",),
    layer_list="encoder.layer",
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
ROBERTA = replace(
    BERT,
    encoder_path="roberta",
    head_dense="classifier.dense",
    head_out="classifier.out_proj",
    token_types=False,
)
ELECTRA = replace(
    ROBERTA,
    encoder_path="electra",
    embedding_paths=("embeddings", "embeddings_project"),  # a projection only where the widths differ
    head_activation="gelu",
    token_types=True,
)
MPNET = replace(
    ROBERTA,
    encoder_path="mpnet",
    attention="attention.attn",
    query="attention.attn.q",
    key="attention.attn.k",
    value="attention.attn.v",
    attention_output="attention.attn.o",
    attention_norm="attention.LayerNorm",
    position_bias="encoder",
)
DISTILBERT = BertFamily(
    encoder_path="distilbert",
    embedding_paths=("embeddings",),
    layer_list="transformer.layer",
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
    hidden_dropout_name="dropout",
)

"""ModernBERT: pre-LayerNorm, rotary positions, gated FFNs, global and local attention layers.

    a = x + W_O concat_h(softmax(R(Q_h) R(K_h)^T / sqrt(d) + mask) V_h),    Q, K, V = W_qkv LN1(x)
    y = a + W_2 (act(W_1 LN2(a)) * W_g LN2(a)),                             W_1, W_g = W_i

LN1 of the first layer is the identity; a last LayerNorm follows all layers. R rotates by the position of a
token in the input, also after tokens were dropped. In a local layer, a token attends to tokens whose position
differs by at most half of ``local_attention``. By default no Linear of a layer has a bias (Warner et al.
2024, "Smarter, Better, Faster, Longer", section 2).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, cast

import torch
import torch.nn.functional as F  # noqa: N812 - the usual name
from torch import nn
from transformers import PreTrainedModel
from transformers.activations import ACT2FN

from effx.errors import UsageError
from effx.models import embedder
from effx.models.attention import attention, in_blocks, local_attention, lowered, mask_of
from effx.models.families import rotary
from effx.models.families.common import CommonFamily
from effx.models.families.protocol import Matrix
from effx.models.families.removal import NoAttention, NoFFN, linear, sliced
from effx.models.stream import Stream

_LOCAL = "sliding_attention"
_QKV, _HEADS_OUT = "attn.Wqkv", "attn.Wo"
_NEURONS_IN, _NEURONS_OUT = "mlp.Wi", "mlp.Wo"


class ModernBertFamily(CommonFamily):
    """ModernBERT, and encoders of its type such as mmBERT."""

    token_types = False
    relative_positions = True
    has_head_biases = False
    span_head = "classifier"
    token_head = "classifier"
    encoder_pooler_path = None
    pretraining_head = r"^(head\.(dense|norm)|decoder)\."
    context_path = _HEADS_OUT
    ffn_output_path = _NEURONS_OUT
    head_matrices = (Matrix(_QKV, 0, blocks=3, biased=False), Matrix(_HEADS_OUT, 1, biased=False))
    neuron_matrices = (Matrix(_NEURONS_IN, 0, blocks=2, biased=False), Matrix(_NEURONS_OUT, 1, biased=False))

    def refusal(self, config: Mapping[str, Any]) -> str | None:
        of_kinds = config.get("rope_parameters") or {}
        return rotary.refusal(of_kinds.values() if isinstance(of_kinds, Mapping) else ())

    def prepare(self, model: PreTrainedModel) -> None:
        if hasattr(model.config, "reference_compile"):  # a compiled FFN would ignore masks
            model.config.reference_compile = False
        half = int(model.config.local_attention) // 2
        for layer in self.layers(model):
            attn: Any = layer.get_submodule("attn")
            if hasattr(attn, "local_attention"):  # older releases count layers instead of reading layer_types
                attn.local_attention = (half, half) if layer.attention_type == _LOCAL else (-1, -1)

    # modules and sizes

    @property
    def layers_path(self) -> str:
        return "model.layers"

    def encoder(self, model: PreTrainedModel) -> nn.Module:
        return cast(nn.Module, model.get_submodule("model"))

    def embeddings(self, model: PreTrainedModel) -> list[nn.Module]:
        return [model.get_submodule("model.embeddings")]

    def neurons(self, model: PreTrainedModel) -> int:
        return int(model.config.intermediate_size)

    def position_limit(self, model: PreTrainedModel) -> int:
        return int(model.config.max_position_embeddings)

    def reach(self, model: PreTrainedModel) -> int | None:
        return _reach(model)

    # the task head

    def answers_spans(self, model: PreTrainedModel) -> bool:
        return type(model).__name__.endswith("ForQuestionAnswering")

    def output_path(self, model: PreTrainedModel) -> str | None:
        return None if self.embeds(model) else "classifier"

    def pooler(self, model: PreTrainedModel) -> nn.Linear:
        return linear(model, "head.dense")

    def pooler_activation(self, model: PreTrainedModel) -> nn.Module:
        activations: Any = ACT2FN
        return activations[model.config.classifier_activation]  # type: ignore[no-any-return]

    def hidden_dropout(self, model: PreTrainedModel) -> float:
        return float(model.config.mlp_dropout)

    def head_dropouts(self, model: PreTrainedModel) -> list[nn.Dropout]:
        return [] if self.embeds(model) else [cast(nn.Dropout, model.get_submodule("drop"))]

    def pooled_modules(self, model: PreTrainedModel) -> list[nn.Module]:
        return [model.get_submodule("model.final_norm")]

    def head_pooling(self, model: PreTrainedModel) -> str:
        pools = not (self.embeds(model) or self.answers_spans(model) or self.tags_tokens(model))
        return str(model.config.classifier_pooling) if pools else "cls"

    def set_head_pooling(self, model: PreTrainedModel, pooling: str) -> bool:
        if self.embeds(model):
            return False
        model.config.classifier_pooling = pooling
        return True

    # the forward pass

    def embed(self, model: PreTrainedModel, inputs: dict[str, torch.Tensor]) -> Stream:
        ids, mask = inputs["input_ids"], inputs["attention_mask"]
        hidden = model.get_submodule("model.embeddings")(input_ids=ids)
        positions = torch.arange(ids.shape[1], device=ids.device).expand(ids.shape)
        return self.with_bias(model, Stream(hidden, mask.bool(), mask.sum(1), positions, ids.shape[1]))

    def with_bias(self, model: PreTrainedModel, stream: Stream) -> Stream:
        """Return the stream with the pairs out of reach in local layers, bool [1, 1, length, length].

        Where local layers compute in blocks, such a tensor would be the largest of all.
        """
        if in_blocks(stream, _reach(model)):
            return stream
        return replace(stream, bias=_out_of_reach(stream.positions[:1], _reach(model)))

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
        if heads:
            kind = str(layer.attention_type)
            shape = (3, len(heads), self.head_size(model))
            states = layer.get_submodule(_QKV)(layer.get_submodule("attn_norm")(x))
            qkv = torch.unflatten(stream.padded(states), 2, shape)
            query, key, value = (part.transpose(1, 2) for part in qkv.unbind(2))
            cos, sin = self._rotation(model, stream, kind)
            query, key = rotary.rotated(query, cos, sin), rotary.rotated(key, cos, sin)
            dropout = float(model.config.attention_dropout) if model.training else 0.0
            if kind == _LOCAL and not explicit and in_blocks(stream, _reach(model)):
                context = local_attention(query, key, value, stream, _reach(model), dropout=dropout)
            else:
                without_bias = replace(stream, bias=None)
                mask = (
                    _mask(stream, _reach(model), query.dtype)
                    if kind == _LOCAL
                    else mask_of(without_bias, heads, query.dtype)
                )
                context, probabilities = attention(
                    query, key, value, mask, dropout=dropout, explicit=explicit
                )
            context = stream.unpadded(context.transpose(1, 2).flatten(2))
            output = layer.get_submodule(_HEADS_OUT)(context)
            x = x + F.dropout(output, dropout)
        else:
            x = x + layer.get_submodule("attn")(x)[0]  # the output's bias, where there is one
        return replace(stream, hidden=x), probabilities

    def feed(self, model: PreTrainedModel, layer: nn.Module, stream: Stream, *, has_ffn: bool) -> Stream:
        if not has_ffn:
            return stream
        inner = layer.get_submodule("mlp_norm")(stream.hidden)
        return replace(stream, hidden=stream.hidden + layer.get_submodule("mlp")(inner))

    def finish(self, model: PreTrainedModel, hidden: torch.Tensor) -> torch.Tensor:
        return model.get_submodule("model.final_norm")(hidden)  # type: ignore[no-any-return]

    def head(self, model: PreTrainedModel, hidden: torch.Tensor) -> torch.Tensor:
        if self.embeds(model):
            return embedder.vector(hidden)
        read = hidden if self.tags_tokens(model) else hidden[:, 0]
        return self._logits(model, read)

    def spans(self, model: PreTrainedModel, hidden: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        both = self._logits(model, hidden)
        return both[..., 0], both[..., 1]

    def norm_names(self, model: PreTrainedModel) -> list[str]:
        names, last = ["the embeddings"], "the embeddings"
        layers: Any = model.effx_structure.layers if hasattr(model, "effx_structure") else None
        for index, layer in enumerate(self.layers(model)):
            number = layers[index].index if layers else index
            if isinstance(layer.attn_norm, nn.LayerNorm):  # the layer's input
                names.append(last)
            if not isinstance(layer.attn, NoAttention):
                last = f"layer {number} (from 0), after attention"
            if isinstance(layer.mlp_norm, nn.LayerNorm):
                names.append(last)
                last = f"layer {number} (from 0), after the FFN"
        return [*names, last, "the task head"]

    def _logits(self, model: PreTrainedModel, hidden: torch.Tensor) -> torch.Tensor:
        inner = model.get_submodule("drop")(model.get_submodule("head")(hidden))
        return model.get_submodule("classifier")(inner)  # type: ignore[no-any-return]

    def _rotation(
        self, model: PreTrainedModel, stream: Stream, kind: str
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Return cosine and sine [batch, 1, length, head size] of the angles of the tokens' positions."""
        module: Any = model.get_submodule("model.rotary_emb")
        scaling = float(getattr(module, f"{kind}_attention_scaling"))
        return rotary.rotation(stream.positions, getattr(module, f"{kind}_inv_freq"), scaling)

    # surgery

    def keep_heads(
        self, layer: nn.Module, positions: Sequence[int], heads: Sequence[int], head_size: int
    ) -> None:
        for matrix in self.head_matrices:
            module = linear(layer, matrix.path)
            indices = matrix.indices(matrix.width(module), positions, head_size)
            layer.set_submodule(matrix.path, sliced(module, indices, matrix.axis))
        attn = layer.get_submodule("attn")
        for name, value in (("num_heads", len(heads)), ("all_head_size", len(heads) * head_size)):
            if hasattr(attn, name):  # in older releases of transformers
                setattr(attn, name, value)

    def remove_heads(self, layer: nn.Module) -> None:
        bias = linear(layer, _HEADS_OUT).bias
        layer.set_submodule("attn", NoAttention(bias))
        layer.set_submodule("attn_norm", nn.Identity())

    def keep_neurons(self, layer: nn.Module, positions: Sequence[int]) -> None:
        for matrix in self.neuron_matrices:
            module = linear(layer, matrix.path)
            indices = matrix.indices(matrix.width(module), positions, 1)
            layer.set_submodule(matrix.path, sliced(module, indices, matrix.axis))

    def remove_ffn(self, layer: nn.Module) -> None:
        layer.set_submodule("mlp", NoFFN())
        layer.set_submodule("mlp_norm", nn.Identity())

    def check_layers(self, positions: Sequence[int]) -> None:
        if list(positions) != list(range(len(positions))):
            raise UsageError(
                "only the last layers of ModernBERT can be removed: which layers are local follows from "
                "their number, and the first has no LayerNorm of its input."
            )

    def keep_layers(self, model: PreTrainedModel, positions: Sequence[int]) -> None:
        layers = self.layers(model)
        for position in reversed([index for index in range(len(layers)) if index not in positions]):
            del layers[position]
        model.config.num_hidden_layers = len(layers)
        model.config.layer_types = [str(layer.attention_type) for layer in layers]


def _reach(model: PreTrainedModel) -> int:
    """Return how many positions a token of a local layer sees to either side."""
    return int(model.config.local_attention) // 2


def _out_of_reach(positions: torch.Tensor, reach: int) -> torch.Tensor:
    """Return bool [batch, 1, length, length] for positions [batch, length]."""
    return ((positions[:, :, None] - positions[:, None, :]).abs() > reach)[:, None]


def _mask(stream: Stream, reach: int, dtype: torch.dtype) -> torch.Tensor:
    """Return what is added to the scores of a local layer, [batch or 1, 1, length, length]."""
    hidden = _out_of_reach(stream.positions, reach) if stream.bias is None else stream.bias
    if torch.compiler.is_exporting() or not bool(stream.token_mask.all()):
        hidden = hidden | ~stream.token_mask[:, None, None, :]
    return lowered(hidden, dtype)


MODERNBERT = ModernBertFamily()

"""DeBERTa v2 and v3: the layers of BERT with disentangled attention (He et al. 2021, "DeBERTa", equation 4).

    score(i, j) = (Q_i K_j^T + Q_i R^K_b(i-j)^T + K_j R^Q_b(i-j)^T) / sqrt(3 d)

b(i-j) is the bucket of a distance: up to half of the buckets have one distance each, farther ones grow
logarithmically. R^K and R^Q are the embeddings of the buckets, projected by the layer's own W_K and W_Q, so
the rows of a head project both. Distances are those in the input, also after tokens were dropped.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812 - the usual name
from torch import nn
from transformers import PreTrainedModel
from transformers.activations import ACT2FN
from transformers.models.deberta_v2.modeling_deberta_v2 import make_log_bucket_position

from effx.models.attention import attention, lowest
from effx.models.families.bert import BERT, BertFamily
from effx.models.stream import Stream


@dataclass(frozen=True)
class DebertaFamily(BertFamily):
    """DeBERTa v2 and v3; see :class:`BertFamily` for its paths."""

    @property
    def relative_positions(self) -> bool:
        return True

    @property
    def has_head_biases(self) -> bool:
        return False

    def refusal(self, config: Mapping[str, Any]) -> str | None:
        kinds = config.get("pos_att_type")
        kinds = kinds.split("|") if isinstance(kinds, str) else kinds
        if not (config.get("relative_attention") and config.get("share_att_key")) or sorted(
            str(kind).strip().lower() for kind in kinds or ()
        ) != ["c2p", "p2c"]:
            return (
                "its attention is another one than that of the published DeBERTa v2 and v3 "
                "(relative_attention, share_att_key and pos_att_type p2c|c2p)"
            )
        if config.get("conv_kernel_size"):
            return "it has a convolution (conv_kernel_size), which effx does not compute"
        if config.get("type_vocab_size"):
            return "it has embeddings of token types, which effx does not give to DeBERTa"
        return None

    def head_dropouts(self, model: PreTrainedModel) -> list[nn.Dropout]:
        found = super().head_dropouts(model)
        pooler = getattr(model, "pooler", None)
        return found if pooler is None else [*found, pooler.dropout]

    def pooler_activation(self, model: PreTrainedModel) -> nn.Module:
        activations: Any = ACT2FN
        return activations[model.config.pooler_hidden_act]  # type: ignore[no-any-return]

    # the forward pass

    def head(self, model: PreTrainedModel, hidden: torch.Tensor) -> torch.Tensor:
        if self.embeds(model) or self.tags_tokens(model):
            return super().head(model, hidden)
        pooled = model.get_submodule("dropout")(model.get_submodule("pooler")(hidden))
        return model.get_submodule(self.head_out)(pooled)  # type: ignore[no-any-return]

    def embed(self, model: PreTrainedModel, inputs: dict[str, torch.Tensor]) -> Stream:
        ids, mask = inputs["input_ids"], inputs["attention_mask"]
        hidden = self.embeddings(model)[0](input_ids=ids)
        positions = torch.arange(ids.shape[1], device=ids.device).expand(ids.shape)
        return self.with_bias(model, Stream(hidden, mask.bool(), mask.sum(1), positions, ids.shape[1]))

    def with_bias(self, model: PreTrainedModel, stream: Stream) -> Stream:
        """Return the stream with the buckets of all distances by number, int64 [1, 1, length, length]."""
        encoder: Any = self.encoder(model).get_submodule("encoder")
        buckets, span = int(encoder.position_buckets), self._span(model)
        distances = torch.arange(self.position_limit(model), device=stream.hidden.device)
        table = distances
        if buckets > 0:  # looked up, not computed: runtimes round logarithms differently
            table = make_log_bucket_position(distances, buckets, int(encoder.max_relative_positions)).long()
        positions = stream.positions[0]
        distance = positions[:, None] - positions[None, :]
        number = table[distance.abs()] * distance.sign() + span
        return replace(stream, bias=number.clamp(0, 2 * span - 1)[None, None])

    def attend(
        self,
        model: PreTrainedModel,
        layer: nn.Module,
        heads: Sequence[int],
        stream: Stream,
        *,
        explicit: bool,
    ) -> tuple[Stream, torch.Tensor | None]:
        if not heads:
            return super().attend(model, layer, heads, stream, explicit=explicit)
        x, size, training = stream.hidden, self.head_size(model), model.training
        encoder: Any = self.encoder(model).get_submodule("encoder")
        embeddings = encoder.get_rel_embedding()[: 2 * self._span(model)]
        embeddings = F.dropout(embeddings, self.hidden_dropout(model), training)

        def split(states: torch.Tensor) -> torch.Tensor:
            return states.view(*states.shape[:-1], len(heads), size)

        query, key, value = (
            split(stream.padded(layer.get_submodule(path)(x))).transpose(1, 2)
            for path in (self.query, self.key, self.value)
        )
        of_keys, of_queries = (
            split(layer.get_submodule(path)(embeddings)).permute(1, 2, 0) for path in (self.key, self.query)
        )
        assert stream.bias is not None
        number = stream.bias.expand(query.shape[0], len(heads), -1, -1)
        to_position = (query @ of_keys).gather(3, number)
        from_position = (key @ of_queries).gather(3, number.transpose(2, 3)).transpose(2, 3)
        mask = (to_position + from_position) / (3 * size) ** 0.5
        if torch.compiler.is_exporting() or not bool(stream.token_mask.all()):
            mask = mask.masked_fill(~stream.token_mask[:, None, None, :], lowest(mask.dtype))
        dropout = float(getattr(model.config, self.attention_dropout)) if training else 0.0
        context, probabilities = attention(
            query / 3**0.5, key, value, mask, dropout=dropout, explicit=explicit
        )
        context = stream.unpadded(context.transpose(1, 2).flatten(2))
        output = layer.get_submodule(self.attention_output)(context)
        dropped = F.dropout(output, self.hidden_dropout(model), training)
        return replace(stream, hidden=layer.get_submodule(self.attention_norm)(x + dropped)), probabilities

    def _span(self, model: PreTrainedModel) -> int:
        """Return the number of buckets to each side."""
        encoder: Any = self.encoder(model).get_submodule("encoder")
        buckets = int(encoder.position_buckets)
        return buckets if buckets > 0 else int(encoder.max_relative_positions)


DEBERTA = DebertaFamily(
    **{
        **vars(BERT),
        "encoder_path": "deberta",
        "query": "attention.self.query_proj",
        "key": "attention.self.key_proj",
        "value": "attention.self.value_proj",
        "head_dense": "pooler.dense",
        "head_activation": "gelu",
        "token_types": False,
        "pretraining_head": r"^(lm_predictions|mask_predictions)\.|"
        r"embeddings\.(word_embeddings\._weight$|position_embeddings\.)",
    }
)

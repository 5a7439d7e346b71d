"""NomicBERT: the post-LayerNorm layers of BERT with rotary positions and gated FFNs.

    a = LN1(x + dropout(W_O concat_h(softmax(R(Q_h) R(K_h)^T / sqrt(d) + mask) V_h)))
    y = LN2(a + dropout(W_2 (act(W_g a) * W_1 a)))

R rotates by the position of a token in the input, also after tokens were dropped. No Linear of a layer has a
bias, and the embeddings have no positions (Nussbaum et al. 2024, "Nomic Embed", section 3). Its files have
the names of the original code, with Q, K and V in one matrix; transformers splits it.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812 - the usual name
from torch import nn
from transformers import PreTrainedModel

from effx.models.families import rotary
from effx.models.families.bert import BertFamily
from effx.models.families.protocol import Matrix
from effx.models.families.removal import NoAttention
from effx.models.stream import Stream

_NAMES = (
    (r"(^|\.)encoder\.layers\.", r"\1layers."), (r"(^|\.)emb_ln\.", r"\1embeddings.LayerNorm."),
    (r"\.attn\.out_proj\.", ".self_attn.o_proj."), (r"\.attn\.Wqkv\.", ".self_attn.qkv."),
    (r"\.mlp\.fc11\.", ".mlp.up_proj."), (r"\.mlp\.fc12\.", ".mlp.gate_proj."),
    (r"\.mlp\.fc2\.", ".mlp.down_proj."), (r"\.norm1\.", ".post_attention_layernorm."),
    (r"\.norm2\.", ".post_mlp_layernorm."),
)  # fmt: skip
"""Names of the original code -> names of transformers' modules."""
_SIZES = {"n_embd": "hidden_size", "n_head": "num_attention_heads", "n_inner": "intermediate_size",
          "n_layer": "num_hidden_layers", "layer_norm_epsilon": "layer_norm_eps"}  # fmt: skip
"""Keys of the original config.json -> keys that transformers reads instead."""
_FIXED = {"prenorm": False, "use_rms_norm": False, "parallel_block": False, "causal": False,
          "rotary_emb_fraction": 1.0, "rotary_emb_interleaved": False, "rotary_emb_scale_base": None,
          "rotary_scaling_factor": None, "qkv_proj_bias": False, "mlp_fc1_bias": False,
          "mlp_fc2_bias": False, "moe_every_n_layers": 0, "activation_function": "swiglu"}  # fmt: skip
"""Keys of the original config.json with the values that transformers computes, whatever they say."""


@dataclass(frozen=True)
class NomicFamily(BertFamily):
    """NomicBERT; see :class:`BertFamily` for its paths."""

    ffn_gate: str = "mlp.gate_proj"

    @property
    def relative_positions(self) -> bool:
        return True

    def refusal(self, config: Mapping[str, Any]) -> str | None:
        for key, value in _FIXED.items():
            if config.get(key, value) not in (value, None):
                return f"config.json says {key} {config[key]}, which transformers and effx do not compute"
        for key, name in _SIZES.items():
            if config.get(key, config[name]) != config[name]:
                return (
                    f"config.json says {key} {config[key]}, and transformers reads {name} {config[name]}: "
                    f"add {name} to config.json"
                )
        if config["head_dim"] * config["num_attention_heads"] != config["hidden_size"]:
            return "its heads have another width than hidden_size / num_attention_heads (head_dim)"
        positions = config.get("rope_parameters") or {}
        theta = positions.get("rope_theta")
        if config.get("rotary_emb_base", theta) != theta:
            return (
                f"config.json says rotary_emb_base {config['rotary_emb_base']}, and transformers reads "
                f"rope_theta {theta}: add rope_parameters to config.json"
            )
        return rotary.refusal([positions])

    def renamed(self, tensors: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        result = {}
        for key, tensor in tensors.items():
            for pattern, replacement in _NAMES:
                key = re.sub(pattern, replacement, key)
            if ".self_attn.qkv." in key:
                for name, part in zip("qkv", tensor.chunk(3), strict=True):
                    # a view would keep, and be written with, the whole matrix
                    result[key.replace(".qkv.", f".{name}_proj.")] = part.clone()
            else:
                result[key] = tensor
        return result

    # the forward pass

    def attend(
        self,
        model: PreTrainedModel,
        layer: nn.Module,
        heads: Sequence[int],
        stream: Stream,
        *,
        explicit: bool,
    ) -> tuple[Stream, torch.Tensor | None]:
        if heads:
            return super().attend(model, layer, heads, stream, explicit=explicit)
        return replace(stream, hidden=layer.get_submodule(self.attention_norm)(stream.hidden)), None

    def with_positions(
        self, model: PreTrainedModel, stream: Stream, query: torch.Tensor, key: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        module: Any = self.encoder(model).get_submodule("rotary_emb")
        cos, sin = rotary.rotation(stream.positions, module.inv_freq, float(module.attention_scaling))
        return rotary.rotated(query, cos, sin), rotary.rotated(key, cos, sin)

    def feed(self, model: PreTrainedModel, layer: nn.Module, stream: Stream, *, has_ffn: bool) -> Stream:
        a = stream.hidden
        if has_ffn:
            output = layer.get_submodule("mlp")(a)
            a = a + F.dropout(output, self.hidden_dropout(model), model.training)
        return replace(stream, hidden=layer.get_submodule(self.ffn_norm)(a))

    # weights

    @property
    def head_matrices(self) -> tuple[Matrix, ...]:
        return tuple(replace(matrix, biased=False) for matrix in super().head_matrices)

    @property
    def neuron_matrices(self) -> tuple[Matrix, ...]:
        gate = Matrix(self.ffn_gate, 0)
        return tuple(replace(matrix, biased=False) for matrix in (gate, *super().neuron_matrices))

    # surgery

    def remove_heads(self, layer: nn.Module) -> None:
        layer.set_submodule(self.attention, NoAttention(None))
        layer.set_submodule("post_attention_dropout", nn.Identity())  # nn.Dropout takes no number

    def remove_ffn(self, layer: nn.Module) -> None:
        super().remove_ffn(layer)
        layer.set_submodule("post_mlp_dropout", nn.Identity())


NOMIC = NomicFamily(
    encoder_path="nomic_bert",
    embedding_paths=("embeddings",),
    layer_list="layers",
    attention="self_attn",
    query="self_attn.q_proj",
    key="self_attn.k_proj",
    value="self_attn.v_proj",
    attention_output="self_attn.o_proj",
    attention_norm="post_attention_layernorm",
    ffn_in="mlp.up_proj",
    activation="mlp.act_fn",
    ffn_out="mlp.down_proj",
    ffn_norm="post_mlp_layernorm",
    head_dense="nomic_bert.pooler.dense",
    head_activation="tanh",
    head_out="classifier",
    span_head=None,
    token_types=True,
)

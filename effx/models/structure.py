"""Which heads, FFN neurons and layers of an encoder remain.

Indices are those of the unreduced model and stay so however often a model is reduced.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from transformers import PreTrainedModel

from effx.models import families


@dataclass(frozen=True)
class Layer:
    """What remains of one layer."""

    heads: tuple[int, ...]
    """Kept heads by their original index; empty: the attention is gone, its output bias stays."""
    intermediate: int
    """Kept FFN neurons; 0: the FFN is gone."""


@dataclass(frozen=True)
class Structure:
    """What remains of an encoder."""

    layers: tuple[Layer, ...]
    exits: tuple[int, ...] = ()
    """Layers (from 1) after which an early-exit ramp stands."""
    tokens: tuple[float, ...] | None = None
    """Share of tokens that each layer keeps; None: all."""

    def to_json(self) -> dict[str, Any]:
        """Return the structure as it stands in manifests."""
        return {
            "layers": [
                {"heads": list(layer.heads), "intermediate": layer.intermediate} for layer in self.layers
            ],
            "exits": list(self.exits),
            "tokens": None if self.tokens is None else list(self.tokens),
        }

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> Structure:
        """Rebuild a structure from a manifest."""
        tokens = value.get("tokens")
        return cls(
            tuple(Layer(tuple(layer["heads"]), int(layer["intermediate"])) for layer in value["layers"]),
            tuple(value.get("exits") or ()),
            None if tokens is None else tuple(tokens),
        )


def structure(model: PreTrainedModel) -> Structure:
    """Return the structure of a model: the one it was reduced to, or the full one."""
    known = getattr(model, "effx_structure", None)
    if isinstance(known, Structure):
        return known
    config = model.config
    full = Layer(tuple(range(config.num_attention_heads)), _intermediate_size(model))
    return Structure(tuple(full for _ in families.layers(model)))


def parameters(model: PreTrainedModel) -> int:
    """Count the parameters of a model, embeddings and task head included, shared ones once."""
    return sum(parameter.numel() for parameter in model.parameters())


def _intermediate_size(model: PreTrainedModel) -> int:
    first = families.layers(model)[0]
    ffn_in = first.get_submodule(families.family(model).ffn_in)
    return int(ffn_in.weight.shape[0])  # type: ignore[index]

"""Layers and lengths in a model's config.json, so that a recipe can be checked before it runs."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeGuard

from effx import records
from effx.errors import ArtifactError

_LAYERS = ("num_hidden_layers", "n_layers")
_COUNTS_FROM_PADDING = ("roberta", "xlm-roberta", "camembert", "mpnet")
"""Types of models whose positions are counted from the padding id + 1."""


@dataclass(frozen=True)
class ModelLimits:
    """Sizes of a pretrained encoder; None: unknown before it is loaded."""

    layers: int | None = None
    tokens: int | None = None
    """The longest input."""


def of_model(source: str) -> ModelLimits:
    """Return the limits of a model in a folder; those of a model on the hub are unknown."""
    path = Path(source) / "config.json"
    if not path.is_file():
        return ModelLimits()
    try:
        config = records.read_json(path)
    except ArtifactError:  # loading it reports the error
        return ModelLimits()
    layers = next((config[key] for key in _LAYERS if key in config), None)
    tokens, pad = config.get("max_position_embeddings"), config.get("pad_token_id")
    if config.get("model_type") in _COUNTS_FROM_PADDING and _is_count(tokens) and isinstance(pad, int):
        tokens -= pad + 1
    return ModelLimits(layers if _is_count(layers) else None, tokens if _is_count(tokens) else None)


def _is_count(value: Any) -> TypeGuard[int]:
    return isinstance(value, int) and not isinstance(value, bool) and value > 0

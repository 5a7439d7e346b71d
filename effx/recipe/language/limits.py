"""Layers and lengths in a model's config.json, so that a recipe can be checked before it runs."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeGuard

from effx import records
from effx.errors import ArtifactError
from effx.specs import families

_LAYERS = ("num_hidden_layers", "n_layers")


@dataclass(frozen=True)
class ModelLimits:
    """Sizes of a pretrained encoder; None: unknown before it is loaded."""

    layers: int | None = None
    tokens: int | None = None
    """The longest input."""
    only_last_layers: bool = False
    """Whether only the last layers can be dropped."""


def of_model(source: str) -> ModelLimits:
    """Return the limits of a model in a folder; those of a model on the hub are unknown."""
    path = Path(source) / "config.json"
    if not path.is_file():
        return ModelLimits()
    try:
        config = records.read_foreign_json(path)
    except ArtifactError:  # loading it reports the error
        return ModelLimits()
    layers = next((config[key] for key in _LAYERS if key in config), None)
    return ModelLimits(
        layers if _is_count(layers) else None,
        families.position_limit(config),
        config.get("model_type") in families.LAST_LAYERS_ONLY,
    )


def _is_count(value: Any) -> TypeGuard[int]:
    return isinstance(value, int) and not isinstance(value, bool) and value > 0

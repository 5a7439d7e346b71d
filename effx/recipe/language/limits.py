"""Layers and lengths in a model's config.json, so that a recipe can be checked before it runs."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeGuard

from effx import records
from effx.errors import ArtifactError
from effx.specs import families, layer_reduction
from effx.specs.training import FinetuneSettings

_LAYERS = ("num_hidden_layers", "n_layers")
_OF_LAYER = re.compile(r"(?:^|\.)layers?\.(\d+)\.(.+)")
"""Name of a parameter -> number of its layer, and its name there; in all families."""

_MOST_HEADER_BYTES = 100_000_000
"""As safetensors has it."""


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


def layers_differ(source: str, finetune: FinetuneSettings) -> bool:
    """Return whether matrices of a model's layers differ in their sizes, as far as its weights say.

    Only the header of model.safetensors is read. False also for a model on the hub, whose layers are unknown.

    Args:
        source: folder of the model.
        finetune: its ``layers`` and ``drop_layers`` say which layers remain.
    """
    shapes: dict[int, dict[str, list[int]]] = {}
    for name, shape in _shapes(Path(source) / "model.safetensors").items():
        if len(shape) == 2 and (match := _OF_LAYER.search(name)):
            shapes.setdefault(int(match[1]), {})[match[2]] = shape
    layers = [shapes[number] for number in sorted(shapes)]
    strategy, keep = finetune.layer_strategy, finetune.layers
    if strategy is not None and keep is not None and keep <= len(layers):
        layers = [layers[position] for position in layer_reduction.remaining(strategy, len(layers), keep)]
    return any(layer != layers[0] for layer in layers)


def _shapes(path: Path) -> dict[str, list[int]]:
    """Return the shapes of the tensors in a safetensors file; nothing of a file that is none."""
    if not path.is_file():
        return {}
    try:
        with path.open("rb") as file:
            size = int.from_bytes(file.read(8), "little")
            header = json.loads(file.read(size)) if size <= _MOST_HEADER_BYTES else {}
        return {name: entry["shape"] for name, entry in header.items() if name != "__metadata__"}
    except (OSError, ValueError, RecursionError, AttributeError, KeyError, TypeError):
        return {}  # loading it reports the error


def _is_count(value: Any) -> TypeGuard[int]:
    return isinstance(value, int) and not isinstance(value, bool) and value > 0

"""Facts about encoder families that are needed before, or without, PyTorch.

The families themselves are the table in :mod:`effx.models.families`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeGuard

POSITIONS_AFTER_PADDING = frozenset({"roberta", "xlm-roberta", "camembert", "mpnet"})
"""``model_type`` in config.json of families whose first position is the id of the padding token + 1."""

LAST_LAYERS_ONLY = frozenset({"modernbert"})
"""``model_type`` of families of which only the last layers can be dropped."""

NEAREST: Mapping[str, tuple[str, str]] = {
    "albert": ("bert", "layers that share their weights"),
    "big_bird": ("bert", "sparse attention"),
    "convbert": ("bert", "convolutions beside attention"),
    "deberta": ("deberta-v2", "positions of DeBERTa v1, and Q, K and V in one matrix"),
    "ernie": ("bert", "embeddings of task types"),
    "eurobert": ("modernbert", "heads that share keys and values, and RMSNorm"),
    "ibert": ("roberta", "integers in the model itself"),
    "jina_embeddings_v3": ("roberta", "rotary positions, and adapters for tasks"),
    "longformer": ("roberta", "separate global attention"),
    "luke": ("roberta", "embeddings of entities"),
    "megatron-bert": ("bert", "LayerNorms before attention and FFN"),
    "mobilebert": ("bert", "bottlenecks around each layer, and several FFNs in it"),
    "nystromformer": ("bert", "approximated attention"),
    "roberta-prelayernorm": ("roberta", "LayerNorms before attention and FFN"),
    "roformer": ("bert", "rotary positions"),
    "squeezebert": ("bert", "convolutions instead of matrices"),
    "xlm-roberta-xl": ("roberta", "LayerNorms before attention and FFN"),
    "xlnet": ("deberta-v2", "two streams of attention"),
}
"""``model_type`` of encoders that are not supported -> the nearest family, and what effx does not compute."""


def position_limit(config: Mapping[str, Any], pad_id: object = None) -> int | None:
    """Return the longest input in tokens that config.json allows; None if it does not say.

    Args:
        config: the content of config.json.
        pad_id: id of the padding token, where config.json has none.
    """
    positions = config.get("max_position_embeddings")
    if not _is_int(positions):
        return None
    pad = config.get("pad_token_id")
    pad = pad if _is_int(pad) else pad_id
    if config.get("model_type") in POSITIONS_AFTER_PADDING and _is_int(pad):
        positions -= pad + 1
    return positions if positions > 0 else None


def _is_int(value: object) -> TypeGuard[int]:
    return isinstance(value, int) and not isinstance(value, bool)

"""Facts about encoder families that are needed before, or without, PyTorch.

The families themselves are the table in :mod:`effx.models.families`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeGuard

POSITIONS_AFTER_PADDING = frozenset({"roberta", "xlm-roberta", "camembert", "mpnet"})
"""``model_type`` in config.json of families whose first position is the id of the padding token + 1."""


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

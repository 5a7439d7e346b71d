"""Rotary positions (Su et al. 2021, "RoFormer", equation 34), in float32.

    R(x)_i = x_i cos(p f) + rotate_half(x)_i sin(p f)

p is the position of a token in the input, also after tokens were dropped; f are the frequencies.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch

KINDS = ("default", "linear", "llama3", "yarn")
"""Types of rotary positions whose frequencies do not depend on the length of the input."""


def refusal(parameters: Iterable[Any]) -> str | None:
    """Return why rotary positions with these ``rope_parameters`` are not computed, or None."""
    for value in parameters:
        kind = value.get("rope_type", "default") if isinstance(value, dict) else "default"
        if kind not in KINDS:
            return f"its rotary positions are of type {kind}; effx computes {', '.join(KINDS)}"
    return None


def rotation(
    positions: torch.Tensor, frequencies: torch.Tensor, scaling: float
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return cosine and sine [batch, 1, length, head size] of the angles of positions [batch, length]."""
    angles = positions[..., None].float() * frequencies.float()
    angles = torch.cat((angles, angles), dim=-1)[:, None]
    return angles.cos() * scaling, angles.sin() * scaling


def rotated(states: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor) -> torch.Tensor:
    """Rotate queries or keys [batch, heads, length, size] in float32."""
    x = states if states.dtype == torch.float64 else states.float()
    first, second = x.chunk(2, dim=-1)
    return (x * cos + torch.cat((-second, first), dim=-1) * sin).to(states.dtype)

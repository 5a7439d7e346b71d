"""Scaled dot-product attention over the heads that remain, fused or with explicit probabilities."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager
from contextvars import ContextVar

import torch
import torch.nn.functional as F  # noqa: N812 - the usual name

from effx.models.stream import Stream

_FUSED: ContextVar[bool] = ContextVar("fused", default=False)
_BLOCKS: ContextVar[bool] = ContextVar("blocks", default=False)
BLOCKS_FROM_TOKENS = 1024
"""Length from which local attention is computed in blocks. They are faster from some hundred tokens on, and
slower for short inputs, which an engine of dynamic length answers too: docs/results/families/README.md."""


def fused_attention(fused: bool) -> AbstractContextManager[None]:
    """Export attention as one operation if ``fused``, for runtimes that have a kernel for it."""
    return _during(_FUSED, fused)


def local_blocks(blocks: bool) -> AbstractContextManager[None]:
    """Export local attention in blocks if ``blocks``, for engines that read long inputs."""
    return _during(_BLOCKS, blocks)


@contextlib.contextmanager
def _during(variable: ContextVar[bool], value: bool) -> Iterator[None]:
    token = variable.set(value)
    try:
        yield
    finally:
        variable.reset(token)


def in_blocks(stream: Stream, reach: int) -> bool:
    """Whether local attention over this input is computed in blocks: see :func:`local_attention`."""
    return _BLOCKS.get() if torch.compiler.is_exporting() else pays_in_blocks(stream.width, reach)


def pays_in_blocks(length: int, reach: int | None) -> bool:
    """Whether inputs of ``length`` tokens are computed faster in blocks, with fewer keys for each token.

    Args:
        length: tokens.
        reach: positions that a token sees to either side; None: all.
    """
    return bool(reach) and length >= max(BLOCKS_FROM_TOKENS, 6 * (reach or 0))


def attention(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    mask: torch.Tensor | None,
    *,
    dropout: float,
    explicit: bool,
) -> tuple[torch.Tensor, torch.Tensor | None]:
    """Return the contexts of the heads and, if ``explicit`` or exporting without fusion, the probabilities.

    Args:
        query: [batch, heads, length, size], as key and value.
        key: see ``query``.
        value: see ``query``.
        mask: added to the scores, broadcast to [batch, heads, length, length]; None: nothing.
        dropout: of the probabilities.
        explicit: compute the probabilities instead of calling a fused kernel.

    Returns:
        contexts [batch, heads, length, size] and probabilities [batch, heads, length, length] or None.
    """
    if explicit or (torch.compiler.is_exporting() and not _FUSED.get()):
        # scaling the query takes length x size products, scaling the scores length x length
        scores = (query / math.sqrt(query.shape[-1])) @ key.transpose(2, 3)
        probabilities = (scores if mask is None else scores + mask).softmax(-1)
        return F.dropout(probabilities, dropout) @ value, probabilities
    return F.scaled_dot_product_attention(query, key, value, attn_mask=mask, dropout_p=dropout), None


def local_attention(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    stream: Stream,
    reach: int,
    *,
    dropout: float,
) -> torch.Tensor:
    """Return the contexts of heads whose tokens attend to tokens within ``reach`` positions.

    Queries are computed in blocks of ``reach`` tokens, each with the keys of its own block and of the one on
    either side, so time and memory grow with the length instead of its square. Tokens are in the order of
    their positions, also after some were dropped, so all tokens in reach are among those keys.

    Args:
        query: [batch, heads, length, size], as key and value.
        key: see ``query``.
        value: see ``query``.
        stream: positions and mask of the tokens.
        reach: largest distance between positions.
        dropout: of the probabilities.

    Returns:
        [batch, heads, length, size]
    """
    batch, heads, length, size = query.shape
    count = (length + reach - 1) // reach
    padding = count * reach - length

    def own(states: torch.Tensor) -> torch.Tensor:
        """Return states [..., length, n] as [..., blocks, reach, n]."""
        return torch.unflatten(F.pad(states, (0, 0, 0, padding)), -2, (count, reach))

    def around(states: torch.Tensor) -> torch.Tensor:
        """Return states [..., length, n] with those of the blocks beside, [..., blocks, 3 * reach, n]."""
        padded = F.pad(states, (0, 0, reach, padding + reach))
        shifted = [padded.narrow(-2, step * reach, count * reach) for step in range(3)]
        return torch.cat([torch.unflatten(part, -2, (count, reach)) for part in shifted], dim=-2)

    def folded(states: torch.Tensor) -> torch.Tensor:
        """Return states [batch, heads, blocks, n, size] as [batch * blocks, heads, n, size]."""
        return states.transpose(1, 2).flatten(0, 1)

    positions = stream.positions.expand(batch, length)[..., None]
    real = around(stream.token_mask[..., None].to(positions.dtype)).transpose(-1, -2) > 0
    out_of_reach = (own(positions) - around(positions).transpose(-1, -2)).abs() > reach
    mask = lowered(out_of_reach | ~real, query.dtype).flatten(0, 1)[:, None]
    context, _ = attention(
        folded(own(query)), folded(around(key)), folded(around(value)), mask, dropout=dropout, explicit=False
    )
    blocks = torch.unflatten(context, 0, (batch, count)).transpose(1, 2)
    return blocks.flatten(2, 3)[:, :, :length]


def lowest(dtype: torch.dtype) -> float:
    """Return the score of a token that is padding.

    A program that is exported in fp32 may run with autocast to bf16, whose least number is the larger one.
    """
    return torch.finfo(torch.bfloat16 if dtype == torch.float32 else dtype).min


def lowered(hidden: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    """Return what is added to scores so that those where ``hidden`` is True count as nothing.

    Padding that is far from all real tokens has no other keys. With half of the least number its scores stay
    finite, and softmax does not give NaN, which would reach real tokens in the next layer.
    """
    return torch.zeros_like(hidden, dtype=dtype).masked_fill(hidden, torch.finfo(dtype).min / 2)


def mask_of(stream: Stream, heads: Sequence[int], dtype: torch.dtype) -> torch.Tensor | None:
    """Return what is added to attention scores: padding mask and relative position bias of ``heads``.

    Returns:
        [batch, heads or 1, length or 1, length]; None: nothing is added.
    """
    mask = None
    if torch.compiler.is_exporting() or not bool(stream.token_mask.all()):
        zeros = torch.zeros_like(stream.token_mask, dtype=dtype)
        mask = zeros.masked_fill(~stream.token_mask, torch.finfo(dtype).min)[:, None, None, :]
    if stream.bias is None:
        return mask
    bias = stream.bias[:, list(heads)].to(dtype)
    return bias if mask is None else mask + bias

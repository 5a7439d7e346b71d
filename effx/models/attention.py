"""Scaled dot-product attention over the heads that remain, fused or with explicit probabilities."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterator, Sequence
from contextvars import ContextVar

import torch
import torch.nn.functional as F  # noqa: N812 - the usual name

from effx.models.stream import Stream

_FUSED: ContextVar[bool] = ContextVar("fused", default=False)


@contextlib.contextmanager
def fused_attention(fused: bool) -> Iterator[None]:
    """Export attention as one operation if ``fused``, for runtimes that have a kernel for it."""
    token = _FUSED.set(fused)
    try:
        yield
    finally:
        _FUSED.reset(token)


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

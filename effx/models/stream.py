"""Hidden states between the layers of an encoder, with what later layers must know about their tokens."""

from __future__ import annotations

from dataclasses import dataclass

import torch


@dataclass(frozen=True)
class Stream:
    """Hidden states of a batch after the embeddings, a layer, or the attention half of a layer."""

    hidden: torch.Tensor
    """[batch, length, width]"""
    token_mask: torch.Tensor
    """bool [batch, length]; False: padding, or a dropped token that is still in the tensors."""
    lengths: torch.Tensor
    """int64 [batch]; tokens of the input, without padding."""
    positions: torch.Tensor
    """int64 [batch, length]; positions of the tokens in the input."""
    width: int
    """Length of the input's tensors, with padding."""
    bias: torch.Tensor | None = None
    """[batch or 1, heads or 1, length, length]; what attention has to know about pairs of tokens, in families
    with relative positions: a bias, which tokens are out of reach, or the number of a distance."""

    def rows(self, keep: torch.Tensor) -> Stream:
        """Return some of the rows (bool [batch]), cut to the longest of them."""
        token_mask = self.token_mask[keep]
        width = int(token_mask.any(0).nonzero().max()) + 1
        bias = self.bias
        if bias is not None:
            bias = (bias if bias.shape[0] == 1 else bias[keep])[:, :, :width, :width]
        return Stream(
            self.hidden[keep, :width],
            token_mask[:, :width],
            self.lengths[keep],
            self.positions[keep, :width],
            self.width,
            bias,
        )

    def take(self, indices: torch.Tensor, token_mask: torch.Tensor) -> Stream:
        """Return the tokens at ``indices`` [batch, count] of each row, with their ``token_mask``."""
        width = self.hidden.shape[-1]
        bias = self.bias
        if bias is not None:
            bias = bias.expand(indices.shape[0], -1, -1, -1)
            n, heads = bias.shape[:2]
            count = indices.shape[1]
            rows = indices[:, None, :, None].expand(n, heads, count, bias.shape[3])
            columns = indices[:, None, None, :].expand(n, heads, count, count)
            bias = bias.gather(2, rows).gather(3, columns)
        return Stream(
            self.hidden.gather(1, indices[..., None].expand(-1, -1, width)),
            token_mask,
            self.lengths,
            self.positions.gather(1, indices),
            self.width,
            bias,
        )

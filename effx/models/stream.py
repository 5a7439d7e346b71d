"""Hidden states between the layers of an encoder, with what later layers must know about their tokens."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch


@dataclass(frozen=True)
class RealTokens:
    """Where the tokens of a batch are that are not padding.

    The first token of a row is one of them, also where the mask says otherwise: task heads read it.
    """

    places: torch.Tensor
    """int64 [tokens]; of each token, among the batch * length places of the padded tensors."""
    numbers: torch.Tensor
    """int64 [batch * length]; of each place, the number of its token; of padding, that of another token."""
    batch: int
    length: int

    @staticmethod
    def of(token_mask: torch.Tensor) -> RealTokens:
        """Return those of a mask, bool [batch, length]."""
        first = torch.arange(token_mask.shape[1], device=token_mask.device) == 0
        flat = (token_mask | first).flatten().long()
        places = flat.nonzero().squeeze(1)
        return RealTokens(places, flat.cumsum(0) - 1, *token_mask.shape)


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
    real: RealTokens | None = None
    """Given: ``hidden`` is [1, tokens, width], without padding. The other tensors are padded."""

    def without_padding(self) -> Stream:
        """Return the stream with the hidden states of real tokens alone."""
        found = replace(self, real=RealTokens.of(self.token_mask))
        return replace(found, hidden=found.unpadded(self.hidden))

    def with_padding(self) -> Stream:
        """Return the stream with padded hidden states; those of padding have no meaning."""
        return replace(self, hidden=self.padded(self.hidden), real=None)

    def padded(self, states: torch.Tensor) -> torch.Tensor:
        """Return states of tokens, as ``hidden`` has them, as [batch, length, width]."""
        if self.real is None:
            return states
        rows = states.flatten(0, 1).index_select(0, self.real.numbers)
        return rows.reshape(self.real.batch, self.real.length, states.shape[-1])

    def unpadded(self, states: torch.Tensor) -> torch.Tensor:
        """Return states [batch, length, width] of tokens as ``hidden`` has them."""
        if self.real is None:
            return states
        return states.flatten(0, 1).index_select(0, self.real.places)[None]

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

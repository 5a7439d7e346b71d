"""Local attention in blocks against its definition, computed token by token."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from effx.models import attention
from effx.models.stream import Stream


def token_by_token(
    query: np.ndarray, key: np.ndarray, value: np.ndarray, positions: np.ndarray, real: np.ndarray, reach: int
) -> np.ndarray:
    """Contexts of one row; 0 for tokens that are not real. Arrays are [heads, length, size]."""
    heads, length, size = query.shape
    contexts = np.zeros_like(query)
    for head in range(heads):
        for token in np.flatnonzero(real):
            near = [
                other for other in np.flatnonzero(real) if abs(positions[other] - positions[token]) <= reach
            ]
            scores = np.array([query[head, token] @ key[head, other] for other in near]) / np.sqrt(size)
            weights = np.exp(scores - scores.max())
            contexts[head, token] = (weights / weights.sum()) @ value[head, near]
    return contexts


@given(
    length=st.integers(1, 23), reach=st.integers(1, 9), seed=st.integers(0, 1000), padding=st.integers(0, 9),
    dropped=st.booleans(),
)  # fmt: skip
@settings(max_examples=60, deadline=None)
def test_blocks_equal_the_definition(length: int, reach: int, seed: int, padding: int, dropped: bool) -> None:
    rng = np.random.default_rng(seed)
    arrays = rng.normal(size=(3, 2, 3, length, 4))
    real = np.ones((2, length), dtype=bool)
    real[1, max(1, length - padding) :] = False
    positions = np.tile(np.arange(length), (2, 1))
    if dropped:  # tokens that remain keep their order and the positions that they had
        positions = np.sort([rng.choice(40, length, replace=False) for _ in range(2)], axis=1)
    query, key, value = torch.from_numpy(arrays)
    stream = Stream(
        torch.zeros(2, length, 12), torch.from_numpy(real), torch.from_numpy(real.sum(1)),
        torch.from_numpy(positions), length,
    )  # fmt: skip
    contexts = attention.local_attention(query, key, value, stream, reach, dropout=0.0).numpy()
    assert np.isfinite(contexts).all()
    for row in range(2):
        expected = token_by_token(*arrays[:, row], positions[row], real[row], reach)
        np.testing.assert_allclose(contexts[row][:, real[row]], expected[:, real[row]], atol=1e-12)


def test_dropout_acts_on_the_probabilities() -> None:
    ones = torch.ones(1, 1, 8, 2)
    stream = Stream(
        torch.zeros(1, 8, 2), torch.ones(1, 8, dtype=torch.bool), torch.tensor([8]), torch.arange(8)[None], 8
    )
    torch.manual_seed(0)
    contexts = attention.local_attention(ones, ones, ones, stream, 2, dropout=0.5)
    assert contexts.unique().numel() > 1
    assert torch.equal(contexts[..., 0], contexts[..., 1])


@pytest.mark.parametrize("length", [attention.BLOCKS_FROM_TOKENS - 1, attention.BLOCKS_FROM_TOKENS])
def test_long_inputs_are_computed_in_blocks(length: int) -> None:
    stream = Stream(
        torch.zeros(1, length, 2), torch.ones(1, length, dtype=torch.bool), torch.tensor([length]),
        torch.arange(length)[None], length,
    )  # fmt: skip
    assert attention.in_blocks(stream, 64) == (length == attention.BLOCKS_FROM_TOKENS)
    assert not attention.in_blocks(stream, 0) and not attention.in_blocks(stream, length // 5)

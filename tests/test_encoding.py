"""Ids equal those of the transformers tokenizer."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from transformers import PreTrainedTokenizerFast

from effx import corpus
from effx.encoding import Encoder, length_sorted, smaller_batches


def test_ids_equal_transformers(encoders: dict[str, Path], tokenizer: PreTrainedTokenizerFast) -> None:
    texts = corpus.texts("validation")[:40]
    pairs = list(zip(texts[:20], texts[20:], strict=True))
    for rows, reference in (
        ([(text,) for text in texts], tokenizer(texts, truncation=True, max_length=16, padding=True)),
        (pairs, tokenizer([a for a, _ in pairs], [b for _, b in pairs], truncation=True,
                          max_length=24, padding=True, return_token_type_ids=True)),
    ):  # fmt: skip
        limit = 16 if len(rows[0]) == 1 else 24
        batch = Encoder(encoders["bert"], limit)(rows).batch(np.arange(len(rows)))
        assert batch["input_ids"].tolist() == reference["input_ids"]
        assert batch["attention_mask"].tolist() == reference["attention_mask"]
        if len(rows[0]) == 2:
            assert batch["token_type_ids"].tolist() == reference["token_type_ids"]


def test_batches_cover_every_row_once_longest_first() -> None:
    lengths = np.random.default_rng(0).integers(1, 50, 101)
    batches = length_sorted(lengths, 8)
    assert sorted(np.concatenate(batches).tolist()) == list(range(101))
    assert max(lengths[batches[0]]) == lengths.max()
    assert all(lengths[a].min() >= lengths[b].max() for a, b in zip(batches, batches[1:], strict=False))


def test_batches_of_long_rows_are_smaller() -> None:
    lengths = np.array([600, 100, 8192, 512, 512, 512, 512, 2000, 30])
    order = np.argsort(-lengths, kind="stable")
    parts = smaller_batches(order, lengths, 4)
    assert [part.tolist() for part in parts] == [[2], [7], [0, 3], [4, 5, 6, 1], [8]]
    assert np.array_equal(np.concatenate(parts), order)
    usual = np.full(100, 512)
    assert [len(part) for part in smaller_batches(np.arange(100), usual, 64)] == [64, 36]


def test_one_long_row_does_not_pad_many_short_ones() -> None:
    lengths = np.array([20, 512, 19, 10, 9, 5, 4])
    order = np.argsort(-lengths, kind="stable")
    assert [part.tolist() for part in smaller_batches(order, lengths, 64)] == [order.tolist()]
    parts = smaller_batches(order, lengths, 64, similar=True)
    assert [lengths[part].tolist() for part in parts] == [[512], [20, 19, 10], [9, 5], [4]]

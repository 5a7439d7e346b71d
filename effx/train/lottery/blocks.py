"""Blocks of consecutive text for masked language modelling: passages joined, and cut into equal lengths.

    passages    a1 a2 a3 | b1 b2 | c1 c2 c3 c4 | d1            tokens of each passage
    blocks      [CLS] a1 a2 a3 b1 [SEP]    [CLS] b2 c1 c2 c3 [SEP]          c4 d1 are left out

There is nothing between two passages, and each block is enclosed as the tokenizer encloses a single text. So
are the sentences of a segment in BERT's own preprocessing (Devlin et al. 2019, appendix A.2), and the blocks
of the search for masks by Chen et al. 2020 (the class TextDataset of their LT_pretrain.py). There is no
second segment, as the next sentence is not predicted.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Any

import numpy as np

from effx.encoding import Encoded
from effx.errors import UsageError

_CHUNK = 1024
"""Passages that are encoded at once."""


@dataclass(frozen=True)
class Blocks:
    """Text in blocks of equal length."""

    encoded: Encoded
    """A row for each block."""
    rest: int
    """Tokens at the end of the text that do not fill a block."""


def join(tokenizer: Any, texts: Sequence[tuple[str, ...]], length: int) -> Blocks:
    """Return the passages as blocks of ``length`` tokens, special tokens included.

    Args:
        tokenizer: of transformers.
        texts: the passages, in the order of the text.
        length: tokens of a block.

    Raises:
        UsageError: all passages together do not fill one block.
    """
    before, after = _enclosing(tokenizer, texts)
    inside = length - len(before) - len(after)
    ids = np.concatenate([np.zeros(0, np.int32), *_tokens(tokenizer, texts)])
    count = len(ids) // inside if inside > 0 else 0
    if not count:
        raise _too_short(len(ids), length)
    parts = [np.tile(np.array(part, np.int32), (count, 1)) for part in (before, after)]
    rows = np.hstack([parts[0], ids[: count * inside].reshape(count, inside), parts[1]])
    encoded = Encoded(
        ids=rows.ravel(),
        types=np.zeros(rows.size, np.int8),
        offsets=np.arange(count + 1, dtype=np.int64) * length,
        pad_id=int(tokenizer.pad_token_id or 0),  # nothing is padded
    )
    return Blocks(encoded, len(ids) - count * inside)


def check(tokenizer: Any, texts: Sequence[tuple[str, ...]], length: int) -> None:
    """Check that passages fill a block; only as many of them are read as are needed.

    Raises:
        UsageError: they do not.
    """
    missing = length - sum(map(len, _enclosing(tokenizer, texts)))
    found = 0
    for ids in _tokens(tokenizer, texts):
        found += len(ids)
        if found >= missing > 0:
            return
    raise _too_short(found, length)


def _too_short(tokens: int, length: int) -> UsageError:
    return UsageError(
        f"text has {tokens} tokens, which do not fill a block of {length} tokens: give a longer text, or set "
        "mlm_max_length to fewer.",
        settings=("text", "mlm_max_length"),
    )


def _tokens(tokenizer: Any, texts: Sequence[tuple[str, ...]]) -> Iterator[np.ndarray]:
    """Yield the ids of passages without special tokens, those of some passages at a time, int32 [tokens]."""
    for begin in range(0, len(texts), _CHUNK):
        passages = [text for row in texts[begin : begin + _CHUNK] for text in row]
        ids = tokenizer(passages, add_special_tokens=False, verbose=False)["input_ids"]
        yield np.fromiter(chain.from_iterable(ids), np.int32)


def _enclosing(tokenizer: Any, texts: Sequence[tuple[str, ...]]) -> tuple[list[int], list[int]]:
    """Return the special tokens before and after a single text, as [CLS] and [SEP].

    Raises:
        UsageError: the tokenizer does not enclose a text, but changes it.
    """
    for text, *_ in texts:
        plain = tokenizer(text, add_special_tokens=False, verbose=False)["input_ids"]
        if not plain:
            continue
        whole = tokenizer(text, verbose=False)["input_ids"]
        for begin in range(len(whole) - len(plain) + 1):
            end = begin + len(plain)
            if whole[begin:end] == plain:
                return whole[:begin], whole[end:]
        raise UsageError(
            "the tokenizer adds special tokens within a text, so that texts cannot be joined to blocks: set "
            "mlm_rows to passages.",
            settings="mlm_rows",
        )
    return [], []

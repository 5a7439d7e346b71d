"""Token ids by the ``tokenizers`` library, from the tokenizer.json of a model.

Training, the parity gate and profiling encode with this module, so an engine gets exactly the ids
that its checkpoint was trained on. Profiling therefore does not need transformers.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from tokenizers import Encoding, Tokenizer

from effx import records
from effx.errors import ArtifactError, one_line

_CHUNK = 4096  # rows encoded at once: bounds the memory that Encoding objects take


@dataclass(frozen=True)
class Words:
    """Which tokens begin a word, of rows that are lists of words."""

    starts: np.ndarray
    """int32 [tokens]; number of the word in its row whose first piece the token is; -1: later pieces, special
    tokens."""
    counts: np.ndarray
    """int64 [n]; words of each row, those without a token included: they were cut off, or are empty."""
    width: int
    """Words of the longest row; it stays the same in a part of the rows."""


@dataclass(frozen=True)
class Encoded:
    """Rows of ids without padding, stored flat: 67,349 SST-2 rows take about 4 MB."""

    ids: np.ndarray
    """int32 [tokens]"""
    types: np.ndarray
    """int8 [tokens], 1 in the second text of a pair"""
    offsets: np.ndarray
    """int64 [n + 1]; row i is ids[offsets[i]:offsets[i + 1]]"""
    pad_id: int
    words: Words | None = None
    """None: rows are texts."""

    def __len__(self) -> int:
        return len(self.offsets) - 1

    @property
    def lengths(self) -> np.ndarray:
        """Tokens per row, int64 [n]."""
        return np.diff(self.offsets)

    def batch(self, indices: Sequence[int] | np.ndarray, length: int | None = None) -> dict[str, np.ndarray]:
        """Return the rows as int64 arrays [rows, length], padded on the right.

        Args:
            indices: of the rows.
            length: of the arrays; default: the longest of these rows.
        """
        lengths = self.lengths[indices]
        width = int(lengths.max()) if length is None else length
        shape = (len(lengths), width)
        ids = np.full(shape, self.pad_id, dtype=np.int64)
        mask = np.zeros(shape, dtype=np.int64)
        types = np.zeros(shape, dtype=np.int64)
        for row, index in enumerate(indices):
            start, end = self.offsets[index], self.offsets[index + 1]
            ids[row, : end - start] = self.ids[start:end]
            types[row, : end - start] = self.types[start:end]
            mask[row, : end - start] = 1
        return {"input_ids": ids, "attention_mask": mask, "token_type_ids": types}

    def take(self, indices: Sequence[int] | np.ndarray) -> Encoded:
        """Return the rows at ``indices``, in that order."""
        lengths = self.lengths[indices]
        offsets = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
        tokens = np.arange(offsets[-1]) + np.repeat(self.offsets[:-1][indices] - offsets[:-1], lengths)
        words = self.words
        if words is not None:
            words = Words(words.starts[tokens], words.counts[indices], words.width)
        return Encoded(self.ids[tokens], self.types[tokens], offsets, self.pad_id, words)

    def flat(self, rows: Sequence[int] | np.ndarray, values: np.ndarray) -> np.ndarray:
        """Return a batch's values per token [rows, length, ...] without padding, [tokens, ...]."""
        lengths = self.lengths[rows]
        return np.asarray(values[np.arange(values.shape[1]) < lengths[:, None]])

    def scatter(self, rows: Sequence[int] | np.ndarray, values: np.ndarray, into: np.ndarray) -> None:
        """Copy a batch's values per token into an array in the order of ``ids``.

        Args:
            rows: indices of the batch's rows.
            values: [rows, length, ...], padded on the right.
            into: [tokens, ...]; row i is written to ``into[offsets[i]:offsets[i + 1]]``.
        """
        for row, row_values in zip(rows, values, strict=True):
            start, end = self.offsets[row], self.offsets[row + 1]
            into[start:end] = row_values[: end - start]


class Encoder:
    """A tokenizer that cuts rows to ``max_length``, with the tokenizer's settings as transformers reads them.

    tokenizer.json holds the vocabulary, normaliser, special tokens and template of pairs. From
    tokenizer_config.json, where there is one, come the end at which a long text is cut (``truncation_side``),
    whether pairs have token types (``model_input_names``), and whether special tokens within a text are split
    (``split_special_tokens``). Padding and the maximum length in tokenizer.json are ignored.
    """

    def __init__(self, folder: str | Path, max_length: int, *, words: bool = False) -> None:
        """Read tokenizer.json, tokenizer_config.json, and the padding id from config.json, in ``folder``.

        Args:
            folder: of the model.
            max_length: tokens of a row at most, special tokens included.
            words: whether rows are lists of words; otherwise they are one text or a pair.

        Raises:
            ArtifactError: a file is missing or cannot be read.
        """
        folder = Path(folder)
        path = folder / "tokenizer.json"
        if not path.is_file():
            raise ArtifactError(f"{folder}: tokenizer.json is missing.")
        try:
            self._tokenizer = Tokenizer.from_file(str(path))
        except Exception as error:  # tokenizers raises plain Exception
            raise ArtifactError(f"{folder}: tokenizer cannot be read ({one_line(error)}).") from error
        config = records.read_foreign_json(folder / "config.json")
        path = folder / "tokenizer_config.json"
        settings = records.read_foreign_json(path) if path.is_file() else {}
        self._tokenizer.no_padding()  # some saved tokenizers pad every row to 128
        stored = self._tokenizer.truncation or {}
        side = settings.get("truncation_side") or str(stored.get("direction", "right")).lower()
        if side not in ("left", "right"):
            raise ArtifactError(f"{path}: truncation_side: expected left or right, got {side!r}.")
        self._tokenizer.enable_truncation(max_length, direction=side)
        self._tokenizer.encode_special_tokens = bool(settings.get("split_special_tokens", False))
        names = settings.get("model_input_names", ["token_type_ids"])
        self._token_types = isinstance(names, list) and "token_type_ids" in names
        self.pad_id = _pad_id(folder / "config.json", config.get("pad_token_id"))
        self.max_length, self.words = max_length, words

    def _encoded(self, rows: Sequence[tuple[str, ...]]) -> list[Encoding]:
        """Return the tokenizer's answers; it panics where one of its patterns takes too long on a text."""
        texts = list(rows) if self.words else [row[0] if len(row) == 1 else row for row in rows]
        try:
            return list(self._tokenizer.encode_batch(texts, is_pretokenized=self.words))
        except BaseException as error:
            if type(error).__module__ != "pyo3_runtime":
                raise
            raise ArtifactError(f"tokenizer.json: it cannot encode a text ({one_line(error)}).") from error

    def __call__(self, texts: Sequence[tuple[str, ...]]) -> Encoded:
        """Encode a text, a pair or a list of words per row.

        Rows above ``max_length`` are cut, of a pair the longer text first.
        """
        ids, types, offsets = [], [], [0]
        starts: list[np.ndarray] = []
        for start in range(0, len(texts), _CHUNK):
            for encoding in self._encoded(texts[start : start + _CHUNK]):
                ids.append(np.array(encoding.ids, dtype=np.int32))
                if self.words:
                    starts.append(_word_starts(encoding.word_ids))
                kinds = encoding.type_ids if self._token_types else [0] * len(encoding.ids)
                types.append(np.array(kinds, dtype=np.int8))
                offsets.append(offsets[-1] + len(encoding.ids))
        empty = np.zeros(0, dtype=np.int32)
        return Encoded(
            np.concatenate(ids) if ids else empty,
            np.concatenate(types) if types else empty.astype(np.int8),
            np.array(offsets, dtype=np.int64),
            self.pad_id,
            _words(texts, starts) if self.words else None,
        )


def _words(rows: Sequence[tuple[str, ...]], starts: Sequence[np.ndarray]) -> Words:
    counts = np.array([len(row) for row in rows], dtype=np.int64)
    flat = np.concatenate(starts) if starts else np.zeros(0, dtype=np.int32)
    return Words(flat, counts, int(counts.max(initial=0)))


def _word_starts(words: Sequence[int | None]) -> np.ndarray:
    """Return the words of tokens, int32, with -1 for special tokens and all pieces but the first."""
    numbers = np.array([-1 if word is None else word for word in words], dtype=np.int32)
    same = np.append(False, numbers[1:] == numbers[:-1])
    return np.where(same, -1, numbers)


def length_sorted(lengths: np.ndarray, batch_size: int) -> list[np.ndarray]:
    """Return batches of row indices, rows of similar length together, the longest first.

    The longest come first so that a batch that does not fit in memory fails at once.
    """
    order = np.argsort(-lengths, kind="stable")
    return [order[start : start + batch_size] for start in range(0, len(order), batch_size)]


def _pad_id(path: Path, value: object) -> int:
    """Return ``pad_token_id`` of a config; 0 where it has none."""
    if value is None:
        return 0
    if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value < 1 << 31:
        raise ArtifactError(f"{path}: pad_token_id: expected an integer >= 0, got {one_line(value, 40)}.")
    return value

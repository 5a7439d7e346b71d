"""Token ids by the ``tokenizers`` library, from the tokenizer.json of a model.

Training, the parity gate and profiling encode with this module, so an engine gets exactly the ids
that its checkpoint was trained on. Profiling therefore does not need transformers.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
from tokenizers import Encoding, Tokenizer

from effx import records
from effx.errors import ArtifactError, UsageError, one_line
from effx.specs.documents import Documents

_CHUNK = 4096  # rows encoded at once: bounds the memory that Encoding objects take
_CHUNK_OF_WINDOWS = 256
_USUAL_LENGTH = 512
FORMS = ("texts", "words", "windows", "separate", "candidates", "documents")
"""What a row is: one text or a pair, cut at the maximum length; a list of words; a question with a context,
of which each sequence of tokens has a window; texts that are encoded apart, a sequence each; a query with
candidates, a sequence of the query and a candidate each; or a query that is compared with documents which all
rows share, followed by the id of the document that is the query itself, if there is one."""
_SEVERAL = ("windows", "separate", "candidates")
"""Forms of rows with several sequences."""
_LEAST_WINDOW = 16
"""Maximum length from which a window has a question and some of its context."""


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
class Windows:
    """Which part of a context each sequence of tokens has, of rows that are a question and a context."""

    begins: np.ndarray
    """int32 [tokens]; first character of a token in the context; -1: it is not part of the context."""
    ends: np.ndarray
    """int32 [tokens]; the character after its last one, likewise."""
    contexts: tuple[str, ...]
    """Of each row."""


@dataclass(frozen=True)
class EncodedDocuments:
    """Documents that all rows share, each a sequence."""

    ids: tuple[str, ...]
    tokens: Encoded
    vectors: np.ndarray | None = None
    """[documents, width], of the model or engine that answers the rows; None: not computed yet."""


@dataclass(frozen=True)
class Encoded:
    """Sequences of ids without padding, stored flat: 67,349 SST-2 rows take about 4 MB.

    A row is one sequence; or several: the windows of a question's context, or texts that are encoded apart.
    """

    ids: np.ndarray
    """int32 [tokens]"""
    types: np.ndarray
    """int8 [tokens], 1 in the second text of a pair"""
    offsets: np.ndarray
    """int64 [n + 1]; sequence i is ids[offsets[i]:offsets[i + 1]]"""
    pad_id: int
    words: Words | None = None
    """None: rows are not lists of words."""
    windows: Windows | None = None
    """None: rows are not questions with a context."""
    row_of: np.ndarray | None = None
    """int64 [sequences], ascending; number of the row that a sequence is of. Each row has at least one. None:
    a row is one sequence."""
    documents: EncodedDocuments | None = None
    """What rows are compared with; None: they are not queries. Parts of the rows have all of them."""
    own_documents: np.ndarray | None = None
    """int64 [n]; number of the document that a query is itself, -1: none. None: rows are not queries."""

    def __len__(self) -> int:
        return len(self.offsets) - 1

    @property
    def lengths(self) -> np.ndarray:
        """Tokens per sequence, int64 [n]."""
        return np.diff(self.offsets)

    @property
    def cut_lengths(self) -> np.ndarray:
        """Tokens of sequences that may be cut at the maximum length, int64 [n]; empty: rows have windows."""
        return self.lengths if self.windows is None else self.lengths[:0]

    @property
    def row_count(self) -> int:
        """Number of rows."""
        return len(self) if self.row_of is None else int(self.row_of.max(initial=-1)) + 1

    @property
    def row_lengths(self) -> np.ndarray:
        """Tokens per row, those of all its sequences together, int64 [rows]."""
        if self.row_of is None:
            return self.lengths
        return np.bincount(self.row_of, self.lengths, self.row_count).astype(np.int64)

    @property
    def row_widths(self) -> np.ndarray:
        """Tokens of the longest sequence of each row, int64 [rows]."""
        if self.row_of is None:
            return self.lengths
        widths = np.zeros(self.row_count, dtype=np.int64)
        np.maximum.at(widths, self.row_of, self.lengths)
        return widths

    def sequences(self, rows: Sequence[int] | np.ndarray) -> np.ndarray:
        """Return the numbers of the sequences of rows, row by row."""
        rows = np.asarray(rows, dtype=np.int64)
        if self.row_of is None:
            return rows
        first = np.searchsorted(self.row_of, rows, side="left")
        counts = np.searchsorted(self.row_of, rows, side="right") - first
        before = np.cumsum(counts) - counts
        return np.asarray(np.repeat(first - before, counts) + np.arange(counts.sum()))

    def batch(self, indices: Sequence[int] | np.ndarray, length: int | None = None) -> dict[str, np.ndarray]:
        """Return sequences as int64 arrays [sequences, length], padded on the right.

        Args:
            indices: of the sequences.
            length: of the arrays; default: the longest of these sequences.
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
        sequences = self.sequences(indices)
        lengths = self.lengths[sequences]
        offsets = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
        tokens = np.arange(offsets[-1]) + np.repeat(self.offsets[:-1][sequences] - offsets[:-1], lengths)
        words, windows, row_of, own = self.words, self.windows, self.row_of, self.own_documents
        if words is not None:
            words = Words(words.starts[tokens], words.counts[indices], words.width)
        if windows is not None:
            windows = Windows(
                windows.begins[tokens],
                windows.ends[tokens],
                tuple(windows.contexts[index] for index in indices),
            )
        if row_of is not None:
            counts = np.bincount(row_of, minlength=self.row_count)[indices]
            row_of = np.repeat(np.arange(len(counts)), counts)
        if own is not None:
            own = own[indices]
        ids, types = self.ids[tokens], self.types[tokens]
        return Encoded(ids, types, offsets, self.pad_id, words, windows, row_of, self.documents, own)

    def with_vectors(self, vectors: np.ndarray) -> Encoded:
        """Return the rows, compared with documents that have these vectors [documents, width]."""
        assert self.documents is not None, "rows have no documents"
        return replace(self, documents=replace(self.documents, vectors=vectors))

    def flat(self, sequences: Sequence[int] | np.ndarray, values: np.ndarray) -> np.ndarray:
        """Return a batch's values per token [sequences, length, ...] without padding, [tokens, ...]."""
        lengths = self.lengths[sequences]
        return np.asarray(values[np.arange(values.shape[1]) < lengths[:, None]])

    def scatter(self, sequences: Sequence[int] | np.ndarray, values: np.ndarray, into: np.ndarray) -> None:
        """Copy a batch's values per token into an array in the order of ``ids``.

        Args:
            sequences: indices of the batch's sequences.
            values: [sequences, length, ...], padded on the right.
            into: [tokens, ...]; sequence i is written to ``into[offsets[i]:offsets[i + 1]]``.
        """
        for sequence, sequence_values in zip(sequences, values, strict=True):
            start, end = self.offsets[sequence], self.offsets[sequence + 1]
            into[start:end] = sequence_values[: end - start]


class Encoder:
    """A tokenizer that cuts rows to ``max_length``, with the tokenizer's settings as transformers reads them.

    tokenizer.json holds the vocabulary, normaliser, special tokens and template of pairs. From
    tokenizer_config.json, where there is one, come the end at which a long text is cut (``truncation_side``),
    whether pairs have token types (``model_input_names``), and whether special tokens within a text are split
    (``split_special_tokens``). Padding and the maximum length in tokenizer.json are ignored.
    """

    def __init__(
        self, folder: str | Path, max_length: int, *, form: str = "texts", stride: int | None = None
    ) -> None:
        """Read tokenizer.json, tokenizer_config.json, and the padding id from config.json, in ``folder``.

        Args:
            folder: of the model.
            max_length: tokens of a sequence at most, special tokens included.
            form: what rows are, one of :data:`FORMS`.
            stride: tokens of a context that a window has in common with the one before it; default: a third
                of ``max_length``.

        Raises:
            ArtifactError: a file is missing or cannot be read.
            UsageError: windows of ``max_length`` tokens are too short for a question and a context, or
                ``stride`` is too long for them.
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
        settings_path = folder / "tokenizer_config.json"
        settings = records.read_foreign_json(settings_path) if settings_path.is_file() else {}
        self._tokenizer.no_padding()  # some saved tokenizers pad every row to 128
        stored = self._tokenizer.truncation or {}
        side = settings.get("truncation_side") or str(stored.get("direction", "right")).lower()
        if side not in ("left", "right"):
            raise ArtifactError(f"{settings_path}: truncation_side: expected left or right, got {side!r}.")
        self.stride = max_length // 3 if stride is None else stride
        """Tokens that a window has in common with the one before it: 128 of 384."""
        if form == "windows":
            if max_length < _LEAST_WINDOW:
                raise UsageError(
                    f"max_length {max_length}: a question with a part of its context needs at least "
                    f"{_LEAST_WINDOW} tokens.",
                    settings="max_length",
                )
            self._whole = Tokenizer.from_file(str(path))
            self._whole.no_padding()
            self._whole.no_truncation()
            room = max_length - self._tokenizer.num_special_tokens_to_add(True)
            self._longest_question = room // 2
            most = room - self._longest_question - 1  # a window begins at a later token than the one before
            if self.stride > most:
                raise UsageError(
                    f"windows of {max_length} tokens have at most {most} in common, not {self.stride}."
                )
            self._tokenizer.enable_truncation(
                max_length, stride=self.stride, strategy="only_second", direction="right"
            )
        else:
            self._tokenizer.enable_truncation(max_length, direction=side)
        self._tokenizer.encode_special_tokens = bool(settings.get("split_special_tokens", False))
        names = settings.get("model_input_names", ["token_type_ids"])
        self._token_types = isinstance(names, list) and "token_type_ids" in names
        self.pad_id = _pad_id(folder / "config.json", config.get("pad_token_id"))
        self.max_length, self.form = max_length, form

    def text(self, ids: Sequence[int] | np.ndarray) -> str:
        """Return the text of token ids, without special tokens."""
        return self._tokenizer.decode([int(number) for number in ids])

    def question(self, text: str) -> str:
        """Return a question as it is encoded: without outer spaces on the left, and so short that half of a
        window's tokens are left for the context.
        """
        text = text.lstrip()
        if len(text) <= self._longest_question:  # a token has at least one character
            return text
        pieces = self._whole.encode(text, add_special_tokens=False).offsets
        return (
            text if len(pieces) <= self._longest_question else text[: pieces[self._longest_question - 1][1]]
        )

    def _encoded(self, rows: Sequence[tuple[str, ...]]) -> Iterator[list[Encoding]]:
        """Yield the sequences of each row.

        Raises:
            ArtifactError: the tokenizer panics, where one of its patterns takes too long on a text.
        """
        words = self.form == "words"
        texts: list[Any] = list(rows) if words else [row[0] if len(row) == 1 else row for row in rows]
        if self.form == "windows":
            texts = [(self.question(question), context) for question, context in rows]
        if self.form == "documents":
            texts = [row[0] for row in rows]
        if self.form == "separate":
            texts = [text for row in rows for text in row]
        if self.form == "candidates":
            texts = [(row[0], candidate) for row in rows for candidate in row[1:]]
        try:
            encodings = iter(self._tokenizer.encode_batch(texts, is_pretokenized=words))
        except BaseException as error:
            if type(error).__module__ != "pyo3_runtime":
                raise
            raise ArtifactError(f"tokenizer.json: it cannot encode a text ({one_line(error)}).") from error
        for row in rows:
            if self.form in ("separate", "candidates"):
                yield list(islice(encodings, len(row) - (self.form == "candidates")))
            else:
                first = next(encodings)
                yield [first, *first.overflowing] if self.form == "windows" else [first]

    def __call__(self, texts: Sequence[tuple[str, ...]], documents: Documents | None = None) -> Encoded:
        """Encode rows of the form: of each a text, a pair, words, a question, separate texts, or a query.

        Rows above ``max_length`` are cut, of a pair the longer text first. A context is not cut, but divided
        into windows that overlap by ``stride`` tokens, each with the question before it.

        Args:
            texts: of each row.
            documents: what the rows are compared with, where they are queries.
        """
        ids, types, offsets = [], [], [0]
        starts: list[np.ndarray] = []
        characters: list[np.ndarray] = []
        row_of: list[int] = []
        chunk = _CHUNK_OF_WINDOWS if self.form == "windows" else _CHUNK
        for start in range(0, len(texts), chunk):
            for number, of_row in enumerate(self._encoded(texts[start : start + chunk]), start):
                for encoding in of_row:
                    ids.append(np.array(encoding.ids, dtype=np.int32))
                    if self.form == "words":
                        starts.append(_word_starts(encoding.word_ids))
                    if self.form == "windows":
                        characters.append(_characters(encoding))
                    row_of.append(number)
                    kinds = encoding.type_ids if self._token_types else [0] * len(encoding.ids)
                    types.append(np.array(kinds, dtype=np.int8))
                    offsets.append(offsets[-1] + len(encoding.ids))
        empty = np.zeros(0, dtype=np.int32)
        shared = own = None
        if documents is not None:
            shared = EncodedDocuments(documents.ids, self([(text,) for text in documents.texts]))
            numbers = {name: number for number, name in enumerate(documents.ids)}
            own = np.array([numbers.get(row[1], -1) if len(row) > 1 else -1 for row in texts], dtype=np.int64)
        return Encoded(
            np.concatenate(ids) if ids else empty,
            np.concatenate(types) if types else empty.astype(np.int8),
            np.array(offsets, dtype=np.int64),
            self.pad_id,
            _words(texts, starts) if self.form == "words" else None,
            _windows(texts, characters) if self.form == "windows" else None,
            np.array(row_of, dtype=np.int64) if self.form in _SEVERAL else None,
            shared,
            own,
        )


def _characters(encoding: Encoding) -> np.ndarray:
    """Return first character and end of each token in the second text, int32 [tokens, 2]; -1 elsewhere."""
    of_context = np.array([sequence == 1 for sequence in encoding.sequence_ids])
    return np.where(of_context[:, None], np.array(encoding.offsets, dtype=np.int32), np.int32(-1))


def _windows(rows: Sequence[tuple[str, ...]], characters: Sequence[np.ndarray]) -> Windows:
    flat = np.concatenate(characters) if characters else np.zeros((0, 2), dtype=np.int32)
    return Windows(flat[:, 0], flat[:, 1], tuple(row[1] for row in rows))


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


def smaller_batches(
    order: np.ndarray, lengths: np.ndarray, batch_size: int, *, similar: bool = False
) -> list[np.ndarray]:
    """Divide row indices into batches, in order, where batches of long rows have fewer rows.

    Memory of attention grows with the square of the length, so a batch has at most as many squared tokens,
    padding included, as ``batch_size`` rows of 512 tokens, but at least one row. With ``similar``, a row of
    less than half the longest length of a batch begins the next, so that one long row does not pad many.
    """
    batches, start = [], 0
    most = batch_size * _USUAL_LENGTH**2
    while start < len(order):
        end, longest = start, 0
        while end < min(start + batch_size, len(order)):
            length = int(lengths[order[end]])
            longest = max(longest, length)
            if end > start and ((end + 1 - start) * longest**2 > most or (similar and 2 * length < longest)):
                break
            end += 1
        batches.append(order[start:end])
        start = end
    return batches


def _pad_id(path: Path, value: object) -> int:
    """Return ``pad_token_id`` of a config; 0 where it has none."""
    if value is None:
        return 0
    if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value < 1 << 31:
        raise ArtifactError(f"{path}: pad_token_id: expected an integer >= 0, got {one_line(value, 40)}.")
    return value

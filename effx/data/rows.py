"""Rows of a task: texts, labels, and what was understood of the files they come from."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, replace

import numpy as np

from effx.errors import UsageError
from effx.specs.documents import Documents

_SUBSET_SEED = 0  # a subset is the same for every training seed, so that runs stay comparable


@dataclass(frozen=True)
class Origin:
    """How rows were read from files."""

    columns: tuple[str, ...]
    """Columns of the texts, as the files name them."""
    label_column: str | None
    """None: the rows have no labels."""
    format: str
    """Format, delimiter, quoting and encoding, as ``CSV, delimiter semicolon, UTF-8``."""
    notes: tuple[str, ...] = ()
    """What a user should know, as how many rows without a label were skipped."""


class _FromSource:
    """What rows with and without labels share."""

    texts: list[tuple[str, ...]]
    source: str
    file: str | None
    documents: Documents | None

    @property
    def recorded_source(self) -> str:
        """Where they came from, as artifacts and results have it: without the folders of this machine."""
        return self.source if self.file is None else self.file

    @property
    def texts_digest(self) -> str:
        """SHA-256 of the texts, and of the documents if there are any; the same wherever the files are."""
        digest = hashlib.sha256()
        documents = (
            () if self.documents is None else zip(self.documents.ids, self.documents.texts, strict=True)
        )
        for row in (*self.texts, *documents):
            digest.update(repr(tuple(row)).encode())
        return digest.hexdigest()


@dataclass(frozen=True)
class Rows(_FromSource):
    """Texts and labels of one split, in file order."""

    texts: list[tuple[str, ...]]
    """One tuple per example: one text, two for a pair, the words, or a query, followed by the id of the
    document that it is itself, if there is one."""
    labels: np.ndarray
    """First axis n; what they are depends on the kind of task: int64 classes, float64 numbers, bool
    [n, labels] sets, int64 [n, words of the longest row] tags, or objects: tuples of accepted answers, of the
    relevances of candidates, or of (document id, relevance)."""
    source: str
    """Where they came from, for messages: a file, a dataset on the hub, or the demo corpus."""
    origin: Origin | None = None
    """None: the demo corpus."""
    file: str | None = None
    """The first file, from the data folder's name on, as ``sst2/train.jsonl``; None: not from files."""
    documents: Documents | None = None
    """What the rows are compared with; None: they are not queries. Parts of the rows have all of them."""
    positions: np.ndarray | None = None
    """Numbers of the rows in the table of their files, int64 [n]; None: rows are not lines of a table."""

    def __len__(self) -> int:
        return len(self.texts)

    def take(self, indices: np.ndarray) -> Rows:
        """Return the rows at ``indices``, in that order."""
        texts, labels = [self.texts[i] for i in indices], self.labels[indices]
        if labels.ndim == 2 and labels.dtype.kind == "i":  # tags, one for each word of the longest row
            labels = labels[:, : max(map(len, texts), default=0)]
        positions = None if self.positions is None else self.positions[indices]
        return replace(self, texts=texts, labels=labels, positions=positions)

    def limit(self, n: int | None) -> Rows:
        """Return ``n`` rows drawn without replacement, the same rows every time, in file order."""
        return self if n is None or n >= len(self) else self.take(self.subset(n))

    def with_fewer_documents(self, n: int) -> Rows:
        """Return the rows with about ``n`` documents, those that are relevant for a row included."""
        if self.documents is None or len(self.documents) <= n:
            return self
        needed = {name for row in self.labels for name, _ in row}
        return replace(self, documents=self.documents.part(n, needed))

    def subset(self, n: int | None) -> np.ndarray:
        """Return the indices of the rows that :meth:`limit` takes, ascending."""
        return _subset(len(self), n)


@dataclass(frozen=True)
class UnlabelledRows(_FromSource):
    """Texts without labels, in file order: engines are compared with a reference engine on them."""

    texts: list[tuple[str, ...]]
    """One tuple per example: one text, or two for a pair."""
    source: str
    """The file, for messages."""
    origin: Origin
    file: str | None = None
    """As :attr:`Rows.file`."""
    documents: Documents | None = None
    """None: rows that are compared with documents have labels."""

    def __len__(self) -> int:
        return len(self.texts)

    def limit(self, n: int | None) -> UnlabelledRows:
        """Return ``n`` rows, those that :meth:`Rows.limit` would return."""
        return replace(self, texts=[self.texts[index] for index in _subset(len(self), n)])


def _subset(rows: int, n: int | None) -> np.ndarray:
    if n is None or n >= rows:
        return np.arange(rows)
    if n < 1:
        raise UsageError(f"limit {n}: expected at least 1 row", settings="limit")
    return np.sort(np.random.default_rng(_SUBSET_SEED).permutation(rows)[:n])

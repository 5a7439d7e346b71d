"""Rows of every kind of task, made from sentences of the demo corpus, for benchmarks/variant_table.py.

The labels follow from the sentences, so that a small encoder learns something of each kind.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from effx import corpus

SUBJECTS = ("film", "plot", "acting", "script", "story", "service")
"""Words that labels, tags, answers and relevance are about."""
ROWS = {"train": 1000, "validation": 400}
_CANDIDATES = 6

Row = dict[str, Any]


def _sentences(split: str) -> Iterator[tuple[str, int, list[str]]]:
    """Yield sentences with their sentiment and the subjects that they name, as many as a split has rows."""
    texts, sentiments = corpus.split(split)
    for text, sentiment in list(zip(texts, sentiments, strict=True))[: ROWS[split]]:
        yield text, sentiment, [word for word in SUBJECTS if word in text.split()]


def _classification(split: str) -> Iterator[Row]:
    for text, sentiment, _ in _sentences(split):
        yield {"text": text, "label": ("negative", "positive")[sentiment]}


def _regression(split: str) -> Iterator[Row]:
    for text, sentiment, _ in _sentences(split):
        yield {"text": text, "label": sentiment + len(text.split()) / 10}


def _multi_label(split: str) -> Iterator[Row]:
    for text, sentiment, named in _sentences(split):
        yield {"text": text, "labels": [*named, *(["liked"] if sentiment else [])]}


def _token_classification(split: str) -> Iterator[Row]:
    for text, _, named in _sentences(split):
        words = text.split()
        tags = ["B-subject" if word in named else "O" for word in words]
        yield {"tokens": words, "tags": tags}


def _answer_span(split: str) -> Iterator[Row]:
    for text, _, named in _sentences(split):
        if named:
            start = text.index(named[0])
            answers = {"text": [named[0]], "answer_start": [start]}
            yield {"question": "what is it about ?", "context": text, "answers": answers}


def _ranking(split: str) -> Iterator[Row]:
    """Yield queries that name a subject, with sentences of which some name it."""
    rng = np.random.default_rng(0)
    sentences = list(_sentences(split))
    for number in range(ROWS[split] // _CANDIDATES):
        subject = SUBJECTS[number % len(SUBJECTS)]
        naming = [text for text, _, named in sentences if subject in named]
        others = [text for text, _, named in sentences if subject not in named]
        chosen = [*rng.choice(naming, 2, replace=False), *rng.choice(others, _CANDIDATES - 2, replace=False)]
        for place, text in enumerate(chosen):
            query = f"what about the {subject} , part {number} ?"
            yield {"query": query, "passage": str(text), "label": int(place < 2)}


def _embedding(split: str) -> Iterator[Row]:
    sentences = list(_sentences(split))
    for (first, _, _), (second, _, _) in zip(sentences, sentences[1:], strict=False):
        one, two = set(first.split()), set(second.split())
        yield {"sentence1": first, "sentence2": second, "label": 5 * len(one & two) / len(one | two)}


KINDS: dict[str, Callable[[str], Iterator[Row]]] = {
    "classification": _classification,
    "regression": _regression,
    "multi-label": _multi_label,
    "token-classification": _token_classification,
    "answer-span": _answer_span,
    "ranking": _ranking,
    "embedding": _embedding,
}
"""Kind -> its rows in a split."""


def _retrieval(folder: Path) -> Path:
    """Write sentences, and the second half of each as a query that it is relevant for."""
    sentences = list(dict.fromkeys(text for text, _, _ in _sentences("validation")))
    documents = [{"_id": f"d{number}", "text": text} for number, text in enumerate(sentences)]
    queries = [
        {"_id": f"q{number}", "text": " ".join(text.split()[len(text.split()) // 2 :])}
        for number, text in enumerate(sentences)
    ]
    for name, values in (("corpus", documents), ("queries", queries)):
        (folder / f"{name}.jsonl").write_text("".join(json.dumps(value) + "\n" for value in values))
    (folder / "qrels").mkdir(exist_ok=True)
    lines = [f"q{number}\td{number}\t1\n" for number in range(len(sentences))]
    (folder / "qrels" / "test.tsv").write_text("query-id\tcorpus-id\tscore\n" + "".join(lines))
    return folder


NAMES = (*KINDS, "retrieval")
"""The kinds that rows are made of."""


def write(kind: str, folder: Path) -> Path:
    """Write train.jsonl and validation.jsonl of a kind of task into a folder, and return it.

    Rows of retrieval are corpus.jsonl, queries.jsonl and qrels/test.tsv.
    """
    folder.mkdir(parents=True, exist_ok=True)
    if kind == "retrieval":
        return _retrieval(folder)
    for split in ROWS:
        lines = [json.dumps(row) for row in KINDS[kind](split)]
        (folder / f"{split}.jsonl").write_text("\n".join(lines) + "\n")
    return folder

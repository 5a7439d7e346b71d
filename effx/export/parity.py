"""The parity gate: an engine whose answers differ from its checkpoint's is refused.

Rows of the task are used where they are available, in batches with padding, plus a row at the length limit;
otherwise random ids. The manifest says which.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any, Protocol

import numpy as np

from effx.encoding import Encoded, EncodedDocuments, Windows, Words, smaller_batches
from effx.engines.protocol import Arrays
from effx.manifests import Parity
from effx.specs.kinds.embedding import cosines
from effx.specs.tasks import Task
from effx.stats import CONFIDENCE, intervals, noninferiority
from effx.stats.metrics import METRICS, same_rows

_BATCH = 8
_MIXED_ROWS = 128
_ROUNDING = 1e-3
"""Largest difference of rounding between logits alone and in a batch, as a share of the range of logits."""
_LARGE = 100.0
"""Magnitude of logits from which the rounding of float32 grows beyond a fixed tolerance: a model of prices
near 20,000 answers in steps of 0.002."""


@dataclass(frozen=True)
class Tolerance:
    """What a precision may change."""

    max_abs_diff: float | None
    """Of logits up to :data:`_LARGE`, in proportion above it; None: bounded by ``range_share`` alone."""
    range_share: float | None
    """Largest difference as a share of the range of the checkpoint's logits; None: not bounded."""
    label_agreement: float
    """How far predictions agree, 1: the same; see :attr:`effx.specs.kinds.TaskKind.agreement`."""
    cosine: float
    """Least cosine of the checkpoint's and the engine's vector of a text, where texts are embedded."""


TOLERANCES: dict[str, Tolerance] = {
    "fp32": Tolerance(max_abs_diff=1e-4, range_share=None, label_agreement=0.995, cosine=0.9999),
    "fp16": Tolerance(max_abs_diff=None, range_share=0.1, label_agreement=0.98, cosine=0.99),
    "bf16": Tolerance(max_abs_diff=None, range_share=0.25, label_agreement=0.97, cosine=0.97),
    "int8": Tolerance(max_abs_diff=None, range_share=0.5, label_agreement=0.93, cosine=0.9),
    "fp8": Tolerance(max_abs_diff=None, range_share=0.5, label_agreement=0.93, cosine=0.9),
}
MAX_ACCURACY_LOST = 0.01
"""Accuracy that a lossy precision may lose: the gate fails if the paired 95 % interval of the loss is above
it. On few rows the interval is wide; it is in the manifest."""

MAX_RECALL_LOST = 0.05
"""Recall of a class that a lossy precision may lose, likewise."""
_CHANCE = 0.01
_SEQUENCES = {"separate": 2, "candidates": 4}
"""Form of rows with several texts -> number of them in a random row."""


def precision_of(scheme: str, precision: str) -> str:
    """Return the precision whose tolerance applies to a scheme: that of its weights; int8 to fewer bits."""
    weights = scheme.removesuffix("-weights")
    if weights == scheme:
        return precision
    return weights if weights in TOLERANCES else "int8"


_LOSSY = ("fp16", "bf16", "int8", "fp8")


@dataclass(frozen=True)
class Reference:
    """The checkpoint's answers, with the exits and token pruning of the variant."""

    encoded: Encoded
    """With the checkpoint's vectors of documents, where rows are compared with some."""
    logits: np.ndarray
    """[sequences, outputs]; or [tokens, outputs], see :func:`effx.models.evaluate.token_logits`."""
    depth: np.ndarray | None
    labels: np.ndarray | None
    """Of the first rows; the rows after them have none."""
    inputs: str
    discrete: bool = False
    """Whether small differences decide what is computed (exits, tokens): a row's logits may then differ a lot
    in a correct engine, so lossy precisions are gated by labels and accuracy only."""


class Answers(Protocol):
    """What answers queries: a session, or one task's head of it."""

    def infer(self, inputs: Mapping[str, np.ndarray]) -> Arrays:
        """See :meth:`effx.engines.Session.infer`."""
        ...


def measure(
    reference: Reference,
    session: Answers,
    task: Task,
    precision: str,
    static_shape: tuple[int, int] | None = None,
) -> Parity:
    """Compare an engine with its checkpoint on encoded rows.

    The engine runs batches of eight. The first rows are unsorted, so that short rows are padded next to long
    ones; the other rows, which are for accuracy, and the checkpoint's run with rows of similar length. A
    lossy engine whose answers depend on the batch, as with dynamic int8 scales, is also compared in single
    queries, and an engine with a ``static_shape`` in queries of that shape. All comparisons must pass, and
    the worst one is returned. Documents that rows are compared with run in batches only, as where an index
    is built.
    """
    encoded = reference.encoded
    documents = _documents(reference, session, task)
    mixed = min(_MIXED_ROWS, len(encoded))
    order = np.append(np.arange(mixed), mixed + np.argsort(encoded.lengths[mixed:], kind="stable"))
    in_batches = _answer(reference, session, task, smaller_batches(order, encoded.lengths, _BATCH))
    found = [compare(reference, *in_batches, task, precision, documents)]
    if static_shape is not None:
        in_shape = _answer_in_shape(reference, session, task, static_shape)
        found.append(compare(reference, *in_shape, task, precision, documents))
    if precision in _LOSSY:
        alone = _answer(reference, session, task, np.arange(mixed)[:, None])
        if not _same_answers(reference, alone, in_batches, task, mixed):
            alone = _answer(reference, session, task, np.arange(len(encoded))[:, None])
            single = compare(reference, *alone, task, precision, documents)
            found.append(replace(single, rows_per_query=1))
    return min(found, key=lambda each: (each.passed, each.label_agreement))


def _documents(reference: Reference, session: Answers, task: Task) -> np.ndarray | None:
    """Return the engine's vectors of documents; None: the rows have none."""
    if (documents := reference.encoded.documents) is None or documents.vectors is None:
        return None
    vectors = np.zeros_like(documents.vectors)
    lengths = documents.tokens.lengths
    for part in smaller_batches(np.argsort(-lengths, kind="stable"), lengths, _BATCH):
        vectors[part] = task.behavior.logits(session.infer(documents.tokens.batch(part)))
    return vectors


def _answer_in_shape(
    reference: Reference, session: Answers, task: Task, shape: tuple[int, int]
) -> tuple[np.ndarray, np.ndarray | None]:
    """Return logits and depths from queries of one shape, [batch, length]; longer rows run alone."""
    batch, length = shape
    fits = reference.encoded.lengths <= length
    short, long = np.flatnonzero(fits), np.flatnonzero(~fits)
    full = np.resize(short, -(-len(short) // batch) * batch).reshape(-1, batch)
    answers, depth = _answer(reference, session, task, full, length)
    others, other_depth = _answer(reference, session, task, long[:, None])
    return answers + others, None if depth is None or other_depth is None else depth + other_depth


def _answer(
    reference: Reference,
    session: Answers,
    task: Task,
    batches: Iterable[np.ndarray],
    length: int | None = None,
) -> tuple[np.ndarray, np.ndarray | None]:
    """Return logits and depths as the reference has them; those of rows in no batch are 0."""
    answers = np.zeros_like(reference.logits)
    depth = None if reference.depth is None else np.zeros_like(reference.depth)
    for rows in batches:
        out = session.infer(reference.encoded.batch(rows, length))
        logits = task.behavior.logits(out)
        if task.behavior.of_tokens:
            reference.encoded.scatter(rows, logits, answers)
            continue
        answers[rows] = logits
        if depth is not None:
            depth[rows] = out["depth"]
    return answers, depth


def _same_answers(
    reference: Reference,
    alone: tuple[np.ndarray, np.ndarray | None],
    in_batches: tuple[np.ndarray, np.ndarray | None],
    task: Task,
    rows: int,
) -> bool:
    """Whether the first rows have the same depths and logits, but for rounding, alone and in batches."""
    if alone[1] is not None and not np.array_equal(alone[1][:rows], in_batches[1][:rows]):  # type: ignore[index]
        return False
    n = int(reference.encoded.offsets[rows]) if task.behavior.of_tokens else rows
    difference = np.max(np.abs(alone[0][:n] - in_batches[0][:n]), initial=0.0)
    return bool(difference <= _ROUNDING * np.ptp(reference.logits))


def compare(
    reference: Reference,
    answers: np.ndarray,
    depth: np.ndarray | None,
    task: Task,
    precision: str,
    documents: np.ndarray | None = None,
) -> Parity:
    """Compare answers, of the shape of the reference's logits, with it; answers that are not finite fail.

    Args:
        reference: the checkpoint's answers.
        answers: the engine's.
        depth: layers that each row ran through; None: the engine has no exits.
        task: turns answers into predictions.
        precision: a key of :data:`TOLERANCES`.
        documents: the engine's vectors of documents, where rows are compared with some.
    """
    expected, encoded, of_engine = reference.logits, reference.encoded, reference.encoded
    if documents is not None:
        of_engine = encoded.with_vectors(documents)
    tolerance, kind = TOLERANCES[precision], task.behavior
    if precision in ("int8", "fp8") and kind.least_agreement_of_int8 is not None:
        tolerance = replace(tolerance, label_agreement=kind.least_agreement_of_int8)
    expected_labels, labels = task.predict(expected, encoded), task.predict(answers, of_engine)
    if documents is not None:  # from here on, vectors of queries and documents are compared alike
        assert encoded.documents is not None and encoded.documents.vectors is not None
        expected = np.concatenate([expected, encoded.documents.vectors])
        answers = np.concatenate([answers, documents])
    difference = float(np.max(np.abs(expected - answers), initial=0.0))
    agreement = task.behavior.agreement(expected_labels, labels)
    finite = bool(np.isfinite(answers).all())
    scale = max(1.0, float(np.max(np.abs(expected), initial=0.0)) / _LARGE)
    passed = (
        finite
        and (
            tolerance.range_share is None
            or reference.discrete
            or difference <= tolerance.range_share * float(np.ptp(expected))
        )
        and (tolerance.max_abs_diff is None or difference <= tolerance.max_abs_diff * scale)
        and agreement >= tolerance.label_agreement
    )
    facts: dict[str, Any] = {}
    if depth is not None:
        facts["depth_agreement"] = float(np.mean(depth == reference.depth))
    lossy = precision in _LOSSY
    if "cosine" in kind.gates:
        facts["least_cosine"] = float(cosines(expected, answers).min())
        passed = passed and facts["least_cosine"] >= tolerance.cosine
    if reference.labels is not None:
        n = len(reference.labels)
        _, before = kind.numbers(reference.labels, expected_labels[:n])
        right_labels, after = kind.numbers(reference.labels, labels[:n])
    if reference.labels is not None and kind.has_classes:
        right, right_before = same_rows(after, right_labels), same_rows(before, right_labels)
        interval = intervals.paired_accuracy_interval(right, right_before)
        facts |= {"accuracy": float(right.mean()),
                  "accuracy_lost": float(right_before.mean() - right.mean()),
                  "accuracy_lost_interval": interval}  # fmt: skip
        passed = passed and not (lossy and interval[0] > MAX_ACCURACY_LOST)
    if "classes" in kind.gates:
        classes = expected_labels[expected_labels >= 0], labels[labels >= 0]  # of rows, or of words
        facts["lost_classes"] = _lost_classes(task, *classes, 1 - tolerance.label_agreement)
        passed = passed and not facts["lost_classes"]
    if reference.labels is not None:
        if "metric" in kind.gates:
            facts |= _metric_lost(task, right_labels, before, after)
        if "recall" in kind.gates:
            facts |= _recall_lost(task, right_labels, before, after)
        for name, most in (("metric", MAX_ACCURACY_LOST), ("recall", MAX_RECALL_LOST)):
            ends = facts.get(f"{name}_lost_interval")
            passed = passed and not (lossy and ends is not None and ends[0] > most)
    if not finite:
        difference = agreement = -1.0  # JSON has no NaN
        facts.pop("least_cosine", None)
    return Parity(reference.encoded.row_count, difference, agreement, passed, reference.inputs, **facts)


def _lost_classes(task: Task, before: np.ndarray, after: np.ndarray, differing: float) -> tuple[str, ...]:
    """Return the classes that the checkpoint predicts and the engine never does.

    Args:
        task: it has the names of the classes.
        before: the checkpoint's classes, of rows or words.
        after: the engine's.
        differing: share of them that may be another class. A class so rare that it may be lost by chance, in
            more than 1 % of cases, is not counted.
    """
    counts = np.bincount(before, minlength=len(task.labels))
    left = np.bincount(after, minlength=len(task.labels))
    lost = np.flatnonzero((counts > 0) & (left == 0) & (differing**counts <= _CHANCE))
    return tuple(task.labels[index] for index in lost)


def _metric_lost(task: Task, labels: np.ndarray, before: np.ndarray, after: np.ndarray) -> dict[str, Any]:
    """Return how much of the primary metric the engine loses, where it is not accuracy."""
    metric = METRICS[task.metric]
    if metric.name == "accuracy":
        return {}
    bounds = noninferiority.bounds(metric, labels, before, after, 0.5 + CONFIDENCE / 2)
    return {
        "metric": metric.name,
        "metric_lost": metric(labels, before) - metric(labels, after),
        "metric_lost_interval": None if bounds is None else (-bounds[1], -bounds[0]),
    }


def _recall_lost(task: Task, labels: np.ndarray, before: np.ndarray, after: np.ndarray) -> dict[str, Any]:
    """Return the class whose recall certainly falls by the most, and its loss; empty if no recall falls."""
    classes = np.unique(labels)
    losses = {}
    for label in classes.tolist():
        rows = labels == label
        low, high = intervals.paired_accuracy_interval(
            after[rows] == label, before[rows] == label, confidence=1 - (1 - CONFIDENCE) / len(classes)
        )
        lost = float(np.mean(before[rows] == label) - np.mean(after[rows] == label))
        losses[label] = (low, high, lost)
    worst = max(losses, key=lambda label: losses[label][0])
    low, high, lost = losses[worst]
    if lost <= 0:
        return {}
    return {"worst_class": task.labels[worst], "recall_lost": lost, "recall_lost_interval": (low, high)}


def random_rows(
    n: int, vocabulary: int, limit: int, pad_id: int, seed: int = 0, *, form: str = "texts"
) -> Encoded:
    """Return rows of random ids with random lengths from 2 to ``limit``.

    Of the form ``words`` each token is a word; of the form ``windows`` each row has one window, and each
    token is a character of its context; of the form ``documents`` the rows are compared with themselves; of
    other forms there are ``n`` texts, a few in each row.
    """
    rng = np.random.default_rng(seed)
    lengths = rng.integers(2, limit + 1, size=n)
    offsets = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
    ids = rng.integers(0, vocabulary, size=int(offsets[-1])).astype(np.int32)
    ids[ids == pad_id] = (pad_id + 1) % vocabulary
    positions = (np.arange(len(ids)) - np.repeat(offsets[:-1], lengths)).astype(np.int32)
    words = Words(positions, lengths, int(lengths.max())) if form == "words" else None
    windows = row_of = None
    if form == "windows":
        context = "".join(chr(ord("0") + number) for number in range(limit))
        windows, row_of = Windows(positions, positions + 1, (context,) * n), np.arange(n)
    if form in _SEQUENCES:
        row_of = np.arange(n) // _SEQUENCES[form]
    rows = Encoded(ids, np.zeros(len(ids), dtype=np.int8), offsets, pad_id, words, windows, row_of)
    if form != "documents":
        return rows
    documents = EncodedDocuments(tuple(map(str, range(n))), rows)
    return replace(rows, documents=documents, own_documents=np.full(n, -1))


def with_longest(encoded: Encoded, limit: int) -> Encoded:
    """Return the rows and an additional row of ``limit`` tokens with ids of the others.

    It has neither words nor a context; where rows have several texts, it has two of that length.
    """
    if encoded.row_of is not None and encoded.windows is None:
        row = encoded.row_count
        once = _with_sequence(encoded, limit, row)
        return _with_sequence(once, limit, row)
    return _with_sequence(encoded, limit, encoded.row_count)


def without_longest(encoded: Encoded) -> Encoded:
    """Return rows of :func:`with_longest` without the additional row, which no query of a user looks like."""
    return encoded.take(np.arange(encoded.row_count - 1))


def _with_sequence(encoded: Encoded, limit: int, row: int) -> Encoded:
    """Return the rows and a sequence of ``limit`` tokens that belongs to a row, the last or a new one."""
    ids = np.resize(encoded.ids, limit)
    offsets = np.append(encoded.offsets, encoded.offsets[-1] + limit)
    types = np.append(encoded.types, np.zeros(limit, dtype=np.int8))
    words = encoded.words
    if words is not None:
        starts = np.append(words.starts, np.full(limit, -1, dtype=np.int32))
        words = Words(starts, np.append(words.counts, 0), words.width)
    windows = encoded.windows
    if windows is not None:
        outside = np.full(limit, -1, dtype=np.int32)
        windows = Windows(
            np.append(windows.begins, outside),
            np.append(windows.ends, outside),
            (*windows.contexts, ""),
        )
    row_of = None if encoded.row_of is None else np.append(encoded.row_of, row)
    own = None if encoded.own_documents is None else np.append(encoded.own_documents, -1)
    return Encoded(
        np.append(encoded.ids, ids), types, offsets, encoded.pad_id, words, windows, row_of,
        encoded.documents, own,
    )  # fmt: skip

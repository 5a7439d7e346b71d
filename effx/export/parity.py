"""The parity gate: an engine answers as its checkpoint does, or it is not kept.

Real rows of the task are used where they can be had, spread over its lengths and in batches with
padding, plus one batch at the length limit; random ids otherwise, and the manifest says which.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from transformers import PreTrainedModel

from effx.encoding import Encoded
from effx.engines.protocol import Session
from effx.tasks import Task
from effx.train import evaluate

_BATCH = 8


@dataclass(frozen=True)
class Tolerance:
    """What a precision may change."""

    max_abs_diff: float | None
    """Of the logits; None: bounded by ``range_share`` alone."""
    range_share: float | None
    """Largest difference as a share of the checkpoint's own range of logits; None: not bounded so."""
    label_agreement: float
    """Share of equal predictions; for regression 1 - mean |difference| / spread."""


TOLERANCES: dict[str, Tolerance] = {
    "fp32": Tolerance(max_abs_diff=1e-4, range_share=None, label_agreement=0.995),
    "int8": Tolerance(max_abs_diff=None, range_share=0.5, label_agreement=0.93),
}


@dataclass(frozen=True)
class Parity:
    """How far an engine's logits are from its checkpoint's."""

    examples: int
    max_abs_diff: float
    label_agreement: float
    passed: bool
    inputs: str
    """``task`` rows or ``random`` ids."""

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


def measure(
    model: PreTrainedModel,
    session: Session,
    encoded: Encoded,
    task: Task,
    precision: str,
    inputs: str,
) -> Parity:
    """Compare an engine with its checkpoint on encoded rows.

    The engine sees batches of eight unsorted rows, so that short rows are padded next to long
    ones; the checkpoint's logits come from batches of rows of like length.
    """
    reference = evaluate.logits(model, encoded)
    answers = np.empty_like(reference)
    for start in range(0, len(encoded), _BATCH):
        rows = np.arange(start, min(start + _BATCH, len(encoded)))
        answers[rows] = session.infer(encoded.batch(rows))["logits"]
    return compare(reference, answers, task, precision, inputs)


def compare(reference: np.ndarray, answers: np.ndarray, task: Task, precision: str, inputs: str) -> Parity:
    """Compare logits [n, outputs]; anything that is not finite fails."""
    tolerance = TOLERANCES[precision]
    difference = float(np.max(np.abs(reference - answers), initial=0.0))
    expected, given = task.predict(reference), task.predict(answers)
    if task.kind == "regression":
        spread = float(np.std(expected)) or 1.0
        agreement = 1.0 - float(np.mean(np.abs(expected - given))) / spread
    else:
        agreement = float(np.mean(expected == given))
    finite = bool(np.isfinite(answers).all())
    passed = (
        finite
        and (tolerance.range_share is None or difference <= tolerance.range_share * float(np.ptp(reference)))
        and (tolerance.max_abs_diff is None or difference <= tolerance.max_abs_diff)
        and agreement >= tolerance.label_agreement
    )
    if not finite:
        difference = agreement = -1.0  # JSON has no NaN
    return Parity(len(reference), difference, agreement, passed, inputs)


def random_rows(n: int, vocabulary: int, limit: int, pad_id: int, seed: int = 0) -> Encoded:
    """Return rows of random ids with random lengths from 2 to ``limit``."""
    rng = np.random.default_rng(seed)
    lengths = rng.integers(2, limit + 1, size=n)
    offsets = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
    ids = rng.integers(0, vocabulary, size=int(offsets[-1])).astype(np.int32)
    ids[ids == pad_id] = (pad_id + 1) % vocabulary
    return Encoded(ids, np.zeros(len(ids), dtype=np.int8), offsets, pad_id)


def with_longest(encoded: Encoded, limit: int) -> Encoded:
    """Return the rows and one more that fills ``limit`` tokens with ids of the others."""
    ids = np.resize(encoded.ids, limit)
    offsets = np.append(encoded.offsets, encoded.offsets[-1] + limit)
    types = np.append(encoded.types, np.zeros(limit, dtype=np.int8))
    return Encoded(np.append(encoded.ids, ids), types, offsets, encoded.pad_id)

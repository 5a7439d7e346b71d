"""Which of several built candidates answers the fastest, in the workload that an engine is for.

Candidates are measured in turns, so that what else the machine does falls on all of them alike; each is
opened for its turn alone, so that memory holds one.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from effx import engines
from effx.encoding import Encoded
from effx.engines import Session
from effx.specs.runtime import RuntimeSettings
from effx.specs.workloads import Workload

WORTH = 0.98
"""What changes the graph or the runtime's own settings must take at most, as a share of the time without."""
_ROUNDS = 3
_ROWS = 64
_BATCH = 16
_LEAST_QUERIES = 4
_SECONDS = 1.0
"""Of one candidate in one round and workload, about."""


@dataclass(frozen=True)
class Files:
    """Built files, and how to open them."""

    folder: Path
    backend: str
    runtime: RuntimeSettings


def seconds(candidates: Sequence[Files], encoded: Encoded, workload: Workload | None) -> list[float]:
    """Return the seconds per query of each candidate: the median of three rounds.

    All answer the same queries: as many as the first one answers in about a second.

    Args:
        candidates: files that can be opened here.
        encoded: rows to ask.
        workload: what the engine is for; None: the geometric mean of single rows and of batches of 16.
    """
    rounds: list[list[float]] = [[] for _ in candidates]
    kinds = queries(encoded, workload)
    counts: list[int] | None = None
    for number in range(_ROUNDS):
        order = range(len(candidates))
        for position in order if number % 2 == 0 else reversed(order):
            candidate = candidates[position]
            with engines.open_unchecked(candidate.folder, candidate.backend, candidate.runtime) as session:
                if counts is None:
                    counts = [_affordable(session, of_kind) for of_kind in kinds]
                means = [
                    _mean_seconds(session, of_kind[:count])
                    for of_kind, count in zip(kinds, counts, strict=True)
                ]
            rounds[position].append(float(np.exp(np.mean(np.log(means)))))
    return [float(np.median(of_one)) for of_one in rounds]


def queries(encoded: Encoded, workload: Workload | None) -> list[list[dict[str, np.ndarray]]]:
    """Return the queries to time: a list for each kind.

    Args:
        encoded: rows to ask.
        workload: what is timed; None: two kinds, single rows and batches of 16.
    """
    chosen = np.random.default_rng(0).permutation(len(encoded))
    single = [encoded.batch([int(row)]) for row in chosen[:_ROWS]]
    if workload is None:
        return [single, [encoded.batch(chosen[:_BATCH])] * _LEAST_QUERIES]
    if workload.length != "real":
        shape = (workload.batch, workload.length)
        ids = np.resize(encoded.ids, shape).astype(np.int64)
        query = {
            "input_ids": ids,
            "attention_mask": np.ones_like(ids),
            "token_type_ids": np.zeros_like(ids),
        }
        return [[query] * _ROWS]
    if workload.batch == 1:
        return [single]
    ordered = chosen[: _LEAST_QUERIES * workload.batch]
    ordered = ordered[np.argsort(encoded.lengths[ordered], kind="stable")]
    return [[encoded.batch(part) for part in np.array_split(ordered, max(1, len(ordered) // workload.batch))]]


def _affordable(session: Session, queries: Sequence[dict[str, np.ndarray]]) -> int:
    """Return how many of the queries take about a second."""
    _compile(session, queries)
    started = time.perf_counter()
    for count, query in enumerate(queries, 1):
        session.infer(query)
        if time.perf_counter() - started > _SECONDS and count >= _LEAST_QUERIES:
            break
    return count


def _mean_seconds(session: Session, queries: Sequence[dict[str, np.ndarray]]) -> float:
    """Return the mean seconds of the queries."""
    _compile(session, queries)
    started = time.perf_counter()
    for query in queries:
        session.infer(query)
    return (time.perf_counter() - started) / len(queries)


def _compile(session: Session, queries: Sequence[dict[str, np.ndarray]]) -> None:
    """Ask one query of each shape: some runtimes compile it then, which takes longer than all queries."""
    for query in {query["input_ids"].shape: query for query in queries}.values():
        session.infer(query)

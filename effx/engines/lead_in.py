"""Untimed queries at the beginning of a block of timed ones."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from itertools import islice
from typing import TypeVar

QUERIES, SECONDS = 10, 0.02

Query = TypeVar("Query")


def lead_in(ask: Callable[[Query], object], queries: Iterable[Query]) -> None:
    """Ask the first queries, at most :data:`QUERIES`, or as many as take :data:`SECONDS`.

    Threads of the engine wake up, and what another engine left in the caches goes, before anything is timed.
    """
    begun = time.perf_counter()
    for query in islice(queries, QUERIES):
        ask(query)
        if time.perf_counter() - begun >= SECONDS:
            break

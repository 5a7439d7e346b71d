"""The interfaces of graphs and sessions.

A graph is one built file in one runtime. A session is an engine: one graph, or the segments of an
early-exit model with the host deciding between them, behind padding where lengths are fixed.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import TracebackType
from typing import Any, Protocol, Self

import numpy as np

Arrays = dict[str, np.ndarray]


class EngineGraph(Protocol):
    """One built file, loaded."""

    def run(self, inputs: Mapping[str, np.ndarray]) -> Arrays:
        """Run it and return its outputs by name; arrays that it does not take are ignored."""
        ...

    def describe(self) -> dict[str, object]:
        """Return how it runs: provider, threads, precision, versions."""
        ...

    def close(self) -> None:
        """Free its memory."""
        ...


class Session(Protocol):
    """A loaded engine."""

    def infer(self, inputs: Mapping[str, np.ndarray]) -> Arrays:
        """Run int64 arrays [batch, sequence]; return ``{"logits": float32 [batch, outputs]}``.

        Token classification gives ``logits`` float32 [batch, sequence, outputs].
        Question answering gives ``start_logits`` and ``end_logits``, each float32 [batch, sequence].
        Engines with the heads of several tasks add ``logits_TASK`` of each other task.
        Early-exit engines add ``depth``, int64 [batch]: the layers that each row ran through.
        Arrays that the engine does not take are ignored. Returns when the answer is in host
        memory.
        """
        ...

    def describe(self) -> dict[str, object]:
        """Return how it runs: provider, threads, versions."""
        ...

    def close(self) -> None:
        """Free the engine's memory."""
        ...

    def __enter__(self) -> Self: ...

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None: ...


class TimedSession(Protocol):
    """Sessions on a GPU also time the device alone; their ``describe`` has ``device`` under ``timing``."""

    def upload(self, inputs: Mapping[str, np.ndarray]) -> Any:
        """Copy inputs to the device; the result is what :meth:`infer_timed` takes."""
        ...

    def infer_timed(self, uploaded: Any) -> tuple[float, Arrays]:
        """Run once; return the device's seconds from the first kernel to the last, and the answer."""
        ...

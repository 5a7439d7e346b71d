"""What every session can do."""

from __future__ import annotations

from collections.abc import Mapping
from types import TracebackType
from typing import Protocol, Self

import numpy as np


class Session(Protocol):
    """A loaded engine."""

    def infer(self, inputs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Run int64 arrays [batch, sequence]; return ``{"logits": float32 [batch, outputs]}``.

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

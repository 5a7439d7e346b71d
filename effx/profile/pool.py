"""Loaded engines: as many as memory permits. To load another, the least recently used is unloaded.

How much an engine needs is known only when it has answered its longest rows. So the number of engines is an
estimate from the sizes of their files, and others are unloaded when less memory is left than one has taken.
"""

from __future__ import annotations

from collections.abc import Sequence

from effx.artifacts import Engine
from effx.host import memory
from effx.profile.engine_under_test import EngineUnderTest

_BYTES_PER_ENGINE = 400_000_000
_BYTES_PER_FILE_BYTE = 3
"""Estimates of a worker's memory: for itself, and per byte of its engine's files."""


class WorkerPool:
    """Keeps at most ``capacity`` engines loaded, each in a separate worker process."""

    def __init__(self, capacity: int) -> None:
        self._capacity = capacity
        self._taken_bytes: dict[int, int] = {}
        """Engine, by the id of its object -> memory that its worker has taken at most, if it is known."""
        self._loaded: list[EngineUnderTest] = []
        """The least recently used first."""

    @property
    def pids(self) -> set[int]:
        """The process ids of the workers."""
        return {pid for engine in self._loaded if (pid := engine.pid) is not None}

    def acquire(self, engine: EngineUnderTest) -> None:
        """Load an engine unless it is loaded; if the pool is full, unload others.

        Raises:
            WorkerError: the engine could not be opened.
        """
        if engine in self._loaded:
            self._loaded.remove(engine)
            self._loaded.append(engine)
            return
        while self._loaded and (len(self._loaded) >= self._capacity or self._is_short_of_memory(engine)):
            self._evict(self._loaded[0])
        self._loaded.append(engine)
        engine.load()

    def discard(self, engine: EngineUnderTest) -> None:
        """End an engine's worker without a further request."""
        if engine in self._loaded:
            self._loaded.remove(engine)
        engine.unload()

    def close(self) -> None:
        """End every worker."""
        for engine in list(self._loaded):
            self.discard(engine)

    def _is_short_of_memory(self, engine: EngineUnderTest) -> bool:
        """Whether less memory is left than the engine may need.

        That is what it took before; of a new one, its estimate, or what another one took.
        """
        for loaded in self._loaded:
            if loaded.pid is not None:
                taken = memory.resident_bytes(loaded.pid)
                self._taken_bytes[id(loaded)] = max(taken, self._taken_bytes.get(id(loaded), 0))
        others = max(self._taken_bytes.values(), default=0)
        need = self._taken_bytes.get(id(engine), max(_need_bytes(engine.engine), others))
        return memory.available_memory_bytes() < need

    def _evict(self, engine: EngineUnderTest) -> None:
        try:
            engine.read_memory()
        except Exception as error:  # of this engine alone, whatever it is
            engine.fail(error)
        self.discard(engine)


def affordable(engines: Sequence[Engine]) -> int:
    """Return how many of the engines fit in free memory at once, at least one."""
    need = max(map(_need_bytes, engines))
    return max(1, min(len(engines), memory.available_memory_bytes() // need))


def _need_bytes(engine: Engine) -> int:
    return _BYTES_PER_ENGINE + _BYTES_PER_FILE_BYTE * engine.size_bytes

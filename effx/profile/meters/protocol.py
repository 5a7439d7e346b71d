"""What a meter can do."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from effx.results import EnergySource


class UnavailableError(Exception):
    """This host cannot be metered this way; the message says why and what would help."""


@dataclass(frozen=True)
class Reading:
    """Energy between a start and its stop."""

    joules: float | None
    """None: the window failed."""
    reason: str | None = None
    """Why it failed."""


class Meter(Protocol):
    """Measures the energy of windows, one at a time."""

    @property
    def name(self) -> str: ...

    @property
    def source(self) -> EnergySource:
        """Where its numbers come from."""
        ...

    @property
    def reason(self) -> str | None:
        """Why there are no numbers; None if there are."""
        ...

    def start(self) -> None:
        """Begin a window."""
        ...

    def stop(self, cpu_s: float) -> Reading:
        """End the window; ``cpu_s`` is the processor time that the engine used in it."""
        ...


class Unavailable:
    """No meter: every reading is empty and says why."""

    name = "none"
    source: EnergySource = "none"

    def __init__(self, reason: str) -> None:
        self.reason: str | None = reason

    def start(self) -> None: ...

    def stop(self, cpu_s: float) -> Reading:
        return Reading(None, self.reason)

"""What a meter can do."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Protocol

from effx.results import EnergySource


@dataclass(frozen=True)
class Reading:
    """Energy between a start and its stop."""

    joules: float | None
    """None: the window failed."""
    reason: str | None = None
    """Why it failed."""
    seconds: float | None = None
    """The stretch that ``joules`` covers, from one observed counter tick to another; None: the caller's own
    duration. Power is ``joules / seconds``."""
    interval: tuple[float, float] | None = None
    """Bounds of ``joules``: misalignment, sampling, the sensor's tolerance and the meters' disagreement."""
    integrated_joules: float | None = None
    """Integral of the sampled power over the same stretch."""
    flags: tuple[str, ...] = ()
    """What makes the window less than it should be: throttled, foreign process, suspect, short window."""
    conditions: dict[str, Any] = field(default_factory=dict)
    """What the device was like in the window: clocks, limit, temperatures, mean power."""


class Meter(Protocol):
    """Measures the energy of windows, one at a time."""

    chosen_because: str
    """Why this one; written where it is opened, shown by ``describe``."""

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

    @property
    def floor_w(self) -> float | None:
        """The least plausible mean power of a window; None: not known."""
        ...

    @property
    def limit_w(self) -> float | None:
        """The greatest plausible mean power of a window; None: not known."""
        ...

    def describe(self) -> dict[str, Any]:
        """Return what is read, how, and how finely; JSON."""
        ...

    def start(self) -> None:
        """Begin a window; one that was never stopped is dropped."""
        ...

    def stop(self, cpu_s: float) -> Reading:
        """End the window; ``cpu_s`` is the processor time that the engine used in it."""
        ...

    def close(self) -> None:
        """Let go of the device."""
        ...


class Unavailable:
    """No meter: every reading is empty and says why."""

    name = "none"
    source: EnergySource = "none"
    floor_w: float | None = None
    limit_w: float | None = None

    def __init__(self, reason: str) -> None:
        self.reason: str | None = reason
        self.chosen_because = reason

    def describe(self) -> dict[str, Any]:
        return {"reason": self.reason, "chosen_because": self.chosen_because}

    def start(self) -> None: ...

    def stop(self, cpu_s: float) -> Reading:
        return Reading(None, self.reason)

    def close(self) -> None: ...

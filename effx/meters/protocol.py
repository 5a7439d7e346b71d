"""The interface of energy meters."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Protocol

from effx.results import Facts
from effx.specs.meters import EnergySource

Period = tuple[float, float]
"""Begin and end, seconds of a monotonic clock."""


@dataclass(frozen=True)
class Reading:
    """Energy of a window, between start and stop."""

    joules: float | None
    """None: the window failed."""
    reason: str | None = None
    """Why it failed."""
    seconds: float | None = None
    """Duration that ``joules`` covers, from one observed counter tick to another; None: the duration that the
    caller measured. Power is ``joules / seconds``."""
    interval: tuple[float, float] | None = None
    """Bounds of ``joules``: misalignment, sampling, the sensor's tolerance, and the difference between
    counter and integrated power."""
    interval_without_gain: tuple[float, float] | None = None
    """The same without the sensor's tolerance, which is common to all windows of one meter: for ratios."""
    integrated_joules: float | None = None
    """Integral of the sampled power, for the same duration. Beside a counter it is compared without the begin
    of the window, in which a slow sensor shows power from before it: these are ``joules`` times the ratio of
    both in the rest."""
    flags: tuple[str, ...] = ()
    """Reasons to distrust the window: throttled, foreign process, suspect, short window."""
    unchecked: tuple[str, ...] = ()
    """What could have disturbed the window unseen, as the reasons why it could not be checked."""
    conditions: Facts = field(default_factory=dict)
    """State of the device in the window: clocks, limit, temperatures, mean power."""


class Meter(Protocol):
    """Measures the energy of windows, one at a time."""

    chosen_because: str
    """Why this meter was chosen; set when it is opened, shown by ``describe``."""

    @property
    def name(self) -> str: ...

    @property
    def source(self) -> EnergySource:
        """Source of its numbers."""
        ...

    @property
    def reason(self) -> str | None:
        """Why there are no numbers; None if there are."""
        ...

    @property
    def floor_w(self) -> float | None:
        """The smallest plausible mean power of a window; None: unknown."""
        ...

    @property
    def limit_w(self) -> float | None:
        """The largest plausible mean power of a window; None: unknown."""
        ...

    @property
    def lag_s(self) -> float:
        """Seconds for which its sensors may still show power from before; 0: they show none."""
        ...

    def describe(self) -> Facts:
        """Return what is read, how, and with which resolution, as JSON."""
        ...

    def start(self) -> None:
        """Begin a window; a window that was not stopped is discarded."""
        ...

    def stop(self, cpu_s: float, during: Period | None = None) -> Reading:
        """End the window.

        Args:
            cpu_s: processor seconds that the engine used in the window.
            during: begin and end of the engine's work, seconds of :func:`time.monotonic`. The reading covers
                only that: the idle time before and after it, in which requests travel between processes,
                would bias the power. None: from start to stop.
        """
        ...

    def close(self) -> None:
        """Close the device."""
        ...


class Unavailable:
    """No meter: every reading is empty, with the reason."""

    name = "none"
    source: EnergySource = "none"
    floor_w: float | None = None
    limit_w: float | None = None
    lag_s = 0.0

    def __init__(self, reason: str) -> None:
        self.reason: str | None = reason
        self.chosen_because = reason

    def describe(self) -> Facts:
        return {"reason": self.reason, "chosen_because": self.chosen_because}

    def start(self) -> None: ...

    def stop(self, cpu_s: float, during: Period | None = None) -> Reading:
        return Reading(None, self.reason)

    def close(self) -> None: ...

"""Power sensors, and the errors of a host without a usable one."""

from __future__ import annotations

from dataclasses import dataclass


class UnavailableError(Exception):
    """The meter cannot be used on this host; the message says why and what would help."""


class NoSensorError(UnavailableError):
    """This host does not have the sensor."""


class SensorPermissionError(UnavailableError):
    """This user has no permission to read the sensor."""


class BrokenSensorError(UnavailableError):
    """The sensor exists, but reading it fails."""


@dataclass(frozen=True)
class Sensor:
    """A power sensor: every ``period_s`` it shows the mean power of the last ``window_s``."""

    name: str
    window_s: float = 0.0
    period_s: float | None = None
    """None: unknown; it is then estimated from the times of its changes."""
    lag_s: float = 0.0
    """A change of power shows at most this late, in addition to ``window_s``."""

    @property
    def part_time(self) -> bool:
        """Whether the sensor ignores a part of the time."""
        return self.period_s is not None and 0 < self.window_s < self.period_s

"""What a power sensor is, and the error of a host that has none that can be used."""

from __future__ import annotations

from dataclasses import dataclass


class UnavailableError(Exception):
    """This host cannot be metered this way; the message says why and what would help."""


class NoSensorError(UnavailableError):
    """There is no such sensor here."""


class SensorPermissionError(UnavailableError):
    """There is a sensor, and this user may not read it."""


class BrokenSensorError(UnavailableError):
    """There is a sensor, and reading it fails."""


@dataclass(frozen=True)
class Sensor:
    """A power sensor: shows the mean of its last ``window_s``, anew every ``period_s``."""

    name: str
    window_s: float = 0.0
    period_s: float | None = None
    """None: not known; the times of its changes tell."""

    @property
    def part_time(self) -> bool:
        return self.period_s is not None and 0 < self.window_s < self.period_s

"""Energy of a Jetson board by its INA3221 power monitors (Linux hwmon).

The monitors measure the power of a few rails; which rails add up to the board depends on the module. A thread
reads them while a window is open, and the power is integrated, so the source is ``integrated``. A monitor
measures voltage and current one after the other, so the power of a fast-changing load is inexact.

Tested with a fake file tree only. JetPack 4 has the same monitors under another driver (``ina3221x``, iio),
which is not supported.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from effx.host.sensors import (
    BrokenSensorError,
    NoSensorError,
    Sensor,
    SensorPermissionError,
    UnavailableError,
)
from effx.meters import trace
from effx.meters.protocol import Period, Reading
from effx.meters.sampler import Clock, Sampler
from effx.meters.trace import Sample
from effx.results import Facts
from effx.specs.meters import EnergySource

_ROOT = Path("/sys/bus/i2c/drivers/ina3221")
_PERIOD_S = 0.02  # about the time that a monitor needs for its three channels
_TOTALS = (
    ("VDD_IN",),  # Orin NX and Nano, Xavier NX
    ("POM_5V_IN",),  # Nano
    ("VDD_GPU_SOC", "VDD_CPU_CV", "VIN_SYS_5V0"),  # AGX Orin, which has no rail for the total
    ("GPU", "CPU", "SOC", "CV", "VDDRQ", "SYS5V"),  # AGX Xavier
)
"""Rails that together feed the module."""
GAIN = 0.05
"""Assumed relative error of a rail (shunt, chip and board); no manufacturer's figure covers all boards."""


class UnknownBoardError(UnavailableError):
    """It is unknown which rails add up to the board; the user must name one."""


@dataclass(frozen=True)
class _Rail:
    name: str
    read_w: Callable[[], float]


class HwmonMeter:
    """The sum of the rails that feed the module."""

    name = "hwmon"
    source: EnergySource = "integrated"
    reason: str | None = None
    chosen_because = "opened directly"
    floor_w: float | None = None
    limit_w: float | None = None
    lag_s = 0.0

    def __init__(
        self, rails: list[_Rail], others: list[str], *, clock: Clock | None = None, threaded: bool = True
    ) -> None:
        self._rails, self._others = rails, others
        self._clock = clock or Clock()
        self.sampler = Sampler(self._sample, _PERIOD_S, threaded=threaded)

    @property
    def domains(self) -> list[str]:
        """What it reads, by name."""
        return [rail.name for rail in self._rails]

    def describe(self) -> Facts:
        return {
            "device": "INA3221",
            "domains": self.domains,
            "skipped": self._others,
            "tick_s": None,
            "period_s": self.sampler.period_s,
            "gain_tolerance": GAIN,
            "chosen_because": self.chosen_because,
        }

    def start(self) -> None:
        self.sampler.start()

    def stop(self, cpu_s: float, during: Period | None = None) -> Reading:
        samples, error = self.sampler.stop()
        if isinstance(error, OSError | ValueError):
            return Reading(None, f"a power monitor could not be read: {error}")
        if error is not None:
            raise error
        sensor = Sensor(f"INA3221 {' + '.join(rail.name for rail in self._rails)}")
        return trace.power_reading(samples, sensor, gain=GAIN, during=during)

    def close(self) -> None:
        self.sampler.halt()

    def _sample(self) -> Sample:
        before_s = self._clock.now()
        power_w = sum(rail.read_w() for rail in self._rails)
        return Sample(before_s, self._clock.now(), None, power_w)


def open(
    argument: str = "",
    root: Path = _ROOT,
    *,
    worker_pids: object = None,
    clock: Clock | None = None,
    threaded: bool = True,
) -> HwmonMeter:
    """Open the rails that feed the module; ``hwmon:RAIL`` opens a single rail by its label.

    Raises:
        UnavailableError: no monitor, an unknown board, or no permission to read.
    """
    rails = {rail.name: rail for rail in _rails(root)}
    if not rails:
        raise NoSensorError(f"no INA3221 power monitors under {root} (Jetson boards have them)")
    known = ", ".join(sorted(rails))
    wanted = (argument,) if argument else next((t for t in _TOTALS if set(t) <= set(rails)), ())
    if not wanted:
        raise UnknownBoardError(
            f"unknown board: which of the rails {known} add up to its power? Name one: hwmon:RAIL"
        )
    if not set(wanted) <= set(rails):
        raise UnavailableError(f"unknown rail '{argument}'. Known: {known}.")
    chosen = [rails[name] for name in wanted]
    try:
        for rail in chosen:
            rail.read_w()
    except PermissionError as error:
        raise SensorPermissionError(f"no permission to read the power monitors: {error}") from error
    except (OSError, ValueError) as error:
        raise BrokenSensorError(f"the power monitors cannot be read: {error}") from error
    others = sorted(set(rails) - set(wanted))
    return HwmonMeter(chosen, others, clock=clock, threaded=threaded)


def _rails(root: Path) -> list[_Rail]:
    """Return the labelled channels of every monitor; in7, a sum of shunts, has no current and is skipped."""
    result = []
    for label in sorted(root.glob("*/hwmon/hwmon*/in*_label")):
        number = label.name.removeprefix("in").removesuffix("_label")
        power = label.with_name(f"power{number}_input")
        voltage, current = label.with_name(f"in{number}_input"), label.with_name(f"curr{number}_input")
        if power.is_file() or (voltage.is_file() and current.is_file()):
            result.append(_Rail(label.read_text().strip(), _reader(power, voltage, current)))
    return result


def _reader(power: Path, voltage: Path, current: Path) -> Callable[[], float]:
    """Return a function that reads watts: from microwatts, or from millivolts and milliamperes."""
    if power.is_file():
        return lambda: int(power.read_text()) * 1e-6
    return lambda: int(voltage.read_text()) * int(current.read_text()) * 1e-6

"""A model, not a measurement: processor seconds times watts per core.

It ignores memory, clocks and vector units. It is used only if requested, and its numbers are labelled
``model`` everywhere.
"""

from __future__ import annotations

import math

from effx.host.sensors import UnavailableError
from effx.meters.protocol import Period, Reading
from effx.results import Facts
from effx.specs.meters import EnergySource


class ModelMeter:
    """CPU seconds of the worker x watts per core."""

    source: EnergySource = "model"
    reason: str | None = None
    chosen_because = "opened directly"
    floor_w: float | None = None
    limit_w: float | None = None
    lag_s = 0.0

    def __init__(self, watts_per_core: float) -> None:
        self.name = f"model:{watts_per_core:g}"
        self._watts_per_core = watts_per_core

    def describe(self) -> Facts:
        return {"watts_per_core": self._watts_per_core, "chosen_because": self.chosen_because}

    def start(self) -> None: ...

    def stop(self, cpu_s: float, during: Period | None = None) -> Reading:
        # of the worker's own processor time, which it counts during its work only
        return Reading(cpu_s * self._watts_per_core)

    def close(self) -> None: ...


def open(argument: str, *, worker_pids: object = None) -> ModelMeter:
    """Open ``model:WATTS_PER_CORE``."""
    try:
        watts = float(argument)
    except ValueError:
        watts = math.nan
    if not (math.isfinite(watts) and watts > 0):
        raise UnavailableError("expected the watts of one busy core, e.g. model:10")
    return ModelMeter(watts)

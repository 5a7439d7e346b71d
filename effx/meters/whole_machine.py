"""Meters that read the whole machine want it alone: the joules of other processes are in their windows."""

from __future__ import annotations

from effx.host import cpu
from effx.specs.meters import METERS

_PROCESSORS, _SHARE = 0.1, 0.02
"""Others use at most so many processors, or this share of those that are installed."""
UNKNOWN = (
    "this system does not report how much other processes used its processors, which the meter reads too"
)


def reads_everything(meter: str) -> bool:
    """Return whether a meter reads all that runs on the machine, by its name, such as ``hwmon:VDD_IN``."""
    row = METERS.get(meter.partition(":")[0])
    return row is not None and row.whole_machine


def disturbance(meter: str, others: float | None) -> str | None:
    """Return that other processes drew power that a meter read, as a flag of its window, if they did.

    Args:
        meter: its name.
        others: processors that other processes used, in the mean; None: unknown.
    """
    limit = max(_PROCESSORS, _SHARE * cpu.installed_processors())
    if others is None or others <= limit or not reads_everything(meter):
        return None
    return f"other processes used {others:.2g} processors, which the meter reads too"

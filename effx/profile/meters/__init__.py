"""Energy meters: one module each, one Protocol; :data:`effx.specs.meters.METERS` has a row for each.

``auto`` takes the first meter that can read the engine's device; where there is none, energy is
unavailable and every result says why. A model of the energy is used only when it is named, and its
numbers are labelled ``model`` everywhere.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable

from effx.errors import UsageError
from effx.host.sensors import UnavailableError
from effx.profile.meters.protocol import Meter, Reading, Unavailable
from effx.specs import meters as specs

__all__ = ["Meter", "Reading", "Unavailable", "UnavailableError", "open"]

OwnPids = Callable[[], set[int]]
"""Returns the processes of a measurement."""


def open(meter: str = "auto", device: str = "cpu", *, own_pids: OwnPids | None = None) -> Meter:
    """Open a meter.

    Args:
        meter: ``auto``, ``none``, ``nvml``, ``nvml:INDEX|GPU-UUID|BUS-ID``, ``rapl``, ``hwmon``,
            ``hwmon:RAIL``, ``model:WATTS`` or ``replay:FILE``.
        device: what the engines run on; ``auto`` takes a meter that reads it.
        own_pids: the processes of this measurement, called at the end of every window; other processes
            on a GPU mark the window. None: no window is marked.

    Raises:
        UsageError: there is no such meter, or the meter that was named cannot be read.
    """
    name, _, argument = specs.check(meter).partition(":")
    if name == "none":
        return Unavailable("energy was not requested (meter none)")
    if name == "auto":
        return _automatic(device, own_pids)
    try:
        return _open(name, argument, own_pids, f"requested (meter {meter})")
    except UnavailableError as error:
        raise UsageError(f"meter {meter}: {error}", settings="meter") from error


def _automatic(device: str, own_pids: OwnPids | None) -> Meter:
    """Return the first meter of the device that can be read; a model is never among them."""
    reasons: list[str] = []
    for name in specs.automatic(device):
        chosen_because = f"auto: the first for {device}" + "".join(f"; {reason}" for reason in reasons)
        try:
            return _open(name, "", own_pids, chosen_because)
        except UnavailableError as error:
            reasons.append(f"{name}: {error}")
    return Unavailable("; ".join(reasons) or f"there is no meter for {device}")


def _open(name: str, argument: str, own_pids: OwnPids | None, chosen_because: str) -> Meter:
    module = importlib.import_module(f"{__name__}.{name}")
    meter: Meter = module.open(argument, own_pids=own_pids)
    meter.chosen_because = chosen_because
    return meter

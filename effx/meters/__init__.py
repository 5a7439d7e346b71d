"""Energy meters: one module and one row of :data:`effx.specs.meters.METERS` each.

``auto`` uses the first meter that can read the engine's device; if there is none, energy is unavailable and
every result says why. The energy model is used only if it is requested, and its numbers are labelled
``model`` everywhere.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable

from effx.errors import UsageError
from effx.host.sensors import UnavailableError
from effx.meters.protocol import Meter, Period, Reading, Unavailable
from effx.specs import meters as specs

__all__ = ["Meter", "Period", "Reading", "Unavailable", "UnavailableError", "open"]

WorkerPids = Callable[[], set[int]]
"""Returns the process ids of a measurement's workers."""


def open(meter: str = "auto", device: str | None = "cpu", *, worker_pids: WorkerPids | None = None) -> Meter:
    """Open a meter.

    Args:
        meter: ``auto``, ``none``, ``nvml``, ``nvml:INDEX|GPU-UUID|BUS-ID``, ``rapl``, ``hwmon``,
            ``hwmon:RAIL``, ``model:WATTS`` or ``replay:FILE``.
        device: what computes, ``cpu`` or ``cuda``; ``auto`` uses a meter that reads it, and a named meter of
            hardware must read it. None: a named meter is opened, whatever will compute.
        worker_pids: process ids of the workers, called at the end of every window; a window with other
            processes on the GPU is flagged. None: windows are not flagged.

    Raises:
        UsageError: unknown meter, or the requested meter cannot be read, or does not read the device.
    """
    name, _, argument = specs.check(meter).partition(":")
    if name == "none":
        return Unavailable("energy was not requested (meter none)")
    if name == "auto":
        return _automatic(device or "cpu", worker_pids)
    if device is not None and not specs.METERS[name].reads(device):
        raise UsageError(
            f"meter {meter} does not read the {specs.HARDWARE[device]} that computes. Use "
            f"{', '.join(specs.automatic(device))} or auto.",
            settings="meter",
        )
    try:
        return _open(name, argument, worker_pids, f"requested (meter {meter})")
    except UnavailableError as error:
        raise UsageError(f"meter {meter}: {error}", settings="meter") from error


def _automatic(device: str, worker_pids: WorkerPids | None) -> Meter:
    """Return the first meter of the device that can be read; never the model."""
    reasons: list[str] = []
    for name in specs.automatic(device):
        chosen_because = f"auto: the first for {device}" + "".join(f"; {reason}" for reason in reasons)
        try:
            return _open(name, "", worker_pids, chosen_because)
        except UnavailableError as error:
            reasons.append(f"{name}: {error}")
    return Unavailable("; ".join(reasons) or f"there is no meter for {device}")


def _open(name: str, argument: str, worker_pids: WorkerPids | None, chosen_because: str) -> Meter:
    module = importlib.import_module(f"{__name__}.{name}")
    meter: Meter = module.open(argument, worker_pids=worker_pids)
    meter.chosen_because = chosen_because
    return meter

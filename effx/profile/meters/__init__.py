"""Energy meters: one file each, one Protocol, one table.

``auto`` takes the meter that reads the engine's device; where the host has none, energy is
unavailable and every result says why. A model of the energy is used only when asked for by name,
and is labelled ``model`` wherever its numbers stand.
"""

from __future__ import annotations

from collections.abc import Callable

from effx.errors import UsageError, unknown
from effx.profile.meters import model, nvml, rapl
from effx.profile.meters.protocol import Meter, Reading, Unavailable, UnavailableError

__all__ = ["METERS", "Meter", "Reading", "Unavailable", "UnavailableError", "open"]

METERS: dict[str, Callable[[str], Meter]] = {
    "nvml": nvml.open,
    "rapl": rapl.open,
    "model": model.open,
}
_OF_DEVICE = {"cpu": "rapl", "cuda": "nvml"}


def open(spec: str = "auto", device: str = "cpu") -> Meter:
    """Open a meter.

    Args:
        spec: ``auto``, ``none``, ``nvml``, ``rapl`` or ``model:WATTS_PER_CORE``.
        device: what the engines run on; ``auto`` takes the meter that reads it.

    Raises:
        UsageError: the spec is wrong, or a meter that was asked for by name cannot be read.
    """
    if spec == "none":
        return Unavailable("not asked for (--meter none)")
    name, _, argument = spec.partition(":")
    if name == "auto":
        try:
            return METERS[_OF_DEVICE[device]](argument)
        except UnavailableError as error:
            return Unavailable(str(error))
    if name not in METERS:
        raise unknown("meter", name, [*METERS, "auto", "none"])
    try:
        return METERS[name](argument)
    except UnavailableError as error:
        raise UsageError(f"--meter {spec}: {error}") from error

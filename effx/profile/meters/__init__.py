"""Energy meters: one file each, one Protocol, one table.

``auto`` takes the meter that reads the engine's device; where the host has none, energy is
unavailable and every result says why. A model of the energy is used only when asked for by name,
and is labelled ``model`` wherever its numbers stand.
"""

from __future__ import annotations

from collections.abc import Callable

from effx.errors import UsageError, unknown
from effx.host.sensors import UnavailableError
from effx.profile.meters import hwmon, model, nvml, rapl, replay
from effx.profile.meters.protocol import Meter, Reading, Unavailable

__all__ = ["METERS", "Meter", "Reading", "Unavailable", "UnavailableError", "open"]

METERS: dict[str, Callable[[str], Meter]] = {
    "nvml": nvml.open,
    "rapl": rapl.open,
    "hwmon": hwmon.open,
    "model": model.open,
    "replay": replay.open,
}
_OF_CPU = ("rapl", "hwmon")
_OF_GPU = ("nvml", "hwmon")
"""What ``auto`` tries, best first: the device's own counter, then the rails of a board that has it."""


def open(spec: str = "auto", device: str = "cpu", *, own_pids: Callable[[], set[int]] | None = None) -> Meter:
    """Open a meter.

    Args:
        spec: ``auto``, ``none``, ``nvml``, ``nvml:INDEX|GPU-UUID|BUS-ID``, ``rapl``, ``hwmon``,
            ``hwmon:RAIL``, ``model:WATTS_PER_CORE`` or ``replay:PATH``.
        device: what the engines run on; ``auto`` takes the meter that reads it.
        own_pids: the processes of this measurement, asked at the end of every window; others on a GPU
            mark the window. None: no window is marked.

    Raises:
        UsageError: the spec is wrong, or a meter that was asked for by name cannot be read.
    """
    if spec == "none":
        return Unavailable("not asked for (--meter none)")
    name, _, argument = spec.partition(":")
    if name == "auto":
        return _automatic(device, own_pids)
    if name not in METERS:
        raise unknown("meter", name, [*METERS, "auto", "none"])
    try:
        return _open(name, argument, own_pids, f"asked for (--meter {spec})")
    except UnavailableError as error:
        raise UsageError(f"--meter {spec}: {error}") from error


def _automatic(device: str, own_pids: Callable[[], set[int]] | None) -> Meter:
    """Return the first meter of the device that can be read; a model is never among them."""
    refusals: list[str] = []
    for name in _OF_CPU if device == "cpu" else _OF_GPU:
        because = f"auto: the best for {device}" + "".join(f"; {refusal}" for refusal in refusals)
        try:
            return _open(name, "", own_pids, because)
        except UnavailableError as error:
            refusals.append(f"{name}: {error}")
    return Unavailable("; ".join(refusals))


def _open(name: str, argument: str, own_pids: Callable[[], set[int]] | None, because: str) -> Meter:
    # processes are only seen on a GPU
    meter = nvml.open(argument, own_pids=own_pids) if name == "nvml" else METERS[name](argument)
    meter.chosen_because = because
    return meter

"""The energy meters that a user may name; the code of each is in :mod:`effx.profile.meters`."""

from __future__ import annotations

from collections.abc import Mapping

from effx.errors import unknown

METERS: Mapping[str, str] = {
    "auto": "",
    "nvml": "[:GPU]",
    "rapl": "",
    "hwmon": "[:RAIL]",
    "model": ":WATTS",
    "replay": ":FILE",
    "none": "",
}
"""Name -> the argument that follows it."""


def grammar() -> str:
    """Return every meter with its argument, as ``auto|nvml[:GPU]|...``."""
    return "|".join(name + argument for name, argument in METERS.items())


def check(text: str) -> str:
    """Return ``text`` if its part before a colon names a meter.

    Raises:
        UsageError: it does not.
    """
    name = text.partition(":")[0]
    if name not in METERS:
        raise unknown("meter", name, METERS)
    return text

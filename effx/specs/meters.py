"""Energy meters as data: the name of each, what follows it, what it reads.

A new meter is one row here and one module ``effx/meters/NAME.py`` with a function ``open``.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from effx.errors import unknown

EnergySource = Literal["counter", "integrated", "model", "none"]
"""How joules are known: by a counter, as the integral of sampled power, by a model, or not at all."""


@dataclass(frozen=True)
class MeterSpec:
    """A meter that a user may name."""

    name: str
    description: str
    argument: str = ""
    """What may follow the name, such as ``[:GPU]``."""
    devices: tuple[str, ...] = ()
    """Devices of engines that it reads, for which ``auto`` tries it; none: it reads no hardware, and is used
    only when named."""
    whole_machine: bool = False
    """Whether it reads everything that runs on the machine, not one device or process."""

    def reads(self, device: str) -> bool:
        """Return whether engines on a device can be metered: it reads that, or no hardware at all."""
        return not self.devices or device in self.devices


METERS: Mapping[str, MeterSpec] = {
    row.name: row
    for row in (
        MeterSpec("nvml", "an NVIDIA GPU's energy counter, by index, UUID or bus id", "[:GPU]", ("cuda",)),
        MeterSpec(
            "rapl",
            "Linux powercap counters of Intel and AMD processors",
            devices=("cpu",),
            whole_machine=True,
        ),
        MeterSpec("hwmon", "power rails of a Jetson board", "[:RAIL]", ("cpu", "cuda"), whole_machine=True),
        MeterSpec("model", "an estimate, WATTS per busy core, labelled as such", ":WATTS"),
        MeterSpec("replay", "a recorded trace", ":FILE"),
    )
}
"""Name -> meter; ``auto`` tries them in this order."""
HARDWARE = {"cpu": "processor", "cuda": "GPU"}
"""Device of an engine -> what computes."""
_SELECTORS = {"auto": "the first meter that can read the engine's device", "none": "no energy"}


def automatic(device: str) -> list[str]:
    """Return the meters that ``auto`` tries for engines on ``device``, in order."""
    return [row.name for row in METERS.values() if device in row.devices]


def grammar() -> str:
    """Return every meter with its argument, as ``auto|nvml[:GPU]|...|none``."""
    return "|".join(["auto", *(row.name + row.argument for row in METERS.values()), "none"])


def help_text(automatic: str | None = None) -> str:
    """Return what each meter reads, in one line; ``automatic``: what ``auto`` is, if not of an engine."""
    selectors = {**_SELECTORS, "auto": automatic or _SELECTORS["auto"]}
    descriptions = {**selectors, **{row.name: row.description for row in METERS.values()}}
    return "; ".join(f"{name}: {text}" for name, text in descriptions.items())


def check(text: str) -> str:
    """Return ``text`` if its part before a colon names a meter, ``auto`` or ``none``.

    Raises:
        UsageError: it does not.
    """
    name, known = text.partition(":")[0], (*METERS, *_SELECTORS)
    if name not in known:
        raise unknown("meter", name, known)
    return text

"""Gates: what must hold before a number is believed, as data. The checks are in :mod:`effx.profile.gates`.

Results name a gate by its slug; reports show its label. Behind a failed hard gate a number is unavailable: in
frontiers, recommendations, comparisons, tables and the page, with the gate as the reason. A failed soft gate
marks the result. The result file has every number in either case.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Concern = Literal["quality", "latency", "energy"]


@dataclass(frozen=True)
class Gate:
    """One check of a measurement."""

    slug: str
    """The name in result files."""
    label: str
    """What is true if the gate passes; for tables and messages."""
    explanation: str
    """What is compared, and with which limit."""
    concerns: Concern
    """Which numbers of a result it is about."""
    hard: bool
    """Whether a failure makes these numbers unavailable everywhere, with the reason; False: it marks them."""


PREDICTION_AGREEMENT = Gate(
    "prediction-agreement",
    "timed predictions match the accuracy pass",
    "At most 0.5 % of the timed rows, allowing for chance, get a prediction other than in the accuracy pass.",
    concerns="quality",
    hard=True,
)
HOST_IDLE = Gate(
    "host-idle",
    "host otherwise idle",
    "In the timed blocks, others used at most 10 % of the time of the processors that the engine may use.",
    concerns="latency",
    hard=False,
)
CPU_QUOTA = Gate(
    "cpu-quota",
    "not stopped by a CPU quota",
    "The container's CPU quota was used up in at most 1 % of the scheduling periods of the timed blocks.",
    concerns="latency",
    hard=False,
)
STEADY_ROUNDS = Gate(
    "steady-rounds",
    "latency steady across rounds",
    "The median of the later half of the rounds is within 10 % of that of the earlier half.",
    concerns="latency",
    hard=False,
)
SERVER_LOAD = Gate(
    "server-load",
    "queries arrive more slowly than they are answered",
    "While queries arrive at a rate, they need less than 90 % of the engine's time. Above that the queue "
    "grows for longer than is measured: latencies are not shown.",
    concerns="latency",
    hard=True,
)
ENERGY_MEASURED = Gate(
    "energy-measured",
    "energy was measured",
    "A meter read the energy of the workload; without one there is no energy figure to check.",
    concerns="energy",
    hard=False,
)
POWER_RANGE = Gate(
    "power-range",
    "power between idle and limit",
    "The mean power of every window is at least the idle power and at most the device's power limit.",
    concerns="energy",
    hard=True,
)
COUNTER_AGREEMENT = Gate(
    "counter-agreement",
    "energy counter agrees with integrated power",
    "The energy counter and the integral of sampled power differ by at most 10 % in every window. Its begin, "
    "in which a slow power sensor still shows what was before, is not compared.",
    concerns="energy",
    hard=True,
)
ENERGY_FLOOR = Gate(
    "energy-floor",
    "energy per example above the physical floor",
    "Joules per example are at least 0.1 pJ per arithmetic operation; a lower value cannot be complete.",
    concerns="energy",
    hard=True,
)
ENERGY_LINEARITY = Gate(
    "energy-linearity",
    "twice the work takes twice the energy",
    "Joules per example in a window of twice the length are within 10 % of those in the other windows.",
    concerns="energy",
    hard=False,
)
UNDISTURBED_WINDOWS = Gate(
    "undisturbed-windows",
    "energy windows undisturbed",
    "No window was throttled, too short, suspect, or shared with other processes that the meter reads too.",
    concerns="energy",
    hard=False,
)

GATES: dict[str, Gate] = {
    gate.slug: gate
    for gate in (
        PREDICTION_AGREEMENT,
        HOST_IDLE,
        CPU_QUOTA,
        STEADY_ROUNDS,
        SERVER_LOAD,
        ENERGY_MEASURED,
        POWER_RANGE,
        COUNTER_AGREEMENT,
        ENERGY_FLOOR,
        ENERGY_LINEARITY,
        UNDISTURBED_WINDOWS,
    )
}
"""Slug -> gate, in the order in which results list them."""

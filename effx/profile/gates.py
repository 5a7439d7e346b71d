"""What has to hold before a number is believed. Each gate names itself in the result.

A gate that could not be checked (no meter, too few blocks) has ``passed`` None and says why: it
neither passes nor fails.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np

from effx.profile.meters import Meter
from effx.results import Energy, Workload

_JOULES_PER_OPERATION = 1e-13
"""10 tera-operations per joule: several times what any processor reaches (an H200's dense int8 is
2.8). Less energy than that per example was not measured, it was missed."""
_LARGEST_DISAGREEMENT = 0.10
_LARGEST_NONLINEARITY = 0.10
_LARGEST_DRIFT = 0.10
_LARGEST_OTHERS = 0.10
_LEAST_WATCHED_S = 1.0
_LEAST_AGREEMENT = 0.95
"""Of timed answers with the accuracy pass; int8 scales depend on what else is in a batch."""
_FEWEST_BLOCKS = 6


@dataclass(frozen=True)
class Gate:
    """One check."""

    name: str
    passed: bool | None
    detail: str

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


def latency(workload: Workload) -> Gate:
    """Whether the engine was as fast in the second half of its rounds as in the first."""
    on_device = " device" if workload.timing == "device" else ""
    name = f"steady {workload.scenario} {workload.batch}x{workload.sequence}{on_device}"
    blocks = workload.blocks_s
    if any(sample < 0 for block in blocks for sample in block):
        return Gate(name, False, "the clock ran backwards")
    if len(blocks) < _FEWEST_BLOCKS:
        return Gate(name, None, f"{len(blocks)} blocks are too few to tell")
    medians = [float(np.median(block)) for block in blocks]
    half = len(medians) // 2
    drift = float(np.median(medians[half:]) / np.median(medians[:half])) - 1
    return Gate(
        name, abs(drift) <= _LARGEST_DRIFT, f"median of the later rounds {drift:+.1%} against the earlier"
    )


def alone(others_s: Sequence[float], watched_s: float) -> Gate:
    """Whether the processors were free of other work.

    Args:
        others_s: processor seconds that other processes took, a figure a block. The system counts
            in ticks of 10 ms: one block's figure may be off, even below zero; their sum is not.
        watched_s: processor seconds there were in all those blocks.
    """
    name = "host otherwise idle"
    if not others_s:
        return Gate(name, None, "this system does not tell how busy it is")
    if watched_s < _LEAST_WATCHED_S:
        return Gate(name, None, f"{watched_s:.2g} processor seconds are too few to tell")
    share = max(0.0, sum(others_s)) / watched_s
    return Gate(name, share <= _LARGEST_OTHERS, f"other processes took {share:.1%} of the processors")


def same_answers(checked: int, agreed: int) -> Gate:
    """Whether what was timed is what was scored."""
    name = "timed answers are the scored ones"
    if not checked:
        return Gate(name, None, "no timed row was a row of the accuracy pass")
    return Gate(name, agreed >= _LEAST_AGREEMENT * checked, f"{agreed} of {checked} labels agree")


def energy(measured: Energy, meter: Meter, operations: float, of: str = "") -> list[Gate]:
    """The gates of an energy figure.

    Args:
        measured: what was found for one workload.
        of: the workload's name, where several are metered.
        meter: what measured it; it knows the power that its device may draw.
        operations: multiplications and additions per example, from below.
    """
    if measured.source == "none":
        gates = [Gate("energy", None, f"unavailable: {measured.reason}")]
    else:
        gates = [_floor(measured, operations), _linear(measured)]
        if measured.source != "model":
            gates = [_power(measured, meter), _agreement(measured), *gates, _undisturbed(measured)]
    return [replace(gate, name=f"{gate.name} ({of})") for gate in gates] if of else gates


def _power(measured: Energy, meter: Meter) -> Gate:
    means = [window["joules"] / window["seconds"] for window in measured.windows]
    least, most = meter.floor_w or 0.0, meter.limit_w
    if measured.idle:
        least = measured.idle.interval[0] if measured.idle.interval else measured.idle.watts
    within = min(means) >= least and (most is None or max(means) <= most)
    text = f"{min(means):.1f} to {max(means):.1f} W, idle {least:.1f} W"
    return Gate(
        "power between idle and limit", within, text + ("" if most is None else f", limit {most:.0f} W")
    )


def _agreement(measured: Energy) -> Gate:
    name = "counter agrees with integrated power"
    pairs = [
        (window["joules"], window["integrated_joules"])
        for window in measured.windows
        if window.get("integrated_joules")
    ]
    if not pairs:
        return Gate(name, None, "this meter has one of the two")
    worst = max(abs(one - other) / one for one, other in pairs)
    return Gate(name, worst <= _LARGEST_DISAGREEMENT, f"{worst:.1%} apart at most")


def _floor(measured: Energy, operations: float) -> Gate:
    floor = operations * _JOULES_PER_OPERATION
    found = measured.joules_per_example or 0.0
    return Gate(
        "joules per example above the floor", found >= floor, f"{found:.3g} J, at least {floor:.2g} J needed"
    )


def _linear(measured: Energy) -> Gate:
    name = "twice the work, twice the joules"
    per_example = [window["joules_per_example"] for window in measured.windows]
    if len(per_example) < 2:
        return Gate(name, None, "one window")
    off = per_example[-1] / float(np.mean(per_example[:-1])) - 1
    return Gate(
        name, abs(off) <= _LARGEST_NONLINEARITY, f"joules per example {off:+.1%} in the longest window"
    )


def _undisturbed(measured: Energy) -> Gate:
    found = sorted({flag for window in measured.windows for flag in window["flags"]})
    return Gate("windows undisturbed", not found, "; ".join(found) or "no throttling, no foreign process")

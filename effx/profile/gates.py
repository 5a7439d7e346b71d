"""Checks that must hold before a number is believed; :mod:`effx.specs.gates` names and explains them.

A gate that could not be checked (no meter, too few blocks) has ``passed`` None and says why: it
neither passes nor fails.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from effx.meters import Meter
from effx.results import MOST_LOAD, Energy, GateResult, WorkloadResult
from effx.specs import gates as specs
from effx.specs.gates import Gate
from effx.stats import tests

_JOULES_PER_OPERATION = 1e-13
"""10 tera-operations per joule: several times what any processor reaches (an H200's dense int8 is
2.8). Less energy than that per example was not measured, it was missed."""
_LARGEST_DISAGREEMENT = 0.10
_LARGEST_NONLINEARITY = 0.10
_LARGEST_DRIFT = 0.10
_LARGEST_OTHERS = 0.10
_LARGEST_THROTTLED = 0.01
_LEAST_WATCHED_S = 1.0
_MOST_DIFFERING = 0.005
"""Share of timed predictions that may differ from those scored: half of the loss of one point that usually
decides between engines. Timed and scored queries have the same batches where answers depend on them."""
_CHANCE = 0.01
_FEWEST_BLOCKS = 6


def steady_rounds(result: WorkloadResult) -> GateResult:
    """Check that the engine was as fast in the second half of its rounds as in the first."""

    def outcome(passed: bool | None, detail: str) -> GateResult:
        return _outcome(specs.STEADY_ROUNDS, passed, detail, result.workload.name)

    blocks = result.blocks_s
    if any(sample < 0 for block in blocks for sample in block):
        return outcome(False, "the clock ran backwards")
    if len(blocks) < _FEWEST_BLOCKS:
        return outcome(None, f"{len(blocks)} blocks, at least {_FEWEST_BLOCKS} are needed")
    medians = [float(np.median(block)) for block in blocks]
    half = len(medians) // 2
    drift = float(np.median(medians[half:]) / np.median(medians[:half])) - 1
    return outcome(
        abs(drift) <= _LARGEST_DRIFT, f"median of the later rounds {drift:+.1%} compared with the earlier"
    )


def server_load(result: WorkloadResult) -> GateResult:
    """Check that the queue of queries that arrive at a rate does not grow without end.

    Args:
        result: of the server scenario.
    """
    if result.load is None:
        return _outcome(specs.SERVER_LOAD, None, "the load was not recorded", result.workload.name)
    return _outcome(
        specs.SERVER_LOAD, result.load < MOST_LOAD,
        f"{result.workload.rate_per_s:.4g} queries per second need {result.load:.0%} of the engine's time, "
        f"limit {MOST_LOAD:.0%}", result.workload.name,
    )  # fmt: skip


def host_idle(others_s: Sequence[float], available_s: float) -> GateResult:
    """Check that the processors that the engine may use were free of other work.

    Args:
        others_s: processor seconds that other processes used on them, a figure per block. The system counts
            in ticks of 10 ms: one block's figure may be off, even below zero; their sum is not.
        available_s: processor seconds of these processors together in those blocks.
    """
    if not others_s:
        return _outcome(specs.HOST_IDLE, None, "this system does not report its processor time")
    if available_s < _LEAST_WATCHED_S:
        return _outcome(specs.HOST_IDLE, None, f"{available_s:.2g} processor seconds are too few to check")
    share = max(0.0, sum(others_s)) / available_s
    return _outcome(
        specs.HOST_IDLE, share <= _LARGEST_OTHERS, f"other processes took {share:.1%} of the processors"
    )


def cpu_quota(periods: int, throttled: int) -> GateResult:
    """Check that a container's CPU quota did not stop the engine: such pauses are in its latencies.

    Args:
        periods: scheduling periods of the quota in the timed blocks; 0: there is no quota.
        throttled: those in which it was used up.
    """
    if not periods:
        return _outcome(specs.CPU_QUOTA, True, "no quota applied")
    share = throttled / periods
    return _outcome(
        specs.CPU_QUOTA, share <= _LARGEST_THROTTLED, f"stopped in {share:.1%} of {periods} periods"
    )


def prediction_agreement(checked: int, agreed: int) -> GateResult:
    """Check that timed rows get the predictions that were scored.

    A few rows may differ by chance: a half-precision kernel rounds differently where two classes are nearly
    equal. So the gate fails if that many differing rows are unlikely, 1 %, at the largest accepted share.
    """
    if not checked:
        return _outcome(specs.PREDICTION_AGREEMENT, None, "no timed row was scored in the accuracy pass")
    differing = checked - agreed
    p_value = tests.binomial_excess(differing, checked, _MOST_DIFFERING)
    return _outcome(
        specs.PREDICTION_AGREEMENT, p_value > _CHANCE,
        f"{differing} of {checked} timed predictions differ ({differing / checked:.2%}), "
        f"limit {_MOST_DIFFERING:.1%}",
    )  # fmt: skip


def energy(
    measured: Energy, meter: Meter, operations: float, workload: str | None = None
) -> list[GateResult]:
    """Return the gates of an energy figure.

    Args:
        measured: the energy of one workload.
        meter: what measured it; it knows the power that its device may draw.
        operations: lower bound of the multiplications and additions per example.
        workload: the workload's name, where several are metered.
    """
    if measured.source == "none":
        results = [_outcome(specs.ENERGY_MEASURED, None, f"unavailable: {measured.reason}")]
    else:
        results = [_floor(measured, operations), _linearity(measured)]
        if measured.source != "model":
            results = [
                _power_range(measured, meter), _counter_agreement(measured), *results, _undisturbed(measured),
            ]  # fmt: skip
    return [replace(result, workload=workload) for result in results]


def _power_range(measured: Energy, meter: Meter) -> GateResult:
    means = [window.joules / window.seconds for window in measured.windows]
    least, most = meter.floor_w or 0.0, meter.limit_w
    if measured.idle:
        least = measured.idle.interval[0] if measured.idle.interval else measured.idle.watts
    within = min(means) >= least and (most is None or max(means) <= most)
    detail = f"{min(means):.1f} to {max(means):.1f} W, idle {least:.1f} W"
    return _outcome(specs.POWER_RANGE, within, detail + ("" if most is None else f", limit {most:.0f} W"))


def _counter_agreement(measured: Energy) -> GateResult:
    if measured.source != "counter":
        return _outcome(
            specs.COUNTER_AGREEMENT, None, "this meter has no energy counter: its joules are integrated power"
        )
    pairs = [
        (window.joules, window.integrated_joules) for window in measured.windows if window.integrated_joules
    ]
    if not pairs:
        return _outcome(
            specs.COUNTER_AGREEMENT,
            None,
            "there is no integrated power to compare: no power sensor, or short windows",
        )
    worst = max(abs(counted - integrated) / counted for counted, integrated in pairs)
    return _outcome(
        specs.COUNTER_AGREEMENT, worst <= _LARGEST_DISAGREEMENT, f"they differ by at most {worst:.1%}"
    )


def _floor(measured: Energy, operations: float) -> GateResult:
    if not operations:
        return _outcome(specs.ENERGY_FLOOR, None, "the shape of the encoder is unknown")
    floor = operations * _JOULES_PER_OPERATION
    joules = measured.joules_per_example or 0.0
    return _outcome(
        specs.ENERGY_FLOOR, joules >= floor, f"{joules:.3g} J per example, the floor is {floor:.2g} J"
    )


def _linearity(measured: Energy) -> GateResult:
    per_example = [window.joules_per_example for window in measured.windows]
    if len(per_example) < 2:
        return _outcome(specs.ENERGY_LINEARITY, None, "only one window was measured")
    deviation = per_example[-1] / float(np.mean(per_example[:-1])) - 1
    return _outcome(
        specs.ENERGY_LINEARITY,
        abs(deviation) <= _LARGEST_NONLINEARITY,
        f"joules per example {deviation:+.1%} in the longest window",
    )


def _undisturbed(measured: Energy) -> GateResult:
    flags = sorted({flag for window in measured.windows for flag in window.flags})
    unchecked = sorted({reason for window in measured.windows for reason in window.unchecked})
    if unchecked and not flags:
        return _outcome(specs.UNDISTURBED_WINDOWS, None, "; ".join(unchecked))
    detail = "; ".join(flags) or "no throttling, no other process"
    return _outcome(specs.UNDISTURBED_WINDOWS, not flags, detail)


def _outcome(gate: Gate, passed: bool | None, detail: str, workload: str | None = None) -> GateResult:
    return GateResult(gate.slug, passed, detail, workload)

"""What computations took, and sums of it."""

from __future__ import annotations

import pytest
from pydantic import ValidationError

from effx.costs import READ_ELSEWHERE, Cost, EnergySpent, Expense, together, total, united


def energy(joules: float | None, meter: str = "nvml", source: str = "counter", **more: object) -> EnergySpent:
    if joules is None:
        return EnergySpent.model_validate({"source": "none", "meter": meter, "reason": "no meter", **more})
    return EnergySpent.model_validate({"source": source, "meter": meter, "joules": joules, **more})


def cost(seconds: float, spent: EnergySpent, **more: object) -> Cost:
    values = {"seconds": seconds, "cpu_s": 2 * seconds, "sequences": 10, "hardware": "A", **more}
    return Cost.model_validate({**values, "energy": spent})


def test_costs_of_one_after_the_other_add_up_and_peaks_do_not() -> None:
    one = cost(1.5, energy(10.0, interval=(9.0, 11.0)), host_peak_bytes=5, device_peak_bytes=None)
    other = cost(2.0, energy(4.0, interval=(3.5, 4.5)), host_peak_bytes=7, device_peak_bytes=3)
    both = one + other
    assert (both.seconds, both.cpu_s, both.sequences) == (3.5, 7.0, 20)
    assert (both.host_peak_bytes, both.device_peak_bytes, both.hardware) == (7, 3, "A")
    assert (both.energy.joules, both.energy.interval, both.energy.source) == (14.0, (12.5, 15.5), "counter")
    assert (one + cost(1, energy(1.0), hardware="B")).hardware is None


@pytest.mark.parametrize(
    ("other", "reason"),
    [(energy(None), "no meter"), (energy(3.0, "model:10", "model"), "one part is an estimate")],
)
def test_joules_with_an_unknown_or_estimated_part_are_none(other: EnergySpent, reason: str) -> None:
    for both in (energy(5.0) + other, other + energy(5.0)):
        assert both.joules is None
        assert reason in str(both.reason)


def test_estimates_of_the_same_watts_add_up_as_an_estimate() -> None:
    both = energy(5.0, "model:10", "model") + energy(3.0, "model:10", "model")
    assert (both.joules, both.source, both.meter) == (8.0, "model", "model:10")


def test_processes_of_one_training_share_its_time() -> None:
    first = cost(10.0, energy(100.0, "rapl"))
    second = cost(9.0, EnergySpent(source="none", meter="none", reason=READ_ELSEWHERE))
    both = together([first, second])
    assert (both.seconds, both.cpu_s, both.energy.joules) == (10.0, 38.0, 100.0)
    assert together([first, cost(9.0, energy(None))]).energy.joules is None


def test_a_total_with_an_unknown_part_is_unknown() -> None:
    known = cost(1.0, energy(1.0))
    assert total([known, None]) is None
    assert total([]) is None
    assert total([known, known]) == known + known


def test_a_computation_of_two_lists_is_paid_once() -> None:
    full, importance = (Expense(kind=kind, checkpoint="a" * 64) for kind in ("training", "importance"))
    ticket = Expense(kind="training", checkpoint="b" * 64)
    assert united([full, importance], [full, ticket]) == (full, importance, ticket)


@pytest.mark.parametrize(
    "value",
    [
        {"source": "none", "meter": "rapl", "joules": 1.0},
        {"source": "counter", "meter": "rapl"},
        {"source": "counter", "meter": "rapl", "joules": 1.0, "reason": "none"},
        {"source": "counter", "meter": "rapl", "joules": -1.0},
        {"source": "counter", "meter": "rapl", "joules": 3.0, "interval": [1.0, 2.0]},
    ],
)
def test_energies_that_contradict_themselves_are_refused(value: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        EnergySpent.model_validate(value, strict=False)

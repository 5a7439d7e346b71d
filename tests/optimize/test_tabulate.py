"""From times and joules of graphs to a table, against graphs whose costs are known."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from effx.optimize import probes
from effx.optimize.energy_windows import Windows
from effx.optimize.tabulate import Measured, table
from effx.structure import Layer, Structure
from tests.optimize.test_cost_table import values
from tests.optimize.test_energy_windows import ConstantMeter

HEADS, NEURONS = (0, 2, 4), (0, 16, 64)
REST, EMPTY, HEAD, NEURON = 5.0, 0.25, 0.5, 0.125
"""Cost outside of layers, of an empty layer, of a head, of a neuron."""


def whole(layers: int) -> Structure:
    return Structure(tuple(Layer(n, tuple(range(4)), 64, tuple(range(64))) for n in range(layers)))


def amounts(drawn: list[Structure], layers: int, rounds: int, factor: float) -> dict[str, np.ndarray]:
    """Return name -> the cost of a graph in every round, ``factor`` times the sum of its parts."""
    named = {probes.UNREDUCED: whole(layers), **probes.structures(whole(layers), HEADS, NEURONS)}
    named |= {f"{probes.CHECK}{number}": one for number, one in enumerate(drawn)}
    return {
        name: np.full(rounds, factor * (REST + sum(
            EMPTY + HEAD * len(layer.heads) + NEURON * layer.intermediate for layer in one.layers
        )))
        for name, one in named.items()
    }  # fmt: skip


def facts() -> dict[str, Any]:
    of_table = ("unreduced_s", "empty_layer_s", "heads", "neurons", "checks", "layers")
    return {name: value for name, value in values().items() if name not in of_table}


@pytest.mark.parametrize("layers", [2, 3, 6, 12])
def test_sums_of_parts_are_found_exactly(layers: int) -> None:
    """Joules are 7 times the seconds here, so every joule of the table is 7 times its second."""
    drawn = [whole(layers).without(heads={0: [0, 1]}, layers=[1]), whole(layers).without(ffns=[0])]
    measured = Measured(amounts(drawn, layers, 8, 1.0), amounts(drawn, layers, 3, 7.0), windows_s=33.0)
    found = table(layers, (HEADS, NEURONS), measured, Windows(ConstantMeter(), 3, 10.0), drawn, **facts())
    assert found.unreduced_s == REST + layers * (EMPTY + 4 * HEAD + 64 * NEURON)
    assert found.empty_layer_s == pytest.approx(EMPTY)
    assert [(each.size, each.seconds) for each in found.heads] == [(n, n * HEAD) for n in HEADS]
    assert [(each.size, each.seconds) for each in found.neurons] == [(n, n * NEURON) for n in NEURONS]
    assert found.median_error == pytest.approx(0, abs=1e-12) and found.passed_for("latency")
    energy, seconds, joules = found.energy, found.costs("latency"), found.costs("energy")
    assert energy is not None and (energy.meter, energy.windows, energy.window_s) == ("test", 3, 10.0)
    assert energy.measured_in_s == 33.0
    assert energy.unreduced_j == pytest.approx(7 * found.unreduced_s)
    assert energy.median_error == pytest.approx(0, abs=1e-12) and found.passed_for("energy")
    for one in drawn:
        assert joules.of_structure(one) == pytest.approx(7 * seconds.of_structure(one))
        expected = REST + sum(
            EMPTY + HEAD * len(part.heads) + NEURON * part.intermediate for part in one.layers
        )
        assert seconds.of_structure(one) == pytest.approx(expected)


def test_structures_that_cost_more_than_their_parts_are_fitted() -> None:
    """Whole encoders cost 10 and 60 more than their parts; the check is by fits, so it passes."""
    rng = np.random.default_rng(1)
    drawn = [
        whole(3).without(
            heads={0: list(range(int(rng.integers(0, 4)))), 1: list(range(int(rng.integers(0, 4))))},
            neurons={1: list(range(int(rng.integers(0, 64))))}, layers=[2] if rng.random() < 0.5 else [],
        )
        for _ in range(8)
    ]  # fmt: skip
    seconds, joules = amounts(drawn, 3, 8, 1.0), amounts(drawn, 3, 3, 7.0)
    for name in [probes.UNREDUCED, *(f"{probes.CHECK}{number}" for number in range(8))]:
        seconds[name] = seconds[name] + 10.0
        joules[name] = joules[name] + 60.0
    found = table(
        3, (HEADS, NEURONS), Measured(seconds, joules), Windows(ConstantMeter(), 3), drawn, **facts()
    )
    assert found.fitted is not None and found.fitted.outside == pytest.approx(REST + 10)
    assert found.energy is not None and found.energy.fitted is not None
    assert found.energy.fitted.outside == pytest.approx(7 * REST + 60)
    assert found.passed_for("latency") and found.passed_for("energy")
    assert found.median_error == pytest.approx(0, abs=1e-9)
    assert found.empty_layer_s == pytest.approx(EMPTY)


def test_energies_that_do_not_add_up_fail_their_own_check() -> None:
    drawn = [whole(3).without(layers=[1])]
    joules = amounts(drawn, 3, 3, 7.0)
    joules[f"{probes.CHECK}0"] *= 1.5
    measured = Measured(amounts(drawn, 3, 8, 1.0), joules)
    found = table(3, (HEADS, NEURONS), measured, Windows(ConstantMeter(), 3), drawn, **facts())
    assert found.passed_for("latency") and not found.passed_for("energy")
    assert found.error_of("energy") == pytest.approx(1 / 3)


def test_a_reason_stands_where_no_energy_is() -> None:
    measured = Measured(amounts([], 3, 8, 1.0), {}, no_energy="full: throttled")
    found = table(3, (HEADS, NEURONS), measured, Windows(ConstantMeter(), 3), [], **facts())
    assert found.energy is None and found.no_energy == "full: throttled"
    assert found.error_of("energy") is None and not found.passed_for("energy")


def test_no_layer_costs_less_than_nothing() -> None:
    """By noise, the parts of a layer can take more than the layer; a removed layer is never dearer."""
    measured = amounts([], 6, 8, 1.0)
    measured[probes.FEWER] = measured[probes.FEWER] * 1.2
    found = table(6, (HEADS, NEURONS), Measured(measured, {}), None, [], **facts())
    assert found.empty_layer_s == 0.0

"""How costs of parts add up: against encoders whose costs are known."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.optimize import minimize

from effx.optimize.layer_costs import Fitted, LayerCosts, fit

LAYERS = 4
HEADS, NEURONS = ((0, 0.0), (1, 2.0), (12, 6.0)), ((0, 0.0), (16, 3.0), (64, 9.0))
COSTS = LayerCosts.of_differences(LAYERS, 80.0, 0.5, HEADS, NEURONS)
TRUE = Fitted(outside=7.0, empty_layer=0.25, heads_factor=1.5, neurons_factor=0.75)


def drawn(count: int, seed: int = 0) -> list[list[tuple[int, int]]]:
    rng = np.random.default_rng(seed)
    return [
        [(int(rng.integers(0, 13)), int(rng.integers(0, 65))) for _ in range(rng.integers(1, LAYERS + 1))]
        for _ in range(count)
    ]


def known(structures: list[list[tuple[int, int]]], to: Fitted = TRUE) -> tuple[LayerCosts, list[float]]:
    """Return the measured parts, beside an unreduced encoder that costs what the fit says, and structures."""
    whole = COSTS.fitted(to).of_layers([(12, 64)] * LAYERS)
    measured = LayerCosts.of_differences(LAYERS, whole, 0.5, HEADS, NEURONS)
    return measured, [measured.fitted(to).of_layers(one) for one in structures]


def test_costs_by_differences_add_up_to_the_unreduced_encoder() -> None:
    assert COSTS.outside == 80 - 4 * (0.5 + 6 + 9)
    assert COSTS.of_layers([(12, 64)] * 4) == 80.0
    assert COSTS.fitted(None) is COSTS


def test_a_fit_finds_how_costs_add_up() -> None:
    structures = drawn(8)
    costs, measured = known(structures)
    found, predictions = fit(costs, LAYERS, structures, measured)
    assert found is not None
    assert found.to_json() == pytest.approx(TRUE.to_json())
    assert predictions == pytest.approx(measured)
    fitted = costs.fitted(found)
    # 7 + (0.25 + 1.5 * 2 + 0.75 * 6) + (0.25 + 0): 40 neurons are half-way between 16 and 64
    assert fitted.of_layers([(1, 40), (0, 0)]) == pytest.approx(15.0)
    assert fitted.unreduced == costs.unreduced
    other = drawn(5, seed=1)
    assert [fitted.of_layers(one) for one in other] == pytest.approx(known(other)[1])


def test_a_fit_has_the_least_relative_errors_without_negative_costs() -> None:
    """Against a general minimiser; costs outside of layers would be negative without the bound."""
    structures = drawn(9, seed=2)
    costs, measured = known(structures, TRUE.model_copy(update={"outside": 0.0}))
    noise = np.random.default_rng(3).normal(1, 0.1, len(measured))
    noisy = [value * each - 2 for value, each in zip(measured, noise, strict=True)]
    found, _ = fit(costs, LAYERS, structures, noisy)
    assert found is not None and found.outside == 0.0

    def squares(values: np.ndarray) -> float:
        names = ("outside", "empty_layer", "heads_factor", "neurons_factor")
        there = costs.fitted(Fitted(**dict(zip(names, map(float, values), strict=True))))
        pairs = [([(12, 64)] * LAYERS, costs.unreduced), *zip(structures, noisy, strict=True)]
        return sum((there.of_layers(one) / value - 1) ** 2 for one, value in pairs)

    best = minimize(squares, [1.0, 1.0, 1.0, 1.0], bounds=[(0, None)] * 4, options={"ftol": 1e-15})
    assert squares(np.array([value for _, value in found])) <= best.fun * (1 + 1e-6)


def test_a_prediction_does_not_know_its_own_measurement() -> None:
    structures = drawn(10, seed=4)
    costs, measured = known(structures)
    _, before = fit(costs, LAYERS, structures, measured)
    changed = [*measured[:3], 2 * measured[3], *measured[4:]]
    _, after = fit(costs, LAYERS, structures, changed)
    assert after[3] == pytest.approx(before[3])
    assert all(
        abs(one - other) > 1e-6 for n, (one, other) in enumerate(zip(after, before, strict=True)) if n != 3
    )


@pytest.mark.parametrize(
    "structures",
    [drawn(5), [[(12, 64)] * 2] * 8, [[(0, 16)] * n for n in (1, 2, 3, 4)] * 2, []],
    ids=["too few", "all alike", "layers and neurons in proportion", "none"],
)
def test_what_cannot_be_told_apart_is_not_fitted(structures: list[list[tuple[int, int]]]) -> None:
    costs, measured = known(structures)
    found, predictions = fit(costs, LAYERS, structures, measured)
    assert found is None and predictions == [costs.of_layers(one) for one in structures]


@pytest.mark.parametrize("wrong", [0.0, -1.0])
def test_costs_that_are_not_positive_are_not_fitted(wrong: float) -> None:
    """Joules beyond those of an idle device can be: relative errors would have no meaning."""
    structures = drawn(8)
    costs, measured = known(structures)
    found, predictions = fit(costs, LAYERS, structures, [wrong, *measured[1:]])
    assert found is None and predictions == [costs.of_layers(one) for one in structures]

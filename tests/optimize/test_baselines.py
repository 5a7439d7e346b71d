"""The parts of benchmarks/optimize_baselines.py that decide what is compared."""

from __future__ import annotations

import importlib.util
import itertools
import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

from effx.optimize.cost_table import CostTable, SizeCost
from effx.structure import Layer, Structure
from effx.tickets.scores import Importance

FILE = Path(__file__).parents[2] / "benchmarks" / "optimize_baselines.py"


@pytest.fixture(scope="module")
def bench() -> ModuleType:
    spec = importlib.util.spec_from_file_location("optimize_baselines", FILE)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["optimize_baselines"] = module
    spec.loader.exec_module(module)
    return module


def costs(sizes: list[int], seconds: list[float]) -> tuple[SizeCost, ...]:
    return tuple(
        SizeCost(size=size, seconds=value, low=value, high=value)
        for size, value in zip(sizes, seconds, strict=True)
    )


def test_first_order_structures_are_the_best_of_all_within_the_budget(bench: ModuleType) -> None:
    table = CostTable(
        schema=1, created="", host={}, versions={}, checkpoint="c", checkpoint_digest="d", model="m",
        head_size=4, variant="int8", scheme="int8-dynamic", backend="onnxruntime", threads=1,
        workload="single", layers=2, unreduced_s=2.4, empty_layer_s=0.1, measured_in_s=1.0, built_in_s=1.0,
        heads=costs([0, 1, 2], [0.0, 0.2, 0.5]), neurons=costs([0, 2, 4], [0.0, 0.3, 0.5]), checks=(),
    )  # fmt: skip
    whole = Structure(tuple(Layer(index, (0, 1), 4, None) for index in range(2)))
    rng = np.random.default_rng(0)
    scored = Importance(rng.random((2, 2)), rng.random(2), rng.random((2, 4)))
    found = bench.first_order_structure(whole, scored, table, limit_s=1.7)
    assert table.seconds.of_structure(found) <= 1.7 + 1e-9

    def lost(target: Structure) -> float:
        total = 0.0
        for layer, heads, neurons in zip(target.layers, scored.heads, scored.neurons, strict=True):
            total += sum(heads[head] for head in range(2) if head not in layer.heads)
            total += sum(neurons[at] for at in range(4) if at not in layer.neuron_indices)
        return float(total)

    every = []
    for kept in itertools.product([0, 1, 2], [0, 4], [0, 1, 2], [0, 4]):
        if table.seconds.of_layers([kept[:2], kept[2:]]) <= 1.7 + 1e-9:
            parts = [(kept[0], scored.heads[0]), (kept[1], scored.neurons[0]),
                     (kept[2], scored.heads[1]), (kept[3], scored.neurons[1])]  # fmt: skip
            every.append(sum(np.sort(scores)[: len(scores) - count].sum() for count, scores in parts))
    assert lost(found) == pytest.approx(min(every))
    smaller = bench.first_order_structure(found, scored, table, limit_s=0.6)
    assert table.seconds.of_structure(smaller) <= 0.6 + 1e-9
    for before, after in zip(found.layers, smaller.layers, strict=True):
        assert set(after.heads) <= set(before.heads)
        assert set(after.neuron_indices) <= set(before.neuron_indices)
    assert bench.first_order_structure(whole, scored, table, limit_s=0.1) is None


def test_scores_are_between_the_engines_next_to_a_speed(bench: ModuleType) -> None:
    rows = [{"times_as_fast": 1.0, "score": 0.9}, {"times_as_fast": 4.0, "score": 0.8}]
    assert bench.score_at(rows, 2.0) == pytest.approx(0.85)  # halfway, by the logarithm
    assert bench.score_at(rows, 5.0) is None

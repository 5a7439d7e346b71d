"""The parts of benchmarks/optimize_baselines.py that decide what is compared."""

from __future__ import annotations

import argparse
import importlib.util
import itertools
import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

from effx.artifacts import Checkpoint
from effx.optimize.cost_table import CostTable, SizeCost
from effx.structure import Layer, Structure
from effx.tickets.scores import Importance
from tests.optimize.test_one_shot import write_table

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


def test_every_way_makes_its_models_or_says_that_it_cannot(
    bench: ModuleType, checkpoint: Checkpoint, encoders: dict[str, Path], rows_folder: Path, tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    write_table(tmp_path / "costs.json", checkpoint)
    options = argparse.Namespace(
        out=tmp_path, seed=0, data=rows_folder, task="sst2", model=str(encoders["bert"]), epochs=0.5,
        batch_size=32, lr=1e-3, limit=96, max_length=32, variant="int8", backend="onnxruntime",
        workload="single", scored_rows=32, candidates=3, speedups=[4.0, 1.5], ways=bench.WAYS,
    )  # fmt: skip
    (tmp_path / "seed0" / "checkpoints").mkdir(parents=True)
    (tmp_path / "seed0" / "checkpoints" / "full").symlink_to(checkpoint.folder)
    bench.Bench(options).train()
    said = capsys.readouterr().out
    table = CostTable.read(tmp_path / "costs.json")
    made = {path.name: Checkpoint.open(path) for path in (tmp_path / "seed0" / "checkpoints").iterdir()}
    for way in bench.WAYS:
        for speedup in options.speedups:
            model = made.get(f"{way}-{speedup:g}x")
            if model is None:
                assert f"{way}-{speedup:g}x: " in said
                continue
            cost_s = table.seconds.of_structure(model.manifest.structure)
            assert cost_s <= table.unreduced_s / speedup * (1 + 1e-9), (way, speedup)
    assert {f"{way}-1.5x" for way in bench.WAYS} <= made.keys()
    assert "tickets-4x" not in made  # every layer keeps a head
    layers = [layer.index for layer in made["layers-1.5x"].manifest.structure.layers]
    assert layers == [*range(len(layers))]
    assert made["distilled-4x"].manifest.parent == made["distilled-4x-pruned"].digest
    assert made["distilled-4x-pruned"].manifest.parent == made["distilled-1.5x"].digest
    assert made["first-order-4x"].manifest.parent == made["first-order-1.5x"].digest
    of_epochs = {name: model.manifest.training.settings["epochs"] for name, model in made.items()}
    assert of_epochs["layers-1.5x"] == of_epochs["distilled-4x"] == 0.5


def test_scores_are_between_the_engines_next_to_a_speed(bench: ModuleType) -> None:
    rows = [{"times_as_fast": 1.0, "score": 0.9}, {"times_as_fast": 4.0, "score": 0.8}]
    assert bench.score_at(rows, 2.0) == pytest.approx(0.85)  # halfway, by the logarithm
    assert bench.score_at(rows, 5.0) is None

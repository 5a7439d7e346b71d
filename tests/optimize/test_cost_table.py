"""Cost tables: arithmetic against hand-computed values, and a real one of a tiny model."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from effx.artifacts import Checkpoint
from effx.cli import run
from effx.cli.cost_table import _text
from effx.errors import ArtifactError, UsageError
from effx.host import cpu
from effx.models import families, structure
from effx.optimize import probes
from effx.optimize.cost_table import CostTable, LayerSize, neuron_sizes
from effx.optimize.layer_costs import Fitted
from effx.optimize.measure_costs import measure
from effx.optimize.probes import random_structures, sizes
from effx.optimize.tabulate import at_one_speed, joined
from effx.structure import Layer, Structure
from tests.models import tiny


def cost(size: int, seconds: float) -> dict[str, float]:
    return {"size": size, "seconds": seconds, "low": seconds, "high": seconds}


def values(**changes: Any) -> dict[str, Any]:
    return {
        "schema": 1, "created": "2026-01-01", "host": {}, "versions": {}, "checkpoint": "c",
        "checkpoint_digest": "d", "model": "bert", "head_size": 8, "variant": "int8",
        "scheme": "int8-dynamic", "backend": "onnxruntime", "threads": 2, "workload": "single", "layers": 3,
        "unreduced_s": 100.0, "empty_layer_s": 1.0, "heads": [cost(0, 0.0), cost(2, 4.0), cost(4, 6.0)],
        "neurons": [cost(0, 0.0), cost(16, 20.0)], "checks": [], "measured_in_s": 1.0, "built_in_s": 1.0,
        **changes,
    }  # fmt: skip


def table(tmp_path: Path, **changes: Any) -> CostTable:
    path = tmp_path / "table.json"
    path.write_text(json.dumps(values(**changes)))
    return CostTable.read(path)


def test_costs_add_up(tmp_path: Path) -> None:
    costs = table(tmp_path).seconds
    # a whole layer costs 1 + 6 + 20 = 27, so what is not a layer costs 100 - 3 * 27 = 19
    assert costs.of_layer(4, 16) == 27.0
    assert costs.of_layers([(4, 16)] * 3) == 100.0
    assert costs.of_layers([]) == 19.0
    assert costs.of_layers([(3, 8), (0, 0)]) == 19.0 + (1 + 5 + 10) + 1
    layers = (Layer(0, (0, 2, 3), 8, tuple(range(8))), Layer(2, (), 0))
    assert costs.of_structure(Structure(layers)) == costs.of_layers([(3, 8), (0, 0)])
    with pytest.raises(UsageError, match="size 5: the cost table has sizes from 0 to 4"):
        costs.of_layer(5, 16)


def test_a_table_from_before_rest_was_recorded_does_not_claim_it(tmp_path: Path) -> None:
    found = table(tmp_path)
    assert found.at_rest is None and "threads of a graph" not in _text(found)


def check(predicted: float, measured: float) -> dict[str, Any]:
    return {"layers": [{"heads": 4, "neurons": 16}] * 3, "predicted_s": predicted, "measured_s": measured}


def test_the_gate_is_the_median_error(tmp_path: Path) -> None:
    checks = [check(100.0, 101.0), check(100.0, 93.0), check(100.0, 50.0)]
    single = table(tmp_path, checks=checks)
    assert single.median_error == pytest.approx(100 / 93 - 1)
    assert single.passed
    assert not table(tmp_path, checks=checks, workload="32x128").passed
    assert not table(tmp_path).passed  # nothing was checked


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"checks": [check(99.0, 100.0)]}, "expected predicted_s 100"),
        ({"heads": [cost(1, 0.0), cost(4, 6.0)]}, "heads: expected at least two rising sizes from 0"),
        ({"backend": "tensorflow"}, "unknown backend"),
        ({"unreduced_s": "fast"}, "unreduced_s"),
        ({"device": "sm89"}, "device: onnxruntime does not build for 'sm89'"),
        ({"energy": "much"}, "energy"),
    ],
)
def test_damaged_tables_are_refused(tmp_path: Path, changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ArtifactError, match=message):
        table(tmp_path, **changes)


def fitted_table() -> dict[str, Any]:
    """Return a table of eight structures: 2, and for a layer 1 and half of what heads and neurons cost."""
    sizes = [[(1 + n % 4, 16), (4 - n % 3, 16 * (n % 2))][: 1 + n % 3] for n in range(8)]
    costs = CostTable.model_validate_json(json.dumps(values(unreduced_s=2 + 3 * (1 + 3.0 + 10.0)))).seconds
    found = Fitted(outside=2.0, empty_layer=1.0, heads_factor=0.5, neurons_factor=0.5)
    checks = [
        {"layers": [{"heads": h, "neurons": m} for h, m in one], "predicted_s": amount, "measured_s": amount}
        for one, amount in ((one, costs.fitted(found).of_layers(one)) for one in sizes)
    ]
    return values(unreduced_s=costs.unreduced, checks=checks, fitted=found.to_json())


def test_a_fit_is_in_the_file_and_follows_from_it(tmp_path: Path) -> None:
    whole = fitted_table()
    found = table(tmp_path, **whole)
    assert found.seconds.outside == 2.0 and found.seconds.of_layer(4, 16) == pytest.approx(14.0)
    assert found.median_error == pytest.approx(0, abs=1e-9)
    text = _text(found)
    assert "outside of layers 2000.000 ms" in text
    assert "in whole encoders, heads cost 0.50 times, and neurons 0.50 times what is listed here" in text
    wrong = {**whole["fitted"], "heads_factor": 0.6}
    with pytest.raises(ArtifactError, match="fitted: expected the fit to the checked structures"):
        table(tmp_path, **{**whole, "fitted": wrong})
    with pytest.raises(ArtifactError, match="fitted: expected none"):
        table(tmp_path, **{**whole, "checks": whole["checks"][:4]})
    with pytest.raises(ArtifactError, match="expected measured_s > 0 and unreduced_s > 0"):
        table(tmp_path, **{**whole, "unreduced_s": 0.0})
    by_itself = [*whole["checks"][:-1], {**whole["checks"][-1], "measured_s": 50.0, "predicted_s": 50.0}]
    with pytest.raises(ArtifactError, match="expected"):
        table(tmp_path, **{**whole, "checks": by_itself})


@pytest.mark.parametrize("neurons", [8, 16, 24, 64, 1536, 3072])
def test_sizes_of_ffns(neurons: int) -> None:
    sizes = neuron_sizes(neurons)
    assert sizes[0] == 0 and sizes[-1] == neurons and sizes == sorted(set(sizes))
    assert all(size % 16 == 0 for size in sizes[1:-1])
    if neurons > 1000:
        assert max(after / before for before, after in zip(sizes[3:], sizes[4:], strict=False)) < 1.5
        assert len(sizes) < 25


def test_times_are_those_at_one_speed() -> None:
    """A machine that is half as fast in one round changes nothing; a slow moment of one graph stays."""
    speed = np.array([1.0, 2.0, 1.0, 1.0])
    timed = {f"heads{n}": n * speed for n in range(1, 6)} | {"full": np.array([7.0, 14.0, 7.0, 21.0])}
    found = at_one_speed(timed)
    assert all(found[f"heads{n}"].tolist() == [n] * 4 for n in range(1, 6))
    assert found["full"].tolist() == [7.0, 7.0, 7.0, 21.0]


def test_groups_that_were_measured_at_other_speeds_are_joined() -> None:
    """The speed is that of most of the graphs in both: one that was slow by chance does not count."""
    costs = {"unreduced": 6.0, "full": 6.0, "fewer": 3.0, "heads0": 4.0}
    before = {name: np.full(4, cost) for name, cost in costs.items()}
    later = {name: 1.5 * values for name, values in before.items()} | {"check0": np.full(4, 1.5 * 2.0)}
    later["unreduced"] = later["unreduced"] * 1.2
    found = joined(before, later)
    assert found["check0"] == pytest.approx(np.full(4, 2.0))
    assert {name: found[name].tolist() for name in costs} == {name: before[name].tolist() for name in costs}


def test_one_head_is_measured_in_coarse_tables_too() -> None:
    """The first head brings the nodes of attention along, so it is not a third of three."""
    layer = Layer(0, tuple(range(12)), 1536, tuple(range(1536)))
    assert sizes(Structure((layer,)), coarse=True)[0] == [0, 1, 3, 6, 9, 12]
    assert sizes(Structure((layer,)))[0] == [*range(13)]
    one = Layer(0, (0,), 64, tuple(range(64)))
    assert sizes(Structure((one,)), coarse=True)[0] == [0, 1]


@pytest.mark.parametrize("family", sorted(families.FAMILIES))
def test_random_structures_can_be_built(family: str) -> None:
    model = tiny.model(family, layers=4, neurons=64)
    drawn = random_structures(model, 10, seed=1)
    assert len({one.layers for one in drawn}) > 5
    remaining = [sum(len(layer.heads) for layer in one.layers) for one in drawn]
    assert max(remaining) > 2 * min(remaining)  # small and large ones
    positions = structure(model).position
    for one in drawn:
        families.of(model).check_layers([positions(layer.index) for layer in one.layers])
        assert one.layers[0].index == 0


def test_layers_have_to_be_equal() -> None:
    whole = structure(tiny.model("bert"))
    with pytest.raises(UsageError, match="whose layers are all equal"):
        sizes(whole.without(heads={0: [1]}))


def test_a_table_of_a_real_model(
    checkpoint: Checkpoint, rows_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Of a model that is so small that its costs are noise: the file, the text and the exit code agree."""
    arguments = ["cost-table", str(checkpoint.folder), "--rounds", "6", "--checks", "2", "--for", "4x16",
                 "-o", str(tmp_path), "--threads", "1"]  # fmt: skip
    code = run(arguments)
    printed = capsys.readouterr().out
    found = CostTable.read(tmp_path / "tiny.fp32.onnxruntime.4x16.json")
    assert code == (0 if found.passed else 1)
    assert [part.size for part in found.heads] == [0, 1, 2, 3, 4]
    assert [part.size for part in found.neurons] == [0, 16, 32, 48, 64]
    assert found.heads[0].seconds == found.neurons[0].seconds == 0.0
    for part in (found.heads, found.neurons):
        seconds = [cost_of.seconds for cost_of in part]
        assert seconds == sorted(seconds)
    assert found.unreduced_s > 0 and len(found.checks) == 2
    assert (found.layers, found.threads, found.scheme) == (3, 1, "fp32")
    assert found.checkpoint_digest == checkpoint.digest
    assert "2 random structures: median error of the predicted latency" in printed
    assert str(tmp_path / "tiny.fp32.onnxruntime.4x16.json") in printed


def test_joules_of_a_real_model_by_processor_time(checkpoint: Checkpoint, tmp_path: Path) -> None:
    """The model of 10 W for each busy core: an engine of one thread draws about 10 W while it works."""
    (found,) = measure(
        checkpoint.folder, workloads=("4x16",), threads=1, rounds=6, checks=1, meter="model:10", windows=2,
        window_s=0.05,
    )  # fmt: skip
    energy = found.energy
    assert energy is not None and (energy.source, energy.meter) == ("model", "model:10")
    assert (energy.windows, energy.window_s) == (2, 0.05) and found.no_energy is None
    assert [part.size for part in energy.heads] == [part.size for part in found.heads]
    for part, field in ((energy.heads, "joules"), (energy.neurons, "joules")):
        amounts = [getattr(each, field) for each in part]
        assert amounts[0] == 0.0 and amounts == sorted(amounts)
    assert len(energy.checks) == 1 and energy.measured_in_s > 0
    # processor time is at most the time of the one thread; ticks of the clock are coarse
    assert 0 < energy.unreduced_j < 3 * 10 * found.unreduced_s
    found.write(tmp_path / "table.json")
    assert CostTable.read(tmp_path / "table.json") == found
    text = _text(found)
    assert "energy by model:10 (model), of processor time, without idle power" in text
    assert "median error of the predicted energy" in text and "mJ per layer" in text


@pytest.mark.parametrize("busy", [0, -1, None])
def test_threads_that_compute_between_graphs_are_recorded(
    busy: int | None, checkpoint: Checkpoint, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Before the first block, before the last energy window, or never."""
    calls, turns = 0, 5 * (6 + 2)  # unreduced, all and fewer layers, without heads, without neurons

    def rest() -> bool:
        nonlocal calls
        calls += 1
        return busy is None or calls - 1 != busy % turns  # counted from the end if negative

    monkeypatch.setattr(cpu, "rest", rest)
    monkeypatch.setattr(probes, "sizes", lambda *_, **__: ([0, 4], [0, 64]))
    (found,) = measure(
        checkpoint.folder, workloads=("4x16",), threads=1, rounds=6, checks=0, meter="model:10", windows=2,
        window_s=0.01,
    )  # fmt: skip
    assert calls == turns
    assert found.at_rest is (busy is None)
    assert ("threads of a graph still computed" in _text(found)) is (busy is not None)


def test_a_meter_that_is_not_here(
    checkpoint: Checkpoint, tmp_path: Path, capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    """A named one is refused before graphs are built; auto says why there is no energy."""
    command = ["cost-table", str(checkpoint.folder), "-o", str(tmp_path / "costs")]
    assert run([*command, "--meter", "model:none"]) == 2
    assert "meter model:none: expected the watts of one busy core" in capsys.readouterr().err
    assert not (tmp_path / "costs").exists()
    monkeypatch.setattr("effx.specs.meters.automatic", lambda device: [])
    (found,) = measure(checkpoint.folder, workloads=("4x16",), threads=1, rounds=6, checks=1, meter="auto")
    assert found.energy is None and found.no_energy == "there is no meter for cpu"
    assert "no energy: there is no meter for cpu" in _text(found)


def test_the_exit_code_is_that_of_all_checks(
    checkpoint: Checkpoint, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    good, off = [check(100.0, 101.0)], [check(100.0, 150.0)]
    cases = [
        (["--meter", "none"], {"checks": good}, 0),
        (["--meter", "none"], {"checks": off}, 1),
        (["--meter", "auto"], {"checks": good, "no_energy": "no counter"}, 0),
        (["--meter", "model:5"], {"checks": good, "no_energy": "throttled"}, 1),
        (["--meter", "auto"], {"checks": good, "energy": joules(measured=101.0)}, 0),
        (["--meter", "auto"], {"checks": good, "energy": joules(measured=150.0)}, 1),
    ]
    for number, (arguments, changes, code) in enumerate(cases):
        monkeypatch.setattr(
            "effx.optimize.measure_costs.measure",
            lambda *_, found=changes, **__: [table(tmp_path, **found)],
        )
        out = tmp_path / str(number)
        assert run(["cost-table", str(checkpoint.folder), "-o", str(out), *arguments]) == code, arguments


def joules(measured: float) -> dict[str, Any]:
    """Return energies that are the seconds of :func:`values`, and a structure that was measured."""
    known = values()
    renamed = {
        name: [{"joules": each["seconds"], **{k: v for k, v in each.items() if k != "seconds"}}
               for each in known[name]]
        for name in ("heads", "neurons")
    }  # fmt: skip
    checked = {"layers": [{"heads": 4, "neurons": 16}] * 3, "predicted_j": 100.0, "measured_j": measured}
    return {
        "source": "model", "meter": "model:5", "about": {}, "windows": 3, "window_s": 10.0,
        "measured_in_s": 1.0, "unreduced_j": 100.0, "empty_layer_j": 1.0, "checks": [checked], **renamed,
    }  # fmt: skip


def test_the_device_is_in_the_table_and_in_its_name_unless_it_is_the_default(
    checkpoint: Checkpoint, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A stand-in of the measurement, as a GPU's cannot be had: the file of what it returns."""
    assert table(tmp_path, device="cuda").device == "cuda" and table(tmp_path).device is None
    asked = []

    def stand_in(checkpoint: Any, **options: Any) -> list[CostTable]:
        asked.append(options["device"])
        return [table(tmp_path, device=options["device"], checks=[check(100.0, 101.0)])]

    monkeypatch.setattr("effx.optimize.measure_costs.measure", stand_in)
    command = ["cost-table", str(checkpoint.folder), "--variant", "int8", "-o", str(tmp_path / "costs")]
    assert run([*command, "--device", "cuda"]) == run(command) == 0
    assert asked == ["cuda", None]
    assert {path.name for path in (tmp_path / "costs").iterdir()} == {
        "c.int8.onnxruntime.cuda.single.json", "c.int8.onnxruntime.single.json",
    }  # fmt: skip


@pytest.mark.usefixtures("without_gpu")
def test_a_gpu_that_is_not_there_is_told_before_graphs_are_built(
    checkpoint: Checkpoint, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for device, message in (("cuda", "built without CUDAExecutionProvider"), ("sm89", "unknown device")):
        assert run(["cost-table", str(checkpoint.folder), "--device", device, "-o", str(tmp_path / "o")]) == 2
        assert message in capsys.readouterr().err
    with pytest.raises(UsageError, match="device sm89: engines have to run here"):
        measure(checkpoint.folder, backend="tensorrt-rtx", device="sm89")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--variant", "exit"], "variant exit: a cost table is of plain graphs"),
        (["--variant", "int7"], "int7"),
        (["--variant", "fp16"], "effx does not build fp16 for ONNX Runtime on cpu"),
        (["--for", "fast"], "'fast': expected single, offline or BATCHxLENGTH"),
        (["--checks", "0"], "--checks"),
    ],
)
def test_wrong_inputs(
    checkpoint: Checkpoint, tmp_path: Path, capsys: pytest.CaptureFixture[str], arguments: list[str],
    message: str,
) -> None:  # fmt: skip
    assert run(["cost-table", str(checkpoint.folder), "-o", str(tmp_path / "costs"), *arguments]) == 2
    error = capsys.readouterr().err
    assert message in error and error.count("\n") == 1
    assert not (tmp_path / "costs").exists()


def test_sizes_are_records() -> None:
    assert LayerSize(heads=1, neurons=2).to_json() == {"heads": 1, "neurons": 2}

"""Pruning without training: what is compared is what is written, and budgets are kept."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import PreTrainedModel

from effx import data
from effx.artifacts import Checkpoint
from effx.cli import run
from effx.encoding import Encoder
from effx.errors import UsageError
from effx.models import checkpoints, evaluate, families, load, prune, save, sparse, structure
from effx.models.losses import distance_of
from effx.models.pooling import set_pooling
from effx.models.reconstruction import problems, reconstruct
from effx.optimize import choosing, one_shot
from effx.optimize.cost_table import CostTable
from effx.optimize.one_shot import _Comparison, _identity, _Layer, _may_go, _Option, _target
from effx.recipe.execute import settle
from effx.recipe.execute.protocol import CellInputs, CellSpec, LocalPaths, SourceCell
from effx.specs.data import DataSource
from effx.specs.exits import EarlyExitSettings
from effx.specs.optimize import OneShotSettings
from effx.specs.stages import OneShotStage
from effx.specs.tasks import TASKS
from effx.specs.tokens import TokenPruningSettings
from effx.specs.training import FinetuneSettings, TrainingSettings
from effx.train import exits, finetune, tokens
from effx.train import rows as row_numbers
from tests.models import tiny
from tests.optimize.test_cost_table import check, cost, values

LENGTHS = [9, 4, 12, 7, 1, 10]


class Rows:
    """Batches of random ids in the place of encoded rows."""

    def __init__(self, model: PreTrainedModel) -> None:
        self._inputs = tiny.inputs(model, LENGTHS)
        self.lengths = np.array(LENGTHS)

    def batch(self, rows: np.ndarray) -> dict[str, np.ndarray]:
        return {name: values[rows].numpy() for name, values in self._inputs.items()}


@pytest.mark.parametrize("reduced", [False, True])
@pytest.mark.parametrize("family", sorted(families.FAMILIES))
def test_what_is_compared_is_what_is_written(family: str, reduced: bool) -> None:
    """The distance of weights that are swapped in equals that of the smaller model."""
    model = tiny.model(family, layers=4, outputs=2)
    if reduced:
        prune(model, heads={0: [1], 2: [0, 3]}, ffns=[1], neurons={0: range(5, 17)})
        if family != "modernbert":  # whose kinds of layers alternate
            prune(model, heads={3: range(4)})
    inputs = [tiny.inputs(model, LENGTHS, seed=seed) for seed in range(4)]
    measured = problems(model, inputs)
    layers = [_Layer.of(number, one) for number, one in enumerate(measured)]
    comparison = _Comparison(model, TASKS["sst2"], Rows(model), layers)  # type: ignore[arg-type]
    whole = [layer.size for layer in layers]
    assert reduced or whole == [_Option(4, 24)] * 4
    assert comparison.distance(whole) == pytest.approx(0.0, abs=1e-6)
    expected = tiny.logits(model, tiny.inputs(model, LENGTHS))
    rng = np.random.default_rng(5)
    for _ in range(6):
        options = [
            _Option(int(rng.integers(0, size.heads + 1)), int(rng.integers(0, 3)) * (size.neurons // 2))
            if number == 0 or not _may_go(model, number) or rng.random() < 0.7
            else _Option(0, 0, removed=True)
            for number, size in enumerate(whole)
        ]
        smaller = reconstruct(
            copy.deepcopy(model), _target(structure(model), layers, options), measured
        )  # fmt: skip
        arrays = tiny.inputs(model, LENGTHS)
        found = tiny.logits(smaller, arrays)
        distance = distance_of(TASKS["sst2"])(found, expected, None, arrays["attention_mask"].bool(), 1.0)
        assert comparison.distance(options) == pytest.approx(float(distance), rel=1e-3, abs=1e-5)
    assert comparison.distance(whole) == pytest.approx(0.0, abs=1e-6)  # the weights are back


@pytest.mark.parametrize("pooling", ["cls", "mean"])
def test_without_the_last_layer_the_head_reads_what_it_reads_in_the_written_model(pooling: str) -> None:
    model = tiny.model("bert", layers=3, outputs=2)
    set_pooling(model, pooling)
    with torch.no_grad():  # the head of a random model hardly depends on what it reads
        for part in (model.bert.pooler.dense, model.classifier):
            part.weight.mul_(20.0)
    measured = problems(model, [tiny.inputs(model, LENGTHS, seed=seed) for seed in range(4)])
    layers = [_Layer.of(number, one) for number, one in enumerate(measured)]
    comparison = _Comparison(model, TASKS["sst2"], Rows(model), layers)  # type: ignore[arg-type]
    options = [layers[0].size, layers[1].size, _Option(0, 0, removed=True)]
    target = _target(structure(model), layers, options)
    smaller = reconstruct(copy.deepcopy(model), target, measured)
    arrays = tiny.inputs(model, LENGTHS)
    found, expected = tiny.logits(smaller, arrays), tiny.logits(model, arrays)
    distance = distance_of(TASKS["sst2"])(found, expected, None, arrays["attention_mask"].bool(), 1.0)
    assert float(distance) > 0.01
    assert comparison.distance(options) == pytest.approx(float(distance), rel=1e-3)


def test_errors_of_a_part_rise_from_0_to_1() -> None:
    model = tiny.model("bert")
    layer = _Layer.of(0, problems(model, [tiny.inputs(model, LENGTHS)])[0])
    for part, count in (("heads", 4), ("neurons", 24)):
        errors = [layer.error(part, size) for size in range(count + 1)]
        assert errors[0] == 1.0 and errors[-1] == 0.0
        assert errors == sorted(errors, reverse=True)


def test_a_removed_layer_returns_its_input() -> None:
    hidden = torch.ones(1, 2, 3)
    assert _identity(torch.nn.Identity(), (hidden,), (None, "rest")) == (hidden, "rest")
    assert _identity(torch.nn.Identity(), (hidden,), None) is hidden


def write_table(path: Path, checkpoint: Checkpoint, **changes: Any) -> Path:
    """Write a table of made-up costs for a checkpoint of three layers of 4 heads and 64 neurons."""
    heads = [cost(size, 1.0 * size) for size in range(5)]
    neurons = [cost(size, size / 8) for size in (0, 16, 32, 48, 64)]
    known = {
        "model": checkpoint.manifest.model, "head_size": 8, "heads": heads, "neurons": neurons,
        "unreduced_s": 45.0, "empty_layer_s": 1.0,
        "checks": [{**check(45.0, 45.0), "layers": [{"heads": 4, "neurons": 64}] * 3}],
    }  # fmt: skip
    path.write_text(json.dumps(values(**{**known, **changes})))
    return path


def test_command(
    checkpoint: Checkpoint, rows_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    costs = write_table(tmp_path / "costs.json", checkpoint)
    arguments = ["train", "prune", str(checkpoint.folder), "--costs", str(costs), "--data", str(rows_folder),
                 "-o", str(tmp_path), "--rows", "64", "--candidates", "20"]  # fmt: skip
    assert run([*arguments, "--speedup", "2"]) == 0
    pruned = Checkpoint.open(tmp_path / "tiny-pruned2x")
    record = pruned.manifest.one_shot
    assert record is not None
    assert pruned.manifest.parent == checkpoint.digest
    assert record.predicted_s <= 45.0 / 2
    assert record.predicted_s == CostTable.read(costs).seconds.of_structure(pruned.manifest.structure)
    assert record.rows == 64 and record.distance >= 0
    assert f"predicted {1e3 * record.predicted_s:.3f} ms" in capsys.readouterr().out
    rows = data.load(pruned.task, "validation", rows_folder)
    encoder = Encoder(pruned.folder, pruned.max_length)
    predicted = evaluate.predictions(load(pruned), encoder(rows.texts), pruned.task)
    assert pruned.task.score(rows.labels, predicted) == pruned.manifest.metrics
    again = [*arguments, "--speedup", "2", "--name", "again"]
    assert run(again) == 0
    weights = [checkpoints.load(tmp_path / name).state_dict() for name in ("tiny-pruned2x", "again")]
    assert all(torch.equal(weights[0][name], weights[1][name]) for name in weights[0])


def test_a_pruned_checkpoint_is_pruned_further(
    checkpoint: Checkpoint, rows_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """What a structure of the first step lost stays lost, and the second keeps its own budget."""
    costs = write_table(tmp_path / "costs.json", checkpoint)
    options = ["--costs", str(costs), "--data", str(rows_folder), "-o", str(tmp_path), "--rows", "64",
               "--candidates", "5"]  # fmt: skip
    assert run(["train", "prune", str(checkpoint.folder), *options, "--speedup", "1.5", "--name", "a"]) == 0
    assert run(["train", "prune", str(tmp_path / "a"), *options, "--speedup", "2.5", "--name", "b"]) == 0
    first, second = (Checkpoint.open(tmp_path / name).manifest for name in "ab")
    assert second.parent == Checkpoint.open(tmp_path / "a").digest
    assert second.one_shot is not None and second.one_shot.predicted_s <= 45.0 / 2.5
    before = {layer.index: layer for layer in first.structure.layers}
    for layer in second.structure.layers:
        assert {*layer.heads} <= {*before[layer.index].heads}
        assert {*layer.neuron_indices} <= {*before[layer.index].neuron_indices}
    capsys.readouterr()
    assert run(["train", "prune", str(tmp_path / "b"), *options, "--speedup", "2", "--name", "c"]) == 2
    assert "times as fast already, by this table" in capsys.readouterr().err


def energy(**changes: Any) -> dict[str, Any]:
    """Return made-up joules: heads cost nothing, neurons nearly everything."""
    heads = [{"size": size, "joules": 0.0, "low": 0.0, "high": 0.0} for size in range(5)]
    neurons = [
        {"size": size, "joules": size / 4, "low": size / 4, "high": size / 4} for size in (0, 16, 32, 48, 64)
    ]
    checked = {"layers": [{"heads": 4, "neurons": 64}] * 3, "predicted_j": 60.0, "measured_j": 60.0}
    return {
        "source": "counter", "meter": "nvml", "about": {}, "windows": 3, "window_s": 10.0,
        "measured_in_s": 9.0,
        "unreduced_j": 60.0, "empty_layer_j": 1.0, "heads": heads, "neurons": neurons, "checks": [checked],
        **changes,
    }  # fmt: skip


def test_joules_choose_where_energy_is_reduced(
    checkpoint: Checkpoint, rows_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Heads cost no joules, so neurons alone can save them; by time heads are the cheaper ones to lose."""
    costs = write_table(tmp_path / "costs.json", checkpoint, energy=energy())
    arguments = ["train", "prune", str(checkpoint.folder), "--costs", str(costs), "--data", str(rows_folder),
                 "-o", str(tmp_path), "--rows", "64", "--candidates", "20", "--speedup", "2"]  # fmt: skip
    assert run([*arguments, "--objective", "energy", "--name", "joules"]) == 0
    pruned = Checkpoint.open(tmp_path / "joules").manifest
    record = pruned.one_shot
    assert record is not None and record.predicted_j is not None and record.settings["objective"] == "energy"
    # computed anew: 60 J with three layers of 1 J and 64 neurons of 0.25 J, so 9 J are of no layer
    left = 9 + sum(1 + layer.intermediate / 4 for layer in pruned.structure.layers)
    assert record.predicted_j == pytest.approx(left) and record.unreduced_j == 60.0
    assert left <= 60 / 2
    assert all(len(layer.heads) == 4 for layer in pruned.structure.layers if layer.intermediate)
    assert "mJ" in capsys.readouterr().out
    assert run([*arguments, "--name", "seconds"]) == 0
    by_time = Checkpoint.open(tmp_path / "seconds").manifest.one_shot
    assert by_time is not None and by_time.predicted_s <= 45 / 2


def test_milliseconds_choose_where_joules_do_not_add_up_and_engines_are_measured_anyway(
    checkpoint: Checkpoint, rows_folder: Path, tmp_path: Path
) -> None:
    wrong = {"layers": [{"heads": 4, "neurons": 64}] * 3, "predicted_j": 60.0, "measured_j": 90.0}
    settings = OneShotSettings(speedup=2.0, objective="energy", rows=32, candidates=2)
    for name, changes in (("none", {}), ("off", {"energy": energy(checks=[wrong])})):
        path = write_table(tmp_path / f"{name}.json", checkpoint, **changes)
        given: dict[str, Any] = {"out": tmp_path, "data_folder": str(rows_folder)}
        read = CostTable.read(path)
        with pytest.raises(UsageError, match="the cost table (has no energy|did not pass its check)"):
            one_shot.prune(checkpoint.folder, read, settings, name=f"{name}-strict", **given)
        pruned = one_shot.prune(checkpoint.folder, read, settings, name=name, strict=False, **given)
        record = pruned.manifest.one_shot
        assert record is not None and record.settings["objective"] == "latency"
        assert record.predicted_s <= 45 / 2


@pytest.fixture
def used(monkeypatch: pytest.MonkeyPatch) -> set[tuple[str, ...]]:
    """Texts that were read."""
    seen: set[tuple[str, ...]] = set()
    encode = Encoder.__call__

    def watched(self: Encoder, texts: Any, *rest: Any) -> Any:
        seen.update(tuple(text) for text in texts)
        return encode(self, texts, *rest)

    monkeypatch.setattr(Encoder, "__call__", watched)
    return seen


def test_rows_that_the_trainings_leave_out_are_not_used(
    checkpoint: Checkpoint, rows_folder: Path, tmp_path: Path, used: set[tuple[str, ...]]
) -> None:
    """The stage of effx optimize takes the rows that the recovery is trained on: others choose later."""
    (tmp_path / "c").mkdir()
    write_table(tmp_path / "c" / "costs.json", checkpoint)
    wanted = OneShotSettings(speedup=2.0, rows=1024, candidates=2, seed=3)
    settings = OneShotStage(one_shot=wanted, share=0.8, limit=100)
    sources = (
        SourceCell("given", "tiny", "k", str(checkpoint.folder.parent)),
        SourceCell("costs", "c", "k", str(tmp_path)),
    )
    paths = LocalPaths(data=DataSource(str(rows_folder)))
    settle.function("one-shot")(
        CellSpec(str(tmp_path), "k", "one-shot", "p", settings.to_json(), paths, CellInputs(), sources),
        tmp_path,
    )
    train, validation = (data.load(checkpoint.task, split, rows_folder) for split in ("train", "validation"))
    training = TrainingSettings.of(share=0.8, limit=100, seed=3)
    trained = {train.texts[row] for row in row_numbers.chosen(train, training)}
    assert len(trained) == 80
    assert used == trained | {*validation.texts}  # the latter for the score in the manifest
    assert not used & {*choosing.choose(train, training, 10).texts}
    record = Checkpoint.open(tmp_path / "p").manifest.one_shot
    assert record is not None and record.rows == 80


@pytest.mark.parametrize("stopped_early", [False, True])
def test_rows_that_exits_take_for_unseen_were_not_fitted_on(
    encoders: dict[str, Path], rows_folder: Path, tmp_path: Path, used: set[tuple[str, ...]],
    stopped_early: bool,
) -> None:  # fmt: skip
    """Rows beyond a limit, or those that early stopping was decided on, are held out for exits."""
    rows = {"patience": 1} if stopped_early else {"limit": 100}
    settings = FinetuneSettings.of(epochs=0.2, max_length=32, lr=1e-3, **rows)
    given: dict[str, Any] = {"out": tmp_path, "data_folder": str(rows_folder)}
    trained = finetune("sst2", encoders["bert"], name="trained", settings=settings, **given)
    table = CostTable.read(write_table(tmp_path / "costs.json", trained))
    used.clear()
    wanted = OneShotSettings(speedup=2.0, candidates=2)
    pruned = one_shot.prune(trained.folder, table, wanted, name="pruned", **given)
    train = data.load(pruned.task, "train", rows_folder)
    fitted = {row for row, text in enumerate(train.texts) if text in used}
    quick = EarlyExitSettings.of(epochs=0.2, batch_size=8)
    ramps = exits.train(pruned.folder, name="ramps", settings=quick, **given)
    record = ramps.manifest.exits
    assert record is not None and record.calibration.seen_in_training is False
    _, held, _ = row_numbers.split(train, pruned.manifest.training, quick.training)
    assert len(held) == record.calibration.rows > 0
    assert fitted and not fitted & {*held.tolist()}
    assert pruned.manifest.training == trained.manifest.training


def test_it_is_unknown_what_was_seen_if_other_rows_were_fitted_on(
    encoders: dict[str, Path], rows_folder: Path, tmp_path: Path
) -> None:
    """Rows that are named, and rows of another folder, may be among those that are held out later."""
    settings = FinetuneSettings.of(epochs=0.2, max_length=32, lr=1e-3, limit=100)
    given: dict[str, Any] = {"out": tmp_path, "data_folder": str(rows_folder)}
    trained = finetune("sst2", encoders["bert"], name="trained", settings=settings, **given)
    table = CostTable.read(write_table(tmp_path / "costs.json", trained))
    others = tmp_path / "others"
    for split in ("train", "validation"):
        lines = (rows_folder / f"{split}.jsonl").read_text().splitlines(keepends=True)
        others.mkdir(exist_ok=True)
        (others / f"{split}.jsonl").write_text("".join(reversed(lines)))
    wanted = OneShotSettings(speedup=2.0, candidates=2)
    quick = EarlyExitSettings.of(epochs=0.2, batch_size=8)
    for name, changes in (
        ("named", {"training": TrainingSettings.of(limit=160)}), ("elsewhere", {"data_folder": str(others)}),
    ):  # fmt: skip
        pruned = one_shot.prune(trained.folder, table, wanted, name=name, **{**given, **changes})
        assert pruned.manifest.training.rows_digest is None
        record = exits.train(pruned.folder, name=f"{name}-e", settings=quick, **given).manifest.exits
        assert record is not None and record.calibration.seen_in_training is None
    within = TrainingSettings.of(limit=80)
    pruned = one_shot.prune(trained.folder, table, wanted, name="within", training=within, **given)
    assert pruned.manifest.training == trained.manifest.training


@pytest.mark.parametrize(
    ("changes", "arguments", "message"),
    [
        ({}, ["--speedup", "30"], "speedup 30 cannot be reached: the most is 6.43, by this table"),
        ({}, ["--speedup", "1"], "--speedup"),
        ({"model": "other"}, [], "the cost table is of the encoder other, not of bert"),
        (
            {"layers": 2, "checks": []},
            [],
            "is of 2 layers of 4 heads and 64 neurons; tiny has 3 layers of up",
        ),
        ({"checks": []}, [], "the cost table did not pass its check: the median error of latency is unknown"),
        (
            {},
            ["--objective", "energy"],
            "has no energy: it was measured without a meter. Measure it with one",
        ),
        ({"no_energy": "rapl: no such file"}, ["--objective", "energy"], "has no energy: rapl: no such file"),
        (
            {"energy": energy(checks=[])},
            ["--objective", "energy"],
            "the cost table did not pass its check: the median error of energy is unknown, the limit 10%",
        ),
        (
            {"energy": energy()},
            ["--objective", "energy", "--speedup", "30"],
            "speedup 30 cannot be reached: the most is 6, by this table",
        ),
        ({}, ["--objective", "memory"], "objective"),
    ],
)
def test_wrong_inputs(
    checkpoint: Checkpoint, rows_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str],
    changes: dict[str, Any], arguments: list[str], message: str,
) -> None:  # fmt: skip
    costs = write_table(tmp_path / "costs.json", checkpoint, **changes)
    given = ["train", "prune", str(checkpoint.folder), "--costs", str(costs), "--data", str(rows_folder),
             "-o", str(tmp_path / "out"), "--rows", "32", "--candidates", "2", *arguments]  # fmt: skip
    assert run(given) == 2
    lines = [line for line in capsys.readouterr().err.splitlines() if line.startswith("effx: ")]
    assert len(lines) == 1 and message in lines[0]
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("kind", ["exits", "tokens"])
def test_what_depends_on_the_weights_is_refused(
    kind: str, checkpoint: Checkpoint, rows_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Exits and token schedules would stay, without the records that say how they were chosen."""
    given: dict[str, Any] = {"out": tmp_path, "name": "x", "data_folder": rows_folder}
    if kind == "exits":
        exits.train(checkpoint.folder, settings=EarlyExitSettings.of(epochs=0.1, batch_size=8), **given)
    else:
        schedule = TokenPruningSettings.of(schedule=(0.9, 0.6, 0.4), epochs=0.1, batch_size=8)
        tokens.train(checkpoint.folder, settings=schedule, **given)
    costs = write_table(tmp_path / "costs.json", checkpoint)
    capsys.readouterr()
    command = ["train", "prune", str(tmp_path / "x"), "--costs", str(costs), "--data", str(rows_folder),
               "-o", str(tmp_path / "out"), "--rows", "32", "--speedup", "2"]  # fmt: skip
    assert run(command) == 2
    assert capsys.readouterr().err.strip() == (
        "effx: x has exits or a token schedule, which depend on its weights: prune the checkpoint before "
        "them, then train exits or tokens on the result."
    )
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("zeros", [True, False])
def test_zeros_of_a_lottery_ticket_are_refused(
    zeros: bool, checkpoint: Checkpoint, rows_folder: Path, tmp_path: Path
) -> None:
    """Remaining weights are refitted, so that zeros would not stay zero. The full model has a record too."""
    model = load(checkpoint.folder)
    family = families.of(model)
    with torch.no_grad():
        if zeros:
            family.layers(model)[0].get_submodule(family.ffn_output_path).weight[:, :9] = 0
    ticket = save(
        model, tmp_path / "ticket", tokenizer=checkpoints.tokenizer(checkpoint.folder), task=checkpoint.task,
        max_length=32, sparsity=sparse.counts(model), model="other",
    )  # fmt: skip
    table = CostTable.read(write_table(tmp_path / "costs.json", checkpoint))
    # the full model is refused for what comes next: the table is of another encoder
    message = (
        "is a lottery ticket: refitting .* would fill its zeros"
        if zeros
        else "the cost table is of the encoder"
    )
    with pytest.raises(UsageError, match=message):
        one_shot.prune(ticket.folder, table, out=tmp_path / "out", data_folder=rows_folder,
                       settings=OneShotSettings(speedup=2.0))  # fmt: skip
    assert not (tmp_path / "out").exists()

"""``effx optimize`` on a tiny checkpoint: from its folder to an answer that its results justify."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from effx import data, engines, files, results
from effx.analysis import optimized
from effx.artifacts import Checkpoint
from effx.cli import run
from effx.encoding import Encoded, Encoder
from effx.errors import UsageError
from effx.export import export, fastest
from effx.export.fastest import Files
from effx.models import evaluate, load
from effx.optimize import choosing, predicted_labels
from effx.optimize.check import Checked, check
from effx.optimize.choosing_predictions import ChoosingPredictions
from effx.optimize.cost_table import CostTable
from effx.optimize.forms import EngineForm, FastestForms
from effx.recipe import sweeps
from effx.recipe.execute import settle
from effx.recipe.execute.protocol import CellInputs, CellSpec, LocalPaths, SourceCell
from effx.recipe.graph import optimize as cells
from effx.recipe.graph.cells import Cell, CellBuilder
from effx.recipe.graph.plan import Artifacts
from effx.recipe.language.recipe import BackendEntry
from effx.specs.data import DataSettings, DataSource
from effx.specs.exits import EarlyExitSettings
from effx.specs.optimize import OptimizeSettings
from effx.specs.stages import CostsStage, ExportStage, FastestStage, OneShotStage, RecoveryStage
from effx.specs.tokens import TokenPruningSettings
from effx.specs.training import FinetuneSettings
from effx.specs.workloads import SINGLE_STREAM, Workload
from effx.train import rows as row_numbers
from effx.train import tokens
from effx.train.distillation import Teacher
from tests import cache as caches
from tests.conftest import write_rows
from tests.meters import fake

ROOT = Path(__file__).parents[2]
VALUES = {"max_drop": 0.3, "speedups": (1.5,), "epochs": 1, "candidates": 3, "rows": 32}
OPTIONS = [
    "--max-drop", "0.3", "--speedups", "1.5", "--epochs", "1", "--candidates", "3", "--rows", "32",
    "--backend", "onnxruntime",
]  # fmt: skip
ALSO = ["--also", "exits,tokens"]


@pytest.fixture(scope="module")
def workspace(cache: caches.Cache, checkpoint: Checkpoint) -> Path:
    """What the command leaves."""

    def build(folder: Path) -> None:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(choosing, "LEAST", 10)  # there are few training rows
            command = ["optimize", str(checkpoint.folder), *OPTIONS, *ALSO, "-o", str(folder / "work")]
            assert run(command) in (0, 1)

    return cache.folder("optimized", build) / "work"


def test_the_answer_follows_from_the_results(workspace: Path) -> None:
    answer = json.loads((workspace / "answer" / "answer.json").read_text())
    runs = results.find([workspace / "results" / "tiny"])
    chosen_on = ChoosingPredictions.read(next(workspace.glob("cells/*/tiny/choosing.json")))
    again = optimized.answer(
        runs, OptimizeSettings.of(**VALUES), SINGLE_STREAM, choosing=chosen_on.as_rows()
    )  # fmt: skip
    assert json.loads(json.dumps(again.to_json())) == answer
    assert answer["choosing_rows"] == len(chosen_on.labels) > 0
    engines = {
        "tiny.fp32.onnxruntime", "tiny.int8.onnxruntime", "tiny-1.5x.int8.onnxruntime",
        "tiny-exits.exit+int8.onnxruntime", "tiny-1.5x-exits.exit+int8.onnxruntime",
        "tiny-tokens.tokens+int8.onnxruntime", "tiny-1.5x-tokens.tokens+int8.onnxruntime",
    }  # fmt: skip
    assert {run.name for run in runs} == engines == set(chosen_on.predictions)
    assert answer["baseline"] == "tiny.fp32.onnxruntime"
    assert "tiny" in (workspace / "answer" / "answer.md").read_text()
    assert "tiny-1.5x.int8.onnxruntime" in (workspace / "report" / "index.html").read_text()


def test_the_pruned_model_was_trained_with_the_given_one_as_teacher(
    workspace: Path, checkpoint: Checkpoint
) -> None:
    recovered = Checkpoint.open(workspace / "checkpoints" / "tiny-1.5x")
    distillation = recovered.manifest.training.distillation
    assert distillation is not None
    assert distillation.teacher_digest == checkpoint.digest
    assert recovered.manifest.weight_remaining < 1
    assert recovered.max_length == checkpoint.max_length


@pytest.mark.parametrize("word", ["exits", "tokens"])
@pytest.mark.parametrize("name", ["tiny", "tiny-1.5x"])
def test_exits_and_tokens_are_trained_on_the_given_and_on_the_pruned_model(
    word: str, name: str, workspace: Path, checkpoint: Checkpoint
) -> None:
    before, after = (Checkpoint.open(workspace / "checkpoints" / f"{name}{end}") for end in ("", f"-{word}"))
    record = getattr(after.manifest, word)
    assert after.manifest.parent == before.digest
    assert record.target.max_drop == pytest.approx(VALUES["max_drop"] / 2)
    assert after.manifest.training.distillation is not None
    assert after.manifest.training.distillation.teacher_digest == checkpoint.digest


def test_what_is_also_tried_follows_the_workload_and_the_options(
    checkpoint: Checkpoint, tmp_path: Path
) -> None:
    def trained(workload: str, **values: object) -> tuple[str, ...]:
        settings = OptimizeSettings.of(**{**VALUES, **values})
        found = check(checkpoint.folder, settings, workload, None, ["onnxruntime"], "none", tmp_path)
        return found.also_trained

    assert trained("single") == ("exits",)
    assert (
        trained("offline") == trained("single", also=("none",)) == trained("single", also=("threads1",)) == ()
    )
    assert trained("single", objective="size") == trained("single", objective="memory") == ()
    with pytest.raises(UsageError, match="accepts 32 tokens at most"):
        trained("single", also=("seq9999",))
    assert trained("offline", also=("tokens", "exits", "threads1")) == ("exits", "tokens")
    with pytest.raises(UsageError, match="stripped on onnxruntime"):
        trained("single", also=("stripped",))
    assert OptimizeSettings.of(also=("exits", "threads1", "buckets8")).parts == ("threads1", "buckets8")


@pytest.mark.parametrize("limit_s", [None, 0.5])
def test_a_time_limit_shortens_both_stages_of_token_pruning(
    checkpoint: Checkpoint, tmp_path: Path, limit_s: float | None
) -> None:
    settings = TokenPruningSettings.of(soft_epochs=10.0, epochs=10.0, batch_size=4)
    trained = tokens.train(checkpoint.folder, out=tmp_path, settings=settings, limit_s=limit_s)
    steps = [stage.steps for stage in trained.manifest.training.stages]
    assert len(steps) == 2
    assert all((count < 300) == (limit_s is not None) for count in steps)


def test_rows_that_choose_are_not_trained_on(workspace: Path, checkpoint: Checkpoint) -> None:
    recovered = Checkpoint.open(workspace / "checkpoints" / "tiny-1.5x")
    rows = data.load(checkpoint.task, "train", data.locate(None, checkpoint.task, checkpoint.data))
    training = FinetuneSettings.of(**recovered.manifest.training.settings).training
    trained = {rows.texts[index] for index in row_numbers.chosen(rows, training)}
    stored = ChoosingPredictions.read(next(workspace.glob("cells/*/tiny/choosing.json")))
    apart = row_numbers.left_out(rows, training, len(stored.labels))
    assert stored.labels == tuple(rows.labels[apart])
    assert not trained & {rows.texts[index] for index in apart}
    assert len(trained) == recovered.manifest.training.rows == len(rows) - 2 * len(apart)
    assert set(stored.unseen) == {name for name in stored.predictions if name.startswith("tiny-1.5x")}
    for name in ("tiny", "tiny-1.5x"):
        before, after = (
            Checkpoint.open(workspace / "checkpoints" / f"{name}{end}") for end in ("", "-exits")
        )
        exits = EarlyExitSettings.of(**after.manifest.training.settings).training
        fit, held, _ = row_numbers.split(rows, before.manifest.training, exits, apart)
        assert after.manifest.training.rows == len(fit)
        assert not set(apart) & {*fit, *held}


def test_further_texts_that_choose_or_prove_are_not_trained_on(
    checkpoint: Checkpoint, rows_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    """The file has all rows of the task: those that are not trained on are left out, others are not."""
    train, validation = (data.load(checkpoint.task, split, rows_folder) for split in ("train", "validation"))
    new = [(f"a new text, number {number}",) for number in range(20)]
    further = [*train.texts, *validation.texts, *new]
    write_rows(tmp_path / "texts.jsonl", [{"sentence": text} for (text,) in further])
    seen: list[tuple[str, ...]] = []
    prepare = Teacher.prepare

    def watched(
        self: Teacher, student: Any, encoded: Any, texts: list[tuple[str, ...]], **options: bool
    ) -> None:
        seen.extend(texts)
        prepare(self, student, encoded, texts, **options)

    monkeypatch.setattr(Teacher, "prepare", watched)
    settings = RecoveryStage.of(
        task="sst2", limit=100, share=0.5, max_steps=1, batch_size=4, text_digest="0" * 64
    )
    sources = tuple(
        SourceCell(stage, "tiny", "k", str(checkpoint.folder.parent)) for stage in ("one-shot", "given")
    )
    paths = LocalPaths(data=DataSource(str(rows_folder)), unlabelled=str(tmp_path / "texts.jsonl"))
    settle.function("recovery")(
        CellSpec(str(tmp_path), "k", "recovery", "tiny-2x", settings.to_json(), paths, CellInputs(), sources),
        tmp_path,
    )
    trained = [train.texts[row] for row in row_numbers.chosen(train, settings.finetune.training)]
    assert len(trained) == 50
    kept = [text for text in further if text in {*trained, *new} - {*validation.texts}]
    assert seen == [*trained, *kept]
    record = Checkpoint.open(tmp_path / "tiny-2x").manifest.training.distillation
    assert record is not None
    left_out = len(further) - len(kept)
    assert (record.unlabelled_rows, record.unlabelled_left_out) == (len(kept), left_out)
    assert f"unlabelled data: {left_out} of {len(further)} rows are left out" in capsys.readouterr().err


def test_the_structure_fits_the_cost_table(workspace: Path) -> None:
    table = CostTable.read(next((workspace / "costs").glob("*/costs.json")))
    structure = Checkpoint.open(workspace / "checkpoints" / "tiny-1.5x").manifest.structure
    assert table.seconds.of_structure(structure) <= table.unreduced_s / 1.5 * (1 + 1e-9)


def test_the_same_command_does_nothing_again(
    workspace: Path, checkpoint: Checkpoint, tmp_path: Path, capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.setattr(choosing, "LEAST", 10)
    mine = shutil.copytree(workspace, tmp_path / "work", symlinks=True)
    before = {path.name for path in (mine / "cells").iterdir()}
    code = run(["optimize", str(checkpoint.folder), *OPTIONS, *ALSO, "-o", str(mine), "--json"])
    answer = json.loads(capsys.readouterr().out)
    assert code == (0 if answer["engine"] else 1)
    assert {path.name for path in (mine / "cells").iterdir()} == before


def test_a_dry_run_builds_nothing(
    checkpoint: Checkpoint, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["optimize", str(checkpoint.folder), *OPTIONS, "-o", str(tmp_path / "w"), "--dry-run"]) == 0
    printed = capsys.readouterr().out
    assert "export tiny.int8.onnxruntime" in printed
    assert "engines for each of the speed-ups 1.5;" in printed
    assert not (tmp_path / "w").exists()


def test_a_gpu_is_the_device_of_every_cell_that_builds_or_measures(
    checkpoint: Checkpoint, rows_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The cells that follow the choice of the backend are added as if it had been chosen."""
    asked: list[tuple[str, str]] = []
    monkeypatch.setattr(engines, "check_backend", lambda name, device: asked.append((name, device)))
    settings = OptimizeSettings.of(**{**VALUES, "variant": "fp16", "also": ("none",)})
    labelled = tmp_path / "labelled"
    checked = check(checkpoint.folder, settings, "single", str(rows_folder), ("torch",), "none", labelled,
                    device="cuda")  # fmt: skip
    assert asked == [("torch", "cuda")] and checked.device == "cuda"
    planned_cells = planned(checked, settings, tmp_path)
    built = [cell for cell in planned_cells.values() if cell.stage in ("export", "costs")]
    assert {cell.name for cell in built} == {
        "tiny.fp32.torch.cuda", "tiny.fp16.torch.cuda", "tiny-1.5x.fp16.torch.cuda",
        "tiny.fp16.torch.cuda.single",
    }  # fmt: skip
    assert all(cell.settings.device == "cuda" for cell in built)


def test_on_the_default_device_nothing_is_named(
    checkpoint: Checkpoint, rows_folder: Path, tmp_path: Path
) -> None:
    settings = OptimizeSettings.of(**VALUES)
    for device in (None, "cpu"):
        checked = check(checkpoint.folder, settings, "single", str(rows_folder), ("onnxruntime",), "none",
                        tmp_path / "labelled", device=device)  # fmt: skip
        assert (checked.backends, checked.device) == (("onnxruntime",), None)


def test_rows_that_prove_less_than_they_seem_to_are_said_before_the_work_and_in_the_answer(
    checkpoint: Checkpoint, rows_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Three validation rows are training rows; a third of them is one text."""
    train, validation = (
        [json.loads(line) for line in (rows_folder / f"{split}.jsonl").read_text().splitlines()]
        for split in ("train", "validation")
    )
    known = {row["sentence"] for row in train}
    new = [row for row in validation if row["sentence"] not in known][:60]
    repeated = tmp_path / "repeated"
    write_rows(repeated / "train.jsonl", train)
    write_rows(repeated / "validation.jsonl", [*new, *[new[0]] * 27, *train[:3]])
    settings = OptimizeSettings.of(**{**VALUES, "also": ("none",)})

    def checked(folder: Path) -> Checked:
        return check(checkpoint.folder, settings, "single", str(folder), ("onnxruntime",), "none",
                     tmp_path / "labelled")  # fmt: skip

    usual = checked(rows_folder)
    overlap = sum(row["sentence"] in known for row in validation)
    assert (usual.overlap, usual.different_texts) == (overlap, None)
    capsys.readouterr()
    few = checked(repeated)
    texts = {row["sentence"] for row in [*new, *train[:3]]}
    assert (few.overlap, few.different_texts) == (3, len(texts))
    printed = capsys.readouterr().err
    assert "3 of the 90 validation rows are also training rows" in printed
    assert f"the 90 validation rows have {len(texts)} different texts" in printed
    answer = planned(few, settings, tmp_path)["answer tiny"].settings
    assert (answer.overlap, answer.different_texts) == (3, len(texts))


@pytest.mark.parametrize("limit", [None, 100])
def test_structures_are_chosen_on_rows_that_the_recovery_is_trained_on(
    limit: int | None, checkpoint: Checkpoint, rows_folder: Path, tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.setattr(choosing, "LEAST", 10)  # there are few training rows
    settings = OptimizeSettings.of(**{**VALUES, "limit": limit, "seed": 5})
    checked = check(checkpoint.folder, settings, "single", str(rows_folder), ("onnxruntime",), "none",
                    tmp_path / "labelled")  # fmt: skip
    found = planned(checked, settings, tmp_path)
    pruned, training = found["one-shot tiny-pruned1.5x"].settings, found["recovery tiny-1.5x"].settings
    assert isinstance(pruned, OneShotStage) and isinstance(training, RecoveryStage)
    trained = training.finetune.training
    assert (trained.share is None) == (limit is not None)
    assert (pruned.limit, pruned.share, pruned.one_shot.seed) == (trained.limit, trained.share, trained.seed)


@pytest.mark.parametrize(("backend", "timed"), [("onnxruntime", True), ("torch", False)])
def test_what_times_decide_is_of_the_host(
    backend: str, timed: bool, checkpoint: Checkpoint, rows_folder: Path, tmp_path: Path
) -> None:
    """On a second machine nothing is taken over that the first one chose by time."""
    settings = OptimizeSettings.of(**{**VALUES, "variant": "fp32", "also": ("none",)})
    checked = check(checkpoint.folder, settings, "single", str(rows_folder), (backend,), "none",
                    tmp_path / "labelled")  # fmt: skip
    one, other = (planned(checked, settings, tmp_path, host=host) for host in ("one", "other"))
    differing = {name for name in one if one[name].settings != other[name].settings}
    engines = {f"export {name}.fp32.{backend}" for name in ("tiny", "tiny-1.5x")}
    always = {"fastest tiny", f"costs tiny.fp32.{backend}.single", "profile tiny"}
    assert differing == always | (engines if timed else set())


def test_pruned_models_are_built_in_every_form_that_is_fast(
    checkpoint: Checkpoint, rows_folder: Path, tmp_path: Path
) -> None:
    pytest.importorskip("openvino")
    settings = OptimizeSettings.of(**{**VALUES, "also": ("exits", "threads1")})
    checked = check(
        checkpoint.folder, settings, "single", str(rows_folder), (), "none", tmp_path / "labelled"
    )
    plain, buckets = checked.forms
    found = planned(checked, settings, tmp_path, forms=(buckets, plain))
    unreduced = {"export tiny.fp32.onnxruntime", "export tiny.fp32.openvino", "export tiny.int8.onnxruntime",
                 "export tiny.buckets8+int8.openvino"}  # fmt: skip
    also = {f"export {name}+buckets8+int8.openvino" for name in (
        "tiny-exits.exit", "tiny.threads1", "tiny-1.5x-exits.exit", "tiny-1.5x.threads1",
    )}  # fmt: skip
    pruned = {"export tiny-1.5x.buckets8+int8.openvino", "export tiny-1.5x.int8.onnxruntime"}
    assert {name for name in found if name.startswith("export ")} == unreduced | also | pruned
    costs = [cell.settings for cell in found.values() if isinstance(cell.settings, CostsStage)]
    length = 8 * -(-checked.typical_length // 8)
    assert [(each.variant, each.backend) for each in costs] == [(f"seq{length}+int8", "openvino")]
    assert checked.forms == tuple(
        EngineForm(variant=stage.variant, backend=stage.backend)
        for stage in (found[source].settings for source in found["fastest tiny"].sources)
        if isinstance(stage, ExportStage)
    )


@pytest.mark.parametrize(
    ("times", "expected"),
    [([2.0, 1.0], ["openvino"]), ([1.0, 1.2], ["onnxruntime", "openvino"])],
)
def test_forms_are_timed_together_on_validation_rows(
    times: list[float], expected: list[str], checkpoint: Checkpoint, rows_folder: Path, tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    pytest.importorskip("openvino")
    asked: list[Any] = []

    def seconds(candidates: list[Files], encoded: Encoded, workload: Workload | None) -> list[float]:
        asked.append((candidates, encoded, workload))
        return times

    monkeypatch.setattr(fastest, "seconds", seconds)
    built = [export(checkpoint.folder, "fp32", name, tmp_path) for name in ("onnxruntime", "openvino")]
    sources = tuple(SourceCell("export", each.name, "k", str(tmp_path)) for each in built)
    stage = FastestStage(workload="single", host="here")
    paths = LocalPaths(data=DataSource(str(rows_folder)))
    spec = CellSpec(str(tmp_path), "k", "fastest", "tiny", stage.to_json(), paths, CellInputs(), sources)
    for name in ("out", "alone"):
        (tmp_path / name).mkdir()
    out = settle.function("fastest")(spec, tmp_path / "out")
    found = json.loads((tmp_path / "out" / "tiny" / "fastest.json").read_text())
    assert found == {"forms": [{"variant": "fp32", "backend": name} for name in expected]}
    assert out.note == ", ".join(f"fp32 on {name}" for name in expected) + (
        f"; of fp32 on onnxruntime {1e3 * times[0]:.3f} ms, fp32 on openvino {1e3 * times[1]:.3f} ms"
    )
    ((candidates, encoded, workload),) = asked
    assert [(each.folder, each.backend) for each in candidates] == [
        (engine.folder, engine.manifest.backend) for engine in built
    ]
    validation = data.load(checkpoint.task, "validation", paths.data)
    whole = Encoder(checkpoint.folder, checkpoint.max_length)(validation.texts)
    assert sorted(encoded.lengths) == sorted(whole.lengths)
    assert workload == SINGLE_STREAM

    # a single form needs no time
    alone = replace(spec, sources=sources[:1])
    assert settle.function("fastest")(alone, tmp_path / "alone").note == "fp32 on onnxruntime"
    assert len(asked) == 1


def planned(
    checked: Checked,
    settings: OptimizeSettings,
    tmp_path: Path,
    *,
    host: str = "host",
    forms: tuple[EngineForm, ...] = (),
) -> dict[str, Cell]:
    """Return all cells by their ids, as if the first form had been chosen."""
    entries = [BackendEntry(backend=name, device=checked.device) for name in checked.backends]
    recipe = sweeps.recipe_of("optimize", checked.task.name, {}, tmp_path / "w", checked.rows, None, None,
                              backends=tuple(entries))  # fmt: skip
    chosen = tmp_path / "chosen"
    files.write_json(chosen / "fastest.json", FastestForms(forms=forms or checked.forms[:1]).to_json())

    def add(builder: CellBuilder, artifacts: Artifacts) -> None:
        cells.add(builder, recipe.tasks[0], checked, settings, lambda cell: chosen, workload="single",
                  meter="none", host=host, unlabelled=None)  # fmt: skip

    return {name: entry.cell for name, entry in sweeps.planned(recipe, add).entries.items()}


@pytest.mark.usefixtures("without_gpu")
@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--device", "cuda", "--backend", "torch"], "onnxruntime, torch: on a GPU one backend is optimized"),
        (["--device", "cuda"], "built without CUDAExecutionProvider"),
        (["--device", "sm89"], "unknown device 'sm89'"),
    ],
)
def test_wrong_devices_are_told_before_the_work(
    checkpoint: Checkpoint, tmp_path: Path, capsys: pytest.CaptureFixture[str], options: list[str],
    message: str,
) -> None:  # fmt: skip
    target = tmp_path / "work"
    command = ["optimize", str(checkpoint.folder), *OPTIONS, "--variant", "fp16", "-o", str(target), *options]
    assert run(command) == 2
    error = capsys.readouterr().err
    assert message in error and len(error.strip().splitlines()) == 1
    assert not target.exists()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--max-drop", "0.01"], "90 validation rows are too few for this promise: even equal predictions"),
        (["--time", "30s"], "30 s is too short for 1 speed-ups: expected at least 36s"),
        (["--variant", "exit"], "variant exit: expected a precision"),
        (["--variant", "auto"], "variant auto: expected a precision"),
        (["--variant", "fp32", "--quantization-aware"], "rounds as int8 engines do, and variant is fp32"),
        (["--variant", "fp16"], "variant fp16: onnxruntime: effx does not build fp16 for ONNX Runtime"),
        (["--also", "stripped"], "stripped on onnxruntime: stripped is supported for TensorRT plans only"),
        (["--backend", "tensorrt"], "tensorrt"),
        (["--objective", "energy", "--meter", "none"], "there is no energy meter here"),
        (["--objective", "throughput", "--for", "single"], "throughput is of batches"),
        (["--objective", "energy", "--for", "4x16", "--meter", "model:5"], "joules are measured for single"),
        (["--speedups", "2,2"], "expected different speedups"),
        (["--speedups", "1"], "--speedups"),
        (["--also", "exit"], "exit: expected exits, tokens, none or a part of a variant"),
        (["--also", "int8"], "int8: expected exits, tokens, none or a part of a variant"),
        (["--also", "fast"], "fast: expected exits, tokens, none or a part of a variant"),
        (["--also", "none,exits"], "none stands alone"),
        (["--time", "45"], "'45' has no unit"),
    ],
)  # fmt: skip
def test_wrong_input_is_told_before_the_work(
    checkpoint: Checkpoint, tmp_path: Path, capsys: pytest.CaptureFixture[str], options: list[str],
    message: str,
) -> None:  # fmt: skip
    target = tmp_path / "work"
    code = run(["optimize", str(checkpoint.folder), *OPTIONS, "-o", str(target), *options])
    error = capsys.readouterr().err
    assert code == 2
    assert message in error
    assert len(error.strip().splitlines()) == 1
    assert not target.exists()


def test_a_reduced_checkpoint_is_refused(
    reduced_checkpoint: Checkpoint, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["optimize", str(reduced_checkpoint.folder), *OPTIONS, "-o", str(tmp_path / "w")]) == 2
    assert "te is reduced already" in capsys.readouterr().err


def test_an_encoder_that_is_not_fine_tuned_is_refused(
    encoders: dict[str, Path], rows_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    monkeypatch.chdir(tmp_path)
    code = run(["optimize", str(encoders["bert"]), "--data", str(rows_folder), *OPTIONS])
    error = capsys.readouterr().err.strip()
    assert code == 2
    assert "no task head" in error or "not fine-tuned" in error or "head" in error


def test_rows_without_labels_get_those_that_the_model_predicts(
    checkpoint: Checkpoint, rows_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    texts = [
        json.loads(line)["sentence"]
        for split in ("train", "validation")
        for line in (rows_folder / f"{split}.jsonl").read_text().splitlines()
    ]
    file = tmp_path / "texts.jsonl"
    write_rows(file, [{"sentence": text} for text in [*texts, *texts[:30]]])
    source = DataSource(str(file), DataSettings(unlabelled=True))
    rows = predicted_labels.label(checkpoint, source, tmp_path / "labelled", seed=1)
    train, validation = (data.load(checkpoint.task, split, rows) for split in ("train", "validation"))
    assert not {*train.texts} & {*validation.texts}
    assert {*train.texts, *validation.texts} == {(text,) for text in texts}
    counts = Counter([*texts, *texts[:30]])
    assert Counter(train.texts) == {(text,): counts[text] for (text,) in train.texts}
    assert max(Counter(train.texts).values()) == 2
    assert {counts[text] for (text,) in validation.texts} == {1, 2}
    assert len({*validation.texts}) == len(validation)  # rows of one text would not be independent
    model, encoder = load(checkpoint.folder), Encoder(checkpoint.folder, checkpoint.max_length)
    for part in (train, validation):
        predicted = evaluate.predictions(model, encoder(part.texts), checkpoint.task)
        assert np.array_equal(part.labels, predicted)
    command = ["optimize", str(checkpoint.folder), "--data", str(file), "--unlabelled", *OPTIONS]
    assert run([*command, "-o", str(tmp_path / "w"), "--max-drop", "0.5", "--dry-run"]) == 0
    printed = capsys.readouterr().err
    assert "predict 280 rows without labels" in printed
    assert f"{len(train)} rows train, {len(validation)} different texts prove" in printed
    assert not (tmp_path / "w").exists()


@pytest.mark.slow
def test_joules_of_a_gpu_are_those_of_its_counter(
    workspace: Path, checkpoint: Checkpoint, rows_folder: Path, tmp_path: Path
) -> None:
    """The whole way beside a fake GPU that draws 300 W; the engines run on the CPU."""
    library = fake.build(tmp_path)
    if library is None:
        pytest.skip("no C compiler (cc) to build the fake NVML")
    mine = shutil.copytree(workspace, tmp_path / "work", symlinks=True)
    done = subprocess.run(
        [
            sys.executable, "-m", "tests.meters.run_beside_gpu", "optimize", str(checkpoint.folder),
            *OPTIONS, "--data", str(rows_folder), "--also", "none", "-o", str(mine),
            "--objective", "energy", "--meter", "nvml",
        ],
        cwd=ROOT, env=fake.environment(library), capture_output=True, text=True, timeout=1500,
    )  # fmt: skip
    assert done.returncode in (0, 1), done.stderr
    answer = json.loads((mine / "answer" / "answer.json").read_text())
    assert (answer["objective"], answer["energy_source"]) == ("energy", "counter")
    assert " mJ/example (counter)" in done.stdout
    (costs,) = mine.glob("costs/*/costs.json")
    found = CostTable.read(costs)
    assert found.energy is not None and found.energy.source == "counter"
    assert found.energy.unreduced_j == pytest.approx(300 * found.unreduced_s, rel=0.5)
    for run_ in results.find([mine / "results" / "tiny"]):
        result = run_.workload(SINGLE_STREAM)
        assert result is not None
        energy = run_.energy_of(result)
        assert energy.source == "counter"
        for window in energy.windows:
            assert window.joules / window.seconds == pytest.approx(300, rel=0.02)
            assert window.joules_per_example * window.examples == pytest.approx(
                300 * window.duration_s, rel=0.02
            )

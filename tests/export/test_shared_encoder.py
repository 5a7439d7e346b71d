"""Engines with the heads of several tasks on one encoder."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import PreTrainedModel

from effx import data, engines, models
from effx.artifacts import Checkpoint, Engine
from effx.encoding import Encoder
from effx.errors import DataError, GateError, UsageError
from effx.export import export, shared_encoder, verify
from effx.export.source import ExportSource
from effx.models import evaluate
from effx.profile.record import of_engine
from effx.specs import variants
from effx.specs.data import DataLocation, DataRecord, DataSource
from effx.specs.tasks import Task
from effx.train.multitask import multitask
from tests import cache as caches
from tests.conftest import CONFIGS
from tests.train.multitask.test_run import SETTINGS, TASKS, data_folders, tickets, train

__all__ = ["data_folders", "tickets"]  # fixtures


@pytest.fixture(scope="session")
def trained(
    cache: caches.Cache, encoders: dict[str, Path], data_folders: dict[str, Path]
) -> dict[str, list[Path]]:
    """Checkpoints of two tasks for each family."""

    def build(folder: Path) -> None:
        for family, encoder in encoders.items():
            settings = SETTINGS.replace(epochs=1)
            multitask(TASKS, encoder, out=folder, name=family, data_folders=data_folders, settings=settings)

    folder = cache.folder("multitask-of-families", build)
    return {family: [folder / f"{family}-{task}" for task in TASKS] for family in encoders}


@pytest.fixture(scope="session")
def learned(cache: caches.Cache, encoders: dict[str, Path], data_folders: dict[str, Path]) -> list[Path]:
    """Checkpoints of two tasks that were trained to the end."""
    settings = SETTINGS.replace(epochs=12, lr=3e-3, optimizer="adamw")
    folder = cache.folder("multitask-learned", lambda folder: train(encoders, data_folders, folder, settings))
    return [folder / f"both-{task}" for task in TASKS]


def check_answers(engine: Engine, checkpoints: list[Path], rows_of: dict[str, Path]) -> None:
    """Compare the logits of every head with its checkpoint's in PyTorch, on its own rows."""
    with engines.open(engine) as session:
        for folder in checkpoints:
            checkpoint = Checkpoint.open(folder)
            own = checkpoint.task.name == engine.task.name
            name = "logits" if own else f"logits_{checkpoint.task.name}"
            rows = data.load(checkpoint.task, "validation", rows_of[checkpoint.task.name])
            encoded = Encoder(checkpoint.folder, 16)(rows.texts)
            expected = evaluate.logits(models.load(checkpoint.folder), encoded)
            answers = session.infer(encoded.batch(np.arange(len(encoded))))[name]
            np.testing.assert_allclose(answers, expected, atol=1e-4)


@pytest.mark.parametrize("family", CONFIGS)
def test_every_head_answers_as_its_checkpoint(
    family: str, trained: dict[str, list[Path]], data_folders: dict[str, Path], tmp_path: Path
) -> None:
    engine = export(trained[family][0], "multi", out=tmp_path)
    check_answers(engine, trained[family], data_folders)
    (head,) = engine.manifest.other_heads
    assert (head.output, head.task_definition.kind) == ("logits_grades", "regression")
    assert head.checkpoint.digest == Checkpoint.open(trained[family][1]).digest
    assert head.parity.passed and head.parity.inputs == "task"
    single = export(trained[family][0], out=tmp_path)
    encoder_bytes = (single.folder / "model.onnx").stat().st_size
    assert (engine.folder / "model.onnx").stat().st_size < 1.1 * encoder_bytes  # the encoder is there once


@pytest.mark.parametrize(
    ("backend", "variant"),
    [
        ("openvino", "multi"),
        ("torch", "multi"),
        ("onnxruntime", "multi+seq16"),
        ("onnxruntime", "buckets+multi"),
    ],
)
def test_backends_and_lengths(
    backend: str, variant: str, trained: dict[str, list[Path]], data_folders: dict[str, Path], tmp_path: Path
) -> None:
    engine = export(trained["bert"][1], variant, backend, tmp_path)
    check_answers(engine, trained["bert"], data_folders)
    assert [head.task_definition.name for head in engine.manifest.other_heads] == ["sst2"]


def test_int8_passes_the_gate_of_every_head(learned: list[Path], tmp_path: Path) -> None:
    engine = export(learned[0], "int8-dynamic+multi", out=tmp_path)
    (head,) = engine.manifest.other_heads
    assert head.parity.examples == 41  # the rows of its task, and one of the maximum length
    assert 1e-4 < head.parity.max_abs_diff < 0.5


def test_verify_compares_every_head(learned: list[Path], tmp_path: Path) -> None:
    engine = export(learned[0], "multi", out=tmp_path)
    found = verify([engine.folder], learned[0].parent)
    assert [(of.name, task.name, parity.passed) for of, task, parity in found] == [
        (engine.name, "sst2", True), (engine.name, "grades", True),
    ]  # fmt: skip
    assert found[1][2] == engine.manifest.other_heads[0].parity


def test_static_int8_takes_its_ranges_from_rows_of_every_task(learned: list[Path], tmp_path: Path) -> None:
    source = ExportSource(Checkpoint.open(learned[0]), tmp_path, calibration_rows=20)
    alone, together = (source.calibration(variants.parse(text)) for text in ("int8", "int8+multi"))
    of_other = source.others["logits_grades"].calibration(variants.parse("int8"))
    assert (len(alone), len(together), len(of_other)) == (20, 20, 20)
    ids = [row["input_ids"].tolist() for row in together]
    for part, of_task in ((ids[:10], source), (ids[10:], source.others["logits_grades"])):
        rows = Encoder(learned[0], 16)(of_task.training_rows.limit(10).texts)
        assert part == [rows.batch([row])["input_ids"].tolist() for row in range(10)]


def test_lossy_heads_are_not_gated_on_random_ids(
    learned: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    locate = data.locate

    def without_grades(given: DataLocation, task: Task, record: DataRecord | None) -> DataSource | None:
        if task.name == "grades":
            raise DataError("the rows are gone")
        return locate(given, task, record)

    monkeypatch.setattr(data, "locate", without_grades)
    engine = export(learned[0], "multi", out=tmp_path)
    assert engine.manifest.other_heads[0].parity.inputs == "random"
    with pytest.raises(UsageError, match=r"rows of both-grades are not found.*cannot be checked in int8"):
        export(learned[0], "int8-dynamic+multi", out=tmp_path)


def test_an_engine_with_a_failed_head_has_not_passed(
    trained: dict[str, list[Path]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    damage(monkeypatch)
    engine = export(trained["bert"][0], "multi", out=tmp_path, keep_failed=True)
    assert engine.manifest.parity is not None and engine.manifest.parity.passed
    assert not engine.manifest.other_heads[0].parity.passed
    assert not engine.parity_passed and not of_engine(engine).parity.passed  # type: ignore[union-attr]
    monkeypatch.undo()
    assert export(trained["bert"][0], "multi", out=tmp_path).parity_passed  # it was built again


def damage(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the heads of other tasks in engines differ from their checkpoints'."""
    original = shared_encoder.on_encoder_of

    def damaged(model: PreTrainedModel, other: Checkpoint) -> PreTrainedModel:
        loaded = original(model, other)
        with torch.no_grad():
            loaded.classifier.bias += 1
        return loaded

    monkeypatch.setattr(shared_encoder, "on_encoder_of", damaged)


def test_the_gate_names_the_task_whose_head_differs(
    trained: dict[str, list[Path]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    damage(monkeypatch)
    with pytest.raises(GateError, match=r"bert-sst2.multi.onnxruntime: task grades: parity failed on 4\d"):
        export(trained["bert"][0], "multi", out=tmp_path)
    assert not list(tmp_path.iterdir())


def test_an_engine_is_built_again_when_another_task_was_trained_again(
    trained: dict[str, list[Path]], data_folders: dict[str, Path], encoders: dict[str, Path], tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    for folder in trained["bert"]:
        shutil.copytree(folder, tmp_path / "checkpoints" / folder.name)
    own, other = (tmp_path / "checkpoints" / folder.name for folder in trained["bert"])
    export(own, "multi", out=tmp_path / "engines")
    assert "up to date" not in capsys.readouterr().err
    export(own, "multi", out=tmp_path / "engines")
    assert "up to date" in capsys.readouterr().err
    shutil.rmtree(other)
    shutil.copytree(trained["bert"][0], other)
    with pytest.raises(UsageError, match="needs the checkpoint of task 'grades' of the same training"):
        export(own, "multi", out=tmp_path / "engines")
    shutil.rmtree(other)
    for name in ("one", "two"):
        shutil.copytree(trained["bert"][1], tmp_path / "checkpoints" / name)
    with pytest.raises(UsageError, match=r"there are several \(one, two\)"):
        export(own, "multi", out=tmp_path / "engines")


def test_checkpoints_that_share_nothing_are_refused(
    trained: dict[str, list[Path]], tickets: dict[str, Path], encoders: dict[str, Path],
    data_folders: dict[str, Path], tmp_path: Path,
) -> None:  # fmt: skip
    with pytest.raises(UsageError, match="needs a checkpoint of effx train multitask"):
        export(tickets["sst2"], "multi", out=tmp_path / "engines")
    shared = train(encoders, data_folders, tmp_path / "checkpoints", tickets=[*tickets.values()])
    with pytest.raises(UsageError, match="their tickets differ"):
        export(shared[0].folder, "multi", out=tmp_path / "engines")
    assert not (tmp_path / "engines").exists() or not list((tmp_path / "engines").iterdir())


@pytest.mark.parametrize("other", ["exit", "exit-if", "tokens"])
def test_variants_that_exclude_it(other: str) -> None:
    with pytest.raises(UsageError, match=f"multi and {other} exclude each other"):
        variants.parse(f"multi+{other}")

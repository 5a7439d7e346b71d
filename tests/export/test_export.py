from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from transformers import AutoConfig, AutoModel

from effx import engines
from effx.artifacts import Checkpoint, Engine
from effx.errors import GateError
from effx.export import export, export_all, parity
from effx.export.build import refusal
from effx.manifests import ArtifactReference, Parity
from effx.models import checkpoints, pretrained, save
from effx.specs import variants
from effx.specs.tasks import TASKS
from tests.conftest import CONFIGS, write_rows

SHAPES = [(1, 1), (1, 2), (3, 17), (32, 9), (32, 512)]


def longer(encoder: Path, folder: Path) -> Path:
    """Write an encoder of the same layout that reads 512 tokens."""
    shutil.copytree(encoder, folder)
    config = json.loads((folder / "config.json").read_text())
    config = AutoConfig.for_model(**{**config, "max_position_embeddings": 514})
    AutoModel.from_config(config).save_pretrained(folder)
    return folder


@pytest.mark.parametrize("name", CONFIGS)
def test_graph_matches_pytorch_at_every_shape_with_padding(
    name: str, encoders: dict[str, Path], tmp_path: Path
) -> None:
    """Against PyTorch on the same arrays, with rows padded to different lengths."""
    torch.manual_seed(0)
    model, tokenizer = pretrained(longer(encoders[name], tmp_path / "encoder"), TASKS["mrpc"])
    saved = save(model, tmp_path / "ck" / name, tokenizer=tokenizer, task=TASKS["mrpc"], max_length=60)
    engine = export(saved.folder, "fp32", out=tmp_path / "engines")
    assert engine.manifest.parity.inputs == "random"
    assert engine.manifest.parity.passed
    rng = np.random.default_rng(0)
    model.eval()
    with engines.open(engine.folder) as session:
        for batch, length in SHAPES:
            ids = rng.integers(5, 200, (batch, length))
            mask = (np.arange(length) < rng.integers(1, length + 1, (batch, 1))).astype(np.int64)
            inputs = {"input_ids": ids * mask, "attention_mask": mask, "token_type_ids": np.zeros_like(ids)}
            tensors = {key: torch.from_numpy(inputs[key]) for key in checkpoints.input_names(model)}
            with torch.inference_mode():
                expected = model(**tensors).logits.numpy()
            np.testing.assert_allclose(session.infer(inputs)["logits"], expected, atol=1e-5)


def test_manifest_describes_the_engine_folder(engines_folder: Path, checkpoint: Checkpoint) -> None:
    for name, precision in (("fp32", "fp32"), ("int8", "int8")):
        engine = Engine.open(engines_folder / f"tiny.{name}.onnxruntime")
        manifest = engine.manifest
        assert manifest.precision == precision
        assert manifest.checkpoint == ArtifactReference(name="tiny", digest=checkpoint.digest)
        assert manifest.parity.inputs == "task"
        assert manifest.parity.examples == 91  # the validation rows and one at the length limit
        assert set(manifest.files) >= {"model.onnx", "config.json", "tokenizer.json"}
        assert engine.input_names == ["input_ids", "attention_mask", "token_type_ids"]
        assert manifest.labels == ("negative", "positive")


def test_int8_graphs_have_integer_products(
    checkpoint: Checkpoint, engines_folder: Path, tmp_path: Path
) -> None:
    # int8 alone is whichever of the schemes is faster at the moment
    saved = export(checkpoint.folder, "int8-dynamic", out=tmp_path)
    graph = onnx.load(saved.folder / "model.onnx").graph
    types = [node.op_type for node in graph.node]
    # per layer: Q, K, V, attention output, FFN in and out; then pooler and classifier. The two
    # attention products of a layer stay float
    assert types.count("MatMulInteger") == 3 * 6 + 2
    assert types.count("MatMul") == 3 * 2
    small = (saved.folder / "model.onnx").stat().st_size
    assert small < (engines_folder / "tiny.fp32.onnxruntime" / "model.onnx").stat().st_size


def test_engines_are_rebuilt_where_the_rows_of_their_gates_changed(
    checkpoint: Checkpoint, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = [{"sentence": f"the film is good {number}", "label": number % 2} for number in range(20)]
    for name in ("one", "other"):
        write_rows(tmp_path / name / "validation.jsonl", rows if name == "one" else rows[:10])
    built = []
    for name in ("one", "one", "other"):
        engine = export(checkpoint.folder, "fp32", out=tmp_path, data_folder=tmp_path / name)
        built.append("up to date" not in capsys.readouterr().err)
        assert engine.manifest.gate_data is not None and engine.manifest.gate_data.name == name
        assert engine.manifest.parity is not None and engine.manifest.parity.examples == (
            21 if name == "one" else 11
        )
    assert built == [True, False, True]


def test_a_folder_with_the_engine_of_another_variant_is_not_up_to_date(
    checkpoint: Checkpoint, engines_copy: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    target = engines_copy / "tiny.int8.onnxruntime"
    shutil.rmtree(target, ignore_errors=True)
    shutil.copytree(engines_copy / "tiny.fp32.onnxruntime", target)
    engine = export(checkpoint.folder, "int8", out=engines_copy)
    assert (engine.folder, engine.variant, engine.manifest.precision) == (target, "int8", "int8")
    assert "up to date" not in capsys.readouterr().err


def test_engines_are_rebuilt_only_when_the_checkpoint_changed(
    checkpoint: Checkpoint, engines_copy: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = Engine.open(engines_copy / "tiny.fp32.onnxruntime").digest
    again = export(checkpoint.folder, "fp32", out=engines_copy)
    assert again.digest == before
    assert "up to date" in capsys.readouterr().err
    model = checkpoints.load(checkpoint.folder)
    with torch.no_grad():
        model.classifier.bias += 1
    from transformers import AutoTokenizer

    changed = save(model, tmp_path / "tiny", tokenizer=AutoTokenizer.from_pretrained(checkpoint.folder),
                   task=checkpoint.task, max_length=32)  # fmt: skip
    out = tmp_path / "engines"
    first = export(checkpoint.folder, "fp32", out=out)
    second = export(changed.folder, "fp32", out=out)
    assert second.manifest.checkpoint.digest != first.manifest.checkpoint.digest


@pytest.fixture
def shifted_logits(monkeypatch: pytest.MonkeyPatch) -> None:
    """The builder is real, but 5 is added to the last logit of its graphs."""
    from effx.export import build

    real = build.builder("onnxruntime")

    class Bent:
        """The real builder, with a node more."""

        refuse = staticmethod(real.refuse)
        audit = staticmethod(real.audit)

        def build(self, source: Any, variant: Any, scheme: str, folder: Path, device: str) -> Any:
            session = real.build(source, variant, scheme, folder, device)
            model = onnx.load(folder / "model.onnx")
            (output,) = model.graph.output
            for node in model.graph.node:
                node.output[:] = ["unshifted" if name == output.name else name for name in node.output]
            shift = np.zeros(output.type.tensor_type.shape.dim[-1].dim_value, np.float32)
            shift[-1] = 5
            model.graph.initializer.append(onnx.numpy_helper.from_array(shift, "shift"))
            model.graph.node.append(onnx.helper.make_node("Add", ["unshifted", "shift"], [output.name]))
            onnx.save(model, folder / "model.onnx")
            return session

    monkeypatch.setattr(build, "builder", lambda _: Bent())


@pytest.mark.usefixtures("shifted_logits")
def test_wrong_graph_fails_the_parity_gate(checkpoint: Checkpoint, tmp_path: Path) -> None:
    with pytest.raises(GateError, match="parity failed.*the task head differs"):
        export(checkpoint.folder, "fp32", out=tmp_path / "engines")
    with pytest.raises(GateError, match="Export fp32, or train the model further: rounding to int8"):
        export(checkpoint.folder, "int8", out=tmp_path / "engines")
    assert list((tmp_path / "engines").iterdir()) == []
    failed = export(checkpoint.folder, "int8", out=tmp_path / "engines", keep_failed=True)
    assert not failed.manifest.parity.passed


def test_an_engine_that_failed_its_audit_did_not_pass(
    checkpoint: Checkpoint, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Right answers, computed in another precision than the one that its name says."""
    monkeypatch.setattr("effx.export.audit.MIN_SHARE", 2.0)
    with pytest.raises(GateError, match="audit failed"):
        export(checkpoint.folder, "int8-dynamic", out=tmp_path)
    kept = export(checkpoint.folder, "int8-dynamic", out=tmp_path, keep_failed=True)
    assert not kept.parity_passed
    assert kept.manifest.parity.label_agreement > 0.9


@pytest.mark.usefixtures("shifted_logits")
def test_failed_parity_of_a_regression_does_not_mention_classes(
    encoders: dict[str, Path], tmp_path: Path
) -> None:
    model, tokenizer = pretrained(encoders["bert"], TASKS["stsb"])
    saved = save(model, tmp_path / "ck", tokenizer=tokenizer, task=TASKS["stsb"], max_length=32)
    with pytest.raises(GateError, match="parity failed") as caught:
        export(saved.folder, "int8-dynamic", out=tmp_path / "engines")
    assert "Export fp32. The engine was deleted" in str(caught.value)
    assert "train the model further" not in str(caught.value)


def gate(answers: np.ndarray, expected: np.ndarray, precision: str, **more: Any) -> Parity:
    rows = parity.random_rows(len(expected), 50, 8, 0)
    reference = parity.Reference(rows, expected, None, more.pop("labels", None), "task", **more)
    return parity.compare(reference, answers, None, TASKS["sst2"], precision)


def test_parity_gate_bounds_logits_and_labels() -> None:
    expected = np.tile(np.float32([[1, -1], [-1, 1]]), (50, 1))
    expected[10] *= 4
    assert gate(expected + np.float32(5e-5), expected, "fp32").passed
    assert not gate(expected + np.float32(1e-2), expected, "fp32").passed
    flipped = expected.copy()
    flipped[:4] *= -0.01
    assert gate(flipped, expected, "int8").label_agreement == pytest.approx(0.96)
    assert gate(flipped, expected, "int8").passed
    flipped[:8] = -0.01 * expected[:8]
    assert not gate(flipped, expected, "int8").passed
    far = expected.copy()
    far[0] *= 6  # the same label, but nothing like the checkpoint's answer
    assert not gate(far, expected, "int8").passed
    assert gate(far, expected, "int8", discrete=True).passed  # another exit may have answered
    broken = expected.copy()
    broken[3, 0] = np.nan
    assert not gate(broken, expected, "int8", discrete=True).passed


def test_lost_accuracy_fails_only_when_it_is_significant() -> None:
    expected = np.tile(np.float32([[1, -1]]), (100, 1))
    expected[99] *= 2
    answers = expected.copy()
    answers[:6] *= -0.01
    labels = np.zeros(100, dtype=np.int64)
    lost = gate(answers, expected, "int8", labels=labels)
    assert lost.accuracy_lost == pytest.approx(0.06)
    low, high = lost.accuracy_lost_interval or (0, 0)
    assert low > parity.MAX_ACCURACY_LOST and not lost.passed  # six right answers lost and none gained
    labels[:3] = 1  # now half of the changes are for the better
    even = gate(answers, expected, "int8", labels=labels)
    assert even.accuracy_lost == 0 and even.passed


def test_damaged_checkpoint_does_not_stop_the_others(checkpoint: Checkpoint, tmp_path: Path) -> None:
    shutil.copytree(checkpoint.folder, tmp_path / "ck" / "a-broken")
    shutil.copytree(checkpoint.folder, tmp_path / "ck" / "b-good")
    (tmp_path / "ck/a-broken/model.safetensors").write_bytes(b"x")
    built, failures = export_all([tmp_path / "ck"], ["fp32"], out=tmp_path / "engines")
    assert [engine.name for engine in built] == ["b-good.fp32.onnxruntime"]
    assert "truncated or changed" in str(failures[0])


@pytest.mark.parametrize("backend", ["onnxruntime", "openvino", "torch"])
def test_an_engine_runs_on_its_own_number_of_threads_at_most(
    backend: str, checkpoint: Checkpoint, tmp_path: Path
) -> None:
    one = export(checkpoint.folder, "threads1", backend, tmp_path)
    many = export(checkpoint.folder, "threads64", backend, tmp_path)
    for engine, given, expected in ((one, None, 1), (one, 2, 1), (many, 2, 2)):
        with engines.open(engine, threads=given, trust=True) as session:
            assert session.describe()["threads"] == expected


def test_threads_are_refused_on_a_gpu() -> None:
    assert refusal(variants.parse("fp16+threads2"), "onnxruntime", "cuda") == (
        "threads2 is for engines on the CPU"
    )

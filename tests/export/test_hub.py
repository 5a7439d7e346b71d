"""Engines as other libraries load them: files, names and settings of the Hugging Face hub's layout."""

from __future__ import annotations

import dataclasses
import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import openvino
import pytest
from transformers import AutoConfig, AutoTokenizer

from effx import engines
from effx.artifacts import Checkpoint, Engine
from effx.errors import EffxError
from effx.export import export, hub
from effx.specs.kinds import KINDS

TEXTS = ["a charming and often affecting journey", "dull", "it is what it is, and then some more of it"]


def opened(folder: Path, *names: str) -> list[Engine]:
    return [Engine.open(folder / name) for name in names]


def changed(engine: Engine, **manifest: Any) -> Engine:
    return dataclasses.replace(engine, manifest=engine.manifest.model_copy(update=manifest))


def test_a_plain_client_gets_the_engines_logits(engines_folder: Path, tmp_path: Path) -> None:
    """Read with onnxruntime and transformers alone, as optimum and sentence-transformers do."""
    both = opened(engines_folder, "tiny.fp32.onnxruntime", "tiny.int8.onnxruntime")
    assert hub.write_all(both, tmp_path) == []
    folder = tmp_path / "tiny"
    tokenizer = AutoTokenizer.from_pretrained(folder)
    assert tokenizer.model_max_length == both[0].max_length == 32
    assert AutoConfig.from_pretrained(folder).id2label == {0: "negative", 1: "positive"}
    batch = dict(tokenizer([*TEXTS, " ".join(TEXTS * 4)], padding=True, truncation=True, return_tensors="np"))
    assert batch["input_ids"].shape == (4, 32)
    batch.setdefault("token_type_ids", np.zeros_like(batch["input_ids"]))  # as optimum does
    for name, engine in zip(("model", "model_quantized"), both, strict=True):
        session = onnxruntime.InferenceSession(folder / f"onnx/{name}.onnx")
        (theirs,) = session.run(["logits"], {entry.name: batch[entry.name] for entry in session.get_inputs()})
        with engines.open(engine.folder) as ours:
            np.testing.assert_allclose(theirs, ours.infer(batch)["logits"], atol=1e-6)
    card = (folder / "README.md").read_text()
    assert "| onnx/model.onnx | fp32 |" in card and "| onnx/model_quantized.onnx | int8-" in card
    assert "OpenVINO is fast with its own int8 file" in card
    assert "the share of rows with the checkpoint's class" in card


@pytest.mark.parametrize(
    ("kind", "said"),
    [
        ("classification", "the share of rows with the checkpoint's class"),
        ("multi-label", "F1 of the engine's pairs of row and label"),
        ("token-classification", "F1 of the engine's entities"),
        ("answer-span", "mean F1 of the words"),
        ("regression", "1 - the mean difference from the checkpoint's numbers"),
        ("ranking", "share of pairs of candidates in the checkpoint's order"),
        ("embedding", "1 - the mean difference of the cosines"),
        ("retrieval", "share of queries whose best document"),
    ],
)
def test_the_card_says_what_the_agreement_of_a_kind_is(kind: str, said: str, engines_folder: Path) -> None:
    (engine,) = opened(engines_folder, "tiny.int8.onnxruntime")
    parity = dataclasses.replace(engine.manifest.parity, label_agreement=0.9876, examples=40, inputs="random")
    engine = changed(
        engine, parity=parity, task_definition=dataclasses.replace(engine.task, kind=kind, labels=())
    )
    card = hub._card("c", {"model.onnx": engine})
    assert "98.76% on 40 random inputs" in card
    assert ("share of rows" in card) is (kind == "classification")
    assert said in card
    worse = changed(engine, parity=dataclasses.replace(parity, label_agreement=-0.5))
    assert "below 0% on 40" in hub._card("c", {"model.onnx": worse})


def test_every_kind_says_what_its_agreement_is() -> None:
    assert len({kind.agreement_words for kind in KINDS.values()}) == len(KINDS)


def test_openvino_files_are_where_optimum_intel_looks_by_default(
    engines_folder: Path, checkpoint: Checkpoint, tmp_path: Path
) -> None:
    """optimum-intel 2.2 opens openvino_model.xml of the folder itself, and reads no subfolder."""
    engine = export(checkpoint.folder, "fp32", "openvino", tmp_path / "engines")
    both = [*opened(engines_folder, "tiny.fp32.onnxruntime"), engine]
    for _ in range(2):  # a folder that was written before is replaced
        assert hub.write_all(both, tmp_path / "hub") == []
    folder = tmp_path / "hub/tiny"
    assert (folder / "onnx/model.onnx").is_file() and not (folder / "openvino").exists()
    exact = {"INFERENCE_PRECISION_HINT": "f32"}  # the default is bf16 on processors that have it
    model = openvino.Core().compile_model(folder / "openvino_model.xml", "CPU", exact)
    batch = dict(AutoTokenizer.from_pretrained(folder)(TEXTS, padding=True, return_tensors="np"))
    batch.setdefault("token_type_ids", np.zeros_like(batch["input_ids"]))
    theirs = model({entry.any_name: batch[entry.any_name] for entry in model.inputs})["logits"]
    with engines.open(engine.folder) as ours:
        np.testing.assert_allclose(theirs, ours.infer(batch)["logits"], atol=1e-6)
    assert "| openvino_model.xml | fp32 |" in (folder / "README.md").read_text()


@pytest.mark.parametrize("variant", ["exit-if+tokens+fp32", "exit-if + tokens +fp32"])
def test_a_reduction_gets_its_own_folder(variant: str, engines_folder: Path, tmp_path: Path) -> None:
    (engine,) = opened(engines_folder, "tiny.fp32.onnxruntime")
    assert hub.write_all([changed(engine, variant=variant)], tmp_path) == []
    assert [path.name for path in (tmp_path / "tiny-exit-if-tokens/onnx").iterdir()] == ["model.onnx"]


@pytest.mark.parametrize(
    ("runtime", "message"),
    [
        ({"files": ("segment-0.onnx", "segment-1.onnx")}, "export exit-if"),
        ({"lengths": (16,)}, "leave out seqN and buckets"),
    ],
)
def test_work_of_the_host_is_refused(
    runtime: dict[str, Any], message: str, engines_folder: Path, tmp_path: Path
) -> None:
    (engine,) = opened(engines_folder, "tiny.fp32.onnxruntime")
    (error,) = hub.write_all(
        [changed(engine, runtime=dataclasses.replace(engine.runtime, **runtime))], tmp_path
    )
    assert message in str(error) and not list(tmp_path.iterdir())


@pytest.mark.parametrize(("backend", "precision"), [("torch", "fp32"), ("openvino", "bf16")])
def test_files_that_the_layout_does_not_have_are_refused(
    backend: str, precision: str, engines_folder: Path, tmp_path: Path
) -> None:
    (engine,) = opened(engines_folder, "tiny.fp32.onnxruntime")
    (error,) = hub.write_all([changed(engine, backend=backend, precision=precision)], tmp_path)
    assert backend in str(error) and not list(tmp_path.iterdir())


def test_only_int8_is_said_to_need_its_name(
    engines_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    hub.write_all(opened(engines_folder, "tiny.int8.onnxruntime"), tmp_path)
    assert "load the fp32 file by default, and it is not there" in capsys.readouterr().err


def test_a_folder_of_something_else_is_not_replaced(
    engines_folder: Path, checkpoint: Checkpoint, tmp_path: Path
) -> None:
    shutil.copytree(checkpoint.folder, tmp_path / "tiny")
    engine = opened(engines_folder, "tiny.fp32.onnxruntime")
    (error,) = hub.write_all(engine, tmp_path)
    assert "has files of something else (effx.json)" in str(error)
    Checkpoint.open(tmp_path / "tiny")
    shutil.rmtree(tmp_path / "tiny")
    for _ in range(2):
        assert hub.write_all(engine, tmp_path) == []
    assert json.loads((tmp_path / "tiny/config.json").read_text())["model_type"] == "bert"


def test_two_engines_of_one_precision_are_refused(engines_folder: Path, tmp_path: Path) -> None:
    engine = opened(engines_folder, "tiny.fp32.onnxruntime")[0]
    shutil.copytree(engine.folder, tmp_path / "e")
    twice = [engine, Engine.open(tmp_path / "e")]
    (error,) = hub.write_all(twice, tmp_path / "out")
    assert isinstance(error, EffxError) and "another engine would also be written to model.onnx" in str(error)

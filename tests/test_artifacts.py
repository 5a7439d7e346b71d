"""Damaged artefacts do not open, and the error names what is wrong."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from effx import engines, files
from effx.artifacts import Checkpoint, Engine, seal
from effx.engines import mock
from effx.errors import ArtifactError


@pytest.fixture
def engine(engines_folder: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(engines_folder / "tiny.fp32.onnxruntime", tmp_path / "engine"))


def edit(engine: Path, change: dict[str, object]) -> None:
    path = engine / "engine.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **change}))


def reseal(folder: Path, change: Callable[[dict[str, Any]], object], kind: Any = Engine) -> None:
    """Change a manifest and give it a digest that fits, as somebody who means harm would."""
    path = folder / kind.manifest_name
    manifest = json.loads(path.read_text())
    change(manifest)
    path.write_text(json.dumps(seal(kind, manifest)))


def test_an_undamaged_engine_opens(engine: Path) -> None:
    with engines.open(engine) as session:
        assert session.describe()["providers"] == ["CPUExecutionProvider"]


def test_a_truncated_graph_is_refused(engine: Path) -> None:
    graph = engine / "model.onnx"
    graph.write_bytes(graph.read_bytes()[: graph.stat().st_size // 2])
    with pytest.raises(ArtifactError, match=r"model.onnx is truncated or changed"):
        Engine.open(engine)


def test_an_edited_manifest_is_refused(engine: Path) -> None:
    edit(engine, {"variant": "int8"})
    with pytest.raises(ArtifactError, match="was changed after it was written"):
        Engine.open(engine)


def test_a_file_name_that_points_outside_is_refused(engine: Path) -> None:
    reseal(engine, lambda manifest: manifest["files"].update({"../../secret": "0" * 64}))
    with pytest.raises(ArtifactError, match="is not a relative file name within the folder"):
        Engine.open(engine)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "cannot be read"),
        ("[]", "expected a JSON object, got a list of 0"),
        ('{"schema": 9}', "expected schema 5, got 9"),
        ('{"schema": 5}', "was changed after it was written"),
    ],
)
def test_a_broken_manifest_is_refused(engine: Path, text: str, message: str) -> None:
    (engine / "engine.json").write_text(text)
    with pytest.raises(ArtifactError, match=message):
        Engine.open(engine)


def test_errors_name_what_is_missing(engine: Path, tmp_path: Path) -> None:
    (engine / "tokenizer.json").unlink()
    with pytest.raises(ArtifactError, match=r"tokenizer.json is missing"):
        Engine.open(engine)
    with pytest.raises(ArtifactError, match="is not a checkpoint"):
        Checkpoint.open(engine)
    with pytest.raises(ArtifactError, match="nowhere does not exist. Build it"):
        Engine.find_all([tmp_path / "nowhere"])
    (tmp_path / "empty").mkdir()
    with pytest.raises(ArtifactError, match="contains no engines"):
        Engine.find_all([tmp_path / "empty"])


def test_unfinished_folders_are_ignored(engine: Path, tmp_path: Path) -> None:
    shutil.copytree(engine, tmp_path / ".engine.host.1.tmp")
    assert Engine.find(tmp_path) == [engine]


@pytest.fixture
def mock_engine(tmp_path: Path) -> Path:
    return mock.write_engine(tmp_path / "mock")


def set_at(*keys: Any, to: Any) -> Callable[[dict[str, Any]], None]:
    """Return a change of one value of a manifest."""

    def change(value: Any) -> None:
        for key in keys[:-1]:
            value = value[key]
        value[keys[-1]] = to

    return change


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (set_at("files", to=[]), "files: expected"),
        (set_at("files", to=None), "files: expected"),
        (set_at("files", to={"a\0b": "0" * 64}), "is not a relative file name"),
        (set_at("files", to={"/etc/passwd": "0" * 64}), "is not a relative file name"),
        (set_at("files", "model.mock", to="x"), "files.model.mock: "),
        (set_at("task_definition", to=None), "task_definition: expected"),
        (set_at("task_definition", "name", to=5), "task_definition.name: expected a valid string"),
        (set_at("task_definition", "metrics", to=[]), "metrics: expected at least one"),
        (set_at("task_definition", "metrics", to=["zz"]), "unknown metric 'zz'"),
        (set_at("task_definition", "labels", to=["a", "a"]), "expected each label once"),
        (set_at("task_definition", "kind", to="zz"), "task_definition.kind: unknown task kind 'zz'"),
        (set_at("task_definition", "hub", to={"path": "other/rows"}), "hub: unknown key"),
        (set_at("task", to="other"), "task: 'other' is not the name in task_definition"),
        (set_at("inputs", to=[]), "inputs: "),
        (set_at("inputs", to=[{}]), "inputs"),
        (set_at("inputs", 0, "name", to="hidden"), "inputs[0].name: unknown input 'hidden'"),
        (set_at("inputs", 0, "max", to=[None, "x"]), "inputs[0].max[1]: expected a valid integer"),
        (set_at("inputs", 0, "max", to=[None, 16]), "min <= opt <= max"),
        (set_at("inputs", 2, "max", to=[None, 65]), "expected the same max for all"),
        (set_at("structure", to=5), "structure: expected an object"),
        (set_at("structure", to={}), "structure.layers: missing"),
        (set_at("structure", "layers", to=[]), "layers: expected 1 to"),
        (set_at("structure", "layers", 0, "heads", to=[0, 0]), "layers[0].heads: expected rising numbers"),
        (set_at("structure", "layers", 0, "heads", to=[True]), "heads[0]: expected a valid integer"),
        (set_at("structure", "layers", 0, "index", to=-1), "expected numbers from 0"),
        (set_at("structure", "layers", 0, "index", to=10**6), "layers: index: expected"),
        (set_at("structure", "layers", 0, "neurons", to=[0]), "neurons: expected 64, as intermediate, got 1"),
        (set_at("structure", "exits", to=[2]), "exits: expected rising numbers of layers before the last"),
        (set_at("structure", "tokens", to=[0.5]), "tokens: expected 2 numbers, one per layer"),
        (set_at("structure", "tokens", to=[0.5, 0.9]), "must not rise"),
        (set_at("parameters", to=-1), "parameters: expected"),
        (set_at("weight_remaining", to=1.5), "weight_remaining: expected"),
        (set_at("max_length", to=0), "max_length: expected"),
        (set_at("max_length", to=65), "max_length: expected at most 64, as inputs, got 65"),
        (set_at("data", to=5), "data: expected name, folder, settings and digest"),
        (set_at("backend", to="onnx-runtime"), "unknown backend 'onnx-runtime'"),
        (set_at("device", to="tpu"), "unknown mock device 'tpu'"),
        (set_at("runtime", "device", to="cuda"), "runtime.device: expected 'cpu', as device"),
        (set_at("runtime", "files", to=[]), "runtime.files: expected at least one file"),
        (set_at("runtime", "files", to=["/dev/zero"]), "is not a relative file name"),
        (set_at("runtime", "files", to=["../mock/model.mock"]), "is not a relative file name"),
        (set_at("runtime", "files", to=["other.mock"]), "'other.mock', which is not listed in files"),
        (set_at("runtime", "weight_files", to={"x": "y"}), "weight_files: 'x' is not in runtime.files"),
        (set_at("runtime", "lengths", to=[8, 8]), "runtime.lengths: expected rising numbers"),
        (set_at("runtime", "lengths", to=[128]), "runtime.lengths: expected rising numbers from 1 to 64"),
        (set_at("runtime", "pad_id", to=-1), "runtime.pad_id: expected"),
        (set_at("runtime", "disabled_optimizers", to=["X"]), "disabled_optimizers: unknown optimizer 'X'"),
        (set_at("runtime", "static_shape", to=[1, 8]), "runtime.static_shape: mock does not compile one"),
        (set_at("runtime", "static_shape", to=[1]), "runtime.static_shape"),
        (set_at("runtime", "threads", to=2), "runtime.threads: 2, but the variant is 'fp32'"),
        (set_at("built_for", to="fast"), "expected single, offline or BATCHxLENGTH"),
        (set_at("runtime", "variant", to="int8"), "runtime.variant: expected 'fp32', as variant"),
        (set_at("candidates", to=[]), "candidates: expected several or null, got 0"),
        (set_at("parity", "metric", to="f1"), "parity: metric and metric_lost: expected both or neither"),
        (set_at("parity", "recall_lost", to=0.5), "worst_class and recall_lost: expected both or neither"),
        (set_at("parity", "lost_classes", to=["zz"]), "parity: 'zz' is not a label of the task"),
        (set_at("task_definition", "labels", to=["", "a"]), "labels: expected a name for each label"),
        (set_at("task_definition", "columns", to=[""]), "columns: expected a name for each column"),
        (set_at("inputs", 0, "opt", to=[10**15, 32]), "inputs[0].opt[0]"),
        (set_at("inputs", 0, "min", to=[5, 1]), "expected min <= opt <= max"),
        (set_at("encoder", "width", to=10**15), "encoder.width"),
        (set_at("structure", "layers", 0, "heads", to=[0]), "weight_remaining: 1, but structure has layers"),
        (set_at("runtime", "max_length", to=5), "runtime.max_length: expected 64, as inputs, or null"),
        (set_at("runtime", "exits", to={"rule": {"name": "zz"}, "depths": [1, 2]}), "unknown exit rule 'zz'"),
        (set_at("parity", "examples", to=1.5), "parity.examples: expected a valid integer"),
        (set_at("parity", "label_agreement", to=7.0), "passed: contradicts"),
        (set_at("checkpoint", to="mock"), "checkpoint: expected"),
        (set_at("created", to="yesterday"), "created: expected a time"),
        (set_at("note", to="x"), "note: unknown key"),
        (set_at("scheme", to="fp32" * 1000), "scheme: unknown scheme 'fp32fp32"),
        (set_at("runtime", "unquantized_precision", to="zz"), "unquantized_precision: 'zz', but the scheme"),
        (set_at("candidates", to=[{"scheme": "int8-static", "failure": None, "seconds": None, "parity": {
            "examples": 1, "max_abs_diff": 0.0, "label_agreement": 1.0, "passed": True,
            "inputs": "task"}}] * 2),
         "candidates: mock does not build 'int8-static'"),
        (set_at("model", to="a\x1b[2J"), "a text has control characters"),
        (set_at("versions", to={"a": "\u202eb"}), "a text has control characters"),
        (set_at("regime", to="x" * 10_001), "a text has more than 10,000 characters"),
    ],
)  # fmt: skip
def test_a_manifest_that_contradicts_itself_is_one_line(
    change: Callable[[dict[str, Any]], None], message: str, mock_engine: Path
) -> None:
    reseal(mock_engine, change)
    with pytest.raises(ArtifactError) as caught:
        Engine.open(mock_engine)
    line = str(caught.value)
    assert (
        message in line
        and str(mock_engine) in line
        and "\n" not in line
        and "Build it again with: effx export" in line
    )


@pytest.mark.parametrize("name", ["model.mock", "tokenizer.json", "config.json"])
def test_links_are_refused_listed_or_not(name: str, mock_engine: Path, tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    (mock_engine / name).rename(outside)
    (mock_engine / name).symlink_to(outside)
    with pytest.raises(ArtifactError, match=f"{name} is a link"):
        Engine.open(mock_engine)
    reseal(mock_engine, lambda manifest: manifest["files"].pop(name))
    with pytest.raises(ArtifactError, match="not listed in files|is a link"):
        Engine.open(mock_engine)


def test_files_that_are_not_listed_or_not_regular_are_refused(mock_engine: Path) -> None:
    (mock_engine / ".DS_Store").write_text("left by a file manager")
    Engine.open(mock_engine)
    (mock_engine / "added_tokens.json").write_text("{}")
    with pytest.raises(ArtifactError, match="'added_tokens.json' is not listed in engine.json: remove it"):
        Engine.open(mock_engine)
    (mock_engine / "added_tokens.json").unlink()
    os.mkfifo(mock_engine / "pipe")
    with pytest.raises(ArtifactError, match="pipe is not a regular file"):
        Engine.open(mock_engine)


def test_a_file_that_every_engine_has_must_be_listed(mock_engine: Path) -> None:
    (mock_engine / "tokenizer.json").unlink()
    reseal(mock_engine, lambda manifest: manifest["files"].pop("tokenizer.json"))
    with pytest.raises(ArtifactError, match="tokenizer.json is missing"):
        Engine.open(mock_engine)


def test_a_scheme_of_a_graph_made_elsewhere_fits_its_precision(mock_engine: Path) -> None:
    def change(value: dict[str, Any]) -> None:
        value["made_elsewhere"] = {"producer": "x", "weights_per_token": 1}
        value["scheme"] = "int8-static"

    reseal(mock_engine, change)
    Engine.open(mock_engine)  # a part of its products is quantized
    reseal(mock_engine, set_at("scheme", to="bf16"))
    Engine.open(mock_engine)
    reseal(mock_engine, set_at("scheme", to="int8"))
    with pytest.raises(ArtifactError, match="scheme: unknown scheme 'int8'"):
        Engine.open(mock_engine)
    reseal(mock_engine, set_at("scheme", to="int8-static"))
    for where in ((), ("runtime",)):
        reseal(mock_engine, set_at(*where, "precision", to="bf16"))
    reseal(mock_engine, set_at("variant", to="bf16"))
    with pytest.raises(ArtifactError, match="scheme: 'int8-static' does not compute in bf16"):
        Engine.open(mock_engine)


def test_texts_of_a_manifest_are_written_printable(tmp_path: Path) -> None:
    engine = Engine.open(mock.write_engine(tmp_path / "e", model="a\tb\x1b"))
    assert engine.manifest.model == "a b\\x1b"


def test_a_schema_is_an_integer(mock_engine: Path) -> None:
    path = mock_engine / "engine.json"
    value = {**json.loads(path.read_text()), "schema": float(Engine.schema)}
    sealed = {key: item for key, item in value.items() if key not in (*Engine.not_in_digest, "digest")}
    path.write_text(json.dumps({**value, "digest": files.json_digest(sealed)}))
    with pytest.raises(ArtifactError, match=rf"expected schema {Engine.schema}, got {Engine.schema}\.0"):
        Engine.open(mock_engine)


def test_a_manifest_that_is_a_link_is_not_ignored(mock_engine: Path) -> None:
    """Such a checkpoint would otherwise be taken for a model made elsewhere."""
    (mock_engine / "engine.json").unlink()
    (mock_engine / "engine.json").symlink_to("engine.json")
    assert Engine.is_at(mock_engine)
    with pytest.raises(ArtifactError, match=r"engine\.json"):
        Engine.open(mock_engine)


def test_the_scores_of_a_checkpoint_are_its_tasks_metrics_in_order(checkpoint: Checkpoint) -> None:
    assert checkpoint.task.metrics == ("accuracy",)
    assert checkpoint.scores_text() == f"accuracy {round(checkpoint.manifest.metrics['accuracy'], 4):.4f}"
    assert checkpoint.scores_text({"f1": 0.5, "accuracy": 0.25}) == "accuracy 0.2500"

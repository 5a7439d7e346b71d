"""Damaged artefacts do not open, and the error names what is wrong."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from effx import engines
from effx.artifacts import Checkpoint, Engine
from effx.errors import ArtifactError


@pytest.fixture
def engine(engines_folder: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(engines_folder / "tiny.fp32.onnxruntime", tmp_path / "engine"))


def edit(engine: Path, change: dict[str, object]) -> None:
    path = engine / "engine.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **change}))


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
    from effx.artifacts import _manifest_digest

    manifest = json.loads((engine / "engine.json").read_text())
    manifest["files"]["../../secret"] = "0" * 64
    edit(engine, {"files": manifest["files"], "digest": _manifest_digest(manifest)})
    with pytest.raises(ArtifactError, match="outside the folder"):
        Engine.open(engine)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "cannot be read"),
        ("[]", "got none"),
        ('{"schema": 9}', "expected schema 2, got 9"),
        ('{"schema": 2}', "missing"),
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

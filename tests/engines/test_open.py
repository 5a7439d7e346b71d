from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest

from effx import engines
from effx.artifacts import Engine, seal
from effx.errors import ArtifactError, UsageError
from effx.files import sha256, write_json


def test_extra_arrays_are_ignored_and_threads_are_set(engines_folder: Path) -> None:
    ids = np.full((2, 5), 7)
    inputs = {"input_ids": ids, "attention_mask": ids // 7, "token_type_ids": ids * 0, "more": ids}
    with engines.open(engines_folder / "tiny.fp32.onnxruntime", threads=1) as session:
        assert session.infer(inputs)["logits"].shape == (2, 2)
        assert session.describe()["threads"] == 1


def test_damaged_graph_is_an_artifact_error(engines_folder: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(engines_folder / "tiny.fp32.onnxruntime", tmp_path / "e"))
    (folder / "model.onnx").write_bytes(b"not a graph")
    manifest = Engine.open(engines_folder / "tiny.fp32.onnxruntime").to_json()
    manifest["files"]["model.onnx"] = sha256(folder / "model.onnx")
    write_json(folder / "engine.json", seal(Engine, manifest))
    with pytest.raises(ArtifactError, match=r"model.onnx cannot be loaded"):
        engines.open(folder)


def test_unknown_backend_names_the_nearest() -> None:
    with pytest.raises(UsageError, match="Did you mean 'onnxruntime'"):
        engines.check_backend("onnx-runtime")

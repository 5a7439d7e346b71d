from __future__ import annotations

import shutil
import tempfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from effx import engines, scratch
from effx.artifacts import Checkpoint, Engine, seal
from effx.engines import mock
from effx.errors import ArtifactError, UsageError
from effx.export.plan import export_all
from effx.files import sha256, write_json
from effx.host import built
from effx.specs import backends


def test_extra_arrays_are_ignored_and_threads_are_set(engines_folder: Path) -> None:
    ids = np.full((2, 5), 7)
    inputs = {"input_ids": ids, "attention_mask": ids // 7, "token_type_ids": ids * 0, "more": ids}
    with engines.open(engines_folder / "tiny.fp32.onnxruntime", threads=1) as session:
        assert session.infer(inputs)["logits"].shape == (2, 2)
        assert session.describe()["threads"] == 1


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"not a graph", r"model.onnx cannot be read as ONNX: it is not a protobuf message"),
        (b"\x3a\x00", r"model.onnx cannot be loaded: "),  # a model with an empty graph and nothing else
    ],
)
def test_damaged_graph_is_an_artifact_error(
    content: bytes, reason: str, engines_folder: Path, tmp_path: Path
) -> None:
    folder = Path(shutil.copytree(engines_folder / "tiny.fp32.onnxruntime", tmp_path / "e"))
    (folder / "model.onnx").write_bytes(content)
    manifest = Engine.open(engines_folder / "tiny.fp32.onnxruntime").to_json()
    manifest["files"]["model.onnx"] = sha256(folder / "model.onnx")
    write_json(folder / "engine.json", seal(Engine, manifest))
    with pytest.raises(ArtifactError, match=reason):
        engines.open(folder)


def test_unknown_backend_names_the_nearest() -> None:
    with pytest.raises(UsageError, match="Did you mean 'onnxruntime'"):
        engines.check_backend("onnx-runtime")


@pytest.mark.slow
def test_compiled_engines_do_not_depend_on_temporary_folders_that_are_gone(
    checkpoint: Checkpoint, tmp_path: Path
) -> None:
    if shutil.which("g++") is None:
        pytest.skip("torch.compile needs g++")
    built, errors = export_all([checkpoint.folder], ["fp32"], ["torch-compile"], tmp_path / "e")
    assert not errors
    ids = np.full((2, 5), 7)
    inputs = {"input_ids": ids, "attention_mask": ids // 7, "token_type_ids": ids * 0}
    for _ in range(2):  # the first one's folder does not exist when the second is compiled
        with scratch.folder("verify") as folder, scratch.as_tmpdir(folder):
            torch._dynamo.reset()
            with engines.open(built[0]) as session:
                assert session.infer(inputs)["logits"].shape == (2, 2)
    assert not list(Path(tempfile.gettempdir()).glob("torchinductor_*/precompiled_headers/*"))


def test_engines_that_run_code_open_only_where_they_were_built_or_on_request(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    row = replace(backends.BACKENDS["mock"], runs_code=True)
    monkeypatch.setattr(backends, "BACKENDS", {**backends.BACKENDS, "mock": row})
    folder = mock.write_engine(tmp_path / "a")
    with pytest.raises(ArtifactError, match="was not built here, and opening an engine of"):
        engines.open(folder)
    engines.open(folder, trust=True).close()
    built.remember(Engine.open(folder).digest)
    engines.open(folder).close()
    other = mock.write_engine(tmp_path / "b", mock.MockBehavior(seed=1))
    with pytest.raises(ArtifactError, match="b was not built here"):
        engines.open(other)


def test_what_was_built_is_forgotten_without_a_state_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "file"))
    built.remember("0" * 64)
    assert not built.is_known("0" * 64) and not built.is_known("../file")

"""Graphs that refer to files outside their folder are refused before a runtime opens them."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from effx import engines
from effx.engines import onnx_files
from effx.errors import ArtifactError


def external(location: str, name: str = "w") -> onnx.TensorProto:
    tensor = TensorProto(name=name, data_type=TensorProto.FLOAT, dims=[1])
    tensor.data_location = TensorProto.EXTERNAL
    tensor.external_data.add(key="offset", value="0")
    tensor.external_data.add(key="location", value=location)
    return tensor


def write(
    path: Path, *tensors: onnx.TensorProto, nodes: list[onnx.NodeProto] | None = None, in_branch: bool = False
) -> Path:
    values = [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1])]
    outputs = [helper.make_tensor_value_info("y", TensorProto.FLOAT, [1])]
    nodes = nodes or [helper.make_node("Identity", ["x"], ["y"])]
    if in_branch:
        branch = helper.make_graph([helper.make_node("Identity", ["w"], ["z"])], "b", [], outputs, [*tensors])
        nodes = [helper.make_node("If", ["x"], ["y"], then_branch=branch, else_branch=branch)]
        tensors = ()
    graph = helper.make_graph(nodes, "g", values, outputs, [*tensors])
    path.parent.mkdir(exist_ok=True)
    onnx.save(helper.make_model(graph), path)
    return path


@pytest.mark.parametrize("in_branch", [False, True])
@pytest.mark.parametrize(
    "location", ["../w.bin", "/etc/passwd", "a/../w.bin", "link/w.bin", "..", "", "..\\w.bin"]
)
def test_a_tensor_outside_the_folder_is_refused(tmp_path: Path, location: str, in_branch: bool) -> None:
    (tmp_path / "w.bin").write_bytes(np.ones(1, np.float32).tobytes())
    path = write(tmp_path / "engine" / "model.onnx", external(location), in_branch=in_branch)
    (tmp_path / "engine" / "link").symlink_to(tmp_path)
    with pytest.raises(ArtifactError, match="which is not a file of its folder"):
        engines.open_graph(path, "onnxruntime")


@pytest.mark.parametrize("location", [".w.bin", ".w/w.bin"])
def test_a_tensor_in_a_hidden_file_is_refused(tmp_path: Path, location: str) -> None:
    """Its content could change without a change of the engine's digest."""
    path = write(tmp_path / "engine" / "model.onnx", external(location))
    (path.parent / location).parent.mkdir(exist_ok=True)
    (path.parent / location).write_bytes(np.ones(1, np.float32).tobytes())
    with pytest.raises(ArtifactError, match="a hidden file, which no manifest lists"):
        engines.open_graph(path, "onnxruntime")


def test_a_tensor_in_a_constant_node_outside_the_folder_is_refused(tmp_path: Path) -> None:
    node = helper.make_node("Constant", [], ["y"], value=external("../w.bin"))
    with pytest.raises(ArtifactError, match="which is not a file of its folder"):
        onnx_files.check(write(tmp_path / "e" / "model.onnx", nodes=[node]))


def test_a_link_or_a_missing_file_is_refused(tmp_path: Path) -> None:
    path = write(tmp_path / "model.onnx", external("w.bin"))
    with pytest.raises(ArtifactError, match="'w.bin', which cannot be read"):
        onnx_files.check(path)
    (tmp_path / "w.bin").symlink_to("/etc/passwd")
    with pytest.raises(ArtifactError, match="'w.bin', which is not a regular file"):
        onnx_files.check(path)
    (tmp_path / "w.bin").unlink()
    os.mkfifo(tmp_path / "w.bin")
    with pytest.raises(ArtifactError, match="'w.bin', which is not a regular file"):
        onnx_files.check(path)


def test_compiled_code_is_refused(tmp_path: Path) -> None:
    node = helper.make_node("EPContext", ["x"], ["y"], domain="com.microsoft", ep_cache_context="engine.so")
    with pytest.raises(ArtifactError, match="contains compiled code"):
        onnx_files.check(write(tmp_path / "model.onnx", nodes=[node]))


@pytest.mark.parametrize("content", [b"", b"\xff" * 40, b"\x3a\xff\x01", b"not onnx at all", b"\x3a\x05ab"])
def test_a_file_that_is_not_onnx_is_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "model.onnx").write_bytes(content)
    with pytest.raises(ArtifactError, match="cannot be read as ONNX"):
        onnx_files.check(tmp_path / "model.onnx")


def test_every_external_file_of_a_large_graph_is_listed(tmp_path: Path) -> None:
    weights = [
        numpy_helper.from_array(np.ones(1000, np.float32), name) for name in ("w", "inside_of_the_file")
    ]
    path = write(tmp_path / "model.onnx", *weights, external("a.bin", "a"), external("b.bin", "b"))
    assert onnx_files.external_files(path) == {"a.bin", "b.bin"}


def test_graphs_that_effx_writes_refer_to_nothing(engines_folder: Path) -> None:
    for path in engines_folder.rglob("*.onnx"):
        assert onnx_files.external_files(path) == set()

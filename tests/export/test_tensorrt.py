"""Plans built ahead of time by TensorRT-RTX for GPUs that are not here."""

from __future__ import annotations

from pathlib import Path

import pytest

from effx.artifacts import Checkpoint
from effx.errors import MissingExtraError, UsageError
from effx.export import export, export_all, verify
from effx.train import exits, tokens

pytest.importorskip("tensorrt_rtx", reason="TensorRT-RTX has no wheel for this system")


@pytest.fixture(scope="module")
def exiting(checkpoint: Checkpoint, tmp_path_factory: pytest.TempPathFactory) -> Checkpoint:
    place = tmp_path_factory.mktemp("exiting")
    short = tokens.train(checkpoint.folder, out=place, name="t",
                         settings=tokens.Settings(schedule=(0.9, 0.6, 0.4), epochs=1, lr=1e-3))  # fmt: skip
    settings = exits.Settings(epochs=1, depth=2.0, rule="max-probability")
    return exits.train(short.folder, out=place, name="te", settings=settings)


def test_every_reduction_builds(exiting: Checkpoint, tmp_path: Path) -> None:
    names = ["fp32", "fp16", "int8", "buckets", "seq16+fp16", "exit", "tokens", "int8+exit"]
    built, failures = export_all(
        [exiting.folder],
        names,
        ["tensorrt-rtx"],
        tmp_path,
        device="sm89",
        calibration_rows=16,
        keep_failed=True,
    )
    assert not failures, " ".join(set(names) - {engine.variant for engine in built})
    for engine in built:
        assert engine.name.endswith(".tensorrt-rtx.sm89") and engine.device == "sm89"
        assert engine.manifest["parity"]["measured_on"] == "its graphs on onnxruntime"
        files = engine.manifest["session"]["files"]
        assert len(files) == (3 if "exit" in engine.variant.split("+") else 1)
        assert all((engine.folder / name).read_bytes() for name in files)
        assert not [name for name in engine.manifest["files"] if ".onnx" in name]
        if engine.manifest["precision"] == "fp32":
            assert engine.manifest["parity"]["passed"]
            assert engine.manifest["parity"]["max_abs_diff"] < 1e-4
        if engine.manifest["precision"] == "int8":
            assert engine.manifest["scheme"] == "int8-static-symmetric"
            assert engine.manifest["audit"]["integer_weight_products"] > 0


def test_what_it_cannot_do_is_one_line(checkpoint: Checkpoint, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="unknown tensorrt-rtx device 'sm90'. Did you mean"):
        export(checkpoint.folder, backend="tensorrt-rtx", device="sm90", out=tmp_path)
    with pytest.raises(UsageError, match="effx has no fp8 for TensorRT"):
        export(checkpoint.folder, "fp8", "tensorrt-rtx", device="sm86", out=tmp_path)
    with pytest.raises(MissingExtraError, match=r"pip install 'effx\[tensorrt\]'"):
        export(checkpoint.folder, backend="tensorrt", out=tmp_path)
    engine = export(checkpoint.folder, "seq16", "tensorrt-rtx", device="sm120", out=tmp_path)
    with pytest.raises(UsageError, match="builds TensorRT plans, it does not run them yet"):
        verify([engine.folder], checkpoint.folder.parent)

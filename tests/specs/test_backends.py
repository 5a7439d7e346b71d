"""The backend table: every row is complete, and a name that is not in it is an error."""

from __future__ import annotations

import importlib.util

import pytest

from effx.errors import UsageError
from effx.specs import backends
from effx.specs.backends import BACKENDS, BUILDABLE

DRIFT_TAPS = {"onnxruntime", "openvino", "torch", None}


@pytest.mark.parametrize("name", BACKENDS)
def test_every_row_names_modules_that_exist(name: str) -> None:
    row = BACKENDS[name]
    assert row.name == name
    assert importlib.util.find_spec(f"effx.engines.{row.engine_module}")
    if row.builder_module is not None:
        assert importlib.util.find_spec(f"effx.export.builders.{row.builder_module}")
        assert row.packages and row.devices
        assert all("fp32" in precisions for precisions in row.schemes.values())
    assert row.layer_taps in DRIFT_TAPS
    assert set(row.execution_providers) in (set(), set(row.devices))


def test_an_unknown_backend_names_the_nearest() -> None:
    with pytest.raises(UsageError, match="unknown backend 'onnxruntme'. Did you mean 'onnxruntime'"):
        backends.get("onnxruntme")
    with pytest.raises(UsageError, match="unknown backend 'tensor'"):
        backends.builder_module("tensor")


def test_an_unknown_device_names_the_nearest() -> None:
    row = backends.get("tensorrt-rtx")
    assert row.device(None) == "cuda" and row.device("sm89") == "sm89"
    with pytest.raises(UsageError, match="unknown tensorrt-rtx device 'sm90'. Did you mean"):
        row.device("sm90")


def test_unsupported_precisions_are_refused_with_the_supported_ones() -> None:
    row = backends.get("onnxruntime")
    assert row.refusal("int8", "cpu") is None
    assert row.schemes_for("int8", "cpu") == ("int8-dynamic", "int8-static")
    reason = row.refusal("int8", "cuda")
    assert reason == "effx does not build int8 for ONNX Runtime on cuda; it builds fp32, fp16"
    assert {"onnxruntime", "openvino", "torch", "tensorrt-rtx"} <= set(BUILDABLE)

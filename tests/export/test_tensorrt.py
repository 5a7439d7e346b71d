"""Plans built ahead of time by TensorRT-RTX for GPUs that are not here."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from transformers import AutoTokenizer

from effx import models
from effx.artifacts import Checkpoint, Engine
from effx.errors import DeviceError, MissingExtraError, UsageError
from effx.export import export, export_all, verify

pytest.importorskip("tensorrt_rtx", reason="TensorRT-RTX has no wheel for this system")


@pytest.fixture(scope="module")
def ticket(checkpoint: Checkpoint, tmp_path_factory: pytest.TempPathFactory) -> Checkpoint:
    model = models.load(checkpoint.folder)
    models.prune(model, heads={0: [0, 2], 2: [1, 2, 3]}, ffns=[1])
    folder = tmp_path_factory.mktemp("ticket") / "half"
    keys = ("model", "seed", "training", "metrics", "max_length", "data")
    facts = {key: getattr(checkpoint.manifest, key) for key in keys}
    tokenizer = AutoTokenizer.from_pretrained(checkpoint.folder)
    return models.save(
        model, folder, tokenizer=tokenizer, task=checkpoint.task, parent=checkpoint.digest, **facts
    )


def build(checkpoint: Checkpoint, names: list[str], out: Path, device: str) -> list[Engine]:
    built, failures = export_all(
        [checkpoint.folder],
        names,
        ["tensorrt-rtx"],
        out,
        device=device,
        calibration_rows=16,
        keep_failed=True,
    )
    assert not failures, [str(failure) for failure in failures]
    for engine in built:
        precision = engine.manifest.precision
        assert engine.name.endswith(f".tensorrt-rtx.{device}") and engine.device == device
        stand_in = "torch" if precision == "bf16" else "onnxruntime"
        assert engine.manifest.parity.measured_on == f"its graphs on {stand_in}"
        runtime = engine.runtime
        assert len(runtime.files) == (3 if "exit" in engine.variant.split("+") else 1)
        assert all((engine.folder / name).read_bytes() for name in runtime.files)
        assert not [name for name in engine.manifest.files if ".onnx" in name or ".pt2" in name]
        assert runtime.plan and runtime.plan.capability == device and not runtime.tf32
        assert engine.manifest.largest_batch == 512
        audit = engine.manifest.audit
        remaining = engine.manifest.structure.layers
        products = sum(4 * bool(layer.heads) + 2 * bool(layer.intermediate) for layer in remaining)
        assert audit.product_precisions == {precision: products}
        assert audit.weight_products == products
        assert audit.head_products == (6 if {"exit", "exit-if"} & {*engine.variant.split("+")} else 2)
        if precision == "fp32":
            assert engine.manifest.parity.passed
            assert engine.manifest.parity.max_abs_diff < 1e-4
        if precision == "int8":
            assert engine.manifest.scheme == "int8-static-symmetric"
    return built


def test_common_variants_build(reduced_checkpoint: Checkpoint, tmp_path: Path) -> None:
    built = build(reduced_checkpoint, ["fp32", "int8+exit", "seq16+bf16", "exit-if"], tmp_path, "sm89")
    assert [engine.manifest.precision for engine in built] == ["fp32", "int8", "bf16", "fp32"]


@pytest.mark.slow
@pytest.mark.parametrize("device", ["sm86", "sm89", "sm120"])
@pytest.mark.parametrize("precision", ["fp32", "fp16", "bf16", "int8", "fp8"])
def test_every_precision_and_reduction_builds(
    reduced_checkpoint: Checkpoint, tmp_path: Path, precision: str, device: str
) -> None:
    if (precision, device) == ("fp8", "sm86"):
        with pytest.raises(UsageError, match="sm86 does not support fp8"):
            export(reduced_checkpoint.folder, "fp8", "tensorrt-rtx", tmp_path, device=device)
        return
    reductions = [
        "", "+buckets", "+seq16", "+exit", "+seq16+tokens", "+seq16+exit", "+exit-if", "+seq16+exit-if",
    ]  # fmt: skip
    if precision != "bf16":
        reductions += ["+tokens", "+tokens+exit"]
    build(reduced_checkpoint, [precision + reduction for reduction in reductions], tmp_path, device)


@pytest.mark.slow
@pytest.mark.parametrize("precision", ["fp32", "fp16", "bf16", "int8", "fp8"])
def test_pruned_checkpoint_builds(ticket: Checkpoint, tmp_path: Path, precision: str) -> None:
    (engine,) = build(ticket, [precision], tmp_path, "sm89")
    assert engine.manifest.parameters_removed > 0


def test_audit_counts_products_of_the_parsed_network(tmp_path: Path) -> None:
    """Against a network whose products are known: one fp32, one fp16, one without a weight."""
    import tensorrt_rtx as trt

    from effx.export import tensorrt_network as parsed

    logger = trt.Logger(trt.Logger.ERROR)
    builder = trt.Builder(logger)
    network = builder.create_network(0)
    x = network.add_input("x", trt.float32, (2, 4, 8))
    none = trt.MatrixOperation.NONE
    for kind, numpy_kind in ((trt.float32, np.float32), (trt.float16, np.float16)):
        w = network.add_constant((1, 8, 8), np.ones((1, 8, 8), numpy_kind)).get_output(0)
        converted = x if kind == trt.float32 else network.add_cast(x, kind).get_output(0)
        out = network.add_matrix_multiply(converted, none, w, none).get_output(0)
        network.mark_output(out)
    both = network.add_matrix_multiply(x, none, x, trt.MatrixOperation.TRANSPOSE).get_output(0)
    network.mark_output(both)
    pooled = network.add_reduce(x, trt.ReduceOperation.AVG, 2, False).get_output(0)
    w = network.add_constant((8, 8), np.ones((8, 8), np.float32)).get_output(0)
    network.mark_output(network.add_matrix_multiply(pooled, none, w, none).get_output(0))
    result = parsed.audit([parsed.read(trt, network)] * 2)
    assert result.product_precisions == {"fp32": 2, "fp16": 2}
    assert result.weight_products == 4 and result.head_products == 2
    assert result.nodes["MATRIX_MULTIPLY"] == 8


def test_products_are_named_as_the_inspector_names_them(checkpoint: Checkpoint, tmp_path: Path) -> None:
    import tensorrt_rtx as trt

    from effx.export import tensorrt_network as parsed

    engine = export(checkpoint.folder, "seq16", out=tmp_path)
    logger = trt.Logger(trt.Logger.ERROR)
    network = trt.Builder(logger).create_network(0)
    parser = trt.OnnxParser(network, logger)
    assert parser.parse_from_file(str(engine.folder / "model.onnx"))
    products = parsed.read(trt, network).products
    assert len(products) == engine.manifest.audit.weight_products - 2  # those of the head apart
    nodes = {
        node.name for node in onnx.load(engine.folder / "model.onnx").graph.node if node.op_type == "MatMul"
    }
    assert set(products) <= {f"[ONNX Layer: {name}]" for name in nodes}


def test_unsupported_variants_and_devices_are_refused(checkpoint: Checkpoint, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="unknown tensorrt-rtx device 'sm90'. Did you mean"):
        export(checkpoint.folder, backend="tensorrt-rtx", device="sm90", out=tmp_path)
    for variant, reason in (
        ("fp8", "sm86 does not support fp8"),
        ("int8-dynamic", "effx does not build int8-dynamic for TensorRT-RTX on sm86"),
        ("stripped", "a plan without weights can only be built on the GPU that runs it"),
        ("tokens+exit-if", "TensorRT does not support data-dependent shapes within an If"),
        ("bf16+tokens", "bf16 with tokens can only be checked on the GPU that runs it"),
    ):
        with pytest.raises(UsageError, match=reason):
            export(checkpoint.folder, variant, "tensorrt-rtx", device="sm86", out=tmp_path)
    with pytest.raises(UsageError, match="stripped is supported for TensorRT plans only"):
        export(checkpoint.folder, "stripped", out=tmp_path)


@pytest.mark.usefixtures("without_gpu")
def test_without_a_gpu_plans_are_built_ahead_of_time_only(checkpoint: Checkpoint, tmp_path: Path) -> None:
    with pytest.raises(MissingExtraError, match=r"pip install 'effx\[tensorrt\]'"):
        export(checkpoint.folder, backend="tensorrt", out=tmp_path)
    with pytest.raises(DeviceError, match="no NVIDIA driver"):
        export(checkpoint.folder, backend="tensorrt-rtx", device="cuda", out=tmp_path)
    engine = export(checkpoint.folder, "seq16", "tensorrt-rtx", device="sm120", out=tmp_path)
    with pytest.raises(DeviceError, match="no NVIDIA driver"):
        verify([engine.folder], checkpoint.folder.parent)

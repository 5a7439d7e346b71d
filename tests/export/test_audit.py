"""Audits of engines, on layers as TensorRT's inspector describes them.

The layers below have the form of the inspector of TensorRT 10 for a BERT: fused kernels with the ONNX nodes
that they run, types of operands, and a tactic. They were not recorded on a GPU.
"""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from effx.export import audit
from effx.export import tensorrt_network as network
from effx.export.builders import tensorrt as builder
from effx.export.tensorrt_network import ParsedNetwork, PlanProfile
from effx.manifests import Audit

PRODUCTS = ("q", "k", "v", "out", "up", "down")


def layer(nodes: str, kind: str, *operands: str, tactic: str = "", name: str = "") -> dict[str, Any]:
    return {
        "Name": name or "__myl_Fc_myl0_3",
        "LayerType": kind,
        "Inputs": [{"Name": "x", "Dimensions": [1, 40, 256], "Format/Datatype": each} for each in operands],
        "TacticName": tactic,
        "StreamId": 0,
        "Metadata": "\x1e".join(f"[ONNX Layer: {node}]" for node in nodes.split()),
    }


def plan(operand: str, tactic: str = "sm80_xmma_gemm_tilesize32x32x64") -> list[dict[str, Any]]:
    """Return one encoder layer: q, k and v side by side, attention, out, up with its activation, down."""
    return [
        layer("q k v q_bias", "gemm", operand, tactic=tactic),
        layer("scores softmax mix", "kgen", "Half", "Half", tactic="_gemm_mha_v2_0xf2543c36ff9f",
              name="_gemm_mha_v2_myl0_5"),
        layer("out", "gemm", operand, tactic=tactic),
        layer("norm", "kgen", "Float"),
        layer("up gelu", "fusion", operand, tactic=tactic),
        layer("down", "gemm", operand, tactic=tactic),
    ]  # fmt: skip


def products(precision: str) -> dict[str, str]:
    return {f"[ONNX Layer: {name}]": precision for name in PRODUCTS}


@pytest.mark.parametrize(
    ("precision", "operand"),
    [
        ("fp32", "Float"),
        ("fp32", "Row major linear FP32"),
        ("fp16", "Half"),
        ("fp16", "Row major linear FP16 format"),
        ("bf16", "BFloat16"),
        ("int8", "Int8"),
        ("int8", "Thirty-two wide channel vectorized row major Int8 format."),
        ("fp8", "FP8"),
    ],
)
def test_plan_in_the_precision_of_its_variant_passes(precision: str, operand: str) -> None:
    ran = network.executed(plan(operand), products(precision))
    assert ran.product_precisions == {precision: 6}
    assert ran.fused_attention == 1
    assert ran.layers == {"gemm": 3, "kgen": 2, "fusion": 1}
    result = audited(precision, ran)
    assert audit.failure(result, precision, "tensorrt") is None
    assert audit.mixed_precision_note(result, precision) is None


def as_of_tensorrt_11(layers: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return layers with a field for the type and one for the format, as that release describes operands."""
    linear = "Row major linear FP32 format (kLINEAR)"

    def split(operand: dict[str, Any]) -> dict[str, Any]:
        return {"Name": operand["Name"], "DataType": operand["Format/Datatype"], "Format": linear}

    return [{**one, "Inputs": [split(each) for each in one["Inputs"]]} for one in layers]


@pytest.mark.parametrize(
    ("precision", "operand"),
    [("fp32", "Float"), ("fp16", "Half"), ("bf16", "BFloat16"), ("int8", "Int8"), ("fp8", "FP8")],
)
def test_types_of_tensorrt_11_are_read(precision: str, operand: str) -> None:
    ran = network.executed(as_of_tensorrt_11(plan(operand)), products(precision))
    assert ran.product_precisions == {precision: 6}
    assert audit.failure(audited(precision, ran), precision, "tensorrt") is None
    wrong = network.executed(as_of_tensorrt_11(plan(operand)), products("fp64"))
    assert wrong.product_precisions == {precision: 6}


def test_plan_with_unfused_qdq_pairs_fails_on_tensorrt_11() -> None:
    """Types that are not read would be unknown, and pass."""
    result = audited("int8", network.executed(as_of_tensorrt_11(plan("Float")), products("int8")))
    failure = audit.failure(result, "int8", "tensorrt")
    assert failure is not None and failure.endswith("it runs 6 in fp32.")


@pytest.mark.parametrize("release", ["10", "11", "without the enumeration"])
def test_networks_are_strongly_typed_in_every_release(release: str) -> None:
    """TensorRT 10 has other networks, too, in which types are hints: its flag is bit 1."""
    flags = {"10": SimpleNamespace(EXPLICIT_BATCH=0, STRONGLY_TYPED=1), "11": SimpleNamespace()}
    trt = SimpleNamespace()
    if release in flags:
        trt.NetworkDefinitionCreationFlag = flags[release]
    assert builder._strongly_typed(trt) == (2 if release == "10" else 0)


def test_no_type_is_left_to_a_builder_flag() -> None:
    """TensorRT 11 has no such flags, and TensorRT 10 ignores them in strongly typed networks."""
    text = Path(builder.__file__).read_text()
    named = set(re.findall(r"BuilderFlag\.(\w+)", text))
    assert named == {"TF32", "STRIP_PLAN", "REFIT_IDENTICAL"}
    assert "int8_calibrator" not in text


def audited(precision: str, *plans: PlanProfile) -> Audit:
    """Return the audit of an engine whose networks are all in ``precision``."""
    return network.audit([ParsedNetwork({}, products(precision))] * len(plans), plans)


def test_plan_with_unfused_qdq_pairs_fails() -> None:
    """The network's types say int8; its kernels multiply floats."""
    result = audited("int8", network.executed(plan("Float"), products("int8")))
    assert result.product_precisions == {"int8": 6}
    assert result.plan.product_precisions == {"fp32": 6}
    failure = audit.failure(result, "int8", "tensorrt")
    assert failure is not None
    assert failure.endswith("the plan runs 0 products with weights in int8; it runs 6 in fp32.")


def test_precision_is_read_from_the_tactic() -> None:
    layers = plan("Half", tactic="sm80_xmma_gemm_i8i8_i8i32_f32_tn_n_tilesize128x64x64")
    assert network.executed(layers, products("int8")).product_precisions == {"int8": 6}


def test_plan_in_mixed_precision_passes_with_a_note() -> None:
    layers = plan("Int8")
    layers[4:] = plan("Half")[4:]
    result = audited("int8", network.executed(layers, products("int8")))
    assert result.plan.product_precisions == {"int8": 4, "fp16": 2}
    assert audit.failure(result, "int8", "tensorrt") is None
    assert str(audit.mixed_precision_note(result, "int8")).startswith(
        "of 6 products with weights the plan runs 4 in int8;"
    )


def test_profile_with_the_fewest_matching_products_counts() -> None:
    second = [{**one, "Name": f"{one['Name']} [profile 1]"} for one in plan("Half")]
    assert network.executed(plan("Int8") + second, products("int8")).product_precisions == {"fp16": 6}
    assert network.executed(plan("Int8") + second, products("int8")).fused_attention == 1


def test_plan_without_layer_details_passes() -> None:
    for layers in ([{"Name": "gemm_0"}], [], plan("N/A due to dynamic shapes")):
        result = audited("int8", network.executed(layers, products("int8")))
        assert result.plan.product_precisions == {"unknown": 6}
        assert audit.failure(result, "int8", "tensorrt") is None
        assert audit.mixed_precision_note(result, "int8") is None


def test_plan_reported_as_a_single_layer_passes() -> None:
    """Its inputs are hidden states, in any precision of its products."""
    one = layer(" ".join(PRODUCTS), "Myelin", "Float", name="{ForeignNode[embeddings...logits]}")
    result = audited("fp16", network.executed([one], products("fp16")))
    assert result.plan.product_precisions == {"unknown": 6}
    assert audit.failure(result, "fp16", "tensorrt") is None


def test_audit_of_segments_is_their_sum() -> None:
    one = network.executed(plan("Half"), products("fp16"))
    result = audited("fp16", one, one)
    assert result.weight_products == 12 and result.plan.fused_attention == 2
    assert result.plan.product_precisions == {"fp16": 12} and result.plan.layers["gemm"] == 6


def test_network_in_another_precision_fails() -> None:
    result = network.audit([ParsedNetwork({}, products("fp32"))])
    assert audit.failure(result, "fp16", "tensorrt-rtx") == (
        "audit failed: 0 of 6 products with weights are fp16."
    )
    integers = Audit(nodes={}, weight_products=6, integer_weight_products=5, fused_attention=0)
    assert audit.failure(integers, "int8", "onnxruntime") == (
        "audit failed: 5 of 6 matrix products with weights are int8."
    )
    assert audit.failure(replace(integers, integer_weight_products=6), "int8", "onnxruntime") is None

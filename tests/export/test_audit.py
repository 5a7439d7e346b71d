"""What an audit lets pass, and what TensorRT's inspector is taken to say.

The layers below have the form in which the inspector of TensorRT 10 tells those of a BERT: fused kernels
with the ONNX nodes that they run, types of operands, a tactic. Nothing here ran on a GPU.
"""

from __future__ import annotations

from typing import Any

import pytest

from effx.export import audit
from effx.export.builders import network

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


def asked(precision: str) -> dict[str, str]:
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
def test_a_plan_that_runs_what_it_was_asked_for(precision: str, operand: str) -> None:
    ran = network.ran(plan(operand), asked(precision))
    assert ran["product_precisions"] == {precision: 6}
    assert ran["fused_attention"] == 1
    assert ran["layers"] == {"gemm": 3, "kgen": 2, "fusion": 1}
    found = manifest(precision, ran)
    assert audit.failure(found, precision, "tensorrt") is None and audit.partly(found, precision) is None


def manifest(precision: str, *plans: dict[str, Any]) -> dict[str, Any]:
    """Return an audit whose network is all that was asked for."""
    made = {"nodes": {}, "products": asked(precision), "head_products": 0}
    return {**network.total([made] * len(plans)), "plan": network.total_ran(plans)}


def test_q_dq_pairs_that_run_as_written_are_not_int8() -> None:
    """The network's types say int8; its kernels multiply floats."""
    found = manifest("int8", network.ran(plan("Float"), asked("int8")))
    assert found["product_precisions"] == {"int8": 6}
    assert found["plan"]["product_precisions"] == {"fp32": 6}
    failure = audit.failure(found, "int8", "tensorrt")
    assert failure is not None
    assert failure.endswith("the plan runs no product with weights in int8; it runs 6 in fp32.")


def test_a_quantisation_within_the_kernel_is_told_by_its_tactic() -> None:
    layers = plan("Half", tactic="sm80_xmma_gemm_i8i8_i8i32_f32_tn_n_tilesize128x64x64")
    assert network.ran(layers, asked("int8"))["product_precisions"] == {"int8": 6}


def test_a_plan_that_runs_half_of_it_is_told_not_refused() -> None:
    layers = plan("Int8")
    layers[4:] = plan("Half")[4:]
    found = manifest("int8", network.ran(layers, asked("int8")))
    assert found["plan"]["product_precisions"] == {"int8": 4, "fp16": 2}
    assert audit.failure(found, "int8", "tensorrt") is None
    assert str(audit.partly(found, "int8")).startswith("of 6 products with weights the plan runs 4 in int8;")


def test_the_worst_profile_counts() -> None:
    second = [{**one, "Name": f"{one['Name']} [profile 1]"} for one in plan("Half")]
    assert network.ran(plan("Int8") + second, asked("int8"))["product_precisions"] == {"fp16": 6}
    assert network.ran(plan("Int8") + second, asked("int8"))["fused_attention"] == 1


def test_an_inspector_that_says_nothing_fails_nothing() -> None:
    for layers in ([{"Name": "gemm_0"}], [], plan("N/A due to dynamic shapes")):
        found = manifest("int8", network.ran(layers, asked("int8")))
        assert found["plan"]["product_precisions"] == {"unknown": 6}
        assert audit.failure(found, "int8", "tensorrt") is None
        assert audit.partly(found, "int8") is None


def test_a_stretch_of_the_graph_told_as_one_layer_fails_nothing() -> None:
    """What goes into it are hidden states, whatever its products compute in."""
    one = layer(" ".join(PRODUCTS), "Myelin", "Float", name="{ForeignNode[embeddings...logits]}")
    found = manifest("fp16", network.ran([one], asked("fp16")))
    assert found["plan"]["product_precisions"] == {"unknown": 6}
    assert audit.failure(found, "fp16", "tensorrt") is None


def test_segments_are_added_up() -> None:
    one = network.ran(plan("Half"), asked("fp16"))
    found = manifest("fp16", one, one)
    assert found["weight_products"] == 12 and found["plan"]["fused_attention"] == 2
    assert found["plan"]["product_precisions"] == {"fp16": 12} and found["plan"]["layers"]["gemm"] == 6


def test_a_network_in_other_types_is_refused() -> None:
    found = network.total([{"nodes": {}, "products": asked("fp32"), "head_products": 0}])
    assert audit.failure(found, "fp16", "tensorrt-rtx") == (
        "audit failed: 0 of 6 products with weights are fp16."
    )
    integers = {"weight_products": 6, "integer_weight_products": 5}
    assert audit.failure(integers, "int8", "onnxruntime") == (
        "audit failed: 5 of 6 matrix products with weights are int8."
    )
    assert audit.failure({**integers, "integer_weight_products": 6}, "int8", "onnxruntime") is None

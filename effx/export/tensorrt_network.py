"""The precisions of a parsed TensorRT network, and those that a built plan runs.

A product is one with weights if an operand is a constant, or a constant behind Q/DQ. Products of heads and
ramps, [batch, width] where the encoder has [batch, length, width], are counted separately: int8 and fp8
leave them in floats.

A network's types are binding except for Q/DQ pairs: the builder decides whether a pair is fused into an
integer or fp8 kernel or runs as written, in floats, and only the plan shows which. Its inspector lists for
each kernel the ONNX nodes that it runs, its operands' types and its tactic.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from effx.export.audit import UNKNOWN, by_frequency
from effx.manifests import Audit, PlanAudit

_TYPES = {"FLOAT": "fp32", "HALF": "fp16", "BF16": "bf16", "INT8": "int8", "FP8": "fp8"}
_LOOK_THROUGH = ("SHUFFLE", "CAST", "IDENTITY", "SQUEEZE", "UNSQUEEZE")
_ENCODER_RANK = 3
_NODE = re.compile(r"\[ONNX Layer: [^\]]*\]")
_PROFILE = re.compile(r"\[profile (\d+)\]")
_OPERAND_TYPES = (("fp16", r"half|fp16"), ("bf16", r"bf16|bfloat16"), ("fp8", r"fp8|e4m3"), ("int8", r"int8"),
                  ("fp32", r"\bfloat\b|fp32"))  # fmt: skip
_FUSED_REGION = "foreignnode"
_TACTICS = (("int8", r"i8i8"), ("fp8", r"e4m3"))
"""Precision -> how operand types and tactics name it, in the wordings of several releases."""


@dataclass(frozen=True)
class ParsedNetwork:
    """What a network holds, before it is built."""

    nodes: Mapping[str, int]
    """Kind of layer -> how many."""
    products: Mapping[str, str]
    """Encoder products with weights, by the inspector's name -> precision."""
    head_products: int = 0
    """Products with weights of heads and ramps."""


@dataclass(frozen=True)
class PlanProfile:
    """What one optimization profile of a built plan runs."""

    layers: Mapping[str, int]
    product_precisions: Mapping[str, int]
    fused_attention: int
    matching: int
    """Products that run in the precision of the network."""


def read(trt: Any, network: Any) -> ParsedNetwork:
    """Return what a network holds.

    Args:
        trt: the package, tensorrt or tensorrt_rtx.
        network: its INetworkDefinition.
    """
    layers = [network.get_layer(number) for number in range(network.num_layers)]
    producers = {
        layer.get_output(number).name: layer for layer in layers for number in range(layer.num_outputs)
    }

    def producer(tensor: Any) -> Any:
        layer = producers.get(tensor.name)
        while layer is not None and layer.type.name in _LOOK_THROUGH:
            layer = producers.get(layer.get_input(0).name)
        return layer

    products: dict[str, str] = {}
    heads = 0
    for layer in layers:
        if layer.type.name != "MATRIX_MULTIPLY":
            continue
        operands = [producer(layer.get_input(number)) for number in range(2)]
        precisions = []
        constant = False
        for number, operand in enumerate(operands):
            quantized = operand is not None and operand.type.name == "DEQUANTIZE"
            tensor = operand.get_input(0) if quantized else layer.get_input(number)
            precisions.append(_TYPES.get(tensor.dtype.name, tensor.dtype.name.lower()))
            origin = producer(tensor) if quantized else operand
            while quantized and origin is not None and origin.type.name == "QUANTIZE":
                origin = producer(origin.get_input(0))
            constant = constant or (origin is not None and origin.type.name == "CONSTANT")
        if constant and len(layer.get_output(0).shape) < _ENCODER_RANK:
            heads += 1
        elif constant:
            same = precisions[0] == precisions[1]
            name = layer.metadata or layer.name
            while name in products:  # each branch of an If may have a node of that name
                name += "'"
            products[name] = precisions[0] if same else " x ".join(precisions)
    return ParsedNetwork(dict(Counter(layer.type.name for layer in layers)), products, heads)


def audit(networks: Sequence[ParsedNetwork], plans: Sequence[PlanProfile] = ()) -> Audit:
    """Return the audit of an engine: sums over its networks and, where they were inspected, its plans."""
    nodes: Counter[str] = Counter()
    products: Counter[str] = Counter()
    for network in networks:
        nodes.update(network.nodes)
        products.update(network.products.values())
    return Audit(
        nodes=by_frequency(nodes),
        weight_products=sum(products.values()),
        integer_weight_products=products["int8"],
        fused_attention=nodes["ATTENTION_INPUT"],
        product_precisions=dict(products),
        head_products=sum(network.head_products for network in networks),
        plan=_plan_audit(plans) if plans else None,
    )


def executed(layers: Sequence[Mapping[str, Any]], products: Mapping[str, str]) -> PlanProfile:
    """Return what a plan runs, of the optimization profile with the fewest products in their precision.

    Args:
        layers: the inspector's descriptions; in a plan with layer names only, all products are unknown.
        products: of the network that the plan was built from, see :class:`ParsedNetwork`.
    """
    kernels: dict[str, list[Mapping[str, Any]]] = {}
    for layer in layers:
        profile = _PROFILE.search(str(layer.get("Name", "")))
        kernels.setdefault(profile[1] if profile else "0", []).append(layer)
    profiles = [_of_profile(group, products) for group in kernels.values()]
    return min(profiles, key=lambda profile: profile.matching, default=_of_profile([], products))


def _plan_audit(plans: Sequence[PlanProfile]) -> PlanAudit:
    layers: Counter[str] = Counter()
    precisions: Counter[str] = Counter()
    for plan in plans:
        layers.update(plan.layers)
        precisions.update(plan.product_precisions)
    return PlanAudit(dict(layers), dict(precisions), sum(plan.fused_attention for plan in plans))


def _of_profile(layers: Sequence[Mapping[str, Any]], products: Mapping[str, str]) -> PlanProfile:
    counts: Counter[str] = Counter()
    kernels = [(set(_NODE.findall(str(layer.get("Metadata", "")))), layer) for layer in layers]
    matching = 0
    for name, precision in products.items():
        reported = set().union(*(_precisions(layer) for nodes, layer in kernels if name in nodes))
        matching += precision in reported
        counts[precision if precision in reported else " or ".join(sorted(reported)) or UNKNOWN] += 1
    names = [f"{layer.get('Name', '')} {layer.get('TacticName', '')}".lower() for layer in layers]
    return PlanProfile(
        layers=dict(Counter(str(layer.get("LayerType", "unknown")) for layer in layers)),
        product_precisions=dict(counts),
        fused_attention=sum("mha" in name for name in names),
        matching=matching,
    )


def _precisions(layer: Mapping[str, Any]) -> set[str]:
    """Return the precisions of a kernel's operands, and those that its tactic is named for.

    Empty for a region of the graph that is reported as one layer: its inputs are not a product's operands.
    """
    if _FUSED_REGION in str(layer.get("Name", "")).lower():
        return set()
    operands = " ".join(_operand_type(entry) for entry in layer.get("Inputs", []))
    tactic = str(layer.get("TacticName", "")).lower()
    precisions = {name for name, pattern in _OPERAND_TYPES if re.search(pattern, operands)}
    return precisions | {name for name, pattern in _TACTICS if re.search(pattern, tactic)}


def _operand_type(operand: Mapping[str, Any]) -> str:
    """Return how the inspector names an operand's type, in small letters; empty: it does not.

    Until TensorRT 10 one field has format and type; TensorRT 11 has a field for each (its migration guide,
    "IEngineInspector JSON output"). The type counts, as a format's description may name another one.
    """
    fields = {name.lower(): str(value).lower() for name, value in operand.items()}
    return next((fields[name] for name in ("format/datatype", "datatype", "format") if name in fields), "")

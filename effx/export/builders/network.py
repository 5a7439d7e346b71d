"""What a parsed TensorRT network computes in, and what a built plan says it runs.

Products are told apart by what feeds them: a weight is a constant, or a constant behind Q/DQ. Those of
heads and ramps, [batch, width] where the encoder has [batch, length, width], are counted by themselves:
int8 and fp8 leave them alone.

A network's types are binding but for Q/DQ pairs: whether one is fused into an integer or fp8 kernel, or
runs as written, in floats, the builder decides, and only the plan tells. Its inspector names with each
kernel the ONNX nodes that it runs, its operands' types and its tactic.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from effx.export.audit import UNTOLD

_TYPES = {"FLOAT": "fp32", "HALF": "fp16", "BF16": "bf16", "INT8": "int8", "FP8": "fp8"}
_LOOK_THROUGH = ("SHUFFLE", "CAST", "IDENTITY", "SQUEEZE", "UNSQUEEZE")
_ENCODER_RANK = 3
_NODE = re.compile(r"\[ONNX Layer: [^\]]*\]")
_PROFILE = re.compile(r"\[profile (\d+)\]")
_SAID = (("fp16", r"half|fp16"), ("bf16", r"bf16|bfloat16"), ("fp8", r"fp8|e4m3"), ("int8", r"int8"),
         ("fp32", r"\bfloat\b|fp32"))  # fmt: skip
_STRETCH = "foreignnode"
_TACTICS = (("int8", r"i8i8"), ("fp8", r"e4m3"))
"""What an operand's type and a kernel's tactic say of its precision, across releases' wordings."""


def read(trt: Any, network: Any) -> dict[str, Any]:
    """Return counts of layers, and the products with weights: as the inspector names them -> precision."""
    layers = [network.get_layer(number) for number in range(network.num_layers)]
    made = {layer.get_output(number).name: layer for layer in layers for number in range(layer.num_outputs)}

    def source(tensor: Any) -> Any:
        layer = made.get(tensor.name)
        while layer is not None and layer.type.name in _LOOK_THROUGH:
            layer = made.get(layer.get_input(0).name)
        return layer

    products: dict[str, str] = {}
    heads = 0
    for layer in layers:
        if layer.type.name != "MATRIX_MULTIPLY":
            continue
        operands = [source(layer.get_input(number)) for number in range(2)]
        precisions = []
        constant = False
        for number, operand in enumerate(operands):
            quantised = operand is not None and operand.type.name == "DEQUANTIZE"
            tensor = operand.get_input(0) if quantised else layer.get_input(number)
            precisions.append(_TYPES.get(tensor.dtype.name, tensor.dtype.name.lower()))
            origin = source(tensor) if quantised else operand
            while quantised and origin is not None and origin.type.name == "QUANTIZE":
                origin = source(origin.get_input(0))
            constant = constant or (origin is not None and origin.type.name == "CONSTANT")
        if constant and len(layer.get_output(0).shape) < _ENCODER_RANK:
            heads += 1
        elif constant:
            same = precisions[0] == precisions[1]
            name = layer.metadata or layer.name
            while name in products:  # each branch of an If may have a node of that name
                name += "'"
            products[name] = precisions[0] if same else " x ".join(precisions)
    counts = Counter(layer.type.name for layer in layers)
    return {"nodes": dict(counts), "products": products, "head_products": heads}


def total(networks: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Return the sum over an engine's networks, as a manifest's audit has it."""
    nodes: Counter[str] = Counter()
    products: Counter[str] = Counter()
    for network in networks:
        nodes.update(network["nodes"])
        products.update(network["products"].values())
    return {
        "nodes": dict(sorted(nodes.items(), key=lambda item: (-item[1], item[0]))),
        "weight_products": sum(products.values()),
        "integer_weight_products": products["int8"],
        "product_precisions": dict(products),
        "head_products": sum(network["head_products"] for network in networks),
        "fused_attention": nodes["ATTENTION_INPUT"],
    }


def ran(layers: Sequence[Mapping[str, Any]], products: Mapping[str, str]) -> dict[str, Any]:
    """Return what a plan runs, of the optimisation profile that runs least of it as the network asks.

    Args:
        layers: as the inspector tells them; a plan may tell names alone, and then no product is found.
        products: of the network that the plan was built from, see :func:`read`.

    Returns:
        layers: kinds and how many; fused_attention: how many; product_precisions: how many products with
        weights run in which precision, "unknown" where the inspector does not say; as_asked: how many in
        the network's.
    """
    kernels: dict[str, list[Mapping[str, Any]]] = {}
    for layer in layers:
        profile = _PROFILE.search(str(layer.get("Name", "")))
        kernels.setdefault(profile[1] if profile else "0", []).append(layer)
    told = [_of_profile(some, products) for some in kernels.values()]
    return min(told, key=lambda one: one["as_asked"], default=_of_profile([], products))


def total_ran(plans: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Return the sum over an engine's plans."""
    found: dict[str, Counter[str]] = {key: Counter() for key in ("layers", "product_precisions")}
    for plan in plans:
        for key, counts in found.items():
            counts.update(plan[key])
    return {
        **{key: dict(counts) for key, counts in found.items()},
        "fused_attention": sum(plan["fused_attention"] for plan in plans),
    }


def _of_profile(layers: Sequence[Mapping[str, Any]], products: Mapping[str, str]) -> dict[str, Any]:
    """Return what one profile's kernels are."""
    precisions: Counter[str] = Counter()
    held = [(set(_NODE.findall(str(layer.get("Metadata", "")))), layer) for layer in layers]
    as_asked = 0
    for name, asked in products.items():
        found = set().union(*(_precisions(layer) for nodes, layer in held if name in nodes))
        as_asked += asked in found
        precisions[asked if asked in found else " or ".join(sorted(found)) or UNTOLD] += 1
    names = [f"{layer.get('Name', '')} {layer.get('TacticName', '')}".lower() for layer in layers]
    return {
        "layers": dict(Counter(str(layer.get("LayerType", "unknown")) for layer in layers)),
        "fused_attention": sum("mha" in name for name in names),
        "product_precisions": dict(precisions),
        "as_asked": as_asked,
    }


def _precisions(layer: Mapping[str, Any]) -> set[str]:
    """Return the precisions that a kernel takes its operands in, or that its tactic is named for.

    None of a stretch of the graph that is told as one layer: what goes into it is no product's operand.
    """
    if _STRETCH in str(layer.get("Name", "")).lower():
        return set()
    operands = " ".join(str(entry.get("Format/Datatype", "")).lower() for entry in layer.get("Inputs", []))
    tactic = str(layer.get("TacticName", "")).lower()
    found = {name for name, pattern in _SAID if re.search(pattern, operands)}
    return found | {name for name, pattern in _TACTICS if re.search(pattern, tactic)}

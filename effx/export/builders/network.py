"""What a parsed TensorRT network computes in, and what a built plan says it runs.

Products are told apart by what feeds them: a weight is a constant, or a constant behind Q/DQ. Those of
heads and ramps, [batch, width] where the encoder has [batch, length, width], are counted by themselves:
int8 and fp8 leave them alone.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

_TYPES = {"FLOAT": "fp32", "HALF": "fp16", "BF16": "bf16", "INT8": "int8", "FP8": "fp8"}
_LOOK_THROUGH = ("SHUFFLE", "CAST", "IDENTITY", "SQUEEZE", "UNSQUEEZE")
_ENCODER_RANK = 3
_PRODUCTS = ("gemm", "matmul", "matrix_multiply", "fc")


def read(trt: Any, network: Any) -> dict[str, Any]:
    """Return counts of layers, and of products with weights by the precision of their operands."""
    layers = [network.get_layer(number) for number in range(network.num_layers)]
    made = {layer.get_output(number).name: layer for layer in layers for number in range(layer.num_outputs)}

    def source(tensor: Any) -> Any:
        layer = made.get(tensor.name)
        while layer is not None and layer.type.name in _LOOK_THROUGH:
            layer = made.get(layer.get_input(0).name)
        return layer

    products: Counter[str] = Counter()
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
            products[precisions[0] if same else " x ".join(precisions)] += 1
    counts = Counter(layer.type.name for layer in layers)
    return {"nodes": dict(counts), "product_precisions": dict(products), "head_products": heads}


def total(networks: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Return the sum over an engine's networks, as a manifest's audit has it."""
    nodes: Counter[str] = Counter()
    products: Counter[str] = Counter()
    for network in networks:
        nodes.update(network["nodes"])
        products.update(network["product_precisions"])
    return {
        "nodes": dict(sorted(nodes.items(), key=lambda item: (-item[1], item[0]))),
        "weight_products": sum(products.values()),
        "integer_weight_products": products["int8"],
        "product_precisions": dict(products),
        "head_products": sum(network["head_products"] for network in networks),
        "fused_attention": nodes["ATTENTION_INPUT"],
    }


def add_layers(found: dict[str, Any], layers: Sequence[dict[str, Any]]) -> None:
    """Add what the inspector tells of a plan's layers: kinds, precisions of products, fused attention."""
    told = found.setdefault("plan_layers", {})
    ran = found.setdefault("plan_product_types", {})
    for layer in layers:
        kind = str(layer.get("LayerType", "unknown"))
        told[kind] = told.get(kind, 0) + 1
        text = f"{layer.get('Name', '')} {layer.get('TacticName', '')}".lower()
        found["fused_attention"] += "mha" in text
        if any(name in f"{kind.lower()} {text}" for name in _PRODUCTS):
            for entry in layer.get("Inputs", [])[:1]:
                words = str(entry.get("Format/Datatype", "unknown"))
                ran[words] = ran.get(words, 0) + 1

"""Q, K and V of a layer from one matrix product, in a traced ONNX graph.

    x W_q + b_q -> heads | x W_k + b_k -> heads | x W_v + b_v -> heads        three products, as traced
    x [W_q W_k W_v] + [b_q b_k b_v] -> heads -> split                         one product

With int8 activations whose scale is computed at run time, x is quantized once instead of three times. The
values are the same but for rounding. Short inputs gain, because fewer nodes run; large batches may lose,
because the split copies what the three products write in place. So the exporter measures which is faster.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
from onnx import helper, numpy_helper

from effx.export import graph

_HEADS_BEFORE_TOKENS = [0, 2, 1, 3]
_KEYS_TRANSPOSED = [0, 2, 3, 1]
_LAST_TWO = [0, 1, 3, 2]


@dataclass
class _Projection:
    """x W + b, divided into heads: [batch, length, width] -> [batch, heads, length, head size]."""

    product: onnx.NodeProto
    bias: onnx.NodeProto | None
    division: onnx.NodeProto
    order: onnx.NodeProto
    permutation: list[int]
    heads: int
    head_size: int

    @property
    def nodes(self) -> list[onnx.NodeProto]:
        return [self.product, *([] if self.bias is None else [self.bias]), self.division, self.order]


def write(source: Path, target: Path) -> int:
    """Write ``source`` to ``target`` with merged projections; return how many layers have them.

    Where there are none, nothing is written. Layers whose Q, K and V do not read the same input, or are
    not divided into heads of equal size, stay as they are.

    Args:
        source: a graph of :func:`effx.export.graph.write`.
        target: a file in another folder; weights beyond 2 GB are written next to it.
    """
    model = onnx.load(source)
    layers = sum(_merge(inner) for inner in graph.graphs(model.graph))
    if layers:
        graph.save(model, target)
    return layers


def _merge(inner: onnx.GraphProto) -> int:
    """Merge the projections of each layer in a graph, in place; return their number."""
    groups = [*_groups(inner)]
    replaced = {id(node) for group in groups for part in group for node in part.nodes}
    merged = {id(group[0].product): _merged(inner, group, number) for number, group in enumerate(groups)}
    nodes = []
    for node in inner.node:
        nodes += merged.get(id(node), [])  # the input of the products is known here
        if id(node) not in replaced:
            nodes.append(node)
    weights = {node.input[1] for group in groups for part in group for node in part.nodes[:-1]}
    del inner.node[:]
    inner.node.extend(nodes)
    used = {name for node in graph.nodes(inner) for name in node.input}
    for initializer in [entry for entry in inner.initializer if entry.name in weights - used]:
        inner.initializer.remove(initializer)
    return len(groups)


def _groups(inner: onnx.GraphProto) -> Iterator[list[_Projection]]:
    """Yield the three projections of each layer that can be merged, in the order of the graph."""
    constants = {entry.name: entry for entry in inner.initializer}
    users: dict[str, list[onnx.NodeProto]] = {}
    for node in graph.nodes(inner):
        for name in node.input:
            users.setdefault(name, []).append(node)
    results = {entry.name for entry in inner.output}
    shapes = {
        entry.name: [dimension.dim_value for dimension in entry.type.tensor_type.shape.dim]
        for entry in inner.value_info
    }

    def only_user(node: onnx.NodeProto) -> onnx.NodeProto | None:
        using = users.get(node.output[0], [])
        return using[0] if len(using) == 1 and node.output[0] not in results else None

    def projection(node: onnx.NodeProto) -> _Projection | None:
        if node.op_type != "MatMul" or node.input[1] not in constants:
            return None
        bias, after = None, only_user(node)
        if after is not None and after.op_type == "Add" and after.input[1] in constants:
            bias, after = after, only_user(after)
        if after is None or after.op_type != "Reshape":
            return None
        order, shape = only_user(after), shapes.get(after.output[0], [])
        if order is None or order.op_type != "Transpose" or len(shape) != 4 or min(shape[2:]) < 1:
            return None
        permutation = [*helper.get_node_attr_value(order, "perm")]
        if permutation not in (_HEADS_BEFORE_TOKENS, _KEYS_TRANSPOSED):
            return None
        return _Projection(node, bias, after, order, permutation, shape[2], shape[3])

    by_input: dict[str, list[_Projection]] = {}
    for node in inner.node:
        if part := projection(node):
            by_input.setdefault(part.product.input[0], []).append(part)
    for parts in by_input.values():
        same = len({(part.heads, part.head_size, part.bias is None) for part in parts}) == 1
        if len(parts) == 3 and same:
            yield parts


def _merged(inner: onnx.GraphProto, parts: Sequence[_Projection], number: int) -> list[onnx.NodeProto]:
    """Add the weights of one product for three projections; return the nodes that replace theirs."""
    constants = {entry.name: entry for entry in inner.initializer}
    name = f"projections_{number}"

    def constant(suffix: str, values: np.ndarray) -> str:
        inner.initializer.append(numpy_helper.from_array(values, f"{name}.{suffix}"))
        return f"{name}.{suffix}"

    def joined(names: Sequence[str]) -> np.ndarray:
        return np.concatenate([numpy_helper.to_array(constants[each]) for each in names], axis=-1)

    weight = constant("weight", joined([part.product.input[1] for part in parts]))
    nodes = [helper.make_node("MatMul", [parts[0].product.input[0], weight], [f"{name}.product"])]
    biases = [part.bias.input[1] for part in parts if part.bias is not None]
    if biases:
        bias = constant("bias", joined(biases))
        nodes.append(helper.make_node("Add", [nodes[-1].output[0], bias], [f"{name}.sum"]))
    heads, size = sum(part.heads for part in parts), parts[0].head_size
    shape = constant("shape", np.array([0, 0, heads, size], np.int64))  # 0: as in the input
    nodes.append(helper.make_node("Reshape", [nodes[-1].output[0], shape], [f"{name}.heads"]))
    nodes.append(
        helper.make_node("Transpose", [nodes[-1].output[0]], [f"{name}.ordered"], perm=_HEADS_BEFORE_TOKENS)
    )
    outputs = [
        part.order.output[0] if part.permutation == _HEADS_BEFORE_TOKENS else f"{name}.part_{position}"
        for position, part in enumerate(parts)
    ]
    nodes.append(helper.make_node("Split", [nodes[-1].output[0]], outputs, axis=1, num_outputs=3))
    for part, output in zip(parts, outputs, strict=True):
        if output != part.order.output[0]:  # of their own, ONNX Runtime fuses this order into the product
            nodes.append(helper.make_node("Transpose", [output], [part.order.output[0]], perm=_LAST_TWO))
    for node in nodes:
        node.name = node.output[0]
    return nodes

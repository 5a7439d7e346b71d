"""Early exit as one graph: segments composed with If.

    nested    segment 0 -> rule -> If(all rows have exited) then  their answers
                                                            else  segment 1 -> rule -> If(...) ...
    chained   segment 0 -> rule -> If(all rows have exited) then  the state  else  segment 1 -> rule
                                -> If(all rows have exited) then  the state  else  segment 2 -> rule ...

CPUs get nested graphs, whose branches pass fewer values on. TensorRT gets chained graphs: TensorRT-RTX 1.7
fails on any If within an If.

A batch runs until its last row exits; rows that exited before have the answer of their ramp, so the labels
are those of the staged engine. Segments are composed after they were quantized. Weights are in the same
(sub)graph as the nodes that use them: ONNX Runtime packs only those in advance, and products with unpacked
weights took 1.4 times as long. Values that several segments compute from the same inputs (masks, sizes) are
computed once, in a graph that all of them can access: small nodes between layers are most of the cost of an
exit.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from effx.export import exit_graphs
from effx.export import graph as graphs
from effx.specs.exit_rules import ExitRule


def compose(
    segments: Sequence[Path], target: Path, rule: ExitRule, depths: Sequence[int], *, chained: bool = False
) -> None:
    """Write ``target``: inputs of the first segment, outputs logits [batch, n] and depth int64 [batch].

    Args:
        segments: ONNX files in order, as :func:`effx.export.graph.write` writes them.
        target: the file to write.
        rule: when rows exit.
        depths: layers before each ramp and before the last head.
        chained: write consecutive Ifs instead of nested ones.
    """
    models = [onnx.load(path) for path in segments]
    composer = _Composer(models, rule, list(depths))
    nodes, logits, depth = composer.chained() if chained else composer.nested()
    nodes += [
        helper.make_node("Identity", [logits], ["logits"]),
        helper.make_node("Identity", [depth], ["depth"]),
    ]
    first = models[0].graph
    classes = next(entry for entry in first.output if entry.name == "logits")
    answer = onnx.ValueInfoProto()
    answer.CopyFrom(classes)
    graph = helper.make_graph(
        nodes,
        "early_exit",
        list(first.input),
        [answer, helper.make_tensor_value_info("depth", TensorProto.INT64, ["batch"])],
        [*composer.initializers, *composer.weights[0]],
        value_info=composer.shapes[0],
    )
    opsets = {entry.domain: entry.version for each in models for entry in each.opset_import}
    model = helper.make_model(
        graph,
        opset_imports=[helper.make_opsetid(domain, version) for domain, version in opsets.items()],
        ir_version=max(each.ir_version for each in models),
    )
    tensors = [*composer.initializers, *itertools.chain(*composer.weights.values())]
    large = sum(tensor.ByteSize() for tensor in tensors) > graphs.LARGEST_PROTOBUF_BYTES
    onnx.save(model, target, save_as_external_data=large, location=f"{target.name}.data")


_SMALL_BYTES = 200
_KINDS = {
    "done": TensorProto.BOOL, "chosen": TensorProto.FLOAT, "depth": TensorProto.INT64,
    "streak": TensorProto.INT64, "previous": TensorProto.FLOAT, "hidden": TensorProto.FLOAT,
    "token_mask": TensorProto.INT64,
}  # fmt: skip
_Answer = tuple[list[onnx.NodeProto], str, str]


class _Composer:
    """Renames the segments apart and puts the rule between them."""

    def __init__(self, models: Sequence[onnx.ModelProto], rule: ExitRule, depths: list[int]) -> None:
        self._models, self._rule, self._depths = models, rule, depths
        self.initializers: list[onnx.TensorProto] = []
        self.shapes: dict[int, list[onnx.ValueInfoProto]] = {}
        """Segment -> the exporter's shapes of its values: without them ONNX Runtime fuses less."""
        self.weights: dict[int, list[onnx.TensorProto]] = {}
        """Segment -> the weights that only it uses; they are in the graph of its nodes."""
        self._count = 0
        self._computed: dict[object, list[str]] = {}
        self._constants: dict[bytes, str] = {}

    def nested(self, number: int = 0, before: dict[str, str] | None = None) -> _Answer:
        """Return the nodes from segment ``number`` on, and the names of logits and depth."""
        nodes, state = self._step(number, before)
        if number == len(self._models) - 1:
            return nodes, state["chosen"], state["depth"]
        inner, *results = self.nested(number + 1, state)
        logits, depth = self._if(number + 1, nodes, state, ["chosen", "depth"], inner, results)
        return nodes, logits, depth

    def chained(self) -> _Answer:
        """Return the same with consecutive Ifs; each returns the state before or after its segment."""
        nodes, state = self._step(0, None)
        common = dict(self._computed)  # a branch can access the outermost graph and itself
        for number in range(1, len(self._models)):
            self._computed = dict(common)
            inner, later = self._step(number, state)
            names = [name for name in later if later[name] != state[name]]
            results = self._if(number, nodes, state, names, inner, [later[name] for name in names])
            state |= dict(zip(names, results, strict=True))
        return nodes, state["chosen"], state["depth"]

    def _step(
        self, number: int, before: dict[str, str] | None
    ) -> tuple[list[onnx.NodeProto], dict[str, str]]:
        """Return the nodes of a segment and its rule, and the state for the next segment ("": not used)."""
        nodes, outputs = self._segment(number, before)
        append = _Nodes(nodes, self)
        logits = outputs["logits"]
        if number == len(self._models) - 1:
            assert before is not None
            column = append("Unsqueeze", before["done"], append.constant([1], np.int64))
            return nodes, {
                "chosen": append("Where", column, before["chosen"], logits),
                "depth": before["depth"],
            }
        exiting, streak = self._exiting(append, logits, before)
        layers = append.constant(self._depths[number], np.int64)
        if before is None:
            last = append.constant(self._depths[-1], np.int64)
            done, chosen, depth = exiting, logits, append("Where", exiting, layers, last)
        else:
            now = append("And", exiting, append("Not", before["done"]))
            column = append("Unsqueeze", now, append.constant([1], np.int64))
            chosen = append("Where", column, logits, before["chosen"])
            depth = append("Where", now, layers, before["depth"])
            done = append("Or", before["done"], exiting)
        return nodes, {
            "done": done, "chosen": chosen, "depth": depth, "streak": streak,
            "previous": logits if self._rule.kind.uses_previous_logits else "",
            "hidden": outputs["hidden_out"], "token_mask": outputs["token_mask_out"],
        }  # fmt: skip

    def _if(
        self,
        number: int,
        nodes: list[onnx.NodeProto],
        state: dict[str, str],
        names: Sequence[str],
        inner: list[onnx.NodeProto],
        computed: Sequence[str],
    ) -> list[str]:
        """Append an If; its results are ``names`` of the state if all rows have exited, else ``computed``."""
        append = _Nodes(nodes, self)
        as_number = append("Cast", state["done"], to=TensorProto.INT32)
        all_exited = append("Cast", append("ReduceMin", as_number, keepdims=0), to=TensorProto.BOOL)
        kinds = [_KINDS[name] for name in names]
        finished: list[onnx.NodeProto] = []
        then, otherwise = _Nodes(finished, self), _Nodes(inner, self)
        unchanged = [then("Identity", state[name]) for name in names]
        changed = [otherwise("Identity", name) for name in computed]
        results = [self.name() for _ in names]
        nodes.append(
            helper.make_node(
                "If",
                [all_exited],
                results,
                then_branch=_branch(f"finished_before_{number}", finished, unchanged, kinds, [], []),
                else_branch=_branch(
                    f"segment_{number}", inner, changed, kinds, self.weights[number], self.shapes[number]
                ),
            )
        )
        return results

    def _segment(
        self, number: int, before: dict[str, str] | None
    ) -> tuple[list[onnx.NodeProto], dict[str, str]]:
        """Return a segment's nodes, renamed apart from the others, and the names of its outputs."""
        graph = self._models[number].graph
        outside = {entry.name: entry.name for entry in graph.input}
        if before is not None:
            outside |= {"hidden": before["hidden"], "token_mask": before["token_mask"]}

        def renamed(name: str) -> str:
            return outside.get(name, f"s{number}/{name}") if name else name

        self.shapes[number], self.weights[number] = [], []
        for tensor in graph.initializer:
            if tensor.ByteSize() <= _SMALL_BYTES:
                outside[tensor.name] = self.constant(tensor, renamed(tensor.name))
                continue
            copy = onnx.TensorProto()
            copy.CopyFrom(tensor)
            copy.name = renamed(tensor.name)
            self.weights[number].append(copy)
        for info in [*graph.value_info, *graph.output]:
            shape = onnx.ValueInfoProto()
            shape.CopyFrom(info)
            shape.name = renamed(info.name)
            self.shapes[number].append(shape)
        nodes = []
        for node in graph.node:
            copy = onnx.NodeProto()
            copy.CopyFrom(node)
            copy.name = f"s{number}/{node.name}"
            copy.input[:] = [renamed(name) for name in node.input]
            copy.output[:] = [renamed(name) for name in node.output]
            # a later segment is inside the earlier ones, so it can use what they computed
            attributes = sorted(entry.SerializeToString(deterministic=True) for entry in node.attribute)
            key = (node.domain, node.op_type, tuple(copy.input), tuple(attributes))
            earlier = self._computed.setdefault(key, list(copy.output))
            if earlier != list(copy.output):
                outside |= dict(zip(node.output, earlier, strict=True))
                continue
            nodes.append(copy)
        return nodes, {entry.name: renamed(entry.name) for entry in graph.output}

    def _exiting(self, append: _Nodes, logits: str, before: dict[str, str] | None) -> tuple[str, str]:
        """Return which rows would exit at a ramp (bool [batch]), and the streak (int64 [batch])."""
        rule = self._rule
        classes = self._models[0].graph.output[0].type.tensor_type.shape.dim[1].dim_value
        previous = None if before is None else before["previous"]
        sure = exit_graphs.sure_nodes(append, rule, logits, previous, classes)
        if rule.patience == 1:
            return sure, ""
        zero, one = append.constant(0, np.int64), append.constant(1, np.int64)
        streak = one if before is None else append("Add", before["streak"], one)
        streak = append("Where", sure, streak, zero)
        return append("GreaterOrEqual", streak, append.constant(rule.patience, np.int64)), streak

    def constant(self, tensor: onnx.TensorProto, name: str) -> str:
        """Add a small constant to the outer graph unless an equal constant is there; return its name."""
        copy = onnx.TensorProto()
        copy.CopyFrom(tensor)
        copy.name = ""
        known = self._constants.setdefault(copy.SerializeToString(deterministic=True), name)
        if known == name:
            copy.name = name
            self.initializers.append(copy)
        return known

    def name(self) -> str:
        self._count += 1
        return f"exit/{self._count}"


class _Nodes:
    """Appends nodes to a list and names their outputs."""

    def __init__(self, nodes: list[onnx.NodeProto], names: _Composer) -> None:
        self._nodes, self._names = nodes, names

    def __call__(self, kind: str, *inputs: str, **attributes: object) -> str:
        output = self._names.name()
        self._nodes.append(helper.make_node(kind, list(inputs), [output], name=output, **attributes))
        return output

    def constant(self, value: object, dtype: type) -> str:
        return self._names.constant(numpy_helper.from_array(np.array(value, dtype=dtype)), self._names.name())


def _branch(
    name: str,
    nodes: list[onnx.NodeProto],
    outputs: Sequence[str],
    kinds: Sequence[int],
    weights: list[onnx.TensorProto],
    shapes: list[onnx.ValueInfoProto],
) -> onnx.GraphProto:
    infos = [
        helper.make_tensor_value_info(output, kind, None) for output, kind in zip(outputs, kinds, strict=True)
    ]
    return helper.make_graph(nodes, name, [], infos, weights, value_info=shapes)

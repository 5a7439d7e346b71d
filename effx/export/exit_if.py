"""Early exit as one graph: segments composed with If.

    nested    segment 0 -> rule -> If(everyone has left) then  what they took with them
                                                         else  segment 1 -> rule -> If(...) ...
    chained   segment 0 -> rule -> If(everyone has left) then  the state  else  segment 1 -> rule
                                -> If(everyone has left) then  the state  else  segment 2 -> rule ...

Nested, whoever has left passes nothing on, and that is what CPUs get. TensorRT's compiler takes the
chain only: that of TensorRT-RTX 1.7 fails on an If within an If, however small.

A batch runs until its last row leaves; rows that left before keep the answer of their own ramp, so
the labels are those of the staged engine. Segments are composed after they were quantised. Weights
stand beside the nodes that use them: ONNX Runtime lays out in advance (packs) only what is in the
same graph, and unpacked products took 1.4 times as long. What several segments compute from the
same values (masks, sizes) is computed once, where all of them see it: between layers small nodes are
what an exit costs.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from effx.export import graph as graphs
from effx.specs.exit_rules import ExitRule


def compose(
    segments: Sequence[Path], target: Path, rule: ExitRule, depths: Sequence[int], *, chained: bool = False
) -> None:
    """Write ``target``: inputs of the first segment, outputs logits [batch, n] and depth int64 [batch].

    Args:
        segments: ONNX files in order, as :func:`effx.export.graph.write` writes them.
        target: where the graph goes.
        rule: when rows leave.
        depths: layers before each ramp and before the last head.
        chained: one If after the other, not one within the other.
    """
    models = [onnx.load(path) for path in segments]
    outer = _Composer(models, rule, list(depths))
    nodes, logits, depth = outer.chained() if chained else outer.nested()
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
        [*outer.initializers, *outer.weights[0]],
        value_info=outer.shapes[0],
    )
    opsets = {entry.domain: entry.version for model in models for entry in model.opset_import}
    made = helper.make_model(
        graph,
        opset_imports=[helper.make_opsetid(domain, version) for domain, version in opsets.items()],
        ir_version=max(model.ir_version for model in models),
    )
    tensors = [*outer.initializers, *itertools.chain(*outer.weights.values())]
    large = sum(tensor.ByteSize() for tensor in tensors) > graphs.LARGEST_PROTOBUF_BYTES
    onnx.save(made, target, save_as_external_data=large, location=f"{target.name}.data")


_SMALL_BYTES = 200
_KINDS = {
    "done": TensorProto.BOOL, "chosen": TensorProto.FLOAT, "depth": TensorProto.INT64,
    "streak": TensorProto.INT64, "previous": TensorProto.FLOAT, "hidden": TensorProto.FLOAT,
    "alive": TensorProto.INT64,
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
        """Segment -> what it alone uses, which stands beside its nodes."""
        self._count = 0
        self._computed: dict[object, list[str]] = {}
        self._constants: dict[bytes, str] = {}

    def nested(self, number: int = 0, before: dict[str, str] | None = None) -> _Answer:
        """Return the nodes from segment ``number`` on, and the names of logits and depth."""
        nodes, state = self._step(number, before)
        if number == len(self._models) - 1:
            return nodes, state["chosen"], state["depth"]
        going, *rest = self.nested(number + 1, state)
        logits, depth = self._if(number + 1, nodes, state, ["chosen", "depth"], going, rest)
        return nodes, logits, depth

    def chained(self) -> _Answer:
        """Return the same with one If after the other; each hands on what it was given or what came of it."""
        nodes, state = self._step(0, None)
        common = dict(self._computed)  # a branch sees what stands outside all of them, and itself
        for number in range(1, len(self._models)):
            self._computed = dict(common)
            going, later = self._step(number, state)
            names = [name for name in later if later[name] != state[name]]
            results = self._if(number, nodes, state, names, going, [later[name] for name in names])
            state |= dict(zip(names, results, strict=True))
        return nodes, state["chosen"], state["depth"]

    def _step(
        self, number: int, before: dict[str, str] | None
    ) -> tuple[list[onnx.NodeProto], dict[str, str]]:
        """Return a segment's nodes and its rule's, and what the next one takes; "" where it takes none."""
        nodes, outputs = self._segment(number, before)
        make = _Nodes(nodes, self)
        logits = outputs["logits"]
        if number == len(self._models) - 1:
            assert before is not None
            column = make("Unsqueeze", before["done"], make.constant([1], np.int64))
            return nodes, {
                "chosen": make("Where", column, before["chosen"], logits),
                "depth": before["depth"],
            }
        leaves, streak = self._leaves(make, logits, before)
        here = make.constant(self._depths[number], np.int64)
        if before is None:
            last = make.constant(self._depths[-1], np.int64)
            done, chosen, depth = leaves, logits, make("Where", leaves, here, last)
        else:
            now = make("And", leaves, make("Not", before["done"]))
            column = make("Unsqueeze", now, make.constant([1], np.int64))
            chosen = make("Where", column, logits, before["chosen"])
            depth = make("Where", now, here, before["depth"])
            done = make("Or", before["done"], leaves)
        return nodes, {
            "done": done, "chosen": chosen, "depth": depth, "streak": streak,
            "previous": logits if self._rule.name == "patience" else "",
            "hidden": outputs["hidden_out"], "alive": outputs["alive_out"],
        }  # fmt: skip

    def _if(
        self,
        number: int,
        nodes: list[onnx.NodeProto],
        state: dict[str, str],
        names: Sequence[str],
        going: list[onnx.NodeProto],
        made: Sequence[str],
    ) -> list[str]:
        """Append an If: the named entries of the state where everyone has left, else those ``made``."""
        make = _Nodes(nodes, self)
        as_number = make("Cast", state["done"], to=TensorProto.INT32)
        everyone = make("Cast", make("ReduceMin", as_number, keepdims=0), to=TensorProto.BOOL)
        kinds = [_KINDS[name] for name in names]
        left: list[onnx.NodeProto] = []
        then, other = _Nodes(left, self), _Nodes(going, self)
        kept = [then("Identity", state[name]) for name in names]
        new = [other("Identity", name) for name in made]
        results = [self.name() for _ in names]
        nodes.append(
            helper.make_node(
                "If",
                [everyone],
                results,
                then_branch=_branch(f"left_before_{number}", left, kept, kinds, [], []),
                else_branch=_branch(
                    f"segment_{number}", going, new, kinds, self.weights[number], self.shapes[number]
                ),
            )
        )
        return results

    def _segment(
        self, number: int, before: dict[str, str] | None
    ) -> tuple[list[onnx.NodeProto], dict[str, str]]:
        """Return a segment's nodes under names of its own, and what its outputs are called."""
        graph = self._models[number].graph
        outside = {entry.name: entry.name for entry in graph.input}
        if before is not None:
            outside |= {"hidden": before["hidden"], "alive": before["alive"]}

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
            # a later segment stands inside the earlier ones, so it sees what they computed
            attributes = sorted(entry.SerializeToString(deterministic=True) for entry in node.attribute)
            key = (node.domain, node.op_type, tuple(copy.input), tuple(attributes))
            earlier = self._computed.setdefault(key, list(copy.output))
            if earlier != list(copy.output):
                outside |= dict(zip(node.output, earlier, strict=True))
                continue
            nodes.append(copy)
        return nodes, {entry.name: renamed(entry.name) for entry in graph.output}

    def _leaves(self, make: _Nodes, logits: str, before: dict[str, str] | None) -> tuple[str, str]:
        """Return who would leave at a ramp (bool [batch]), and the streak (int64 [batch])."""
        rule, threshold = self._rule, self._rule.threshold or 0.0
        last = make.constant([-1], np.int64)
        if rule.name in ("entropy", "consecutive-entropy"):
            log_p = make("LogSoftmax", logits, axis=-1)
            product = make("Mul", make("Exp", log_p), log_p)
            negative = make("ReduceSum", product, last, keepdims=0)
            if rule.name == "consecutive-entropy":
                classes = self._models[0].graph.output[0].type.tensor_type.shape.dim[1].dim_value
                negative = make("Div", negative, make.constant(math.log(classes), np.float32))
            sure = make("Greater", negative, make.constant(-threshold, np.float32))
        elif rule.name == "max-probability":
            probability = make("Softmax", logits, axis=-1)
            most = make("ReduceMax", probability, last, keepdims=0)
            sure = make("Greater", most, make.constant(threshold, np.float32))
        elif before is None:  # patience has nothing to compare with at the first ramp
            some = make("ArgMax", logits, axis=-1, keepdims=0)
            sure = make("Less", some, make.constant(-1, np.int64))
        elif rule.threshold is not None:  # regression
            step = make("Abs", make("Sub", logits, before["previous"]))
            sure = make("Squeeze", make("Less", step, make.constant(threshold, np.float32)), last)
        else:
            sure = make(
                "Equal",
                make("ArgMax", logits, axis=-1, keepdims=0),
                make("ArgMax", before["previous"], axis=-1, keepdims=0),
            )
        if rule.patience == 1:
            return sure, ""
        zero, one = make.constant(0, np.int64), make.constant(1, np.int64)
        streak = one if before is None else make("Add", before["streak"], one)
        streak = make("Where", sure, streak, zero)
        return make("GreaterOrEqual", streak, make.constant(rule.patience, np.int64)), streak

    def constant(self, tensor: onnx.TensorProto, name: str) -> str:
        """Add a small constant to the outer graph, if no equal one is there; return what it is called."""
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

"""Early exit as one graph: segments composed with nested If.

    segment 0 -> rule -> If(everyone has left) then  what they took with them
                                               else  segment 1 -> rule -> If(...) ...

A batch runs until its last row leaves; rows that left before keep the answer of their own ramp, so
the labels are those of the staged engine. Segments are composed after they were quantised, and
weights stand in the outer graph once.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from effx.exit_rules import ExitRule
from effx.export import graph as graphs


def compose(segments: Sequence[Path], target: Path, rule: ExitRule, depths: Sequence[int]) -> None:
    """Write ``target``: inputs of the first segment, outputs logits [batch, n] and depth int64 [batch].

    Args:
        segments: ONNX files in order, as :func:`effx.export.graph.write` writes them.
        target: where the graph goes.
        rule: when rows leave.
        depths: layers before each ramp and before the last head.
    """
    models = [onnx.load(path) for path in segments]
    outer = _Composer(models, rule, list(depths))
    nodes, logits, depth = outer.stage(0, None)
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
        outer.initializers,
    )
    opsets = {entry.domain: entry.version for model in models for entry in model.opset_import}
    made = helper.make_model(
        graph,
        opset_imports=[helper.make_opsetid(domain, version) for domain, version in opsets.items()],
        ir_version=max(model.ir_version for model in models),
    )
    large = sum(entry.ByteSize() for entry in outer.initializers) > graphs.LARGEST_PROTOBUF_BYTES
    onnx.save(made, target, save_as_external_data=large, location=f"{target.name}.data")


class _Composer:
    """Renames the segments apart and puts the rule between them."""

    def __init__(self, models: Sequence[onnx.ModelProto], rule: ExitRule, depths: list[int]) -> None:
        self._models, self._rule, self._depths = models, rule, depths
        self.initializers: list[onnx.TensorProto] = []
        self._count = 0

    def stage(self, number: int, before: dict[str, str] | None) -> tuple[list[onnx.NodeProto], str, str]:
        """Return the nodes from segment ``number`` on, and the names of logits and depth."""
        nodes, outputs = self._segment(number, before)
        make = _Nodes(nodes, self)
        logits = outputs["logits"]
        if number == len(self._models) - 1:
            assert before is not None
            column = make("Unsqueeze", before["done"], make.constant([1], np.int64))
            return nodes, make("Where", column, before["chosen"], logits), before["depth"]
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
        as_number = make("Cast", done, to=TensorProto.INT32)
        everyone = make("Cast", make("ReduceMin", as_number, keepdims=0), to=TensorProto.BOOL)
        state = {
            "done": done, "chosen": chosen, "depth": depth, "streak": streak, "previous": logits,
            "hidden": outputs["hidden_out"], "alive": outputs["alive_out"],
        }  # fmt: skip
        then_nodes: list[onnx.NodeProto] = []
        then = _Nodes(then_nodes, self)
        finished = (then("Identity", chosen), then("Identity", depth))
        else_nodes, *rest = self.stage(number + 1, state)
        other = _Nodes(else_nodes, self)
        going = (other("Identity", rest[0]), other("Identity", rest[1]))
        result = (self.name(), self.name())
        nodes.append(
            helper.make_node(
                "If",
                [everyone],
                list(result),
                then_branch=_branch(f"left_after_{number}", then_nodes, finished),
                else_branch=_branch(f"segment_{number + 1}", else_nodes, going),
            )
        )
        return nodes, *result

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

        for tensor in graph.initializer:
            copy = onnx.TensorProto()
            copy.CopyFrom(tensor)
            copy.name = renamed(tensor.name)
            self.initializers.append(copy)
        nodes = []
        for node in graph.node:
            copy = onnx.NodeProto()
            copy.CopyFrom(node)
            copy.name = f"s{number}/{node.name}"
            copy.input[:] = [renamed(name) for name in node.input]
            copy.output[:] = [renamed(name) for name in node.output]
            nodes.append(copy)
        return nodes, {entry.name: renamed(entry.name) for entry in graph.output}

    def _leaves(self, make: _Nodes, logits: str, before: dict[str, str] | None) -> tuple[str, str]:
        """Return who would leave at a ramp (bool [batch]), and the streak (int64 [batch])."""
        rule = self._rule
        threshold = make.constant(rule.threshold or 0.0, np.float32)
        last = make.constant([-1], np.int64)
        if rule.name in ("entropy", "consecutive-entropy"):
            log_p = make("LogSoftmax", logits, axis=-1)
            product = make("Mul", make("Exp", log_p), log_p)
            entropy = make("Neg", make("ReduceSum", product, last, keepdims=0))
            if rule.name == "consecutive-entropy":
                classes = self._models[0].graph.output[0].type.tensor_type.shape.dim[1].dim_value
                entropy = make("Div", entropy, make.constant(math.log(classes), np.float32))
            sure = make("Less", entropy, threshold)
        elif rule.name == "max-probability":
            probability = make("Softmax", logits, axis=-1)
            sure = make("Greater", make("ReduceMax", probability, last, keepdims=0), threshold)
        elif before is None:  # patience has nothing to compare with at the first ramp
            some = make("ArgMax", logits, axis=-1, keepdims=0)
            sure = make("Less", some, make.constant(-1, np.int64))
        elif rule.threshold is not None:  # regression
            step = make("Abs", make("Sub", logits, before["previous"]))
            sure = make("Squeeze", make("Less", step, threshold), last)
        else:
            sure = make(
                "Equal",
                make("ArgMax", logits, axis=-1, keepdims=0),
                make("ArgMax", before["previous"], axis=-1, keepdims=0),
            )
        zero, one = make.constant(0, np.int64), make.constant(1, np.int64)
        streak = one if before is None else make("Add", before["streak"], one)
        streak = make("Where", sure, streak, zero)
        return make("GreaterOrEqual", streak, make.constant(rule.patience, np.int64)), streak

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
        name = self._names.name()
        self._names.initializers.append(numpy_helper.from_array(np.array(value, dtype=dtype), name))
        return name


def _branch(name: str, nodes: list[onnx.NodeProto], outputs: tuple[str, str]) -> onnx.GraphProto:
    kinds = (TensorProto.FLOAT, TensorProto.INT64)
    infos = [
        helper.make_tensor_value_info(output, kind, None) for output, kind in zip(outputs, kinds, strict=True)
    ]
    return helper.make_graph(nodes, name, [], infos)

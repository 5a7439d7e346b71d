"""Every exit rule has a graph part that decides as its NumPy definition does."""

from __future__ import annotations

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper

from effx.errors import UsageError
from effx.export import exit_graphs
from effx.specs import exit_rules
from effx.specs.exit_rules import ExitRule

SETTINGS = {
    "entropy": (0.4, 3),
    "max-probability": (0.7, 3),
    "consecutive-entropy": (0.5, 3),
    "patience": (None, 3),
}
CASES = [*((name, *case) for name, case in SETTINGS.items()), ("patience", 0.5, 1)]


class Nodes:
    """Appends nodes to lists."""

    def __init__(self) -> None:
        self.nodes: list[onnx.NodeProto] = []
        self.constants: list[onnx.TensorProto] = []

    def __call__(self, kind: str, *inputs: str, **attributes: object) -> str:
        output = f"n{len(self.nodes)}"
        self.nodes.append(helper.make_node(kind, list(inputs), [output], **attributes))
        return output

    def constant(self, value: object, dtype: type) -> str:
        name = f"c{len(self.constants)}"
        self.constants.append(numpy_helper.from_array(np.array(value, dtype=dtype), name))
        return name


def test_every_rule_has_a_case_and_a_graph() -> None:
    assert set(SETTINGS) == set(exit_rules.RULES) == set(exit_graphs.SURE_NODES)


@pytest.mark.parametrize("first", [True, False], ids=["first-ramp", "later-ramp"])
@pytest.mark.parametrize(("name", "threshold", "outputs"), CASES)
def test_graph_decides_as_numpy_does(name: str, threshold: float | None, outputs: int, first: bool) -> None:
    rule, nodes = ExitRule(name, threshold), Nodes()
    sure = exit_graphs.sure_nodes(nodes, rule, "logits", None if first else "previous", outputs)
    nodes.nodes.append(helper.make_node("Identity", [sure], ["sure"]))
    inputs = [
        helper.make_tensor_value_info(each, TensorProto.FLOAT, ["batch", outputs])
        for each in ("logits", "previous")
    ]
    result = [helper.make_tensor_value_info("sure", TensorProto.BOOL, ["batch"])]
    graph = helper.make_graph(nodes.nodes, "rule", inputs, result, nodes.constants)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    rng = np.random.default_rng(0)
    logits, previous = rng.normal(0, 1, (2, 200, outputs)).astype(np.float32)
    (decided,) = session.run(["sure"], {"logits": logits, "previous": previous})
    expected = rule.kind.is_sure(logits, None if first else previous, threshold or 0.0)
    assert decided.tolist() == expected.tolist()
    assert first or 0 < expected.mean() < 1


def test_rule_without_a_graph_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(exit_graphs.SURE_NODES, "entropy")  # type: ignore[arg-type]
    with pytest.raises(UsageError, match="exit rule entropy cannot be exported as exit-if"):
        exit_graphs.sure_nodes(Nodes(), ExitRule("entropy", 0.1), "logits", None, 2)

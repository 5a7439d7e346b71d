"""The decision of each exit rule as ONNX nodes: the graph part of :data:`effx.specs.exit_rules.RULES`.

A new rule is a row there and a function here, under the same name; a rule without a function cannot be
exported as ``exit-if``.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Protocol

import numpy as np

from effx.errors import UsageError
from effx.specs.exit_rules import ExitRule


class GraphNodes(Protocol):
    """Appends nodes to a graph; values are names of tensors."""

    def __call__(self, kind: str, *inputs: str, **attributes: object) -> str:
        """Append a node and return the name of its output."""
        ...

    def constant(self, value: object, dtype: type) -> str:
        """Return the name of a constant."""
        ...


SureNodes = Callable[[GraphNodes, ExitRule, str, str | None, int], str]
"""Nodes, rule, logits [batch, classes], those of the ramp before (None at the first), number of classes ->
the name of sure, bool [batch]."""


def sure_nodes(nodes: GraphNodes, rule: ExitRule, logits: str, previous: str | None, classes: int) -> str:
    """Append the decision of a rule at one ramp; return the name of its output, bool [batch].

    Args:
        nodes: the graph to append to.
        rule: the rule with its settings.
        logits: name of the ramp's logits [batch, classes].
        previous: name of the logits of the ramp before; None at the first ramp.
        classes: number of logits per row.

    Raises:
        UsageError: the rule has no graph part.
    """
    if rule.name not in SURE_NODES:
        known = ", ".join(SURE_NODES)
        raise UsageError(
            f"exit rule {rule.name} cannot be exported as exit-if; use exit, which runs segments. "
            f"Rules with a graph: {known}."
        )
    return SURE_NODES[rule.name](nodes, rule, logits, previous, classes)


def _entropy(nodes: GraphNodes, rule: ExitRule, logits: str, previous: str | None, classes: int) -> str:
    return _above(nodes, _negative_entropy(nodes, logits), -_threshold(rule))


def _normalized_entropy(
    nodes: GraphNodes, rule: ExitRule, logits: str, previous: str | None, classes: int
) -> str:
    scale = nodes.constant(math.log(classes), np.float32)
    return _above(nodes, nodes("Div", _negative_entropy(nodes, logits), scale), -_threshold(rule))


def _max_probability(
    nodes: GraphNodes, rule: ExitRule, logits: str, previous: str | None, classes: int
) -> str:
    probabilities = nodes("Softmax", logits, axis=-1)
    largest = nodes("ReduceMax", probabilities, _last_axis(nodes), keepdims=0)
    return _above(nodes, largest, _threshold(rule))


def _same_prediction(
    nodes: GraphNodes, rule: ExitRule, logits: str, previous: str | None, classes: int
) -> str:
    if previous is None:  # the first ramp has none to compare with: no row is sure
        return nodes("Less", nodes("ArgMax", logits, axis=-1, keepdims=0), nodes.constant(-1, np.int64))
    if rule.threshold is not None:  # regression
        difference = nodes("Abs", nodes("Sub", logits, previous))
        below = nodes("Less", difference, nodes.constant(rule.threshold, np.float32))
        return nodes("Squeeze", below, _last_axis(nodes))
    predictions = (nodes("ArgMax", name, axis=-1, keepdims=0) for name in (logits, previous))
    return nodes("Equal", *predictions)


SURE_NODES: Mapping[str, SureNodes] = {
    "entropy": _entropy,
    "max-probability": _max_probability,
    "patience": _same_prediction,
    "consecutive-entropy": _normalized_entropy,
}
"""Rule -> the function that appends its decision."""


def _negative_entropy(nodes: GraphNodes, logits: str) -> str:
    log_p = nodes("LogSoftmax", logits, axis=-1)
    return nodes("ReduceSum", nodes("Mul", nodes("Exp", log_p), log_p), _last_axis(nodes), keepdims=0)


def _above(nodes: GraphNodes, value: str, threshold: float) -> str:
    return nodes("Greater", value, nodes.constant(threshold, np.float32))


def _threshold(rule: ExitRule) -> float:
    return rule.threshold or 0.0


def _last_axis(nodes: GraphNodes) -> str:
    return nodes.constant([-1], np.int64)

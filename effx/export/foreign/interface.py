"""Which input and output of a graph is which, and which logit is which label: by names, never by position."""

from __future__ import annotations

from collections.abc import Sequence

from effx.errors import UsageError
from effx.export.foreign.facts import GraphFacts, TensorFacts
from effx.export.foreign.location import GraphConfig
from effx.specs import head_labels
from effx.specs.foreign import ARRAYS, ForeignSettings
from effx.specs.heads import Head, HeadSettings, OtherHeadError
from effx.specs.runtime import GraphInterface
from effx.specs.tasks import Task

_ALIASES: dict[str, tuple[str, ...]] = {
    "input_ids": ("input_ids", "ids", "tokens", "token_ids", "input_word_ids"),
    "attention_mask": ("attention_mask", "mask", "input_mask"),
    "token_type_ids": ("token_type_ids", "segment_ids", "type_ids", "input_type_ids"),
}
_INTEGERS = ("int64", "int32")
_FLOATS = ("float32", "float16", "bfloat16")
_PROBABILITIES = ("sigmoid", "softmax", "logsoftmax", "hardsigmoid")
"""Operations, in lower case, behind which 0 no longer separates the labels that are set from the others."""


def interface(
    facts: GraphFacts, task: Task, config: GraphConfig, settings: ForeignSettings
) -> GraphInterface:
    """Return how a graph's inputs, outputs and logits map to those of a task.

    Args:
        facts: the graph.
        task: what it predicts.
        config: config.json; its ``id2label`` names the logits.
        settings: what the user states about the graph.

    Raises:
        UsageError: it is unclear which input or output is which, or which logit is which label; the message
            lists them and names the setting.
    """
    task.behavior.check_supported("import-engine", task.name)
    inputs = _inputs(facts.inputs, settings)
    if task.behavior.output_names != ("logits",):
        outputs = _token_outputs(facts.outputs, task.behavior.output_names)
        order = None
    else:
        output = _logits(facts.outputs, task, settings)
        outputs = {"logits": output.name}
        order = _label_order(output, task, config, settings)
    return GraphInterface(
        inputs={tensor.name: array for array, tensor in inputs.items()},
        dtypes={tensor.name: tensor.dtype for tensor in inputs.values()},
        outputs=outputs,
        label_order=order,
    )


def fixed_length(facts: GraphFacts, chosen: GraphInterface) -> int | None:
    """Return the sequence length that a graph is fixed to; None: any.

    Raises:
        UsageError: its batch size is fixed, or its inputs differ in length.
    """
    tensors = [tensor for tensor in facts.inputs if tensor.name in chosen.inputs]
    shapes = [tensor.shape for tensor in tensors if tensor.shape is not None]
    if fixed := next((tensor for tensor in tensors if tensor.shape and tensor.shape[0] is not None), None):
        raise UsageError(
            f"input {fixed.text} has a fixed batch size: export the graph with a dynamic first dimension."
        )
    lengths = {shape[1] for shape in shapes}
    if len(lengths) > 1:
        raise UsageError(f"the inputs differ in length: {_listed(tensors)}.")
    return next(iter(lengths), None)


def _inputs(tensors: Sequence[TensorFacts], settings: ForeignSettings) -> dict[str, TensorFacts]:
    """Return array -> input."""
    chosen: dict[str, TensorFacts] = {}
    by_name = {tensor.name: tensor for tensor in tensors}
    if settings.input_names is not None:
        for array, name in settings.input_names:
            if name not in by_name:
                raise UsageError(
                    f"the graph has no input '{name}': it has {_listed(tensors)}.", settings="input_names"
                )
            if array in chosen or by_name[name] in chosen.values():
                raise UsageError(
                    f"input_names: '{array}' or '{name}' is given twice.", settings="input_names"
                )
            chosen[array] = by_name[name]
    else:
        for array in ARRAYS:
            matching = [tensor for tensor in tensors if _plain(tensor.name) in _ALIASES[array]]
            if len(matching) == 1:
                chosen[array] = matching[0]
        if not chosen and len(tensors) == 1:
            chosen["input_ids"] = tensors[0]
    unknown = [tensor for tensor in tensors if tensor not in chosen.values()]
    if "input_ids" not in chosen or unknown:
        raise UsageError(
            f"unclear which input takes which array: the graph has {_listed(tensors)}. State all of them, "
            "e.g. input_ids=NAME,attention_mask=NAME.",
            settings="input_names",
        )
    for array, tensor in chosen.items():
        rank_ok = tensor.shape is None or len(tensor.shape) == 2
        if tensor.dtype not in _INTEGERS or not rank_ok:
            raise UsageError(
                f"input {tensor.text} cannot take {array}: expected int64 or int32 [rows, tokens]."
            )
    return {array: chosen[array] for array in ARRAYS if array in chosen}


def _logits(tensors: Sequence[TensorFacts], task: Task, settings: ForeignSettings) -> TensorFacts:
    """Return the output with the logits [rows, outputs].

    Probabilities are refused where predictions depend on the sign of logits. Of classes, the largest
    probability is that of the largest logit; of one value, the graph's answer is the prediction.
    """
    wanted = settings.logits_output
    if wanted is not None:
        chosen = [tensor for tensor in tensors if tensor.name == wanted]
        if not chosen:
            raise UsageError(
                f"the graph has no output '{wanted}': it has {_listed(tensors)}.", settings="logits_output"
            )
    else:
        suitable = [tensor for tensor in tensors if _may_be_logits(tensor)]
        chosen = [tensor for tensor in suitable if _plain(tensor.name) == "logits"] or suitable
        if len(chosen) != 1:
            raise UsageError(
                f"unclear which output has the logits: the graph has {_listed(tensors)}.",
                settings="logits_output",
            )
    output = chosen[0]
    if not _may_be_logits(output):
        raise UsageError(
            f"output {output.text} is not logits: expected numbers [rows, {task.outputs}].",
            settings="logits_output",
        )
    if task.kind == "multi-label" and output.computed_by.casefold() in _PROBABILITIES:
        raise UsageError(
            f"output {output.text} has probabilities ({output.computed_by}), not logits: a label of task "
            f"{task.name} is predicted where its logit is above 0. Export the graph without "
            f"{output.computed_by}, or state the output that has the logits.",
            settings="logits_output",
        )
    width = None if output.shape is None else output.shape[1]
    if width is not None and width != task.outputs:
        raise UsageError(
            f"output {output.text} has {width} logits, but task {task.name} has "
            f"{task.outputs} {'labels' if task.labels else 'output'}{': ' if task.labels else ''}"
            f"{', '.join(task.labels)}."
        )
    return output


def _may_be_logits(tensor: TensorFacts) -> bool:
    return tensor.dtype in _FLOATS and (tensor.shape is None or len(tensor.shape) == 2)


def _token_outputs(tensors: Sequence[TensorFacts], expected: Sequence[str]) -> dict[str, str]:
    """Return array -> output, of a task with logits per token."""
    names = {_plain(tensor.name): tensor.name for tensor in tensors}
    if not set(expected) <= names.keys():
        raise UsageError(f"expected outputs {' and '.join(expected)}, the graph has {_listed(tensors)}.")
    return {array: names[array] for array in expected}


def _label_order(
    output: TensorFacts, task: Task, config: GraphConfig, settings: ForeignSettings
) -> tuple[int, ...] | None:
    """Return for each label of the task the number of its logit; None: in the same order."""
    if settings.labels and not task.labels:
        raise UsageError(f"labels: task {task.name} ({task.kind}) has none.", settings="labels")
    known = {"id2label": config.id2label, "label2id": config.label2id}
    names = head_labels.names_of_outputs(known, task.outputs) if task.labels else ()
    head = Head(task.kind, names, "config.json")
    try:
        plan = task.behavior.match_head(head, task.labels, HeadSettings(labels=settings.labels))
    except OtherHeadError as error:
        raise UsageError(f"the graph's output {output.name}: {error}.", settings="labels") from error
    return None if plan.order == tuple(range(task.outputs)) else plan.order


def _plain(name: str) -> str:
    """Return a name without TensorFlow's number of the output."""
    return name.casefold().split(":")[0]


def _listed(tensors: Sequence[TensorFacts]) -> str:
    return ", ".join(tensor.text for tensor in tensors)

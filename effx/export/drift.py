"""In which layer an engine that failed its gate first differs from its fp32 graph.

Hidden states are compared after every LayerNormalization. Early-exit segments are compared one by one,
each on the outputs of the fp32 segments before it, so that a difference is reported where it arises.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime

from effx import scratch
from effx.quiet import quiet
from effx.specs import backends
from effx.specs.runtime import RuntimeSettings

Arrays = dict[str, np.ndarray]
_FAR = {"fp32": 1e-4}
_FAR_LOSSY = 0.1
"""Relative difference of hidden states after one layer that correct schemes of a precision stay far below."""


def locate(
    graphs: Sequence[Path],
    folder: Path,
    backend: str,
    runtime: RuntimeSettings,
    inputs: Arrays,
    names: Sequence[str],
) -> str:
    """Return a sentence on which layer of a built engine drifts first; empty if it cannot be measured.

    Args:
        graphs: the fp32 ONNX graphs, in order.
        folder: the folder of the built files.
        backend: the runtime's name.
        runtime: how it runs the files.
        inputs: one query.
        names: what each LayerNormalization follows, see :meth:`effx.models.families.Family.norm_names`.
    """
    if len(runtime.files) != len(graphs) or backends.get(backend).layer_taps is None:
        return "The layer that differs can be located for exit, not for exit-if." if runtime.exits else ""
    differences: list[float] = []
    for graph, name in zip(graphs, runtime.files, strict=True):
        differences += layers(graph, folder / name, inputs, backend, runtime)
        if graph is not graphs[-1]:
            out = _run(graph, inputs)
            inputs = {"hidden": out["hidden_out"], "token_mask": out["token_mask_out"],
                      "attention_mask": inputs["attention_mask"]}  # fmt: skip
    return describe(differences, names, _FAR.get(runtime.precision, _FAR_LOSSY))


def layers(
    reference: Path,
    built: Path,
    inputs: Arrays,
    backend: str = "onnxruntime",
    runtime: RuntimeSettings | None = None,
) -> list[float]:
    """Return the relative difference after each LayerNormalization, in the graph's order.

    Quantization does not change names of tensors, so equal names are compared.
    """
    nodes = onnx.load(reference, load_external_data=False).graph.node
    tensors = [node.output[0] for node in nodes if node.op_type == "LayerNormalization"]
    settings = runtime or RuntimeSettings((built.name,))
    expected = _onnxruntime(reference, tensors, inputs, settings)
    values = _taps(backend)(built, tensors, inputs, settings)
    return [
        float(np.linalg.norm(value - reference_value) / (np.linalg.norm(reference_value) + 1e-12))
        if value.shape == reference_value.shape
        else float("inf")  # other tokens were dropped
        for reference_value, value in zip(expected, values, strict=True)
    ]


def describe(differences: list[float], names: Sequence[str], far: float = _FAR_LOSSY) -> str:
    """Return a sentence on which layer drifts first.

    Args:
        differences: relative, after each LayerNormalization.
        names: what each of them follows; where their number is another, they are counted instead.
        far: difference from which a layer counts as drifting.
    """
    first = next((index for index, value in enumerate(differences) if value > far), None)
    if first is None:
        largest = max(differences, default=0.0)
        return f"Hidden states differ by at most {largest:.2g} after every layer: the task head differs."
    named = names[first] if len(names) == len(differences) else f"LayerNorm {first + 1} of {len(differences)}"
    return f"Hidden states differ first in {named}, by {differences[first]:.2g} of their norm."


def _run(graph: Path, inputs: Arrays) -> Arrays:
    """Return a segment's outputs."""
    running = onnxruntime.InferenceSession(graph, providers=["CPUExecutionProvider"])
    names = [entry.name for entry in running.get_outputs()]
    return dict(zip(names, running.run(names, _accepted(running, inputs)), strict=True))


def _accepted(running: onnxruntime.InferenceSession, inputs: Arrays) -> Arrays:
    names = {entry.name for entry in running.get_inputs()}
    return {name: array for name, array in inputs.items() if name in names}


def _onnxruntime(
    path: Path, tensors: list[str], inputs: Arrays, runtime: RuntimeSettings
) -> list[np.ndarray]:
    model = onnx.load(path)
    del model.graph.output[:]
    model.graph.output.extend(onnx.helper.make_empty_tensor_value_info(name) for name in tensors)
    with scratch.folder("drift") as folder:
        file = folder / "model.onnx"
        onnx.save(model, file, save_as_external_data=True, location="model.onnx.data")
        running = onnxruntime.InferenceSession(file, providers=["CPUExecutionProvider"])
        return list(running.run(tensors, _accepted(running, inputs)))


def _openvino(path: Path, tensors: list[str], inputs: Arrays, runtime: RuntimeSettings) -> list[np.ndarray]:
    import openvino

    from effx.engines.openvino import hint

    core = openvino.Core()
    model = core.read_model(path)
    names = [entry.get_any_name() for entry in model.inputs]
    model.add_outputs(tensors)
    config = {"INFERENCE_PRECISION_HINT": hint(runtime)}
    running = core.compile_model(model, "CPU", config).create_infer_request()
    running.infer({name: np.ascontiguousarray(inputs[name]) for name in names})
    return [np.array(running.get_tensor(name).data, dtype=np.float32) for name in tensors]


def _torch(path: Path, tensors: list[str], inputs: Arrays, runtime: RuntimeSettings) -> list[np.ndarray]:
    import torch

    class Tapped(torch.fx.Interpreter):
        values: list[np.ndarray] = []

        def run_node(self, n: torch.fx.Node) -> Any:
            value = super().run_node(n)
            if n.op == "call_function" and "layer_norm" in str(n.target):
                self.values.append(value.float().numpy())
            return value

    with quiet(), torch.inference_mode():
        module: Any = torch.export.load(path).module()
        tapped = Tapped(module)
        tapped.values = []
        bf16 = runtime.precision == "bf16"
        with torch.autocast("cpu", torch.bfloat16, enabled=bf16):
            tapped.run(*(torch.from_numpy(inputs[name]) for name in runtime.input_names[path.name]))
    return tapped.values


_TAPS = {
    "onnxruntime": _onnxruntime,
    "openvino": _openvino,
    "torch": _torch,
}
"""``layer_taps`` of a backend -> the function that returns the values of some tensors of a built file."""


def _taps(backend: str) -> Callable[[Path, list[str], Arrays, RuntimeSettings], list[np.ndarray]]:
    return _TAPS[str(backends.get(backend).layer_taps)]

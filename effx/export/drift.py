"""Where an engine that failed its gate leaves its fp32 graph first.

Hidden states are compared after every LayerNormalization. Early-exit segments are compared one by
one, each fed what the fp32 segments before it gave, so a drift is told where it arises.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime

from effx.quiet import quiet
from effx.specs import backends

Arrays = dict[str, np.ndarray]
_FAR = 0.1
"""Relative difference of hidden states that no sound scheme comes near in one layer."""


def told(
    graphs: Sequence[Path], folder: Path, backend: str, session: Mapping[str, Any], inputs: Arrays
) -> str:
    """Return which layer of a built engine drifts first, in words.

    Args:
        graphs: the fp32 ONNX graphs, in order.
        folder: where the built files are.
        backend: what runs them.
        session: see :mod:`effx.engines`.
        inputs: one query.
    """
    if len(session["files"]) != len(graphs) or backends.get(backend).layer_taps is None:
        return "Which layer drifts is told for exit, not for exit-if." if session["exits"] else ""
    differences: list[float] = []
    for graph, name in zip(graphs, session["files"], strict=True):
        differences += layers(graph, folder / name, inputs, backend, session)
        if graph is not graphs[-1]:
            out = _after(graph, inputs)
            inputs = {"hidden": out["hidden_out"], "alive": out["alive_out"],
                      "attention_mask": inputs["attention_mask"]}  # fmt: skip
    return said(differences)


def layers(
    reference: Path,
    built: Path,
    inputs: Arrays,
    backend: str = "onnxruntime",
    session: Mapping[str, Any] | None = None,
) -> list[float]:
    """Return the relative difference after each LayerNormalization, in the graph's order.

    In a whole graph the first is that of the embeddings, then two per layer: after attention and
    after the FFN. Names of tensors survive quantisation, so the same places are compared.
    """
    nodes = onnx.load(reference, load_external_data=False).graph.node
    places = [node.output[0] for node in nodes if node.op_type == "LayerNormalization"]
    expected = _onnxruntime(reference, places, inputs, {})
    found = _taps(backend)(built, places, inputs, session or {})
    return [
        float(np.linalg.norm(mine - theirs) / (np.linalg.norm(theirs) + 1e-12))
        if mine.shape == theirs.shape
        else float("inf")  # other tokens were kept
        for theirs, mine in zip(expected, found, strict=True)
    ]


def said(differences: list[float]) -> str:
    """Return which layer drifts first, in words."""
    far = next((place for place, value in enumerate(differences) if value > _FAR), None)
    if far is None:
        return f"No layer drifts by more than {_FAR:.0%}: the head does."
    if far == 0:
        where = "the embeddings"
    else:
        where = f"layer {(far - 1) // 2} (from 0), after {('attention', 'the FFN')[(far - 1) % 2]}"
    return f"It drifts first in {where}: hidden states differ by {differences[far]:.0%}."


def _after(graph: Path, inputs: Arrays) -> Arrays:
    """Return what a segment gives the next one."""
    running = onnxruntime.InferenceSession(graph, providers=["CPUExecutionProvider"])
    names = [entry.name for entry in running.get_outputs()]
    return dict(zip(names, running.run(names, _taken(running, inputs)), strict=True))


def _taken(running: onnxruntime.InferenceSession, inputs: Arrays) -> Arrays:
    names = {entry.name for entry in running.get_inputs()}
    return {name: array for name, array in inputs.items() if name in names}


def _onnxruntime(
    path: Path, places: list[str], inputs: Arrays, session: Mapping[str, Any]
) -> list[np.ndarray]:
    model = onnx.load(path)
    del model.graph.output[:]
    model.graph.output.extend(onnx.helper.make_empty_tensor_value_info(name) for name in places)
    with tempfile.TemporaryDirectory(prefix="effx-drift-") as scratch:
        file = Path(scratch) / "model.onnx"
        onnx.save(model, file, save_as_external_data=True, location="model.onnx.data")
        running = onnxruntime.InferenceSession(file, providers=["CPUExecutionProvider"])
        return list(running.run(places, _taken(running, inputs)))


def _openvino(path: Path, places: list[str], inputs: Arrays, session: Mapping[str, Any]) -> list[np.ndarray]:
    import openvino

    from effx.engines.openvino import hint

    core = openvino.Core()
    model = core.read_model(path)
    names = [entry.get_any_name() for entry in model.inputs]
    model.add_outputs(places)
    config = {"INFERENCE_PRECISION_HINT": hint(session)}
    running = core.compile_model(model, "CPU", config).create_infer_request()
    running.infer({name: np.ascontiguousarray(inputs[name]) for name in names})
    return [np.array(running.get_tensor(place).data, dtype=np.float32) for place in places]


def _torch(path: Path, places: list[str], inputs: Arrays, session: Mapping[str, Any]) -> list[np.ndarray]:
    import torch

    class Tapped(torch.fx.Interpreter):
        found: list[np.ndarray] = []

        def run_node(self, n: torch.fx.Node) -> Any:
            value = super().run_node(n)
            if n.op == "call_function" and "layer_norm" in str(n.target):
                self.found.append(value.float().numpy())
            return value

    with quiet(), torch.inference_mode():
        module: Any = torch.export.load(path).module()
        tapped = Tapped(module)
        tapped.found = []
        bf16 = session.get("precision") == "bf16"
        with torch.autocast("cpu", torch.bfloat16, enabled=bf16):
            tapped.run(*(torch.from_numpy(inputs[name]) for name in session["inputs"][path.name]))
    return tapped.found


_TAPS = {
    "onnxruntime": _onnxruntime,
    "openvino": _openvino,
    "torch": _torch,
}
"""``layer_taps`` of a backend -> the function that returns the values of some tensors of a built file."""


def _taps(backend: str) -> Callable[[Path, list[str], Arrays, Mapping[str, Any]], list[np.ndarray]]:
    return _TAPS[str(backends.get(backend).layer_taps)]

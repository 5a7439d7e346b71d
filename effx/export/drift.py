"""Where an ONNX engine that failed its gate leaves its fp32 graph first."""

from __future__ import annotations

import tempfile
from pathlib import Path

import numpy as np
import onnx
import onnxruntime

_FAR = 0.1
"""Relative difference of hidden states that no sound scheme comes near in one layer."""


def layers(reference: Path, built: Path, inputs: dict[str, np.ndarray]) -> list[float]:
    """Return the relative difference after each LayerNormalization, in the graph's order.

    The first is that of the embeddings, then two per layer: after attention and after the FFN.
    Names of tensors survive quantisation, so the same places are compared.
    """
    places = [
        node.output[0]
        for node in onnx.load(reference, load_external_data=False).graph.node
        if node.op_type == "LayerNormalization"
    ]
    expected, found = (_values(path, places, inputs) for path in (reference, built))
    return [
        float(np.linalg.norm(mine - theirs) / (np.linalg.norm(theirs) + 1e-12))
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


def _values(path: Path, places: list[str], inputs: dict[str, np.ndarray]) -> list[np.ndarray]:
    model = onnx.load(path)
    del model.graph.output[:]
    model.graph.output.extend(onnx.helper.make_empty_tensor_value_info(name) for name in places)
    with tempfile.TemporaryDirectory(prefix="effx-drift-") as scratch:
        file = Path(scratch) / "model.onnx"
        onnx.save(model, file, save_as_external_data=True, location="model.onnx.data")
        session = onnxruntime.InferenceSession(file, providers=["CPUExecutionProvider"])
        names = {entry.name for entry in session.get_inputs()}
        return list(session.run(places, {name: array for name, array in inputs.items() if name in names}))

"""Engines that leave padding out: the same answers as PyTorch, for every family and kind of output."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from transformers import AutoModelForTokenClassification

from effx.artifacts import Checkpoint
from effx.errors import UsageError
from effx.export import export, graph
from effx.models import prune
from effx.models.stream import RealTokens
from tests.conftest import CONFIGS
from tests.models import tiny

LENGTHS = ([1, 1], [5, 3, 9], [12, 2, 7, 7, 1], [16])


def answers(path: Path, runtime: str, inputs: dict[str, torch.Tensor]) -> np.ndarray:
    arrays = {name: tensor.numpy() for name, tensor in inputs.items()}
    if runtime == "onnxruntime":
        import onnxruntime

        return np.asarray(onnxruntime.InferenceSession(str(path)).run(None, arrays)[0])
    import openvino

    hints = {"INFERENCE_PRECISION_HINT": "f32"}
    return np.asarray(openvino.Core().compile_model(str(path), "CPU", hints)(arrays)[0])


@pytest.mark.parametrize("family", CONFIGS)
def test_logits_are_those_of_the_padded_model(family: str, tmp_path: Path) -> None:
    model = tiny.model(family)
    prune(model, heads={0: [1], 1: [0, 1, 2, 3]}, ffns=[2])
    graph.write(model, tmp_path / "model.onnx", graph.TraceShape(unpadded=True))
    for runtime in ("onnxruntime", "openvino"):
        for lengths in LENGTHS:
            inputs = tiny.inputs(model, lengths)
            expected = tiny.logits(model, inputs).numpy()
            np.testing.assert_allclose(answers(tmp_path / "model.onnx", runtime, inputs), expected, atol=1e-4)


def test_outputs_of_tokens_are_put_back_in_their_places(tmp_path: Path) -> None:
    from transformers import AutoConfig

    config = AutoConfig.for_model(
        "bert", vocab_size=tiny.VOCABULARY, hidden_size=32, num_hidden_layers=2, num_attention_heads=4,
        intermediate_size=24, num_labels=5, pad_token_id=tiny.PADDING,
    )  # fmt: skip
    model = AutoModelForTokenClassification.from_config(config).eval()
    graph.write(model, tmp_path / "model.onnx", graph.TraceShape(unpadded=True))
    inputs = tiny.inputs(model, [3, 9, 1])
    real = inputs["attention_mask"].bool().numpy()
    with torch.no_grad():
        expected = model(**inputs).logits.numpy()
    found = answers(tmp_path / "model.onnx", "onnxruntime", inputs)
    assert found.shape == expected.shape
    np.testing.assert_allclose(found[real], expected[real], atol=1e-5)


def test_places_and_numbers_of_tokens() -> None:
    mask = torch.tensor([[1, 1, 0], [1, 0, 0], [1, 1, 1]]).bool()
    assert RealTokens.of(torch.zeros(2, 3).bool()).places.tolist() == [0, 3]
    found = RealTokens.of(mask)
    assert found.places.tolist() == [0, 1, 3, 6, 7, 8]
    assert found.numbers.tolist() == [0, 1, 1, 2, 2, 2, 3, 4, 5]


@pytest.mark.parametrize(
    ("mask", "same"),
    [
        ([[1, 1, 1, 0], [1, 1, 1, 1]], [True, True]),
        ([[0, 1, 1, 1], [0, 0, 1, 1]], [True, True]),  # task heads read the first token, masked or not
        ([[0, 0, 0, 0], [1, 1, 0, 0]], [False, True]),
        ([[0, 0, 0, 0], [0, 0, 0, 0]], [False, False]),
    ],
)
def test_unusual_masks(mask: list[list[int]], same: list[bool], tmp_path: Path) -> None:
    """A row of padding alone has an answer of its own, and does not change those of others."""
    model = tiny.model("bert")
    graph.write(model, tmp_path / "model.onnx", graph.TraceShape(unpadded=True))
    inputs = {**tiny.inputs(model, [4, 4]), "attention_mask": torch.tensor(mask)}
    expected = tiny.logits(model, inputs).numpy()
    for runtime in ("onnxruntime", "openvino"):
        found = answers(tmp_path / "model.onnx", runtime, inputs)
        assert np.isfinite(found).all()
        for row in range(2):
            if same[row]:
                np.testing.assert_allclose(found[row], expected[row], atol=1e-4)
        assert not np.allclose(found[0], found[1], atol=1e-4)


def test_products_with_weights_read_tokens_alone(tmp_path: Path) -> None:
    """All products with weights of the layers read tokens alone: none is on [batch, length, width]."""
    graph.write(tiny.model("bert"), tmp_path / "model.onnx", graph.TraceShape(unpadded=True))
    model = onnx.shape_inference.infer_shapes(onnx.load(tmp_path / "model.onnx"))
    shapes = {value.name: value.type.tensor_type.shape.dim for value in model.graph.value_info}
    constants = {entry.name for entry in model.graph.initializer}
    widths = [
        [dim.dim_value or dim.dim_param for dim in shapes[node.input[0]]]
        for node in model.graph.node
        if node.op_type == "MatMul" and node.input[1] in constants
    ]
    assert len(widths) == 3 * 6
    assert all(
        len(shape) == 3 and shape[0] == 1 and shape[1] not in ("batch", "sequence") for shape in widths
    )


@pytest.mark.parametrize(
    ("variant", "backend"),
    [("unpadded", "openvino"), ("int8+unpadded", "onnxruntime"), ("int8+unpadded", "openvino")],
)
def test_engines_pass_their_gate(checkpoint: Checkpoint, variant: str, backend: str, tmp_path: Path) -> None:
    engine = export(checkpoint.folder, variant, backend, tmp_path)
    assert engine.manifest.parity is not None and engine.manifest.parity.passed


@pytest.mark.parametrize(
    ("variant", "backend", "message"),
    [
        ("unpadded+seq16", "onnxruntime", "unpadded and seq16 exclude each other"),
        ("unpadded+exit", "onnxruntime", "unpadded and exit exclude each other"),
        ("tokens+unpadded", "onnxruntime", "unpadded and tokens exclude each other"),
        ("unpadded", "torch", "effx builds unpadded for onnxruntime and openvino only"),
    ],
)
def test_what_cannot_be_is_refused(
    checkpoint: Checkpoint, variant: str, backend: str, message: str, tmp_path: Path
) -> None:
    with pytest.raises(UsageError, match=message):
        export(checkpoint.folder, variant, backend, tmp_path / "engines")
    assert not (tmp_path / "engines").exists()

"""Graphs with Q, K and V from one product: the answers of PyTorch, for random structures of every family."""

from __future__ import annotations

import random
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from transformers import PreTrainedModel

from effx.export import graph, merged_projections, quantize
from effx.models import exits, infer, prune, tokens
from effx.models.structure import structure
from tests.conftest import CONFIGS
from tests.models import tiny

SEPARATE = ("bert", "roberta", "distilbert", "electra", "mpnet", "deberta-v2", "nomic_bert")
LENGTHS = ([1], [16], [5, 3, 9], [12, 2, 7, 7, 1])


def run(path: Path, inputs: dict[str, torch.Tensor]) -> list[np.ndarray]:
    import onnxruntime

    session = onnxruntime.InferenceSession(str(path))
    return session.run(None, {entry.name: inputs[entry.name].numpy() for entry in session.get_inputs()})


def merged(model: PreTrainedModel, folder: Path, shape: graph.TraceShape | None = None) -> tuple[Path, int]:
    """Trace a model; return the file with merged projections, and in how many layers they are."""
    graph.write(model, folder / "model.onnx", shape)
    (folder / "merged").mkdir()
    return folder / "merged" / "model.onnx", merged_projections.write(
        folder / "model.onnx", folder / "merged" / "model.onnx"
    )


def products(path: Path) -> int:
    """Matrix products with weights."""
    inner = onnx.load(path).graph
    weights = {entry.name for entry in inner.initializer}
    return sum(node.op_type == "MatMul" and node.input[1] in weights for node in inner.node)


@pytest.mark.parametrize("family", [name for name in SEPARATE if name in CONFIGS])
@pytest.mark.parametrize("seed", [0, 1])
def test_logits_are_those_of_pytorch(family: str, seed: int, tmp_path: Path) -> None:
    model = tiny.model(family)
    chance = random.Random(seed)
    heads = {layer: chance.sample(range(4), chance.choice([0, 1, 2, 3])) for layer in range(3)}
    if seed:
        heads[chance.randrange(3)] = [0, 1, 2, 3]
    prune(model, heads=heads, ffns=[1] if seed else [])
    path, layers = merged(model, tmp_path)
    assert layers == sum(bool(layer.heads) for layer in structure(model).layers)
    assert products(tmp_path / "model.onnx") - products(path) == 2 * layers
    onnx.checker.check_model(onnx.load(path), full_check=True)
    for lengths in LENGTHS:
        inputs = tiny.inputs(model, lengths)
        np.testing.assert_allclose(run(path, inputs)[0], tiny.logits(model, inputs).numpy(), atol=1e-4)


def test_fixed_lengths_and_pruned_tokens(tmp_path: Path) -> None:
    model = tiny.model("bert")
    tokens.schedule(model, shares=[0.5, 0.5, 0.5])
    for number, shape in enumerate((graph.TraceShape(tokens=True), graph.TraceShape(length=16, tokens=True))):
        folder = tmp_path / str(number)
        folder.mkdir()
        path, layers = merged(model, folder, shape)
        assert layers == 3
        inputs = tiny.inputs(model, [7, 16])
        expected = infer(model, inputs).logits.detach().numpy()
        np.testing.assert_allclose(run(path, inputs)[0], expected, atol=1e-4)


def test_segments_of_early_exit(tmp_path: Path) -> None:
    model = tiny.model("bert")
    exits.add_ramps(model, [1])
    parts = graph.segments(model)
    assert [len(part) for part in parts] == [1, 2]
    inputs = tiny.inputs(model, [7, 16])
    for part in parts:
        graph.write(model, tmp_path / "segment.onnx", None, part)
        target = tmp_path / f"merged-{part.start}.onnx"
        assert merged_projections.write(tmp_path / "segment.onnx", target) == len(part)
        before, after = run(tmp_path / "segment.onnx", inputs), run(target, inputs)
        for left, right in zip(before, after, strict=True):
            np.testing.assert_allclose(left, right, atol=1e-5)
        _, hidden, mask = after if len(after) == 3 else (None, None, None)
        if hidden is not None:
            inputs = {
                "attention_mask": inputs["attention_mask"],
                "hidden": torch.from_numpy(hidden),
                "token_mask": torch.from_numpy(mask),
            }


@pytest.mark.parametrize("family", ["modernbert"])
def test_nothing_is_written_where_the_projections_are_one_already(family: str, tmp_path: Path) -> None:
    path, layers = merged(tiny.model(family), tmp_path)
    assert layers == 0 and not path.exists()


def test_products_of_unpadded_tokens_stay_apart(tmp_path: Path) -> None:
    path, layers = merged(tiny.model("bert"), tmp_path, graph.TraceShape(unpadded=True))
    assert layers == 0 and not path.exists()


def test_dynamic_int8_quantizes_the_input_of_a_layer_once(tmp_path: Path) -> None:
    model = tiny.model("bert")
    path, _ = merged(model, tmp_path)
    for source, name in ((tmp_path / "model.onnx", "separate"), (path, "merged")):
        quantize.dynamic(source, tmp_path / f"{name}.onnx")
    counts = {
        name: sum(node.op_type == "MatMulInteger" for node in onnx.load(tmp_path / f"{name}.onnx").graph.node)
        for name in ("separate", "merged")
    }
    assert counts["separate"] - counts["merged"] == 2 * 3
    inputs = tiny.inputs(model, [16, 9])
    separate, together = (run(tmp_path / f"{name}.onnx", inputs)[0] for name in ("separate", "merged"))
    # each product's scale is of the whole input either way: the same integers
    np.testing.assert_allclose(separate, together, atol=1e-5)

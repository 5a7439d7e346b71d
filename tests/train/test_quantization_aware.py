"""Quantization-aware training, compared with ONNX Runtime's own quantization."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper
from onnxruntime.quantization import QuantType, quantize_dynamic
from torch import nn

from effx.cli import run
from effx.errors import UsageError
from effx.export import export_all
from effx.models import load, pretrained, sparse
from effx.specs.tasks import TASKS
from effx.specs.training import FinetuneSettings
from effx.train import finetune, quantization_aware

RNG = np.random.default_rng(5)


def quantized(weight: np.ndarray, folder: Path) -> ort.InferenceSession:
    """Return a MatMul with a weight [out, in] that ONNX Runtime quantized dynamically, per channel."""
    graph = helper.make_graph(
        [helper.make_node("MatMul", ["x", "w"], ["y"], name="product")], "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, None, weight.shape[1]])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [1, None, weight.shape[0]])],
        [numpy_helper.from_array(np.ascontiguousarray(weight.T), "w")],
    )  # fmt: skip
    opsets = [helper.make_opsetid("", 17)]
    model = helper.make_model(graph, opset_imports=opsets, ir_version=9)
    onnx.save(model, folder / "plain.onnx")
    quantize_dynamic(folder / "plain.onnx", folder / "int8.onnx", per_channel=True,
                     weight_type=QuantType.QInt8, extra_options={"MatMulConstBOnly": True})  # fmt: skip
    return ort.InferenceSession(folder / "int8.onnx", providers=["CPUExecutionProvider"])


@pytest.mark.parametrize("shift", [0.0, 3.0, -3.0], ids=["both signs", "positive", "negative"])
def test_a_product_rounds_as_onnx_runtime_does(tmp_path: Path, shift: float) -> None:
    weight = RNG.normal(0, 1, (24, 16)).astype(np.float32) * RNG.uniform(0.1, 4, (24, 1)).astype(np.float32)
    values = (RNG.normal(0, 1, (3, 7, 16)) + shift).astype(np.float32)
    values[1] *= 5  # each row has its own range
    session = quantized(weight, tmp_path)
    expected = np.concatenate([session.run(None, {"x": row[None]})[0] for row in values])
    ours = (
        quantization_aware.round_input(torch.from_numpy(values))
        @ quantization_aware.round_weight(torch.from_numpy(weight)).T
    )
    plain = values @ weight.T
    assert np.abs(plain - expected).max() > 0.02  # it rounds
    np.testing.assert_allclose(ours.numpy(), expected, atol=1e-3 * np.abs(expected).max())
    # without one value on the border between two levels, where fp32 may round either way
    assert np.median(np.abs(ours.numpy() - expected)) < 1e-5 * np.abs(expected).max()


def test_the_gradient_is_that_of_the_unrounded_values() -> None:
    values = torch.randn(2, 3, 8, requires_grad=True)
    weight = torch.randn(4, 8, requires_grad=True)
    factor = torch.randn(2, 3, 8)
    (quantization_aware.round_input(values) * factor).sum().backward()
    torch.testing.assert_close(values.grad, factor)
    (quantization_aware.round_weight(weight) * factor[0, :1]).sum().backward()
    torch.testing.assert_close(weight.grad, factor[0, :1].expand(4, 8))


def test_values_of_zero_stay_zero() -> None:
    zeros = torch.zeros(2, 3, 4)
    assert torch.equal(quantization_aware.round_input(zeros), zeros)
    assert torch.equal(quantization_aware.round_weight(zeros[0]), zeros[0])
    mixed = torch.tensor([[[0.0, 5.0, -0.01, 2.0]]])
    assert quantization_aware.round_input(mixed)[0, 0, 0] == 0


def test_products_of_the_encoder_round_within_the_context_alone(encoders: dict[str, Path]) -> None:
    for family in ("bert", "distilbert", "deberta-v2"):
        model, _ = pretrained(encoders[family], TASKS["sst2"])
        model.eval()
        inputs = {
            "input_ids": torch.arange(5, 25)[None],
            "attention_mask": torch.ones(1, 20, dtype=torch.long),
        }
        with torch.no_grad():
            before = model(**inputs).logits
            with quantization_aware.rounded(model):
                during = model(**inputs).logits
            after = model(**inputs).logits
        assert not torch.equal(before, during) and torch.equal(before, after)
        assert not any("forward" in vars(module) for module in model.modules())


def test_every_row_of_a_pooler_has_its_own_range() -> None:
    values = torch.randn(3, 16)
    values[1] *= 50
    together = quantization_aware.round_input(values)
    apart = torch.cat([quantization_aware.round_input(row[None]) for row in values])
    assert torch.equal(together, apart)
    assert (together[0] - values[0]).abs().max() < 0.02


def test_products_under_bf16_are_of_the_same_levels(encoders: dict[str, Path]) -> None:
    """Autocast takes the integers, which bf16 has exactly; only the product is rounded to its 8 bits."""
    model, _ = pretrained(encoders["bert"], TASKS["sst2"])
    module = model.bert.encoder.layer[0].intermediate.dense
    values = torch.randn(2, 5, module.in_features)
    inputs, weight = quantization_aware.round_input(values), quantization_aware.round_weight(module.weight)
    exact = inputs @ weight.T + module.bias
    with torch.no_grad(), quantization_aware.rounded(model):
        plain = module(values)
        with torch.autocast("cpu", torch.bfloat16):
            under_bf16 = module(values)
    torch.testing.assert_close(plain, exact, atol=1e-5, rtol=1e-5)
    assert under_bf16.dtype == torch.bfloat16
    assert (under_bf16.float() - exact).abs().max() <= 2**-7 * exact.abs().max()


def test_another_kind_of_product_is_refused(encoders: dict[str, Path]) -> None:
    class Other(nn.Linear):
        pass

    model, _ = pretrained(encoders["bert"], TASKS["sst2"])
    name = next(iter(sparse.matrices(model))).removesuffix(".weight")
    model.get_submodule(name).__class__ = Other
    with pytest.raises(UsageError, match="is a Other"), quantization_aware.rounded(model):
        pass


def test_a_training_step_is_that_of_the_rounded_product(
    encoders: dict[str, Path], rows_folder: Path, tmp_path: Path
) -> None:
    """The gradient of a weight is that of a product with rounded inputs and a rounded weight."""
    model, _ = pretrained(encoders["bert"], TASKS["sst2"])
    module = model.bert.encoder.layer[0].intermediate.dense
    values, factor = torch.randn(2, 5, module.in_features), torch.randn(2, 5, module.out_features)
    with quantization_aware.rounded(model):
        (module(values) * factor).sum().backward()
    inputs = quantization_aware.round_input(values).reshape(-1, module.in_features)
    expected = factor.reshape(-1, module.out_features).T @ inputs
    torch.testing.assert_close(module.weight.grad, expected)
    torch.testing.assert_close(module.bias.grad, factor.sum(dim=(0, 1)))
    weights = {}
    for aware in (False, True):
        settings = FinetuneSettings.of(max_steps=3, max_length=32, lr=1e-3, quantization_aware=aware)
        trained = finetune("sst2", encoders["bert"], out=tmp_path, name=f"aware{aware}",
                           data_folder=rows_folder, settings=settings)  # fmt: skip
        assert trained.manifest.training.settings["quantization_aware"] is aware
        weights[aware] = load(trained).bert.encoder.layer[0].intermediate.dense.weight
    assert not torch.equal(weights[True], weights[False])


def test_the_engine_says_how_its_checkpoint_was_trained(
    encoders: dict[str, Path], rows_folder: Path, tmp_path: Path
) -> None:
    line = ["train", "finetune", "sst2", "--model", str(encoders["bert"]), "--data", str(rows_folder),
            "--quantization-aware", "--max-steps", "2", "--max-length", "32", "--name", "aware",
            "-o", str(tmp_path)]  # fmt: skip
    assert run(line) == 0
    engines, failures = export_all([tmp_path / "aware"], ["int8"], out=tmp_path / "engines",
                                   data_folder=rows_folder, keep_failed=True)  # fmt: skip
    assert not failures
    (engine,) = engines
    assert engine.manifest.origin is not None and engine.manifest.origin.quantization_aware

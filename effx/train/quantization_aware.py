"""Quantization-aware training: the forward pass rounds as an int8 engine does.

Weights of the encoder's matrix products are rounded to int8 per output channel, symmetrically, and their
inputs to uint8 with the range of each row, zero included, as ONNX Runtime's dynamic quantization of a query
with one row does. The gradient is that of the unrounded values (straight-through estimator; Bengio et al.
2013, "Estimating or Propagating Gradients Through Stochastic Neurons"; Jacob et al. 2018, "Quantization and
Training of Neural Networks for Efficient Integer-Arithmetic-Only Inference", section 3). The trained weights
are ordinary ones: the engine is quantized from them as any other.

Not imitated: the task head, which ONNX Runtime's dynamic quantization rounds too; fixed ranges of static
quantization; and the 7 bits of weights on processors without VNNI. Embeddings and products of two activations
are not rounded, as in engines; DeBERTa's projections of relative positions are, which engines fold into
constants of fp32.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator

import torch
from torch import nn
from torch.nn import functional
from transformers import PreTrainedModel

from effx.errors import UsageError
from effx.models import sparse

_WEIGHT_LEVELS = 127
_INPUT_LEVELS = 255


def round_weight(weight: torch.Tensor) -> torch.Tensor:
    """Return a weight [out, in] rounded to 255 levels per output channel, zero in their middle.

    The gradient with respect to ``weight`` is the identity.
    """
    levels, scale = _weight_levels(weight)
    return levels * scale


def round_input(values: torch.Tensor) -> torch.Tensor:
    """Return activations [rows, ..., width] rounded to 256 levels between the extremes of each row.

    Zero is one of the levels; padding counts. The gradient is the identity.
    """
    levels, scale = _input_levels(values)
    return levels * scale


def _weight_levels(weight: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Return integers from -127 to 127 with the gradient of ``weight / scale``, and the scale [out, 1]."""
    scale = _positive(weight.detach().abs().amax(dim=1, keepdim=True) / _WEIGHT_LEVELS)
    return _straight_through(weight / scale, lambda levels: levels.round()), scale


def _input_levels(values: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Return integers from -255 to 255 with the gradient of ``values / scale``, and the scale per row."""
    held, dims = values.detach(), tuple(range(1, values.dim()))
    low = held.amin(dim=dims, keepdim=True).clamp(max=0)
    high = held.amax(dim=dims, keepdim=True).clamp(min=0)
    scale = _positive((high - low) / _INPUT_LEVELS)
    zero = (-low / scale).round()

    def rounded(levels: torch.Tensor) -> torch.Tensor:
        return (levels.round() + zero).clamp(0, _INPUT_LEVELS) - zero

    return _straight_through(values / scale, rounded), scale


def _positive(scale: torch.Tensor) -> torch.Tensor:
    """Return a scale, 1 where all values are 0."""
    return torch.where(scale > 0, scale, torch.ones_like(scale))


def _straight_through(values: torch.Tensor, function: Callable[[torch.Tensor], torch.Tensor]) -> torch.Tensor:
    """Return ``function(values)`` with the gradient of ``values``."""
    held = values.detach()
    exact = function(held)
    return exact + (values - held)


@contextlib.contextmanager
def rounded(model: PreTrainedModel) -> Iterator[None]:
    """Let the matrix products of a model's encoder round within the context.

    Raises:
        UsageError: a product is not a linear layer.
    """
    paths = [name.removesuffix(".weight") for name in sparse.matrices(model)]
    modules = [model.get_submodule(path) for path in paths]
    for path, module in zip(paths, modules, strict=True):
        if type(module) is not nn.Linear:
            raise UsageError(
                f"quantization_aware: {path} of this model is a {type(module).__name__}, expected a linear "
                "layer: leave quantization_aware out.", settings="quantization_aware",
            )  # fmt: skip
    for module in modules:
        module.forward = _rounding(module)
    try:
        yield
    finally:
        for module in modules:
            del module.forward  # the class's own is seen again


def _rounding(module: nn.Linear) -> Callable[[torch.Tensor], torch.Tensor]:
    def forward(values: torch.Tensor) -> torch.Tensor:
        with torch.autocast(values.device.type, enabled=False):
            inputs, input_scale = _input_levels(values.float())
            weight, weight_scale = _weight_levels(module.weight.float())
        # Integers up to 256 are exact in bf16, which autocast may take; scaled values would not be
        product = functional.linear(inputs, weight)
        scaled = product.float() * (input_scale * weight_scale.T.reshape(*[1] * (values.dim() - 1), -1))
        bias = 0 if module.bias is None else module.bias
        return (scaled + bias).to(product.dtype)

    return forward

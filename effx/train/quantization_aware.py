"""Quantization-aware training: the forward pass rounds as an int8 engine does.

Weights of the encoder's matrix products are rounded to int8 per output channel, symmetrically, and their
inputs to uint8 with the range of each row, zero included, as ONNX Runtime's dynamic quantization of a query
with one row does. The gradient is that of the unrounded values (straight-through estimator; Bengio et al.
2013, "Estimating or Propagating Gradients Through Stochastic Neurons"; Jacob et al. 2018, "Quantization and
Training of Neural Networks for Efficient Integer-Arithmetic-Only Inference", section 3). The trained weights
are ordinary ones: the engine is quantized from them as any other.

The task head, embeddings and products of two activations are not rounded.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

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
    scale = weight.detach().abs().amax(dim=1, keepdim=True) / _WEIGHT_LEVELS
    scale = torch.where(scale > 0, scale, torch.ones_like(scale))
    rounded = (weight.detach() / scale).round() * scale
    return weight + (rounded - weight.detach())


def round_input(values: torch.Tensor) -> torch.Tensor:
    """Return activations rounded to 256 levels between their extremes; zero is one of the levels.

    Each row of [rows, tokens, width] has its own range, and its padding counts; other shapes have one range.
    The gradient is the identity.
    """
    held = values.detach()
    dims = (1, 2) if held.dim() == 3 else tuple(range(held.dim()))
    low = held.amin(dim=dims, keepdim=True).clamp(max=0)
    high = held.amax(dim=dims, keepdim=True).clamp(min=0)
    scale = (high - low) / _INPUT_LEVELS
    scale = torch.where(scale > 0, scale, torch.ones_like(scale))
    zero = (-low / scale).round()
    rounded = (((held / scale).round() + zero).clamp(0, _INPUT_LEVELS) - zero) * scale
    return values + (rounded - held)


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


def _rounding(module: nn.Linear) -> object:
    def forward(values: torch.Tensor) -> torch.Tensor:
        # In fp32: under autocast, scales of bf16 would be wrong by more than a level
        with torch.autocast(values.device.type, enabled=False):
            inputs, weight = round_input(values.float()), round_weight(module.weight.float())
        return functional.linear(inputs, weight, module.bias)

    return forward

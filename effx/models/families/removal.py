"""Modules that replace removed parts of a layer, and Linears with some of their rows or columns."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import nn


class NoHeads(nn.Module):
    """Attention without heads: no contexts remain, only the output bias.

    Where the family's attention contains the output projection, this module contains its replacement.
    """

    def __init__(self, output: tuple[str, OnlyBias] | None = None) -> None:
        super().__init__()
        self._output = output[0] if output else None
        if output:
            self.add_module(*output)

    def forward(self, hidden_states: torch.Tensor, *_: Any, **__: Any) -> tuple[torch.Tensor, None]:
        if self._output is None:
            return hidden_states, None  # OnlyBias follows, which uses the shape alone
        return getattr(self, self._output)(hidden_states), None


class NoAttention(nn.Module):
    """Attention of a pre-LayerNorm layer without heads: only its output's bias, if any, is left."""

    def __init__(self, bias: nn.Parameter | None) -> None:
        super().__init__()
        self.bias = bias

    def forward(self, *_: Any, **__: Any) -> tuple[torch.Tensor | float, None]:
        return (0.0 if self.bias is None else self.bias), None


class OnlyBias(nn.Module):
    """What remains of W_O c + b_O without heads."""

    def __init__(self, bias: nn.Parameter) -> None:
        super().__init__()
        self.bias = bias

    def forward(self, context: torch.Tensor) -> torch.Tensor:
        # the dropout that follows must draw per position; in eval mode broadcasting saves the copy
        return self.bias.expand(context.shape) if self.training else self.bias


class OnlyNorm(nn.Module):
    """LN2(a): what remains of an FFN's output block."""

    def __init__(self, name: str, norm: nn.Module) -> None:
        super().__init__()
        self._name = name
        self.add_module(name, norm)

    def forward(self, _: torch.Tensor, residual: torch.Tensor) -> torch.Tensor:
        return getattr(self, self._name)(residual)  # type: ignore[no-any-return]


class NoFFN(nn.Module):
    """An FFN that adds nothing to the residual."""

    def forward(self, *_: Any) -> float:
        return 0.0


def linear(layer: nn.Module, path: str) -> nn.Linear:
    """Return a Linear of a layer."""
    module = layer.get_submodule(path)
    assert isinstance(module, nn.Linear), f"{path} is {type(module).__name__}"
    return module


def sliced(module: nn.Linear, indices: Sequence[int], axis: int) -> nn.Linear:
    """Return a Linear with some of the output rows (``axis`` 0, bias included) or input columns (1)."""
    weight = module.weight.detach()
    bias = None if module.bias is None else module.bias.detach()
    if axis == 0:
        weight, bias = weight[list(indices)], None if bias is None else bias[list(indices)]
    else:
        weight = weight[:, list(indices)]
    smaller = nn.Linear(
        weight.shape[1], weight.shape[0], bias=bias is not None, device="meta", dtype=weight.dtype
    )
    smaller.weight = nn.Parameter(weight.clone(), requires_grad=module.weight.requires_grad)
    if bias is not None:
        smaller.bias = nn.Parameter(bias.clone(), requires_grad=module.bias.requires_grad)
    return smaller.train(module.training)
